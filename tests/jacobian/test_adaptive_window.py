"""Windows chosen by a bound on the bias of truncation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab.jacobian import adaptive_window, truncation


@given(beta=st.floats(0.3, 0.97), tolerance=st.floats(0.01, 0.9))
@settings(max_examples=20)
def test_a_geometric_decay_needs_its_logarithm(beta: float, tolerance: float) -> None:
    """Terms β^j along one direction sum to 1/(1 − β); window K leaves out β^K of that."""
    terms = beta ** np.arange(400.0)[:, None] * np.array([3.0, -4.0])
    found = adaptive_window(terms, tolerance)
    assert found.log_rate == pytest.approx(np.log(beta), rel=1e-6)
    np.testing.assert_allclose(found.bound[:50], beta ** np.arange(1, 51), rtol=2e-3)
    needed = np.log(tolerance) / np.log(beta)
    assert found.window in (
        max(1, int(np.ceil(needed - 0.05))),
        max(1, int(np.ceil(needed + 0.05))),
    )


def test_what_lies_beyond_the_measured_lags_counts() -> None:
    terms = 0.9 ** np.arange(30.0)[:, None]
    found = adaptive_window(terms, 0.1)
    # E_K = 0.9^K / 0.1 whatever T, and ‖g‖ is at least (1 − 2 · 0.9³⁰) / 0.1.
    expected = 0.9 ** np.arange(1, 31) / (1 - 2 * 0.9**30)
    np.testing.assert_allclose(found.bound, expected, rtol=1e-6)
    assert found.window == 1 + int(np.argmax(expected <= 0.1))
    assert truncation(terms).relative_error[-1] == 0 < found.bound[-1]


@given(seed=st.integers(0, 200), rate=st.floats(-1.0, 0.1))
@settings(max_examples=30)
def test_the_bound_is_never_below_the_error(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    terms = {
        name: np.exp(rate * np.arange(25.0)).reshape(25, 1) * rng.normal(size=(25, size))
        for name, size in (("dense_h.kernel", 6), ("dense_i.bias", 2))
    }
    found = adaptive_window(terms)
    assert (found.bound >= truncation(terms).relative_error - 1e-12).all()
    assert (np.diff(found.bound[np.isfinite(found.bound)]) <= 1e-12).all()


def test_a_loss_at_every_step_has_fewer_terms_of_long_lags() -> None:
    """Its sum by lag falls to 0 at T even where nothing decays."""
    steps = 100
    shares = 1 - np.arange(steps) / steps
    windows = {}
    for beta in (0.9, 0.99, 1.0):
        terms = (shares * beta ** np.arange(steps))[:, None]
        windows[beta] = adaptive_window(terms, 0.1, shares=shares).window
    assert windows == {0.9: 22, 0.99: None, 1.0: None}  # 0.9²² is the first below a tenth


def test_a_last_lag_of_zero_is_no_end_of_memory() -> None:
    """The term of a recurrent kernel at the longest lag has the factor h⁽⁰⁾ = 0."""
    terms = 0.9 ** np.arange(20.0)[:, None]
    terms[-1] = 0
    found = adaptive_window(terms)
    assert found.log_rate == pytest.approx(np.log(0.9), rel=1e-6)
    assert found.bound[-1] == pytest.approx(0.9**20 / (1 - 0.9**19 - 0.9**20), rel=1e-6)


def test_growing_lags_have_no_window() -> None:
    found = adaptive_window(1.1 ** np.arange(20.0)[:, None])
    assert found.window is None
    assert np.isinf(found.bound).all()


@pytest.mark.parametrize("lags", [1, 2])
def test_lags_that_are_exactly_zero_add_nothing(lags: int) -> None:
    terms = np.zeros((10, 3))
    terms[:lags] = [[4.0, 0, 3], [0.4, 0, 0.3]][:lags]
    found = adaptive_window(terms, 0.0)
    assert found.window == lags
    assert not found.bound[lags:].any()


def test_a_late_peak_is_where_the_decay_begins() -> None:
    """A delay of 5 steps: before the peak the lags add next to nothing."""
    norms = np.concatenate([np.full(5, 1e-6), 0.5 ** np.arange(20.0)])
    found = adaptive_window(norms[:, None], 0.1)
    assert found.log_rate == pytest.approx(np.log(0.5), rel=1e-6)
    assert found.window == 5 + 4  # ½⁴ is the first power of ½ below a tenth
    later = adaptive_window(norms[:, None], 0.1, decays_from=10)
    assert later.window == found.window
    whole = adaptive_window(norms[:, None], 0.1, decays_from=0)
    assert whole.log_rate != pytest.approx(found.log_rate, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tolerance": -1}, "tolerance must be a number of at least 0"),
        ({"decays_from": 10}, "decays_from must be a whole number from 0 to the longest lag of by"),
        ({"decays_from": 1.5}, "decays_from must be a whole number"),
        ({"shares": np.ones(9)}, "shares must have a number above 0 and at most 1 for each of the"),
        ({"shares": np.arange(10) / 9}, "shares must have a number above 0 and at most 1"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        adaptive_window(np.ones((10, 2)), **arguments)
    with pytest.raises(ValueError, match="by_lag must be the by_lag of backpropagate"):
        adaptive_window(None)
