"""The screen, or the file in its place, that a sweep is shown on. Printing to it never fails."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import Any

from rich.console import Console, RenderableType

from gradlab.printable import escape_what_cannot_be_printed

FILE_WIDTH = 160  # characters; a file has no width to keep to
LISTED = 8  # names in a message


def screen() -> Console:
    """Return the console of a sweep: text is shown as it is, never taken for markup."""
    escape_what_cannot_be_printed()
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal and not console.is_jupyter and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    return console


def show(console: Console, content: RenderableType) -> None:
    """Print text in one line however long, or a table; where no one reads any more, nothing.

    A notebook does not wrap a long line: there it is cut between words, all of which stay whole.
    """
    if isinstance(content, str) and console.is_jupyter:
        content = fill(content, console.width, break_long_words=False, break_on_hyphens=False)
    with unread():
        console.print(content, soft_wrap=isinstance(content, str))


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Pass over what printing raises once its reader has gone: a sweep goes on without it."""
    with contextlib.suppress(OSError, ValueError, SystemExit):  # which rich makes of a closed pipe
        yield


def listed(names: Sequence[str]) -> str:
    """Return the names of points for a message, the first few of many."""
    more = [f"{len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join([*names[:LISTED], *more])


class NotebookLine:
    """A line of text below a notebook's cell, replaced in place.

    (rich needs ipywidgets for that.)
    """

    def __init__(self) -> None:
        """Show nothing yet."""
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Show the text, in place of the one before."""
        from IPython.display import display

        shown = {"text/plain": text}
        with unread():
            if self._handle is None:
                self._handle = display(shown, raw=True, display_id=True)
            else:
                self._handle.update(shown, raw=True)
