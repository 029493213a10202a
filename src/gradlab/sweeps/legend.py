"""The words below the table at the end of a sweep: what each of its columns means."""

from math import inf

from gradlab.figures.outcome import MIN_ACCURACY
from gradlab.figures.units import DECADE
from gradlab.printable import pasted
from gradlab.sweeps.closing_table import (
    ACCURACY,
    HORIZON,
    LOSS,
    RATE,
    SOLVED,
    ClosingTable,
    column,
    results,
    states,
)


def legend(table: ClosingTable, place: str) -> dict[str, str]:
    """Return the words that a table shows, with their meanings.

    Args:
        table: what is explained, and nothing that it does not show.
        place: the sweep's folder, for the command that shows single seeds.
    """
    shown, meanings = set(table.columns), dict[str, str]()
    if table.averages:
        meanings["±"] = _on_seeds(table, place)
    if RATE in shown:
        meanings["verdict"] = (
            "vanishing or exploding: by a fitted line, the norm falls or grows more than tenfold "
            "over the sequence; else stable"
        )
        meanings["decay rate"] = (
            "slope of that line, fitted to the mean log10 of the norm against lag t − k; a decade "
            f"is a factor of 10 ({DECADE:.3f} nats, the unit of metrics on disk and in W&B)"
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
            "share of the pairs (t, k) whose gradient is exactly zero, as of ReLU units that are "
            f"off; rate and horizon are those of the others{none}"
        )
    if LOSS in shown:
        meanings[LOSS] = (
            "held-out loss over that of the task's trivial answer, for most tasks the best that "
            "ignores the inputs: 1 is nothing learnt"
        )
    if ACCURACY in shown:
        meanings[ACCURACY] = f"share of the held-out answers that are right{_on_short_lags(table)}"
    if SOLVED in shown:
        meanings[SOLVED] = "seeds with less than 1 % of the held-out sequences wrong"
    elif table.averages and results(table.runs)[SOLVED].notna().any():
        meanings[SOLVED] = "by no seed (less than 1 % of the held-out sequences wrong)"
    return meanings


def _on_seeds(table: ClosingTable, place: str) -> str:
    sizes = sorted({len(row) for row in table.rows})
    seeds = "to".join(f" {size} " for size in dict.fromkeys([sizes[0], sizes[-1]]))
    apart = ""
    if (table.runs["status"] != "done").any():
        apart = "; those that diverged or failed are counted, and in no mean"
    command = f"python -m gradlab {pasted('sweep.resume', place)} sweep.table=points"
    return (
        f"mean ± standard deviation over the{seeds}seeds of a setting{apart}; each by itself: "
        f"{command}"
    )


def _has(table: ClosingTable, name: str, value: float) -> bool:
    return bool((results(table.runs)[name] == value).any())


def _on_short_lags(table: ClosingTable) -> str:
    """Say how a network with vanishing gradients can be right, where one is."""
    is_right = column(table.runs, "eval/accuracy") > MIN_ACCURACY
    if not (is_right & (states(table.runs) == "vanishing")).any():
        return ""
    return "; vanishing gradients do no harm where an answer hangs on few steps back"
