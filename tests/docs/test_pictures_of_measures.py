"""Pictures of the pages of measures are drawn by the Python before them."""

from pathlib import Path

import draw
import pytest
from PIL import Image

BLOCK = """```python
import matplotlib.pyplot as plt
plt.subplots(figsize=({width}, 1))
```
"""
PICTURE = "![a map](pictures/{name}.png)\n"


def test_a_picture_is_the_figure_before_it(tmp_path: Path) -> None:
    page = tmp_path / "norms.md"
    parts = [BLOCK.format(width=width) + PICTURE.format(name=f"of_{width}") for width in (2, 4)]
    page.write_text("\n".join(parts))
    drawn = draw.draw_page(page)
    assert [path.name for path in drawn] == ["of_2.png", "of_4.png"]
    widths = [Image.open(path).width for path in drawn]
    assert widths[1] == 2 * widths[0]


def test_a_picture_that_nothing_draws_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "norms.md"
    page.write_text(BLOCK.format(width=2) + PICTURE.format(name="one") + PICTURE.format(name="two"))
    with pytest.raises(ValueError, match=r"norms\.md shows pictures/two\.png"):
        draw.draw_page(page)
