"""Breaking text into lines, long names at their seams."""

import re

SEAMS = r"_./=,;:\-"  # after which a word may be broken, in a regular expression


def filled(text: str, letters: int) -> str:
    """Break text, from `style.literal`, into lines of so many letters.

    It is broken between words. A word that is longer than a line is broken after one of SEAMS, and
    between letters only where it has none.

    Example:
        >>> from gradlab.figures.line_breaks import filled
        >>> print(filled("a residual_network", 9))
        a
        residual_
        network
    """
    lines = [""]
    for word in text.split(" "):
        space = " " if lines[-1] else ""
        for piece in [word] if len(word) <= letters else _pieces(word, letters):
            if lines[-1] and len(lines[-1] + space + piece) > letters:
                lines.append(piece)
            else:
                lines[-1] += space + piece
            space = ""
    return "\n".join(lines)


def _pieces(word: str, letters: int) -> list[str]:
    """Return the pieces of a word between its seams, none longer than a line."""
    pieces = []
    for part in re.findall(rf"[^{SEAMS}]*[{SEAMS}]+|[^{SEAMS}]+", word):
        signs = re.findall(r"\\.|.", part)  # an escaped sign stays whole
        pieces += ["".join(signs[i : i + letters]) for i in range(0, len(signs), letters)]
    return pieces
