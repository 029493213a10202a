"""The table by setting: the points that differ in their seed alone are one row."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from gradlab.figures import selection
from gradlab.figures.bands import mean_and_limits, proportion_interval
from gradlab.records import write_whole
from gradlab.records.layout import UNREADABLE

STATES = ("done", "diverged", "failed")
VERDICTS = ("vanishing", "stable", "exploding")
COUNTS = ("seeds", *STATES, *VERDICTS)
CSV_MARK = ",".join(COUNTS)  # in the first line of a table by setting
SOLVED = "success/solved"
FIRST = (  # metrics that come before the others
    "jacobian/decay_rate",
    "jacobian/horizon",
    "eval/loss",
    "eval/baseline",
    "eval/accuracy",
    SOLVED,
)


class SeedMeans(NamedTuple):
    """Means over the seeds of a setting, one number a metric.

    Attributes:
        mean: of the finite values; of values that are all inf (or all −inf), that; NaN where a seed
            has no value.
        low, high: the 95 % bootstrap interval of the mean; NaN where that is not finite, and of one
            value.
        infinite: the number of infinite values.
    """

    mean: Float[np.ndarray, "metrics"]
    low: Float[np.ndarray, "metrics"]
    high: Float[np.ndarray, "metrics"]
    infinite: Int[np.ndarray, "metrics"]


def by_setting(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the table by setting of runs: means over seeds, their intervals, and counts.

    Means are over the seeds that are done: those that diverged or failed are counted, and in no
    mean. A seed that is done and lacks a metric leaves its setting without that mean. Of a metric
    that is infinite in some seeds, as a horizon may be, the mean is that of the others, and a
    column counts them. A share of solved tasks is over the seeds that are done or diverged; those
    that diverged have not solved theirs.

    Args:
        runs: from `gradlab.load_runs`. Points of several sweeps that have the same setting are
            seeds of one.

    Returns:
        One row per setting, in the order of the runs: the config keys that vary, `seed` apart, by
        their dotted names; `seeds`, the number of points, of which as many are `done`, `diverged`
        and `failed` (the others were pruned, have not ended, or cannot be read); how many of those
        that are done are `vanishing`, `stable` and `exploding`; then for each summary metric, in
        its own unit, `NAME/mean`, `NAME/low` and `NAME/high`, and `NAME/infinite` where one is
        infinite anywhere. `low` and `high` are the 95 % bootstrap interval of the mean (of a share
        of solved tasks that of Clopper and Pearson); NaN of one seed.

    Raises:
        ValueError: these are no runs, or there are none.

    Example:
        >>> table = gradlab.by_setting(runs)
        >>> rates = "jacobian/decay_rate/mean"  # nats per step
        >>> table.pivot(index="init.gain", columns="model.name", values=rates).round(1)
        model.name  lstm  rnn
        init.gain
        0.5         -0.4 -1.2
        1.0         -0.4 -0.5
    """
    runs = selection.every_point(runs)
    keys, settings = settings_of(runs)
    metrics = _metrics(runs)
    rows = []
    for points in settings:
        levels = {key: points[key].iloc[0] for key in keys if key != "seed"}
        numbers = _numbers(points["status"], metrics.loc[points.index])
        rows.append(levels | _counts(points) | numbers)
    table = pd.DataFrame(rows)
    without = [f"{name}/infinite" for name in metrics if not np.isinf(metrics[name]).any()]
    return table.drop(columns=without)


def settings_of(runs: pd.DataFrame) -> tuple[list[str], list[pd.DataFrame]]:
    """Return the config keys that vary, `seed` last, and the points of each setting.

    Args:
        runs: from `selection.comparable`.
    """
    readable = runs[~runs["status"].isin(UNREADABLE)]  # the others may lack a config
    keys = selection.varying_keys(readable if len(readable) else runs)
    settings = [key for key in keys if key != "seed"]
    groups = runs.groupby(settings, sort=False, dropna=False) if settings else [((), runs)]
    return keys, [points for _, points in groups]


def means_over_seeds(values: Float[np.ndarray, "metrics seeds"]) -> SeedMeans:
    """Return the mean of each metric over seeds, with its interval.

    Args:
        values: NaN where missing.
    """
    mean, low, high = mean_and_limits(values)
    infinite = np.isinf(values)
    for i in np.flatnonzero(infinite.any(axis=1) & ~np.isnan(values).any(axis=1)):
        finite = values[i, ~infinite[i]]
        if finite.size:
            (mean[i],), (low[i],), (high[i],) = mean_and_limits(finite[None])
        elif len(set(values[i])) == 1:
            mean[i] = values[i, 0]
    return SeedMeans(mean, low, high, infinite.sum(axis=1))


def to_csv(table: pd.DataFrame) -> str:
    """Return a table by setting as CSV; its numbers have all their digits."""
    from gradlab.figures.command import as_text

    return as_text(table).to_csv(index=False, lineterminator="\n")


def save_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table by setting as CSV.

    Raises:
        RecordError: it could not be written; what was there before is whole.
    """
    text = to_csv(table)
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8", newline=""))


def _metrics(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the summary metrics of runs that are numbers, those of FIRST first."""
    names = [str(name) for name in runs if "/" in str(name)]
    names = [*(name for name in FIRST if name in names), *(x for x in names if x not in FIRST)]
    metrics = runs[names].apply(pd.to_numeric, errors="coerce").astype(float)
    return metrics.dropna(axis="columns", how="all")


def _counts(points: pd.DataFrame) -> dict[str, int]:
    """Return how many points a setting has, and how they ended."""
    states = points["status"].value_counts()
    done = points.loc[points["status"] == "done"]
    verdicts = done.get("verdict", pd.Series(dtype=object)).value_counts()
    return {
        "seeds": len(points),
        **{state: states.get(state, 0) for state in STATES},
        **{verdict: verdicts.get(verdict, 0) for verdict in VERDICTS},
    }


def _numbers(status: pd.Series, metrics: pd.DataFrame) -> dict[str, float]:
    """Return the entries of `SeedMeans` for each metric of a setting's points."""
    means = means_over_seeds(metrics[status == "done"].to_numpy().T)
    names = list(metrics)
    if SOLVED in names:
        for column, number in zip(means, _share(metrics[SOLVED], status), strict=True):
            column[names.index(SOLVED)] = number
    return {
        f"{name}/{entry}": column[i]
        for i, name in enumerate(names)
        for entry, column in zip(SeedMeans._fields, means, strict=True)
    }


def _share(solved: pd.Series, status: pd.Series) -> tuple[float, float, float, int]:
    """Return the share of the points that solved their task, and its interval, as `SeedMeans`."""
    ended = solved.mask(status == "diverged", 0.0)[status.isin(["done", "diverged"])]
    if ended.empty or ended.isna().any():
        return np.nan, np.nan, np.nan, 0
    count = int((ended > 0).sum())
    return (count / len(ended), *proportion_interval(count, len(ended)), 0)
