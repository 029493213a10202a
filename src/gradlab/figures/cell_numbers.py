"""The cells of a phase diagram: the number of each over its seeds, and how that is written."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlab import decay
from gradlab.figures import bands, units
from gradlab.sentences import with_deviation

# What the number of a cell is over its seeds, and what stands below it.
MEANINGS = {
    "success": ("successes of {}", ""),
    "horizon": ("median of {}", ", least–greatest"),
}
MEAN = ("mean of {}", " ± one standard deviation")
NEVER = "; “1 of 5 never”: the norm of one never falls to 1/e"
OTHERS = "; “others”: median of the rest"
COUNT = "; “2 of 5”: only two have a number"


def cell_table(points: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Return the cells of points: one row per combination of levels of the keys.

    Args:
        points: the columns keys, `status` and one named by the outcome.
        keys: of the axes; none: all points are one cell.
        value: the outcome.

    Returns:
        The keys; a column named by the outcome: the rate of successes, the median of horizons, else
        the mean of what is neither NaN nor −inf; `low` and `high`: the 95 % interval of the rate
        (Clopper & Pearson 1934), the least and the greatest horizon, mean ± one standard deviation
        (NaN of a single point); `seeds`: how many points count, of `points`; of horizons, `never`:
        how many of these are infinite, and `others`: the median of the rest; `mark`: why there is
        no finite number ("diverged", "exactly zero", "infinite" or "no value"), else "".
    """
    if not keys:
        return pd.DataFrame([_summary(points, value)])
    rows = [
        {**dict(zip(keys, levels, strict=True)), **_summary(cell, value)}
        for levels, cell in points.groupby(list(keys), sort=False, dropna=False)
    ]
    return pd.DataFrame(rows, columns=[*keys, *_summary(points[:0], value)])


def shown(cells: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the numbers of cells (value, low, high) in the unit that they are shown in."""
    numbers = cells[[value, "low", "high"]].astype(float)
    return units.from_nats(numbers) if value == "decay_rate" else numbers


def texts(cells: pd.DataFrame, value: str) -> list[tuple[str, str]]:
    """Return the number of each cell as text, and the lines below it."""
    rows = zip(cells.to_dict("records"), shown(cells, value).to_numpy(), strict=True)
    return [_text(cell, number, low, high, value) for cell, (number, low, high) in rows]


def meaning(cells: pd.DataFrame, value: str, has_spread: bool) -> str:
    """Return the sentence that says what the numbers of cells are; "" if none has several points.

    Args:
        cells: from `cell_table`.
        value: the outcome.
        has_spread: whether the texts below the numbers are shown.
    """
    counts = cells.loc[cells["seeds"] > 0, "seeds"]
    least, most = counts.min(), counts.max()
    if not (most > 0 and cells["points"].max() > 1):
        return ""
    seeds = f"{least} to {most} seeds" if least < most else f"{most} seeds"
    seeds = "1 seed" if most == 1 else seeds
    number, spread = MEANINGS.get(value, MEAN)
    spread += " where there are several" if spread and least == 1 else ""
    if value == "horizon":
        spread += NEVER * bool(cells["never"].any()) + OTHERS * bool(partly_infinite(cells).any())
    if value != "success":
        spread += COUNT * bool(cells["seeds"].between(1, cells["points"], "left").any())
    return f"Cells: {number.format(seeds)}{spread if has_spread else ''}."


def partly_infinite(cells: pd.DataFrame) -> pd.Series:
    """Return which cells of horizons have an infinite median, and seeds with a finite one."""
    return (cells["mark"] == "infinite") & (cells["never"] < cells["seeds"])


def short(number: float) -> str:
    """Write a number with two digits at least: "−0.12", "127", "∞"."""
    if np.isinf(number):
        return "∞"
    text = f"{number:.0f}" if 10 <= abs(number) < 1e5 else f"{number:.2g}"
    return text.replace("-", "−")


def _summary(cell: pd.DataFrame, value: str) -> dict[str, Any]:
    """Return the number, limits, counts and mark of the points of a cell."""
    known = cell[value].dropna().to_numpy(float)
    values = known[known > -np.inf]
    number, low, high = _number(known, values, value) if len(known) else (np.nan,) * 3
    mark = {np.inf: "infinite", -np.inf: "exactly zero"}.get(number, "")
    if np.isnan(number):
        mark = "diverged" if (cell["status"] == "diverged").any() else "no value"
    counts: dict[str, float] = {"seeds": len(values), "points": len(cell)}
    if value == "horizon":
        finite = values[np.isfinite(values)]
        counts |= {"never": len(values) - len(finite)}
        counts |= {"others": float(np.median(finite)) if len(finite) else np.nan}
    return {value: number, "low": low, "high": high, **counts, "mark": mark}


def _number(known: np.ndarray, values: np.ndarray, value: str) -> tuple[float, float, float]:
    """Return what a cell's number is over its seeds, and its limits.

    Args:
        known: the outcome of those that have one.
        values: those of them that are not −inf.
        value: the outcome's name.
    """
    if value == "success":
        return float(values.mean()), *bands.proportion_interval(int(values.sum()), len(values))
    several = len(values) > 1
    if value == "horizon":
        limits = (float(values.min()), float(values.max())) if several else (np.nan, np.nan)
        return float(np.median(values)), *limits
    mean = float(decay.mean_log_norm(known))
    deviation = float(values.std(ddof=1)) if several else np.nan
    return mean, mean - deviation, mean + deviation


def _text(
    cell: dict[Any, Any], number: float, low: float, high: float, value: str
) -> tuple[str, str]:
    never = cell.get("never", 0) if cell["points"] > 1 else 0
    if cell["mark"] and not never:
        return ("–" if cell["mark"] == "no value" else "", "")
    if value == "success":
        return f"{round(number * cell['seeds'])}/{cell['seeds']}", ""
    text, lines = short(number), list[str]()
    if never:
        lines.append(f"{never} of {cell['seeds']} never")
    elif value == "horizon" and np.isfinite(low):
        lines.append(f"{short(low)}–{short(high)}")
    elif np.isfinite(low):
        text, deviation = with_deviation(number, high - number)
        lines.append(deviation)
    if cell["mark"] and never < cell["seeds"]:
        lines.append(f"others {short(cell['others'])}")
    if cell["seeds"] < cell["points"]:
        lines.append(f"{cell['seeds']} of {cell['points']}")
    return text, "\n".join(lines)
