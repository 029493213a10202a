"""The README's Python runs as it stands there."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_cells_of_every_kind_are_measured_as_the_readme_says() -> None:
    pytest.importorskip("equinox", reason="Equinox, whose cell the README measures, is missing")
    shorter = "\n".join(block for block in BLOCKS if "load_runs" not in block)
    exec(shorter.replace("(1000, 8)", "(50, 8)"), {})
