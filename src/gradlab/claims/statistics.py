"""Numbers that depend on the networks drawn, each with its 95 % confidence interval."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from gradlab.figures.bands import proportion_interval

LEVEL = 0.95  # confidence of every interval
RESAMPLES = 9999  # of every bootstrap
SEED = 0  # of every bootstrap: the same rows give the same interval

Column = Float[np.ndarray, "rows"]
Successes = Shaped[np.ndarray, "rows"]


class Estimate(NamedTuple):
    """A number that depends on the networks drawn, with its confidence interval.

    The interval of a p-value is the range that more networks could bring it to: from 0 to p if the
    effect has the sign that the claim says, else only p.
    """

    value: float
    low: float
    high: float
    n: int  # number of draws
    is_p: bool = False
    is_student: bool = False  # few draws widen Student's intervals twice: by √n and by t

    def through(self, function: Callable[[float], float]) -> "Estimate":
        """Return the estimate of a monotone function of the number."""
        value, *ends = (float(function(x)) for x in (self.value, self.low, self.high))
        return self._replace(value=value, low=min(ends), high=max(ends))

    def with_more(self, factor: float) -> "Estimate":
        """Return what `factor` times as many draws would give if they are like those at hand.

        Intervals shrink by √factor, Student's by the change of his t too, and the z of a p-value
        grows by √factor.
        """
        root = float(np.sqrt(factor))
        if self.is_p:
            if self.low == self.high:  # more draws of the other sign do not help
                return self
            p = float(stats.norm.sf(stats.norm.isf(self.value) * root))
            return self._replace(value=p, high=p)
        if self.is_student:
            root *= _student(self.n) / _student(self.n * factor)
        ends = [self.value + (end - self.value) / root for end in (self.low, self.high)]
        return self._replace(low=ends[0], high=ends[1])


def rate(success: Successes) -> Estimate:
    """Return the share of successes, with the interval of Clopper & Pearson 1934."""
    count = len(success)
    low, high = proportion_interval(int(np.sum(success)), count)
    return Estimate(float(np.sum(success)) / count, low, high, count)


def sample_mean(x: Column) -> Estimate:
    """Return the mean over independent draws, with Student's interval."""
    value, n = float(np.mean(x)), len(x)
    if n < 2 or not np.isfinite(value):
        return Estimate(value, -np.inf, np.inf, n)
    margin = _student(n) * float(stats.sem(x))
    return Estimate(value, value - margin, value + margin, n, is_student=True)


def sample_median(x: Column) -> Estimate:
    """Return the median over independent draws, with the interval of the sign test."""
    ordered, n = np.sort(x), len(x)
    below = int(stats.binom.ppf((1 - LEVEL) / 2, n, 0.5))
    low, high = (ordered[below - 1], ordered[n - below]) if below else (-np.inf, np.inf)
    return Estimate(float(np.median(x)), float(low), float(high), n)


def geometric_mean(x: Column) -> Estimate:
    """Return the geometric mean over independent draws, with Student's interval of the logs.

    Raises:
        ValueError: a number is not positive and finite.
    """
    if not np.all((x > 0) & np.isfinite(x)):
        raise ValueError("a geometric mean needs positive, finite numbers")
    return sample_mean(np.log(x)).through(np.exp)


def paired_difference(x: Column, y: Column) -> Estimate:
    """Return the mean of x − y over networks that share a seed, with Student's interval.

    Args:
        x: one number per seed, as each(seed, …) gives them.
        y: those of the same seeds.
    """
    check_pairs(x, y)
    return sample_mean(np.asarray(x, float) - np.asarray(y, float))


def bootstrap_mean(x: Column) -> Estimate:
    """Return the mean over independent draws, with the BCa bootstrap interval of Efron 1987.

    The interval is the whole line where a number is infinite (a network that never got there) or
    where there are fewer than two.
    """
    x = np.asarray(x, float)
    value, n = float(np.mean(x)), len(x)
    if n < 2 or not np.isfinite(value):
        return Estimate(value, -np.inf, np.inf, n)
    if np.ptp(x) == 0:
        return Estimate(value, value, value, n)
    random = np.random.default_rng(SEED)
    settings = {"confidence_level": LEVEL, "n_resamples": RESAMPLES, "method": "BCa"}
    found = stats.bootstrap((x,), np.mean, random_state=random, **settings).confidence_interval
    return Estimate(value, float(found.low), float(found.high), n)


