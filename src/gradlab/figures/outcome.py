"""The outcome of training, at its end or before: success, loss, accuracy, decay rate, horizon."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab import records
from gradlab.figures import moments, units

# Of a success. The error is `MAX_ERROR_RATE` of gradlab.training.success, written again because
# figures are read from disk or W&B and import nothing of training.
MAX_ERROR, MIN_ACCURACY = 0.01, 0.9
ERROR_RATE, ACCURACY = "eval/error_rate", "eval/accuracy"
OUTCOMES = {  # name: the metrics that say it, its label in a figure
    "decay_rate": (("jacobian/decay_rate",), "decay rate"),
    "horizon": (("jacobian/horizon",), "horizon (steps)"),
    "loss": (("eval/loss",), "held-out loss"),
    "accuracy": ((ACCURACY,), "accuracy"),
    "success": ((ERROR_RATE, ACCURACY), "success rate"),
}


def succeeded(
    runs: pd.DataFrame, error: float = MAX_ERROR, accuracy: float = MIN_ACCURACY
) -> pd.Series:
    """Return 1 for each run that succeeded, 0 for one that did not or diverged, else NaN.

    A run that failed, or has not ended, tells nothing: it is NaN.

    Args:
        runs: from `gradlab.load_runs`.
        error: a run that logs an error rate succeeds if that is below this value.
        accuracy: any other run succeeds if its accuracy is above this value.

    Raises:
        ValueError: no run logs either of them.
    """
    if not is_judged(runs):
        raise ValueError(
            "no run logs eval/error_rate or eval/accuracy, so none can be called a success: "
            "draw the loss or the decay rate instead."
        )
    solved = _solved(runs, error, accuracy).where(runs["status"] == "done")
    return solved.mask(runs["status"] == "diverged", 0.0)


def outcome_at(
    runs: pd.DataFrame,
    name: str,
    step: moments.Step = "last",
    error: float = MAX_ERROR,
    accuracy: float = MIN_ACCURACY,
) -> pd.DataFrame:
    """Return an outcome of each run at one moment of its training.

    Args:
        runs: from `gradlab.load_runs`.
        name: of the outcome, a key of OUTCOMES.
        step: "first" (the first measurement, before training), "last" (of runs that are done), or a
            number of updates after which the runs were measured.
        error, accuracy: the criteria of success, as in `succeeded`.

    Returns:
        The columns `value` (decay rate in nats per step; horizon in steps; loss as it is logged;
        accuracy; success as 1 or 0) and `step` (updates before it), by the index of the runs. NaN:
        the run has none, as one that diverged has no last loss; of a success it is 0 then.

    Raises:
        ValueError: `step` is no single moment, a criterion is no share, or no run has this outcome
            then.
    """
    check_one_moment(step)
    check_criteria(error, accuracy)
    metrics, _ = OUTCOMES[name]
    logged = pd.DataFrame(
        [_logged(run, metrics, step) for _, run in runs.iterrows()],
        index=runs.index,
        columns=["train/step", *metrics],
    ).astype(float)
    values = logged[metrics[0]]
    if name == "success":
        values = _solved(logged, error, accuracy)
        if is_judged(runs):
            values = values.mask(values.isna() & (runs["status"] == "diverged"), 0.0)
    if values.isna().all():
        raise ValueError(_nothing_at(runs, name, step))
    return pd.DataFrame({"value": values, "step": logged["train/step"]})


def check_criteria(error: float, accuracy: float) -> None:
    """Check the criteria of success, of which both are shares.

    Raises:
        ValueError: one is not from 0 to 1.
    """
    for name, flag, share in (("error rate", "error", error), ("accuracy", "accuracy", accuracy)):
        if not 0 <= share <= 1:
            raise ValueError(
                f"success is judged by an {name} from 0 to 1: --success-{flag} is {share:g}."
            )


def check_one_moment(step: moments.Step) -> moments.Step:
    """Return the moment that is asked for.

    Raises:
        ValueError: it is none, or several.
    """
    if moments.check_step(step) in ("ends", "all"):
        raise ValueError(f"step must be one moment: first, last, or updates; got {step!r}.")
    return step


def moment_label(step: moments.Step, steps: pd.Series) -> str:
    """Name the moment of outcomes.

    Args:
        step: as it was asked for.
        steps: updates before each outcome; NaN where that is not known.
    """
    known = set(steps.dropna())
    if known == {0}:
        return moments.BEFORE
    if step == "last":
        return moments.AFTER
    return moments.moment_of(int(known.pop())) if len(known) == 1 else "at the first measurement"


def outcome_label(name: str) -> str:
    """Return the label of an outcome, with its unit."""
    _, label = OUTCOMES[name]
    return f"{label} ({units.rate_unit()})" if name == "decay_rate" else label


def criterion(runs: pd.DataFrame, error: float, accuracy: float) -> str:
    """Return the words that say which runs are called a success: "accuracy above 0.9"."""
    if ERROR_RATE in runs:
        return f"error rate below {error:.3g}"
    return f"accuracy above {accuracy:.3g}"


def is_judged(runs: pd.DataFrame) -> bool:
    """Return whether any run logs what success is judged by."""
    return bool({ERROR_RATE, ACCURACY} & set(runs))


def _solved(runs: pd.DataFrame, error: float, accuracy: float) -> pd.Series:
    """Return 1 where a run's metrics are those of a success, 0 where not, NaN without them."""
    rates, accuracies = (
        runs.get(name, pd.Series(np.nan, runs.index)).astype(float)
        for name in (ERROR_RATE, ACCURACY)
    )
    solved = (rates < error).where(rates.notna(), accuracies > accuracy).astype(float)
    return solved.where(rates.notna() | accuracies.notna())


