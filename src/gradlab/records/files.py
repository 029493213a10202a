"""Writing a file whole or not at all: under a temporary name, which is then replaced."""

import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from gradlab.records.layout import WRITTEN

UNFINISHED = re.compile(rf"\.({'|'.join(map(re.escape, WRITTEN))})\.[0-9a-f]{{8}}\.part")


class RecordError(OSError):
    """A file could not be written; the message names it, the reason and a remedy."""


def write_whole(
    path: Path,
    write: Callable[[Path], object],
    seal: Callable[[Path], object] = lambda finished: None,
) -> None:
    """Write a file under a temporary name and rename it; a link in its place is replaced.

    Args:
        path: the file. Folders above it are made.
        write: writes the file that it is given.
        seal: is given the finished file before that takes its place.

    Raises:
        RecordError: it could not be written; what was there before is whole.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(unfinished)
            seal(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except RecordError:
        raise
    except OSError as error:
        raise RecordError(
            f"{path} could not be written: {error.strerror or error}; what was there before is "
            "whole. Make room, or choose another folder (of a sweep: hydra.sweep.dir=FOLDER)."
        ) from error


def read_text(path: Path) -> str:
    """Read a text file, and nothing else: to open a pipe would wait for ever.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no file, or no text.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is no file")
    return path.read_text(encoding="utf-8")


def clear_unfinished(folder: Path) -> None:
    """Delete the temporary files that a process which was killed has left in a folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