def bootstrap_ratio(x: Column, printed: float) -> Estimate:
    """Return the mean over independent draws as a multiple of a printed one (`bootstrap_mean`)."""
    return bootstrap_mean(x).through(lambda mean: mean / printed)


def bootstrap_median(x: Column) -> Estimate:
    """Return the median over independent draws, with its percentile bootstrap interval."""
    return _percentile(np.median(_resampled(x), axis=1), float(np.median(x)), len(x))


def median_ratio(x: Column, y: Column) -> Estimate:
    """Return median(x) / median(y) of independent draws, with its percentile bootstrap interval."""
    with np.errstate(invalid="ignore"):
        value = float(np.median(x) / np.median(y))
        above, below = (np.median(_resampled(z, s), axis=1) for s, z in enumerate((x, y)))
        return _percentile(above / below, value, min(len(x), len(y)))


def spearman(y: Column, x: Column) -> Estimate:
    """Return Spearman's rank correlation, with its percentile bootstrap interval over the rows."""
    rows = np.random.default_rng(SEED).integers(len(x), size=(RESAMPLES, len(x)))
    ranks_x, ranks_y = (stats.rankdata(np.asarray(z)[rows], axis=1) for z in (x, y))
    value = float(stats.spearmanr(x, y).statistic)
    return _percentile(_correlation(ranks_x, ranks_y), value, len(x))


def rate_difference(k: int, n: int, printed_k: int, printed_n: int) -> Estimate:
    """Return our share minus a printed one, with the interval of Newcombe 1998 (method 10).

    Args:
        k: our successes.
        n: our networks.
        printed_k: successes that the source prints.
        printed_n: its networks.
    """
    ours, printed = k / n, printed_k / printed_n
    (low, high), (printed_low, printed_high) = _wilson(k, n), _wilson(printed_k, printed_n)
    down = np.hypot(ours - low, printed_high - printed)
    up = np.hypot(high - ours, printed - printed_low)
    value = ours - printed
    return Estimate(value, float(value - down), float(value + up), n)


def check_pairs(x: Successes, y: Successes) -> None:
    """Check that two columns have a partner for each entry.

    Raises:
        ValueError: their lengths differ.
    """
    if len(x) != len(y):
        raise ValueError(
            f"a paired test needs as many rows on both sides; got {len(x)} and {len(y)}"
        )


def _student(n: float) -> float:
    """Return the quantile of Student's t that an interval from n draws reaches to."""
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1))


def _wilson(k: int, n: int) -> tuple[float, float]:
    """Return the score interval of Wilson 1927."""
    z, share = float(stats.norm.isf((1 - LEVEL) / 2)), k / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    margin = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - margin, middle + margin


def _resampled(x: Column, seed: int = SEED) -> Float[np.ndarray, "resamples rows"]:
    x = np.asarray(x, float)
    return x[np.random.default_rng(seed).integers(len(x), size=(RESAMPLES, len(x)))]


def _percentile(draws: Column, value: float, n: int) -> Estimate:
    if n < 2:
        return Estimate(value, -np.inf, np.inf, n)
    # "inverted_cdf" takes a draw as it is: between a number and inf there is nothing to interpolate
    quantile = partial(np.quantile, draws[~np.isnan(draws)], method="inverted_cdf")
    return Estimate(value, float(quantile((1 - LEVEL) / 2)), float(quantile((1 + LEVEL) / 2)), n)


def _correlation(
    x: Float[np.ndarray, "resamples rows"], y: Float[np.ndarray, "resamples rows"]
) -> Column:
    x, y = (z - z.mean(axis=1, keepdims=True) for z in (x, y))
    with np.errstate(invalid="ignore"):  # a resample of one row alone has no correlation
        return (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
