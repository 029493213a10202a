"""Exact tests between columns, and of counts against printed ones.

Each one-sided test returns its p-value as an `Estimate`. Distributions are those of all
rearrangements of the ranks at hand, so ties need no correction and no sample is too small.
"""

import numpy as np
from jaxtyping import Float
from scipy import stats

from gradlab.claims.statistics import Column, Estimate, Successes, check_pairs, rate_difference

ALPHA = 0.05
MOST_EXACT = 100  # rows of both columns together; beyond, the normal approximation is as good


def fisher(more: Successes, less: Successes) -> Estimate:
    """Return the one-sided p of Fisher's exact test that the first succeed more often."""
    table = [[np.sum(x), len(x) - np.sum(x)] for x in (more, less)]
    p = float(stats.fisher_exact(table, alternative="greater").pvalue)
    return _p_value(p, np.mean(more) > np.mean(less), min(len(more), len(less)))


def mcnemar(more: Successes, less: Successes) -> Estimate:
    """Return the one-sided exact p of McNemar 1947 that the first of a pair succeeds more often.

    Args:
        more: successes, one per seed.
        less: those of the same seeds.
    """
    check_pairs(more, less)
    first, second = np.asarray(more, bool), np.asarray(less, bool)
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    p = float(stats.binom.sf(only_first - 1, only_first + only_second, 0.5))
    return _p_value(p, only_first > only_second, len(first))


def mann_whitney(less: Column, more: Column) -> Estimate:
    """Return the one-sided p of Mann & Whitney's test that the first are smaller (inf allowed)."""
    both, n = np.concatenate([less, more]).astype(float), len(less)
    twice_ranks = np.round(2 * stats.rankdata(both)).astype(int)
    observed = int(twice_ranks[:n].sum())
    if len(both) > MOST_EXACT:
        p = float(stats.mannwhitneyu(less, more, alternative="less", method="asymptotic").pvalue)
    else:
        p = float(_sums_of_subsets(twice_ranks, n)[: observed + 1].sum())
    has_sign = observed < n * (len(both) + 1)  # its mean over all rearrangements
    return _p_value(p, has_sign, min(n, len(more)))


def wilcoxon(less: Column, more: Column) -> Estimate:
    """Return the one-sided p of Wilcoxon's signed-rank test that the first of a pair is smaller.

    Pairs that are equal (two networks that never got there, too) say nothing and are left out.

    Args:
        less: one number per seed; inf is allowed.
        more: those of the same seeds.
    """
    check_pairs(less, more)
    x, y = np.asarray(less, float), np.asarray(more, float)
    x, y = x[x != y], y[x != y]
    twice_ranks = np.round(2 * stats.rankdata(np.abs(y - x))).astype(int)
    observed = int(twice_ranks[x > y].sum())
    p = float(_sums_of_signs(twice_ranks)[: observed + 1].sum())
    return _p_value(p, observed < twice_ranks.sum() / 2, len(less))


def fisher_counts(k: int, n: int, printed_k: int, printed_n: int) -> Estimate:
    """Return the two-sided p of Fisher's exact test of our counts against printed ones.

    Args:
        k: our successes.
        n: our networks.
        printed_k: successes that the source prints.
        printed_n: its networks.
    """
    p = float(stats.fisher_exact([[k, n - k], [printed_k, printed_n - printed_k]]).pvalue)
    return _p_value(p, False, n)


def agrees(
    k: int, n: int, printed_k: int, printed_n: int, margin: float, unknown: int = 0
) -> bool | None:
    """Return whether our share of successes is the printed one.

    Args:
        k: our successes.
        n: our networks.
        printed_k: successes that the source prints.
        printed_n: its networks.
        margin: the largest difference of shares that counts as none.
        unknown: networks that were given up and might have succeeded: the answer must be the same
            for however many of them.

    Returns:
        False: Fisher's p < 0.05. True: else, and the interval of the difference lies within
        ± margin. None: the counts are too small to tell, or too many are unknown.
    """
    possible = range(int(k), int(k) + int(unknown) + 1)
    answers = {_agrees(succeeded, n, printed_k, printed_n, margin) for succeeded in possible}
    return answers.pop() if len(answers) == 1 else None


def _agrees(k: int, n: int, printed_k: int, printed_n: int, margin: float) -> bool | None:
    if fisher_counts(k, n, printed_k, printed_n).value < ALPHA:
        return False
    difference = rate_difference(k, n, printed_k, printed_n)
    return True if -margin <= difference.low and difference.high <= margin else None


def _p_value(p: float, has_claimed_sign: bool, n: int) -> Estimate:
    p = min(p, 1.0)  # sums of many shares may round above 1
    return Estimate(p, 0.0 if has_claimed_sign else p, p, n, is_p=True)


def _sums_of_subsets(values: np.ndarray, size: int) -> Float[np.ndarray, "sums"]:
    """Return the probability of each sum of `size` values drawn without replacement."""
    ways = np.zeros((size + 1, int(values.sum()) + 1))
    ways[0, 0] = 1.0
    for seen, value in enumerate(values):
        # the j-th of `size` places is filled by this value or stays open
        for taken in range(min(seen + 1, size), 0, -1):
            ways[taken, value:] += ways[taken - 1, : ways.shape[1] - value]
    return ways[size] / ways[size].sum()


def _sums_of_signs(values: np.ndarray) -> Float[np.ndarray, "sums"]:
    """Return the probability of each sum of the values that a fair coin keeps."""
    shares = np.zeros(int(values.sum()) + 1)
    shares[0] = 1.0
    for value in values:
        shares[value:] = (shares[value:] + shares[: len(shares) - value]) / 2
        shares[:value] /= 2
    return shares
