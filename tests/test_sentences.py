"""The course of a curve over lag is told rightly where a closed form has it, and read in words."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import gradlab
from gradlab import decay
from gradlab.sentences import course, per_step, verdict_sentence, with_deviation

DECADE = float(np.log(10))


def words(decades: list[float]) -> str:
    return str(course(DECADE * np.array(decades)))


@given(
    rise=st.floats(0.2, 3),
    turn=st.integers(1, 30),
    start=st.floats(-4, 4),
    stride=st.integers(1, 4),
)
def test_a_parabola_peaks_at_its_vertex_and_stays_below_beyond_twice_that(
    rise: float, turn: int, start: float, stride: int
) -> None:
    lags = np.arange(4 * turn + 2)
    profile = (
        start + rise * lags * (2 * turn - lags) / turn**2
    )  # 0 at 0 and 2·turn, highest at turn
    steps = xr.DataArray(profile, coords={"lag": stride * lags}, dims="lag")
    found = course(steps)
    assert found is not None
    assert found.peak.lag == turn * stride
    assert found.peak.change == pytest.approx(rise)
    half = turn * (1 - np.sqrt(0.5))  # where x (2 turn − x) = turn²/2
    assert found.half.lag == np.ceil(half) * stride
    assert found.end.lag == found.trough.lag == stride * lags[-1]
    assert found.below_start in (
        2 * turn * stride,
        (2 * turn + 1) * stride,
    )  # 0 ± rounding at 2·turn
    below_e = turn + turn * np.sqrt(1 + 1 / rise)  # where rise · x (2 turn − x) / turn² = −1
    if below_e > lags[-1]:
        assert found.below_e == np.inf
    elif abs(below_e - round(below_e)) > 1e-6:
        assert found.below_e == np.ceil(below_e) * stride


@given(
    changes=st.lists(
        st.sampled_from([-np.inf, np.nan, -3.0, -1.0, -0.5, 0.0, 0.5, 2.0]), min_size=1, max_size=12
    )
)
def test_the_course_is_what_a_look_at_every_lag_finds(changes: list[float]) -> None:
    profile = np.array([0.0, *changes])
    found = course(profile)
    assert found is not None
    measured = [(lag, x) for lag, x in enumerate(profile) if not np.isnan(x)]
    assert found.peak.change == max(x for _, x in measured)
    assert found.trough.change == min(x for _, x in measured)
    for turn in (found.peak, found.trough):
        assert turn.lag == next(lag for lag, x in measured if x == turn.change)
    turned = [x for x in sorted([found.peak, found.trough]) if x.change] or [found.end]
    way = turned[0].change
    half = [lag for lag, x in measured if (x >= way / 2 if way > 0 else x <= way / 2)]
    assert found.half.lag == half[0]
    for lag, limit in ((found.below_start, 0.0), (found.below_e, -0.999)):
        later = [all(x < limit for at, x in measured if at >= from_) for from_, _ in measured]
        expected = next((at for (at, _), ok in zip(measured, later, strict=True) if ok), np.inf)
        assert lag == expected
    # The horizon is the first crossing of 1/e; where the curve stays below, it was crossed by then.
    assert decay.horizon(profile) <= found.below_e
    assert str(found)


def test_a_course_is_read_in_powers_of_ten_and_lags() -> None:
    assert words([0, 0.3, 0.4, 0.1, -0.2, -2.1]) == (
        "rises to 10^0.4 at lag 2, falls to 10^-2.1 at lag 5, stays below 1 from lag 4 and below "
        "1/e from lag 5"
    )
    assert words([0, 0.9, 0, -0.9]) == (
        "rises to 10^0.9 at lag 1, falls to 10^-0.9 at lag 3, stays below 1/e from lag 3"
    )
    assert words([0, 1.5, 1.0, 0.2]) == "rises to 10^1.5 at lag 1, falls to 10^0.2 at lag 3"
    assert words([0, -1.0, 0.2, 1.4]) == (
        "falls to 10^-1.0 at lag 1, rises to 10^1.4 at lag 3, stays above 1 from lag 2"
    )
    assert words([0, -1.0, -2.0, -3.0]) == "falls to 10^-3.0 at lag 3"
    assert words([0, -2.2, *[-2.2 - x / 10 for x in range(1, 8)]]) == (
        "falls to 10^-2.9 at lag 8 (10^-2.2 by lag 1)"
    )
    assert words([0, 0.01, -0.01]) == "stays at 1"
    assert words([0, 0.5, -np.inf]) == (
        "rises to 10^0.5 at lag 1, falls to 0 at lag 2, stays below 1/e from lag 2"
    )
    assert words([-np.inf, 0.7, 1.7]) == "rises to 10^1.0 at lag 2 (1 is the norm at lag 1)"
    assert course(np.array([np.nan, -np.inf])) is None
    assert course(np.array([np.nan, np.nan])) is None


def test_the_course_of_a_map_is_that_of_its_profile() -> None:
    steps = np.arange(6)
    lags = steps[:, None] - steps
    maps = np.where(lags >= 0, 1.0 * lags * (3 - lags), -np.inf)
    assert course(maps) == course(gradlab.lag_profile(maps))
    with pytest.raises(ValueError, match="shape"):
        course(np.zeros((2, 3)))


def test_the_sentence_has_all_rates_in_decades() -> None:
    metrics = {
        "jacobian/decay_rate": -0.2 * DECADE,
        "jacobian/zero_share": 0.0,
        "lyapunov/max": -0.15 * DECADE,
        "theory/bound": -0.05 * DECADE,
    }
    assert verdict_sentence(metrics, 40) == (
        "vanishing: the log norm changes by -0.2000 decades a step, -8.0 over 40 steps; λ₁ -0.1500 "
        "(residual -0.0500); bound -0.0500 rules growth out"
    )
    assert per_step(DECADE) == "+1.0000"


@pytest.mark.parametrize(
    ("number", "deviation", "written"),
    [
        (-0.1234, 0.0312, ("−0.12", "±0.03")),
        (-1.2, 1.04, ("−1.2", "±1.0")),
        (0.00025, 0.026, ("0.00", "±0.03")),
        (-0.00025, 0.026, ("0.00", "±0.03")),
        (1234.0, 30.0, ("1234", "±30")),
        (2.0, 1e-6, ("2.00", "±0.00")),
        (0.5, 0.0, ("0.5", "±0")),
        (0.176091264, 1e-9, ("0.176", "±0")),  # what float32 does not resolve
        (0.176091264, 1e-5, ("0.176", "±0.000")),
        (2e6, 3e5, ("2e+06", "±3e+05")),
        (1234.0, 0.0, ("1234", "±0")),
    ],
)
def test_a_number_is_as_precise_as_its_deviation(
    number: float, deviation: float, written: tuple[str, str]
) -> None:
    assert with_deviation(number, deviation) == written
    if not number < 0:
        assert with_deviation(number, deviation, "+") == (f"+{written[0]}", written[1])
