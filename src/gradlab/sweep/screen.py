"""The screen, or the file in its place, that a sweep is shown on. Printing to it never fails."""

import contextlib
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import TextIO

from rich.console import Console, RenderableType

FILE_WIDTH = 160  # characters; a file has no width to keep to


def screen() -> Console:
    """Return the console of a sweep: text is shown as it is, never taken for markup."""
    escape_what_it_lacks(sys.stdout)
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


def escape_what_it_lacks(stream: TextIO) -> None:
    """Let a stream write characters that its encoding lacks as escapes, instead of failing."""
    if isinstance(stream, TextIOWrapper) and not stream.closed:
        stream.reconfigure(errors="backslashreplace")


def show(console: Console, content: RenderableType) -> None:
    """Print text in one line however long, or a table; where no one reads any more, nothing."""
    with unread():
        console.print(content, soft_wrap=isinstance(content, str))


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Pass over what printing raises once its reader has gone: a sweep goes on without it."""
    with contextlib.suppress(OSError, ValueError, SystemExit):  # which rich makes of a closed pipe
        yield
