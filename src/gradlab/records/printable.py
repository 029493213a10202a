"""Text of a record or an error, fit for a terminal, a table or a file."""


def printable(text: object) -> str:
    r"""Return text in one line, with what cannot be shown as escapes.

    Runs of whitespace become one space. Control characters, which a terminal would obey, and lone
    surrogates, which no file can hold, become `\x1b` or `\udcff`.
    """
    return escaped(" ".join(str(text).split()))


def escaped(text: str, kept: str = "") -> str:
    """Return text with the characters that cannot be shown as escapes, those in `kept` aside."""
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)
