"""Seals: the digests by which a point's files are checked where they are read.

status.json has a hash of its own content ("seal"), and under "files" the SHA-256 of every other
file of the point. A file that is about to be replaced has two entries there, the new one first, so
that a process may be killed at any moment between the two writes.
"""

import hashlib
import json
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
    """Return the SHA-256 of a file, `ABSENT` if none can be read; once for a size and time."""
    try:
        stat = path.stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
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
    found = digest(path)
    if found not in fitting(entry):
        raise ValueError(f"{path} is {'missing' if found == ABSENT else 'damaged'}")


@lru_cache(maxsize=4096)
def _digest(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
