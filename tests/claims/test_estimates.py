"""Estimates and exact tests against closed forms, enumeration, SciPy and published examples."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gradlab.claims.functions import crossing
from gradlab.claims.significance import (
    agrees,
    fisher,
    fisher_counts,
    mann_whitney,
    mcnemar,
    wilcoxon,
)
from gradlab.claims.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_median,
    bootstrap_ratio,
    geometric_mean,
    median_ratio,
    paired_difference,
    rate,
    rate_difference,
    sample_mean,
    sample_median,
    spearman,
)

NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 3.0, np.inf])  # few, so that many are tied
COLUMN = st.lists(NUMBERS, min_size=1, max_size=5).map(np.array)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=7)


def test_estimates_against_their_closed_forms() -> None:
    all_succeed = rate(np.array([True] * 10))
    assert (all_succeed.value, all_succeed.high) == (1, 1)
    assert all_succeed.low == pytest.approx(0.025 ** (1 / 10))  # Clopper & Pearson at n of n
    median = sample_median(np.arange(10.0))
    assert (median.value, median.low, median.high) == (4.5, 1, 8)  # n = 10: ranks 2 and 9
    margin = stats.t.ppf(0.975, 2) / np.sqrt(3)  # of 1, 2, 3, whose standard deviation is 1
    mean = sample_mean(np.array([1.0, 2.0, 3.0]))
    assert (mean.low, mean.high) == pytest.approx((2 - margin, 2 + margin))
    of_logs = geometric_mean(np.exp([1.0, 2.0, 3.0]))
    assert of_logs[:3] == pytest.approx(np.exp([2, 2 - margin, 2 + margin]))
    assert paired_difference(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])) == mean
    assert crossing(np.array([-1.0, 1.0, 3.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="positive, finite"):
        geometric_mean(np.array([1.0, np.inf]))
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired_difference(np.arange(3.0), np.arange(2.0))


def test_tests_of_successes_against_their_distributions() -> None:
    # 10 of 10 against 6 of 10: the hypergeometric tail, C(10, 6)/C(20, 16).
    p = fisher(np.array([True] * 10), np.array([True] * 6 + [False] * 4))
    assert p.value == pytest.approx(stats.hypergeom.sf(9, 20, 16, 10))
    assert (p.low, p.n) == (0, 10)
    reversed_p = fisher(np.array([False] * 5), np.array([True] * 5))
    assert reversed_p.low == reversed_p.value == 1
    # six pairs of which the first alone succeeds, one the other way: P(at most 1 of 7 heads)
    first, second = np.array([1] * 6 + [0] + [1] * 3), np.array([0] * 6 + [1] + [1] * 3)
    assert mcnemar(first, second).value == pytest.approx(8 / 2**7)
    assert mcnemar(second, first).low == mcnemar(second, first).value
    assert mcnemar(first, first).value == 1
    assert fisher_counts(3, 4, 1, 4).value == pytest.approx(34 / 70)  # the lady tasting tea


@given(COLUMN, COLUMN)
def test_mann_whitney_is_the_share_of_rearrangements(x: np.ndarray, y: np.ndarray) -> None:
    ranks, n = stats.rankdata(np.concatenate([x, y])), len(x)
    sums = [ranks[list(chosen)].sum() for chosen in combinations(range(len(ranks)), n)]
    share = np.mean(np.array(sums) <= ranks[:n].sum() + 1e-9)
    p = mann_whitney(x, y)
    assert p.value == pytest.approx(share)
    assert (p.low == 0) == (ranks[:n].sum() < np.mean(sums) - 1e-9)


@given(PAIRS)
def test_wilcoxon_is_the_share_of_signs(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs).T
    differ = [(a, b) for a, b in pairs if a != b]
    ranks = stats.rankdata([abs(b - a) for a, b in differ])
    against = sum(rank for rank, (a, b) in zip(ranks, differ, strict=True) if a > b)
    sums = [ranks @ np.array(signs) for signs in product((0, 1), repeat=len(differ))]
    p = wilcoxon(x, y)
    assert p.value == pytest.approx(np.mean(np.array(sums) <= against + 1e-9))


def test_rank_tests_are_scipys_where_nothing_is_tied() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=9), random.normal(size=9) + 0.5
    exact = stats.mannwhitneyu(x, y, alternative="less", method="exact").pvalue
    assert mann_whitney(x, y).value == pytest.approx(exact)
    exact = stats.wilcoxon(x, y, alternative="less", method="exact").pvalue
    assert wilcoxon(x, y).value == pytest.approx(exact)
    many = np.arange(150.0)
    assert mann_whitney(many, many + 30).value == pytest.approx(
        stats.mannwhitneyu(many, many + 30, alternative="less", method="asymptotic").pvalue
    )


@pytest.mark.parametrize(
    ("counts", "interval"),
    [  # Newcombe 1998, Statistics in Medicine 17, table II, method 10
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
    ],
)
def test_differences_of_rates_are_newcombes(
    counts: tuple[int, int, int, int], interval: tuple[float, float]
) -> None:
    difference = rate_difference(*counts)
    assert (difference.low, difference.high) == pytest.approx(interval, abs=6e-5)


def test_counts_agree_with_printed_ones_only_if_there_are_enough() -> None:
    assert agrees(18, 18, 18, 18, 0.2) is True  # Wilson's interval ends z²/(n + z²) = 0.176 below
    assert agrees(18, 18, 18, 18, 0.17) is None
    assert agrees(5, 5, 5, 5, 0.2) is None
    assert agrees(5, 18, 18, 18, 0.9) is False  # p < 0.05, whatever the margin
    assert agrees(5, 18, 18, 18, 0.9, unknown=3) is False
    assert agrees(5, 18, 18, 18, 0.9, unknown=13) is None  # all of them might have succeeded
    assert agrees(73, 100, 74, 100, 0.2, unknown=7) is True


def test_bootstrap_of_a_mean() -> None:
    random = np.random.default_rng(0)
    x = random.exponential(size=30)
    interval = bootstrap_mean(x)
    assert interval == bootstrap_mean(x)
    assert interval.value == pytest.approx(x.mean())
    assert interval.high - interval.value > interval.value - interval.low  # to the long tail's side
    large = random.normal(size=300)
    ends = [getattr(sample_mean(large), end) for end in ("low", "high")]
    assert bootstrap_mean(large)[1:3] == pytest.approx(ends, abs=0.01)
    ratio = bootstrap_ratio(x, 0.5)
    assert ratio[:3] == pytest.approx([2 * end for end in interval[:3]])
    assert bootstrap_mean(np.array([3.0] * 4))[:3] == (3, 3, 3)
    for unbounded in (np.array([1.0, np.inf]), np.array([1.0])):
        assert bootstrap_mean(unbounded)[1:3] == (-np.inf, np.inf)


def test_bootstrap_intervals_cover_what_they_are_of() -> None:
    random = np.random.default_rng(1)
    covered = []
    for _ in range(60):
        x, y = random.normal(5, 1, 15), random.normal(10, 1, 15)
        of_mean, of_median, of_ratio = bootstrap_mean(x), bootstrap_median(x), median_ratio(x, y)
        covered.append([of_mean.low < 5 < of_mean.high, of_median.low < 5 < of_median.high])
        covered[-1].append(of_ratio.low < 0.5 < of_ratio.high)
    assert np.all(np.mean(covered, axis=0) >= 0.85)  # 51 of 60, at 95 %: p = 0.001
    assert np.sum(covered) < 180  # and not always


def test_medians_may_be_infinite() -> None:
    x = np.array([1.0, 2.0, 3.0, np.inf, np.inf])
    median = bootstrap_median(x)
    assert (median.value, median.high) == (3, np.inf)
    assert np.isfinite(median.low)
    ratio = median_ratio(x, np.array([2.0] * 5))
    assert (ratio.value, ratio.high) == (1.5, np.inf)


def test_spearmans_correlation() -> None:
    x = np.arange(12.0)
    assert spearman(x**3, x)[:3] == pytest.approx((1, 1, 1))
    assert spearman(-x, x)[:3] == pytest.approx((-1, -1, -1))
    noise = np.random.default_rng(0).normal(size=12)
    near = spearman(noise, x)
    assert near.low < 0 < near.high
    assert near.value == pytest.approx(stats.spearmanr(noise, x).statistic)


def test_more_draws_shrink_an_interval_by_their_root() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    wide = rate(x > 1)
    narrow = wide.with_more(4)
    assert narrow.high - narrow.low == pytest.approx((wide.high - wide.low) / 2)
    narrow = sample_mean(x).with_more(4)
    error = np.std(x, ddof=1) / np.sqrt(16)
    assert narrow.high - narrow.low == pytest.approx(2 * stats.t.ppf(0.975, 15) * error)
    p = Estimate(stats.norm.sf(1.0), 0.0, stats.norm.sf(1.0), 5, is_p=True)
    assert p.with_more(4).value == pytest.approx(stats.norm.sf(2.0))
    wrong_sign = Estimate(0.7, 0.7, 0.7, 5, is_p=True)
    assert wrong_sign.with_more(100) == wrong_sign
