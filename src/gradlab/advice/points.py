"""Advice at the end of a point, from what its probes have measured and its training has logged."""

from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np

from gradlab import decay
from gradlab.advice.thresholds import RARE, threshold_of
from gradlab.advice.windows import TOLERANCE

Row = Mapping[str, float]
LEARNT = 0.95  # of the baseline: a loss below it
ALWAYS = 0.95  # a share of clipped updates above which the threshold sets every step's length
MOST = 2  # sentences
FEW = 3  # rows, whose median an explosion may decide
ORTHOGONAL = "init=orthogonal model.other_std=0.1"


def point_advice(
    rows: Sequence[Row], length: int, *, threshold: float, window: int | None, has_gates: bool
) -> list[str]:
    """Return what a point's records say to do: at most two sentences, none if it has learnt.

    Args:
        rows: metrics by their W&B names, in the order of training.
        length: T, the steps of its sequences.
        threshold: of clipping by global norm; inf for none, NaN for another rule.
        window: of truncated BPTT, in steps; None for none.
        has_gates: whether the cell has a forget gate.

    Returns:
        Sentences, the most useful first.
    """
    last = rows[-1]
    has_diverged = "diverged/update" in last
    loss, baseline = (last.get(f"eval/{name}", np.nan) for name in ("loss", "baseline"))
    if last["train/step"] == 0 or not (has_diverged or loss > LEARNT * baseline):
        return []
    sentences = [
        _on_clipping(rows, threshold),
        _on_truncation(last, window),
        _on_growth(rows[0], length) if has_diverged else _on_reach(rows[0], length, has_gates),
    ]
    return [sentence for sentence in sentences if sentence][:MOST]


def _on_clipping(rows: Sequence[Row], threshold: float) -> str:
    """Compare the threshold with the gradient norms of the rows, which are means over updates."""
    has_diverged = "diverged/update" in rows[-1]
    trained: Sequence[Row] = [
        row for row in rows if np.isfinite(row.get("train/grad_norm", np.nan))
    ]
    if has_diverged:
        trained = _before_explosion(trained, rows[-1])
    norms = np.array([row["train/grad_norm"] for row in trained])
    if not norms.any():
        return ""
    advised = 0.5 * float(np.median(norms)) if has_diverged else threshold_of(norms)
    of_which = "in the median before" if has_diverged else "on average, without the largest 1 %"
    norm = f"the gradient norm was {2 * advised:.3g} {of_which}"
    typed = f"try half of it, clip=global_norm clip.threshold={advised:.2g}"
    largest = _largest(trained)
    if threshold > 2 * advised and (has_diverged or largest > RARE * np.median(norms)):
        what = "without clipping" if np.isinf(threshold) else f"with threshold {threshold:.3g}"
        peak = "" if largest <= 2 * advised else f", and {largest:.3g} at most"
        return f"{what} {norm}{peak}: {typed}"
    fraction = float(np.mean([row["train/clip_fraction"] for row in trained]))
    if threshold < advised and fraction > ALWAYS:
        kept = float(np.mean([row["train/clip_coefficient"] for row in trained]))
        return (
            f"threshold {threshold:.3g} shortened {fraction:.0%} of the updates, to {kept:.1%} of "
            f"their length: {norm}; {typed}"
        )
    return ""


def _before_explosion(trained: Sequence[Row], last: Row) -> Sequence[Row]:
    """Return the rows before a network's norms exploded; none where they were not steady.

    Args:
        trained: the rows that have a gradient norm.
        last: the row of the divergence, and of the explosion unless the network was only driven off
            its task.
    """
    end = last
    if "diverged/worst" in last:
        end = max(trained, key=lambda row: row["train/grad_norm"], default=last)
    before = list(takewhile(lambda row: row is not end, trained))
    if not before:
        return []
    means = [row["train/grad_norm"] for row in before]
    largest = max(means) if len(before) >= FEW else _largest(before)
    return before if largest <= RARE * np.median(means) else []


def _largest(rows: Sequence[Row]) -> float:
    return max((row.get("train/grad_norm_clipped_max", 0.0) for row in rows), default=0.0)


def _on_truncation(last: Row, window: int | None) -> str:
    """Say what the window loses of the last gradient, if a probe has measured it."""
    prefix = "contribution/truncation_error/"
    measured = {int(k.removeprefix(prefix)): x for k, x in last.items() if k.startswith(prefix)}
    lost = measured.get(window or 0, 0.0)
    if not lost > TOLERANCE:
        return ""
    enough = [k for k in measured if all(x <= TOLERANCE for j, x in measured.items() if j >= k)]
    typed = f"tbptt.window={min(enough)} tbptt.stride=1" if enough else "tbptt.window=null"
    return f"a window of {window} steps loses {lost:.0%} of the gradient: try {typed}"


def _on_reach(first: Row, length: int, has_gates: bool) -> str:
    """Say that the start vanishes, if it does."""
    rate = first.get("jacobian/decay_rate", np.nan)
    if np.isnan(rate) or decay.verdict_of(first, length) != "vanishing":
        return ""
    fall = -rate / decay.TENFOLD
    start = f"bias=chrono bias.longest={max(length, 3)}" if has_gates else ORTHOGONAL
    return (
        f"at the start the log norm fell by {fall:.2g} decades a step, {fall * length:.3g} over "
        f"{length} steps: if the task needs them, start with {start} (gradlab.advise measures how "
        "far it reaches)"
    )


def _on_growth(first: Row, length: int) -> str:
    """Say that the start explodes, if it does, of a network that has diverged."""
    rate = first.get("jacobian/decay_rate", np.nan)
    if np.isnan(rate) or decay.verdict_of(first, length) != "exploding":
        return ""
    rise = rate / decay.TENFOLD
    return (
        f"at the start the log norm rose by {rise:.2g} decades a step, {rise * length:.3g} over "
        f"{length} steps: start with a smaller init.gain"
    )
