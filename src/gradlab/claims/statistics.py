"""The functions of claims: reductions, fits, and tests, with their confidence intervals."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

LEVEL = 0.95  # confidence of every interval

Column = Float[np.ndarray, "rows"]


class Estimate(NamedTuple):
    """A number that depends on the seeds drawn, with its confidence interval.

    The interval of a p-value is the range that more seeds could bring it to: from 0 to p if the
    effect has the sign that the claim says, else only p.
    """

    value: float
    low: float
    high: float
    n: int  # number of draws
    is_p: bool = False


def rate(success: Shaped[np.ndarray, "rows"]) -> Estimate:
    """Return the share of successes, with the interval of Clopper & Pearson 1934."""
    test = stats.binomtest(int(np.sum(success)), len(success))
    interval = test.proportion_ci(LEVEL, method="exact")
    return Estimate(test.statistic, interval.low, interval.high, len(success))


def sample_mean(x: Column) -> Estimate:
    """Return the mean over independent draws, with Student's interval."""
    value, n = float(np.mean(x)), len(x)
    if n < 2:
        return Estimate(value, -np.inf, np.inf, n)
    margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(stats.sem(x))
    return Estimate(value, value - margin, value + margin, n)


def sample_median(x: Column) -> Estimate:
    """Return the median over independent draws, with the interval of the sign test."""
    ordered, n = np.sort(x), len(x)
    below = int(stats.binom.ppf((1 - LEVEL) / 2, n, 0.5))
    low, high = (ordered[below - 1], ordered[n - below]) if below else (-np.inf, np.inf)
    return Estimate(float(np.median(x)), float(low), float(high), n)


def fisher(more: Shaped[np.ndarray, "rows"], less: Shaped[np.ndarray, "others"]) -> Estimate:
    """Return the one-sided p of Fisher's exact test that the first succeed more often."""
    table = [[np.sum(x), len(x) - np.sum(x)] for x in (more, less)]
    p = float(stats.fisher_exact(table, alternative="greater").pvalue)
    return _p_value(p, np.mean(more) > np.mean(less), min(len(more), len(less)))


def mann_whitney(less: Column, more: Column) -> Estimate:
    """Return the one-sided p of Mann & Whitney's test that the first are smaller (inf allowed)."""
    p = float(stats.mannwhitneyu(less, more, alternative="less").pvalue)
    return _p_value(p, np.median(less) < np.median(more), min(len(less), len(more)))


def _p_value(p: float, has_claimed_sign: bool, n: int) -> Estimate:
    return Estimate(p, 0.0 if has_claimed_sign else p, p, n, is_p=True)


def slope(y: Column, x: Column) -> float:
    """Return the least-squares slope of y against x."""
    return float(np.polyfit(x, y, 1)[0])


def crossing(y: Column, x: Column) -> float:
    """Return the first x at which y, linear between the rows sorted by x, crosses zero."""
    order = np.argsort(x)
    x, y = x[order], y[order]
    (after,) = np.nonzero(np.sign(y[:-1]) != np.sign(y[1:]))
    if not len(after):
        return float("nan")
    i = after[0]
    return float(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))


def increasing(x: Column) -> bool:
    """Return whether each value is larger than the one before."""
    return bool(np.all(np.diff(x) > 0))


def _scalar(reduction: Callable[[Column], Any]) -> Callable[[Column], Any]:
    """Make a reduction of NumPy return a Python number."""
    return lambda x: reduction(x).item()


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "all": lambda x: bool(np.all(x)),
    "at_max": lambda y, x: x[np.argmax(y)],
    "count": lambda x: int(np.sum(x)),
    "crossing": crossing,
    "exp": np.exp,
    "first": lambda x: x[0],
    "fisher": fisher,
    "increasing": increasing,
    "last": lambda x: x[-1],
    "log": np.log,
    "log10": np.log10,
    "mann_whitney": mann_whitney,
    "max": _scalar(np.max),
    "mean": _scalar(np.mean),
    "median": _scalar(np.median),
    "min": _scalar(np.min),
    "rate": rate,
    "sample_mean": sample_mean,
    "sample_median": sample_median,
    "slope": slope,
    "sqrt": np.sqrt,
}
