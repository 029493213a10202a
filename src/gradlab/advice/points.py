"""Advice at the end of a point, from what its probes have measured and its training has logged."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from gradlab import decay
from gradlab.advice.recommendation import Settings
from gradlab.advice.starts import Kind
from gradlab.advice.thresholds import RARE
from gradlab.advice.windows import TOLERANCE

Row = Mapping[str, float]
LEARNT = 0.95  # of the baseline: a loss below it
ALWAYS = 0.95  # a share of clipped updates above which the threshold sets every step's length
MOST = 2  # sentences
UPDATES = "updates"  # of a row: its norm is the mean over them
FEW = 3  # rows, whose median an explosion may decide
SMALL_STD = 0.1  # of the inputs' weights, which then saturate few units


def point_advice(
    rows: Sequence[Row],
    length: int,
    *,
    threshold: float,
    window: int | None,
    kind: Kind,
    start: Settings,
) -> list[str]:
    """Return what a point's records say to do: at most two sentences, none if it has learnt.

    Args:
        rows: metrics by their W&B names, in the order of training.
        length: T, the steps of its sequences.
        threshold: of clipping by global norm; inf for none, NaN for another rule.
        window: of truncated BPTT, in steps; None for none.
        kind: of the cell: "elman"; "gated", an LSTM or a GRU; or "other", of which no start is
            advised, since its own may not be what the sections init and bias say.
        start: the sections init, bias and model of its config, flattened with dots.

    Returns:
        Sentences, the most useful first.
    """
    last = rows[-1]
    has_diverged = "diverged/update" in last
    loss, baseline = (last.get(f"eval/{name}", np.nan) for name in ("loss", "baseline"))
    if last["train/step"] == 0 or not (has_diverged or loss > LEARNT * baseline):
        return []
    clipping, truncation = _on_clipping(rows, threshold), _on_truncation(last, length, window)
    if has_diverged:
        sentences = [clipping, truncation, _on_growth(rows[0], length, kind)]
    else:  # no threshold makes a gradient reach, and a start that vanishes has rare large norms too
        reach = _on_reach(rows[0], length, _missing(start, length, kind))
        sentences = [reach, truncation, clipping]
    return [sentence for sentence in sentences if sentence][:MOST]


def _on_clipping(rows: Sequence[Row], threshold: float) -> str:
    """Compare the threshold with the gradient norms of the updates, of which rows are means."""
    has_diverged = "diverged/update" in rows[-1]
    trained: Sequence[Row] = _trained(rows)
    if has_diverged:
        trained = _before_explosion(trained, rows[-1])
    norms = _norms(trained)
    if not norms.any():
        return ""
    largest = _largest(trained)
    typical, of_which = _median(norms, rows[-1]) if has_diverged else _average(norms)
    advised = 0.5 * typical
    norm = f"the gradient norm was {typical:.3g} {of_which}"
    typed = f"try half of it, clip=global_norm clip.threshold={advised:.2g}"
    if threshold > typical and (has_diverged or largest > RARE * np.median(norms)):
        what = "without clipping" if np.isinf(threshold) else f"with threshold {threshold:.3g}"
        peak = "" if largest <= typical else f", and {largest:.3g} at most"
        return f"{what} {norm}{peak}: {typed}"
    fraction = _mean(trained, "train/clip_fraction")
    if threshold < advised and fraction > ALWAYS:
        kept = _mean(trained, "train/clip_coefficient")
        return (
            f"threshold {threshold:.3g} shortened {fraction:.0%} of the updates, to {kept:.1%} of "
            f"their length: {norm}; {typed}"
        )
    return ""


def _trained(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that have a finite gradient norm, with the number of updates of each."""
    trained = [row for row in rows if np.isfinite(row.get("train/grad_norm", np.nan))]
    steps = [0.0, *(row["train/step"] for row in trained)]
    return [{**row, UPDATES: x} for row, x in zip(trained, np.diff(steps), strict=True)]


def _norms(trained: Sequence[Row]) -> Float[np.ndarray, "updates"]:
    """Return a gradient norm for each update: the mean of its row, without what is known apart.

    Where nothing was clipped a row has its largest norm too, so that one explosion counts as one
    update however many share its row.
    """
    norms = [np.empty(0)]
    for row in trained:
        count, mean, largest = int(row[UPDATES]), row["train/grad_norm"], _largest([row])
        if count > 1 and row["train/clip_fraction"] == 0 and largest > mean:
            norms.append(np.array([largest]))
            count, mean = count - 1, max(0.0, count * mean - largest) / (count - 1)
        norms.append(np.full(count, mean))
    return np.concatenate(norms)


