"""Profile, decay rate, horizon and verdict are right for maps whose answers are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradlab import decay


def geometric_map(rate: float, length: int, start: float = 0.0) -> np.ndarray:
    step = np.arange(length + 1)
    lags = step[:, None] - step[None, :]
    return np.where(lags >= 0, start + rate * lags, -np.inf)


@given(rate=st.floats(-3, 3), length=st.integers(1, 20), start=st.floats(-2, 2))
def test_the_decay_rate_of_a_geometric_map_is_its_rate(
    rate: float, length: int, start: float
) -> None:
    profile = decay.lag_profile(geometric_map(rate, length, start)[None])
    np.testing.assert_allclose(profile, start + rate * np.arange(length + 1), atol=1e-12)
    if length > 1:
        assert decay.decay_rate(profile) == pytest.approx(rate, abs=1e-9)


@given(rate=st.floats(-3, -0.01), start=st.floats(-2, 2))
def test_the_horizon_of_a_geometric_map_is_one_over_its_rate(rate: float, start: float) -> None:
    profile = start + rate * np.arange(200)
    assert decay.horizon(profile) == pytest.approx(-1 / rate)


def test_the_profile_averages_samples_and_pairs_of_a_lag() -> None:
    maps = np.full((2, 3, 3), -np.inf)
    maps[0][np.tril_indices(3)] = [0, 1, 0, 5, 3, 0]  # (t, k) = 00 10 11 20 21 22
    maps[1][np.tril_indices(3)] = [0, 3, 0, 7, 5, 0]
    np.testing.assert_array_equal(decay.lag_profile(maps), [0, 3, 6])


def test_a_gradient_that_never_falls_has_no_horizon() -> None:
    assert decay.horizon(np.array([0.0, -0.5, 0.2, -0.9])) == np.inf


def test_exact_zeros_end_the_horizon_and_are_left_out_of_the_decay_rate() -> None:
    profile = np.array([0.0, -0.25, -0.5, -np.inf])
    assert decay.horizon(profile) == 3
    assert decay.decay_rate(profile) == pytest.approx(-0.25)
    assert decay.decay_rate(np.array([0.0, -np.inf, -np.inf])) == -np.inf


def test_a_block_that_starts_at_zero_is_measured_from_its_first_lag() -> None:
    assert decay.horizon(np.array([-np.inf, 2.0, 1.5, 1.0, 0.5])) == pytest.approx(3)


@pytest.mark.parametrize(
    ("rate", "verdict"),
    [(-0.3, "vanishing"), (-0.1, "stable"), (0.1, "stable"), (0.3, "exploding")],
)
def test_the_verdict_names_a_tenfold_change_over_the_sequence(rate: float, verdict: str) -> None:
    assert decay.verdict(rate, length=10) == verdict
