"""The key of a compiled program: what its config says, and the code and files behind its words.

A process may run many sweeps. Between two of them a notebook defines a cell anew, under the same
dotted path, or a task's file is written again under the same name; the text of the config shows
neither.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradlab.components import locate
from gradlab.config import Config
from gradlab.identity import compiled, program_key


class SourceKey:
    """Equal for configs that share a compiled program, as long as no code or file is replaced.

    A function or class counts as replaced if its dotted path names another object. (Code that it
    calls in turn is not looked at.)
    """

    def __init__(self, config: Config) -> None:
        """Look up the functions and files that a checked config names."""
        words = list(_words(compiled(config)))
        functions = [locate(text) for key, text in words if key == "_target_"]
        self._functions = functions  # kept, so that no other object gets their ids
        self._key = (
            program_key(config),
            *(f if inspect.isroutine(f) or inspect.isclass(f) else id(f) for f in functions),
            *(_stamp(Path(text)) for key, text in words if key != "_target_"),
        )
        self._hash = hash(self._key)

    def __eq__(self, other: object) -> bool:
        """Return whether both are of one program."""
        return isinstance(other, SourceKey) and self._key == other._key

    def __hash__(self) -> int:
        """Return the hash of what is compiled."""
        return self._hash


def _words(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of a config, each with the key that it is the value of."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _words(child, str(name))
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _words(child, key)
    elif isinstance(node, str):
        yield key, node


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return the time and size of a file; None if a text is no file's path."""
    try:
        status = path.stat() if path.is_file() else None
    except (OSError, ValueError):
        return None
    return (status.st_mtime_ns, status.st_size) if status else None