def _average(norms: Float[np.ndarray, "updates"]) -> tuple[float, str]:
    """Return the average norm, and of which updates it is: at most 1 % of them are left out."""
    kept = norms[norms <= np.quantile(norms, 0.99, method="inverted_cdf")]
    left_out = len(norms) - len(kept)
    without = f", the {left_out} of the largest norms left out" if left_out else ""
    return float(kept.mean()), f"on average over {len(norms)} updates{without}"


def _median(norms: Float[np.ndarray, "updates"], last: Row) -> tuple[float, str]:
    """Return the median norm before a divergence, and of which updates it is."""
    event = "its maximum" if "diverged/worst" in last else "the divergence"
    count = len(norms)
    which = "at the only update" if count == 1 else f"in the median of the {count} updates"
    return float(np.median(norms)), f"{which} before {event}"


def _mean(trained: Sequence[Row], name: str) -> float:
    values, updates = zip(*((row[name], row[UPDATES]) for row in trained), strict=True)
    return float(np.average(values, weights=updates))


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
    before = [row for row in trained if row["train/step"] < end["train/step"]]
    if not before:
        return []
    means = [row["train/grad_norm"] for row in before]
    largest = max(means) if len(before) >= FEW else _largest(before)
    return before if largest <= RARE * np.median(means) else []


def _largest(rows: Sequence[Row]) -> float:
    return max((row.get("train/grad_norm_clipped_max", 0.0) for row in rows), default=0.0)


def _on_truncation(last: Row, length: int, window: int | None) -> str:
    """Say what the window loses of the last gradient, if a probe has measured it.

    Nothing of a network that explodes: its longest lags own the gradient, whatever the task needs.
    """
    if "jacobian/decay_rate" in last and decay.verdict_of(last, length) == "exploding":
        return ""
    prefix = "contribution/truncation_error/"
    measured = {int(k.removeprefix(prefix)): x for k, x in last.items() if k.startswith(prefix)}
    lost = measured.get(window or 0, 0.0)
    if not lost > TOLERANCE:
        return ""
    enough = [k for k in measured if all(x <= TOLERANCE for j, x in measured.items() if j >= k)]
    typed = f"tbptt.window={min(enough)} tbptt.stride=1" if enough else "tbptt.window=null"
    return f"a window of {window} steps loses {lost:.0%} of the gradient: try {typed}"


def _on_reach(first: Row, length: int, typed: str) -> str:
    """Say that the start vanishes, if it does, and what to type for another ("": nothing)."""
    rate = first.get("jacobian/decay_rate", np.nan)
    if np.isnan(rate) or decay.verdict_of(first, length) != "vanishing":
        return ""
    if np.isfinite(lag := decay.forgotten_lag(first)):
        return f"at the start the gradient is exactly zero from lag {lag} on"
    fall = -rate / decay.TENFOLD
    start = f"start with {typed}" if typed else "try another start"
    return (
        f"at the start the log norm fell by {fall:.2g} decades a step, {fall * length:.3g} over "
        f"{length} steps: if the task needs them, {start} (gradlab.advise measures how far it "
        "reaches)"
    )


def _missing(start: Settings, length: int, kind: Kind) -> str:
    """Return what a start lacks of orthogonal weights, or of chrono biases, as it is typed.

    It is nothing if all is there, and of a cell that may draw its start in another way.
    """
    if kind == "other":
        return ""
    rule = str(start[f"{'bias' if kind == 'gated' else 'init'}._target_"]).rpartition(".")[2]
    if kind == "gated":
        longest = max(length, 3)
        is_set = {
            "bias=chrono": rule == "chrono",
            f"bias.longest={longest}": start.get("bias.longest", 0) >= longest,
        }
    else:
        limit, std = (start.get(f"model.other_{x}") for x in ("limit", "std"))
        small = f"model.other_std={SMALL_STD}"
        if limit is not None:  # which counts instead
            std, small = limit / np.sqrt(3), f"model.other_limit=null {small}"
        is_set = {
            "init=orthogonal": rule == "orthogonal",
            "init.gain=1": start.get("init.gain", 1) == 1,
            small: std is not None and std <= SMALL_STD,
        }
    return " ".join(words for words, done in is_set.items() if not done)


def _on_growth(first: Row, length: int, kind: Kind) -> str:
    """Say that the start explodes, if it does, of a network that has diverged."""
    rate = first.get("jacobian/decay_rate", np.nan)
    if np.isnan(rate) or decay.verdict_of(first, length) != "exploding":
        return ""
    rise = rate / decay.TENFOLD
    typed = "try another start" if kind == "other" else "start with a smaller init.gain"
    return (
        f"at the start the log norm rose by {rise:.2g} decades a step, {rise * length:.3g} over "
        f"{length} steps: {typed}"
    )
