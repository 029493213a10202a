"""Text of a record, an error or a user, fit for a terminal, a table, a file or a command."""

import io
import os
import re
import shlex
import sys

PLAIN = re.compile(
    r"[\w./+@-]+", re.ASCII
)  # a value that needs no quotes, to Hydra and to the shell
NO_NAME = re.compile(r"(?i)|null|true|false|[-+]?(inf|nan)|[-+]?\.?\d[\d._e+-]*")  # "" included


def printable(text: object) -> str:
    r"""Return text in one line, with what cannot be shown as escapes.

    Runs of whitespace become one space. Control characters, which a terminal would obey, and lone
    surrogates, which no file can hold, become `\x1b` or `\udcff`.
    """
    return escaped(" ".join(str(text).split()))


def escaped(text: str, kept: str = "") -> str:
    """Return text with the characters that cannot be shown as escapes, those in `kept` aside."""
    if text.isprintable():  # nearly always
        return text
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def escape_what_cannot_be_printed() -> None:
    """Print characters that the terminal's encoding lacks as escapes; printing then never fails."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="backslashreplace")


def pasted(key: str, value: str | os.PathLike[str]) -> str:
    """Return KEY=VALUE as it is typed: quoted for Hydra's grammar, then for the shell."""
    text = os.fspath(value)
    return shlex.quote(f"{key}={text if PLAIN.fullmatch(text) else _in_quotes(text)}")


def quoted(text: str) -> str:
    """Return text as Hydra's grammar reads it back: in quotes, unless it is a plain name."""
    is_name = PLAIN.fullmatch(text) and not NO_NAME.fullmatch(text)
    return text if is_name else _in_quotes(text)


def _in_quotes(text: str) -> str:
    inner = re.sub(r'(\\*)"', r"\1\1\"", text)  # backslashes count before a quote only
    inner = re.sub(r"(\\+)$", r"\1\1", inner).replace("${", "\\${")
    return f'"{inner}"'
