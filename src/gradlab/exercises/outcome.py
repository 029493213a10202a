"""The outcome of a check: a message for a notebook, which is also true or false."""

from dataclasses import dataclass
from textwrap import fill

WIDTH = 76  # characters that a page shows of a line without a scroll bar
WHOLE = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"  # "k = 3" stays on its line


@dataclass(frozen=True, repr=False)
class Outcome:
    """The message of a check; true if the answer was right.

    Attributes:
        message: one or more lines.
        passed: whether the answer was right; false of a question, too.

    Example:
        >>> from gradlab.exercises.outcome import Outcome
        >>> bool(Outcome("bptt: right.", passed=True))
        True
    """

    message: str
    passed: bool = False

    def __bool__(self) -> bool:
        """Return whether the answer was right."""
        return self.passed

    def __repr__(self) -> str:
        """Return the message, its lines broken where a page ends."""
        return "\n".join(
            fill(
                line.replace(" = ", WHOLE),
                WIDTH,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            ).replace(WHOLE, " = ")
            for line in self.message.splitlines()
        )
