"""The count of a setting's seeds, and of those without a map: every point of a sweep counts."""

from collections import Counter
from collections.abc import Sequence
from textwrap import shorten

import pandas as pd

REASON = 150  # characters of a reason, at most


def word(status: str, has_map: bool) -> str:
    """Return what is to be said of a point; "" if it is done and has a map."""
    if status == "done":
        return "" if has_map else "without a map"
    return status


def tally(words: Sequence[str]) -> str:
    """Return the number of seeds, if there are several, and of each `word` on them.

    Example:
        >>> from gradlab.figures.explorer.counts import tally
        >>> tally(["", "failed", "failed"])
        '3 seeds, 2 failed'
    """
    if len(words) == 1:
        return words[0]
    others = Counter(filter(None, words))
    return ", ".join([f"{len(words)} seeds", *(f"{n} {what}" for what, n in others.items())])


def without_map(name: str, rows: pd.DataFrame) -> str:
    """Return a setting's name with the status of its points that have no map, and why.

    Args:
        name: of the setting.
        rows: those points, one at least.

    Returns:
        Such as "gain 2 (5 seeds, 5 failed, the first: RuntimeError: out of memory)".
    """
    said = tally([word(status, has_map=False) for status in rows["status"]])
    first = rows.iloc[0]
    if first["status"] != "done" and first.get("reason"):  # of one that is done: its verdict
        said += f"{', the first' if len(rows) > 1 else ''}: {shorten(str(first['reason']), REASON)}"
    return f"{name} ({said})"
