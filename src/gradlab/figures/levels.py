"""The levels of a config key: how they are typed for --where, and found again among others."""

import csv
import io
import math
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlab.figures.labels import value_label

NAMED = 3  # levels that a flag lists before it says how many more there are


def find_levels(key: str, levels: Sequence[Any], value: Any) -> list[Any]:
    """Return the levels that a value names.

    Args:
        key: the config key.
        levels: those that it takes.
        value: a level, or text: in full, or as figures label it, in any case. Those that it is
            exactly go before those that are much like it.
    """
    exactly = [level for level in levels if _is_exactly(level, value)]
    return exactly or [level for level in levels if _is_like(key, level, value)]


def split_levels(text: str) -> list[str]:
    """Return the levels of LEVEL,LEVEL: one with a comma is in double quotes, as in a CSV.

    Raises:
        ValueError: a quote is not closed.
    """
    try:
        return next(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"has a double quote that does not end; got {text!r}") from error


def join_levels(words: Iterable[str]) -> str:
    """Return LEVEL,LEVEL, of which `split_levels` gives back the levels."""
    line = io.StringIO(newline="")
    csv.writer(line).writerow(words)
    return line.getvalue().removesuffix("\r\n")


def level_word(key: str, levels: Sequence[Any], level: Any) -> str:
    """Return the shortest text that names one of the levels, and no other where there is one.

    Args:
        key: the config key.
        levels: all that it takes.
        level: one of them.
    """
    words = value_label(key, level), str(level)
    found = {word: find_levels(key, levels, word) for word in words}
    return next((word for word in words if list(map(str, found[word])) == [str(level)]), words[-1])


def where_flag(key: str, levels: Sequence[Any], wanted: Sequence[Any], most: int = NAMED) -> str:
    """Return what shows some levels of a key, as a shell takes it after --where.

    Args:
        key: the config key.
        levels: all that it takes.
        wanted: some of them.
        most: to list; those beyond are counted.
    """
    words = [level_word(key, levels, level) for level in wanted[:most]]
    more = f" (and {len(wanted) - most} more)" if len(wanted) > most else ""
    return shlex.quote(f"{key}={join_levels(words)}") + more


def _is_exactly(level: Any, value: Any) -> bool:
    if not _is_number(level):
        return str(level) == str(value)
    number = math.nan if value is None else _number(value)
    return number == level or (number is not None and math.isnan(number) and math.isnan(level))


def _is_like(key: str, level: Any, value: Any) -> bool:
    if str(value).casefold() in (str(level).casefold(), value_label(key, level).casefold()):
        return True
    number = _number(value) if _is_number(level) else None
    return number is not None and math.isclose(number, level, rel_tol=1e-9)


def _is_number(level: Any) -> bool:
    return pd.api.types.is_number(level) and not isinstance(level, bool | np.bool_)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
