"""Links and paths that lead out of a sweep's folder: nothing is written or deleted through one."""

import os
from collections.abc import Iterator
from pathlib import Path

from gradlab.records.layout import WANDB


def real_path(path: Path) -> Path:
    """Return a path with its links followed; unlike `Path.resolve` it takes loops of links."""
    return Path(os.path.realpath(path))


def lies_inside(path: Path, folder: Path) -> bool:
    """Return whether a path, its links followed, lies in a folder."""
    return real_path(path).is_relative_to(real_path(folder))


def links_outside(folder: Path, sweep: Path) -> Iterator[Path]:
    """Yield the links below a folder that lead out of its sweep's.

    W&B's own link to its log in the home folder is left out: a file, and none of a point's.
    """
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(here, name)
            if path.is_symlink() and not lies_inside(path, sweep) and not _is_wandb_log(path):
                yield path


def _is_wandb_log(path: Path) -> bool:
    return path.match(f"{WANDB}/*/logs/debug-core.log") and not path.is_dir()
