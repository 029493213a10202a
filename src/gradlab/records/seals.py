"""Seals: the digests by which a point's files are checked where they are read.

status.json has a hash of its own content ("seal"), and under "files" the SHA-256 of every other
file of the point. A file that is about to be replaced has two entries there, the new one first, so
that a process may be killed at any moment between the two writes.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

ABSENT = "absent"  # in place of a digest: the file need not be there


def seal_of(status: Mapping[str, Any]) -> str:
    """Return the hash of a status, as JSON has it, without its seal."""
    content = {name: value for name, value in status.items() if name != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, `ABSENT` if none can be read.

    A file is read once for as long as its device, inode, size and times of change are the same.
    (Damage on the disk itself changes none of these, and is found by the next process.)
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would keep the reader waiting
            return ABSENT
        times = (found.st_mtime_ns, found.st_ctime_ns)
        return _digest(path, (found.st_dev, found.st_ino, found.st_size, *times))
    except OSError:
        return ABSENT


def fitting(entry: str | Sequence[str] | None) -> list[str]:
    """Return the digests that an entry of "files" lets pass."""
    return [entry] if isinstance(entry, str) else list(entry or [ABSENT])


def check_file(path: Path, entry: str | Sequence[str] | None) -> None:
    """Check a file against its entry.

    Raises:
        ValueError: it is not as it was written; the message names it.
    """
    found, is_there = digest(path), os.path.lexists(path)
    if found not in fitting(entry) or (found == ABSENT and is_there):
        raise ValueError(f"{path} is {'damaged' if is_there else 'missing'}")


@lru_cache(maxsize=4096)
def _digest(path: Path, _file: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
