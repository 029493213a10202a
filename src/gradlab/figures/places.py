"""Default places: a file that gradlab has not made is not replaced there."""

import os
from pathlib import Path

MARK = "made-by-gradlab"  # in each picture and page; explorer/page.html has it in its head
FORMATS = ("png", "svg", "pdf")  # of pictures at default places: they can say who made them


def check_place(
    path: Path, remedy: str = "move it, or give --out another file", mark: str = MARK
) -> None:
    """Check that a default place is free, or holds what gradlab made.

    Args:
        path: the place.
        remedy: what to do, for the error's sentence.
        mark: text in a file that gradlab has made.

    Raises:
        ValueError: something else is there.
    """
    if not os.path.lexists(path):
        return
    is_file = path.is_file() and not path.is_symlink()
    if not is_file or mark.encode() not in path.read_bytes():
        raise ValueError(f"{str(path)!r} is there, and gradlab has not made it: {remedy}.")
