"""The words below the table at the end of a sweep: what each of its columns means."""

from collections.abc import Sequence
from math import inf

import numpy as np
import pandas as pd

from gradlab.figures.bands import FEW, NAMES
from gradlab.figures.outcome import MIN_ACCURACY
from gradlab.figures.units import DECADE
from gradlab.sweeps.closing_table import (
    ACCURACY,
    HORIZON,
    LOSS,
    RATE,
    RATIO,
    SOLVED,
    ClosingTable,
    column,
    results,
    states,
)

SATURATING = ("gradlab.cells.", "flax.nnx.")  # their cells are of tanh and logistic units


def legend(table: ClosingTable, columns: Sequence[str]) -> dict[str, str]:
    """Return the words that a table shows, with their meanings.

    Args:
        table: what is explained.
        columns: those that it shows, from `ClosingTable.fitted`: no others are explained.
    """
    shown, meanings = set(columns), dict[str, str]()
    if table.averages and shown:
        meanings["±"] = _on_seeds(table, columns)
        if max(map(len, table.rows)) >= FEW:
            meanings[".."] = f"{NAMES['ci']}, of {FEW} seeds or more"
    if RATE in table.columns:
        meanings["verdict"] = (
            "vanishing or exploding: by a fitted line, the norm falls or grows more than tenfold "
            "over the sequence; else stable"
        )
    if RATE in shown:
        meanings["decay rate"] = (
            "slope of the line, fitted to the mean log10 of the norm against lags t − k ≥ 1; a "
            f"decade is a factor of 10 ({DECADE:.3f} nats, the unit of metrics on disk and in W&B)"
        )
    if HORIZON in shown:
        never = "; inf: at no lag of the sequence" if _has(table, HORIZON, inf) else ""
        meanings["horizon"] = f"first lag at which the mean norm is 1/e of its lag-0 value{never}"
    if remarks := dict.fromkeys(table.remarks.values()):
        meanings[", ".join(remarks)] = (
            "the curve turns or bends, so that slope and horizon do not say all; see below"
        )
    if (column(table.runs, "jacobian/zero_share") > 0).any():
        none = "; rate -inf: there are no others" if _has(table, RATE, -inf) else ""
        meanings["zeros"] = (
            f"share of the pairs (t, k) whose gradient is exactly zero, {_why_zero(table.runs)}; "
            f"rate and horizon are those of the others{none}"
        )
    if RATIO in shown:
        meanings[RATIO] = (
            "held-out loss over that of the task's trivial answer, for most tasks the best that "
            "ignores the inputs: 1 is nothing learnt"
        )
    if LOSS in shown:
        meanings[LOSS] = (
            "held-out loss itself, where that of the task's trivial answer is 0 or not known"
        )
    if ACCURACY in shown:
        meanings[ACCURACY] = f"share of the held-out answers that are right{_on_short_lags(table)}"
    if SOLVED in shown:
        meanings[SOLVED] = "seeds with less than 1 % of the held-out sequences wrong"
    elif (
        table.averages and shown == set(table.columns) and results(table.runs)[SOLVED].notna().any()
    ):
        meanings[SOLVED] = "by no seed (less than 1 % of the held-out sequences wrong)"
    return meanings


def _on_seeds(table: ClosingTable, columns: Sequence[str]) -> str:
    sizes = sorted({len(row) for row in table.rows})
    seeds = "to".join(f" {size} " for size in dict.fromkeys([sizes[0], sizes[-1]]))
    apart = ""
    if (table.runs["status"] != "done").any():
        apart = "; those that are not done are counted, and in no mean"
    some = results(table.runs)[list(columns)]
    if np.isinf(some.to_numpy()).any():
        apart += "; those that are inf are counted, and the mean is over the others"
    return f"mean ± standard deviation over the{seeds}seeds of a setting{apart}"


def _why_zero(runs: pd.DataFrame) -> str:
    """Say why gradients of these networks can be exactly zero."""
    zeros = runs[column(runs, "jacobian/zero_share") > 0]
    activations = zeros.get("model.cell.activation", pd.Series(None, zeros.index, dtype=object))
    if (activations == "relu").all():
        return "as of ReLU units that are off"
    cells = zeros.get("model.cell._target_", pd.Series("", zeros.index)).astype(str)
    is_saturating = cells.str.startswith(SATURATING) & ~activations.isin(["relu", "identity"])
    if is_saturating.all():
        return "as of units so saturated that float32 rounds their slope to 0"
    return "as of ReLU units that are off, or of slopes that float32 rounds to 0"


def _has(table: ClosingTable, name: str, value: float) -> bool:
    return bool((results(table.runs)[name] == value).any())


def _on_short_lags(table: ClosingTable) -> str:
    """Say how a network with vanishing gradients can be right, where one is."""
    is_right = column(table.runs, "eval/accuracy") > MIN_ACCURACY
    if not (is_right & (states(table.runs) == "vanishing")).any():
        return ""
    return "; vanishing gradients do no harm where an answer hangs on few steps back"
