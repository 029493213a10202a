"""Mean and band of a line over several seeds."""

from collections.abc import Collection
from typing import Literal, get_args

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


def over_seeds(table: pd.DataFrame, x: str, y: str, band: Band = DEFAULT) -> pd.DataFrame:
    """Return the mean of y over points at each x, with its band.

    Points where y is −inf, the log of an exact zero, are left out, unless all are. The mean of log
    norms is that of the decay rate, and of successes (0 or 1) their rate.
    (`gradlab.studies.drawing.band` has medians: of losses, which may lie decades apart.)

    Args:
        table: with the columns `point`, x and y; a point may have several values at one x, of
            which the mean is its value.
        x, y: columns.
        band: "ci": `interval_of_mean`, as seaborn draws it; "sd": mean ± standard deviation;
            "iqr": quartiles; "range": least and greatest; "none".

    Returns:
        The columns x, `mean`, `low`, `high` (the band; NaN: there is none) and `seeds` (their
        number).

    Raises:
        ValueError: `band` is another word.
    """
    if band not in get_args(Band):
        raise ValueError(f"band must be one of {', '.join(get_args(Band))}; got {band!r}.")
    by_point = seeds_of(table, x, y)
    values = by_point.to_numpy(float)
    low, high = _limits(values, band)
    means = _mean(values)
    all_zero = by_point.index.isin(table.loc[table[y] == -np.inf, x]) & np.isnan(means)
    columns = {"mean": means, "low": low, "high": high}
    columns = {name: np.where(all_zero, -np.inf, numbers) for name, numbers in columns.items()}
    seeds = np.isfinite(values).sum(axis=1)
    return pd.DataFrame({x: by_point.index, **columns, "seeds": seeds})


def seeds_of(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return y of each point: one row per x, one column per point; NaN where it is −inf."""
    nonzero = table.assign(**{y: table[y].mask(table[y] == -np.inf)})
    return nonzero.pivot_table(index=x, columns="point", values=y, aggfunc="mean", dropna=False)


def proportion_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a success rate (Clopper & Pearson 1934).

    Args:
        successes: of `count` independent attempts, of which there is at least one.
        count: attempts.
    """
    interval = stats.binomtest(successes, count).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)


def band_note(band: Band, seeds: Collection[int]) -> str:
    """Return the sentence that says what lines and bands show; "" if no line has several seeds.

    Args:
        band: its kind.
        seeds: of the lines.
    """
    several = [count for count in seeds if count > 1]
    if not several:
        return ""
    mean = f"Lines: means of {max(several)} seeds"
    few = min(several) < FEW and band != "none"
    if max(several) < FEW or band == "none":
        return f"{mean}, each of which is a thin line." if few else f"{mean}."
    fewer = f"; of fewer than {FEW}, each is a thin line" if few else ""
    return f"{mean}; bands: {NAMES[band]}{fewer}."


def _mean(values: Float[np.ndarray, "x seeds"]) -> Float[np.ndarray, "x"]:
    counts = np.isfinite(values).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nansum(values, axis=1) / np.where(counts, counts, np.nan)


def _limits(
    values: Float[np.ndarray, "x seeds"], band: Band
) -> tuple[Float[np.ndarray, "x"], Float[np.ndarray, "x"]]:
    """Return the lower and upper limit of a band at each x; NaN where fewer than two seeds are."""
    measured = np.isfinite(values).sum(axis=1) > 1
    filled = np.where(measured[:, None], values, 0.0)
    if band == "none" or values.shape[1] < 2:
        low = high = np.full(len(values), np.nan)
    elif band == "ci":
        low, high = interval_of_mean(filled)
    elif band == "sd":
        means, spread = _mean(filled), np.nanstd(filled, axis=1, ddof=1)
        low, high = means - spread, means + spread
    else:
        quantiles = (0.25, 0.75) if band == "iqr" else (0.0, 1.0)
        low, high = np.nanquantile(filled, quantiles, axis=1)
    return np.where(measured, low, np.nan), np.where(measured, high, np.nan)


def interval_of_mean(
    values: Float[np.ndarray, "x seeds"],
) -> tuple[Float[np.ndarray, "x"], Float[np.ndarray, "x"]]:
    """Return the 95 % percentile-bootstrap interval of the mean over seeds at each x.

    Resamples are the same at every x and in every call. Values that are not finite are left out of
    a resample's mean, as they are of the mean; where none is finite, the limits are NaN.

    Source:
        Efron & Tibshirani (1993), An Introduction to the Bootstrap, section 13.3.
    """
    seeds = values.shape[1]
    draws = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    weights = np.stack([(draws == seed).sum(axis=1) for seed in range(seeds)])  # [seed, resample]
    is_finite = np.isfinite(values)
    counts = is_finite.astype(float) @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(is_finite, values, 0.0) @ weights / np.where(counts, counts, np.nan)
    low, high = np.full((2, len(values)), np.nan)
    some, tail = is_finite.any(axis=1), (1 - LEVEL) / 2
    low[some], high[some] = np.nanquantile(means[some], (tail, 1 - tail), axis=1)
    return low, high
