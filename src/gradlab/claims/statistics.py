"""What claims may compute from columns: reductions, fits, and tests with their intervals."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

LEVEL = 0.95  # of every interval

Column = Float[np.ndarray, "rows"]


class Estimate(NamedTuple):
    """A number that another draw of seeds would change, and the interval it may lie in.

    Of a p-value the interval says what more seeds could make of it: down to 0 where the effect
    points the way that the claim says, p itself where it does not.
    """

    value: float
    low: float
    high: float
    n: int  # draws that it rests on
    is_p: bool = False


def rate(success: Shaped[np.ndarray, "rows"]) -> Estimate:
    """Share of successes, with the interval of Clopper & Pearson 1934."""
    test = stats.binomtest(int(np.sum(success)), len(success))
    interval = test.proportion_ci(LEVEL, method="exact")
    return Estimate(test.statistic, interval.low, interval.high, len(success))


def sample_mean(x: Column) -> Estimate:
    """Mean over independent draws, with Student's interval."""
    value, n = float(np.mean(x)), len(x)
    if n < 2:
        return Estimate(value, -np.inf, np.inf, n)
    margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * float(stats.sem(x))
    return Estimate(value, value - margin, value + margin, n)


def sample_median(x: Column) -> Estimate:
    """Median over independent draws, with the interval between two of them (sign test)."""
    ordered, n = np.sort(x), len(x)
    below = int(stats.binom.ppf((1 - LEVEL) / 2, n, 0.5))
    low, high = (ordered[below - 1], ordered[n - below]) if below else (-np.inf, np.inf)
    return Estimate(float(np.median(x)), float(low), float(high), n)


def fisher(more: Shaped[np.ndarray, "rows"], less: Shaped[np.ndarray, "others"]) -> Estimate:
    """One-sided p of Fisher's exact test that the first succeed more often than the second."""
    table = [[np.sum(x), len(x) - np.sum(x)] for x in (more, less)]
    p = float(stats.fisher_exact(table, alternative="greater").pvalue)
    return _p_value(p, np.mean(more) > np.mean(less), min(len(more), len(less)))


def mann_whitney(less: Column, more: Column) -> Estimate:
    """One-sided p of Mann & Whitney's test that the first are smaller; inf is a number too."""
    p = float(stats.mannwhitneyu(less, more, alternative="less").pvalue)
    return _p_value(p, np.median(less) < np.median(more), min(len(less), len(more)))


def _p_value(p: float, points_there: bool, n: int) -> Estimate:
    return Estimate(p, 0.0 if points_there else p, p, n, is_p=True)


def slope(y: Column, x: Column) -> float:
    """Least-squares slope of y against x."""
    return float(np.polyfit(x, y, 1)[0])


def crossing(y: Column, x: Column) -> float:
    """The first x at which y, linear between the rows in their order of x, crosses zero."""
    order = np.argsort(x)
    x, y = x[order], y[order]
    (after,) = np.nonzero(np.sign(y[:-1]) != np.sign(y[1:]))
    if not len(after):
        return float("nan")
    i = after[0]
    return float(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))


def increasing(x: Column) -> bool:
    """Whether each is larger than the one before."""
    return bool(np.all(np.diff(x) > 0))


def of_column(reduction: Callable[[Column], Any]) -> Callable[[Column], Any]:
    """A reduction of NumPy's as a plain number."""
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
    "max": of_column(np.max),
    "mean": of_column(np.mean),
    "median": of_column(np.median),
    "min": of_column(np.min),
    "rate": rate,
    "sample_mean": sample_mean,
    "sample_median": sample_median,
    "slope": slope,
    "sqrt": np.sqrt,
}