def _logged(run: pd.Series, metrics: Sequence[str], step: moments.Step) -> dict[str, float]:
    """Return the metrics of a run at a moment, and the updates before it; {}: it has none then."""
    history = _history(run, metrics)
    if step == "last" and history.empty:
        history = _summary(run, metrics)
    is_trained = history["train/step"].max() > 0
    rows = history.dropna(subset=list(metrics), how="all")
    if step == "first":
        rows = rows.head(1)
    elif step == "last":
        rows = rows.tail(1) if run["status"] == "done" else rows.head(0)
        rows = rows[rows["train/step"] != 0] if is_trained else rows
    else:
        rows = rows[rows["train/step"] == step]
    return {str(key): float(rows[key].iloc[0]) for key in rows} if len(rows) else {}


def _history(run: pd.Series, metrics: Sequence[str]) -> pd.DataFrame:
    """Return what a run logged of some metrics over training; no rows if it logged none of them."""
    names = ["train/step", *metrics]
    if not (Path(run["path"]) / records.METRICS).is_file():
        return pd.DataFrame(columns=names, dtype=float)
    history = records.load_metrics(run["path"])
    return history.head(len(history) if set(metrics) & set(history) else 0).reindex(columns=names)


def _summary(run: pd.Series, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the metrics that a run ended with, in one row."""
    return pd.DataFrame([run.reindex(["train/step", *metrics])]).astype(float)


def _nothing_at(runs: pd.DataFrame, name: str, step: moments.Step) -> str:
    """Return the sentence that says that no run has an outcome at a moment, and what there is."""
    metrics, _ = OUTCOMES[name]
    histories = [
        _history(run, metrics).dropna(how="all", subset=list(metrics)) for _, run in runs.iterrows()
    ]
    logged = sorted({int(number) for history in histories for number in history["train/step"]})
    when = {"first": moments.BEFORE, "last": moments.AFTER}.get(str(step))
    when = when or moments.moment_of(int(step))
    if logged:
        return f"no run has {' or '.join(metrics)} {when}; --step takes {moments.listed(logged)}."
    others = [
        other
        for other, (columns, _) in OUTCOMES.items()
        if other != name and runs.reindex(columns=columns).notna().any(axis=None)
    ]
    instead = f": draw one of {', '.join(others)}" if others else ""
    return f"no run has {' or '.join(metrics)} {when}{instead}."
