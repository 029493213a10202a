"""Draw the pictures of the pages of measures from the Python that stands on them.

    python docs/measures/draw.py                    # all pages
    python docs/measures/draw.py lyapunov parallel  # these

The blocks of a page run in order, in one namespace. A picture on the page is the figure that the
blocks before it have drawn last.
"""

import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from PIL import Image

from gradlab.figures import theme

HERE = Path(__file__).parent
PART = re.compile(r"```python\n(?P<code>.*?)```|!\[[^\]]*\]\((?P<picture>[^)]+)\)", re.DOTALL)
COLOURS = 160  # of a committed picture: a third of the bytes of one of all colours


def draw_page(page: Path) -> list[Path]:
    """Run a page's Python and draw its pictures; return their paths.

    Raises:
        ValueError: a picture has no figure before it.
    """
    names: dict[str, Any] = {}
    drawn = []
    for part in PART.finditer(page.read_text(encoding="utf-8")):
        if part["code"]:
            exec(compile(part["code"], str(page), "exec"), names)
            continue
        if not plt.get_fignums():
            raise ValueError(
                f"{page.name} shows {part['picture']}, which none of its Python draws."
            )
        drawn.append(_save(page.parent / part["picture"]))
    plt.close("all")
    return drawn


def _save(path: Path) -> Path:
    """Write the present figure in few colours, and close it."""
    whole = BytesIO()
    plt.gcf().savefig(whole, format="png")
    plt.close("all")
    path.parent.mkdir(exist_ok=True)
    Image.open(whole).convert("RGB").quantize(COLOURS).save(path, optimize=True)
    return path


def main(names: list[str]) -> None:
    """Draw the pictures of the pages of these names, or of all."""
    for page in sorted(HERE.glob("*.md")):
        if not names or page.stem in names:
            with theme("paper"):
                paths = draw_page(page)
            print(page.name, *(f"{path.name} ({path.stat().st_size // 1000} kB)" for path in paths))


if __name__ == "__main__":
    main(sys.argv[1:])
