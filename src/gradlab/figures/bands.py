"""Mean and band of a line over several seeds."""

from collections.abc import Collection
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

Band = Literal["ci", "sd", "iqr", "range", "none"]
DEFAULT: Band = "ci"
FEW = 4  # seeds: of fewer, each is a thin line, and no band is drawn
RESAMPLES = 2000  # of the bootstrap
LEVEL = 0.95  # of an interval
NAMES: dict[str, str] = {
    "ci": "95 % bootstrap intervals of the mean",
    "sd": "mean ± one standard deviation",
    "iqr": "the middle half of the seeds (quartiles)",
    "range": "from the least seed to the greatest",
}


class Marks(NamedTuple):
    """The words for what is drawn of a line: its mean, the spread over its seeds, and a seed."""

    mean: str = "lines"
    spread: str = "bands"
    seed: str = "a thin line"


def over_seeds(table: pd.DataFrame, x: str, y: str, band: Band = DEFAULT) -> pd.DataFrame:
    """Return the mean of y over points at each x, with its band.

    The mean of log norms is that of the decay rate, and of successes (0 or 1) their rate.
    (`gradlab.studies.drawing.band` has medians: of losses, which may lie decades apart.)

    Args:
        table: with the columns `point`, x and y; a point may have several values at one x, of
            which the mean is its value.
        x, y: columns.
        band: as in `mean_and_limits`.

    Returns:
        The columns x, `mean`, `low` and `high` (from `mean_and_limits`), and `seeds` (the number
        of points that have a finite value).

    Raises:
        ValueError: `band` is another word.
    """
    by_point = seeds_of(table, x, y)
    values = by_point.to_numpy(float)
    mean, low, high = mean_and_limits(values, band)
    columns = {"mean": mean, "low": low, "high": high, "seeds": np.isfinite(values).sum(axis=1)}
    return pd.DataFrame({x: by_point.index, **columns})


def seeds_of(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return y of each point: one row per x, one column per point that has a value at any x.

    NaN is a value that is missing; −inf the log of an exact zero.
    """
    by_point = table.pivot_table(index=x, columns="point", values=y, aggfunc="mean", dropna=False)
    return by_point.dropna(axis="columns", how="all")


def mean_and_limits(
    values: Float[np.ndarray, "x seeds"], band: Band = DEFAULT
) -> tuple[Float[np.ndarray, "x"], Float[np.ndarray, "x"], Float[np.ndarray, "x"]]:
    """Return the mean over seeds at each x, and the lower and upper limit of its band.

    A mean over those seeds that happen to have a value is none of the seeds: where one has none,
    because its gradient is exactly zero or its run has ended, there is neither mean nor band.

    Args:
        values: NaN where missing, −inf for the log of an exact zero.
        band: "ci": 95 % bootstrap interval, as seaborn draws it; "sd": mean ± standard deviation;
            "iqr": quartiles; "range": least and greatest; "none".

    Returns:
        Three arrays. The mean is −inf where all seeds are, and NaN where only some have a finite
        value; so are the limits, and where there is one seed or no band.

    Raises:
        ValueError: `band` is another word.
    """
    if band not in get_args(Band):
        raise ValueError(f"band must be one of {', '.join(get_args(Band))}; got {band!r}.")
    mean, low, high = np.full((3, len(values)), np.nan)
    if values.shape[1] == 0:
        return mean, low, high
    whole = np.isfinite(values).all(axis=1)
    mean[whole] = values[whole].mean(axis=1)
    mean[np.isneginf(values).all(axis=1)] = -np.inf
    if values.shape[1] > 1 and band != "none" and whole.any():
        low[whole], high[whole] = _limits(values[whole], band)
    return mean, low, high


def proportion_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a success rate (Clopper & Pearson 1934).

    Args:
        successes: of `count` independent attempts, of which there is at least one.
        count: attempts.
    """
    interval = stats.binomtest(successes, count).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)


def band_note(band: Band, seeds: Collection[int], marks: Collection[Marks] = (Marks(),)) -> str:
    """Return the sentence that says what lines and bands show; "" if no line has several seeds.

    Args:
        band: its kind.
        seeds: of the lines.
        marks: what is drawn of them.
    """
    several = [count for count in seeds if count > 1]
    if not several:
        return ""
    lines, spread, seed = (" and ".join(sorted(set(words))) for words in zip(*marks, strict=True))
    counts = f"{min(seeds)} to {max(seeds)}" if len(set(seeds)) > 1 else f"{max(seeds)}"
    mean = f"{lines.capitalize()}: means of {counts} seeds"
    few = min(several) < FEW and band != "none"
    if max(several) < FEW or band == "none":
        return f"{mean}, each of which is {seed}." if few else f"{mean}."
    fewer = f"; of fewer than {FEW}, each is {seed}" if few else ""
    return f"{mean}; {spread}: {NAMES[band]}{fewer}."


def _limits(
    values: Float[np.ndarray, "x seeds"], band: Band
) -> tuple[Float[np.ndarray, "x"], Float[np.ndarray, "x"]]:
    """Return the lower and upper limit of a band of finite values at each x."""
    if band == "ci":
        return _interval_of_mean(values)
    if band == "sd":
        means, spread = values.mean(axis=1), values.std(axis=1, ddof=1)
        return means - spread, means + spread
    low, high = np.quantile(values, (0.25, 0.75) if band == "iqr" else (0.0, 1.0), axis=1)
    return low, high


def _interval_of_mean(
    values: Float[np.ndarray, "x seeds"],
) -> tuple[Float[np.ndarray, "x"], Float[np.ndarray, "x"]]:
    """Return the 95 % percentile-bootstrap interval of the mean over seeds at each x.

    Resamples are the same at every x and in every call.

    Args:
        values: all finite.

    Source:
        Efron & Tibshirani (1993), An Introduction to the Bootstrap, section 13.3.
    """
    seeds = values.shape[1]
    draws = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    weights = np.stack([(draws == seed).sum(axis=1) for seed in range(seeds)])  # [seed, resample]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values @ weights / seeds, (tail, 1 - tail), axis=1)
    return low, high
