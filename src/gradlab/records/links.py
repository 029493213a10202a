"""Links and paths that lead out of a sweep's folder: nothing is written or deleted through one."""

import os
from collections.abc import Iterator
from pathlib import Path

WANDB_LOG = "debug-core.log"


def real_path(path: Path) -> Path:
    """Return a path with its links followed; unlike `Path.resolve` it takes loops of links."""
    return Path(os.path.realpath(path))


def lies_inside(path: Path, folder: Path) -> bool:
    """Return whether a path, its links followed, lies in a folder."""
    return real_path(path).is_relative_to(real_path(folder))


def links_outside(folder: Path, sweep: Path) -> Iterator[Path]:
    """Yield the links below a folder that lead out of its sweep's.

    W&B's own link to its log is left out: nothing of ours is written there.
    """
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(here, name)
            if path.is_symlink() and name != WANDB_LOG and not lies_inside(path, sweep):
                yield path
