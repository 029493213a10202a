"""Profile, decay rate, horizon and verdict are right for maps whose answers are known."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from float64_products import log_norm_map
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import gradlab
from gradlab import decay, sentences
from gradlab.probes.maps import map_metrics


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


# Exact zeros, and pairs that were not measured


def metrics_of(log_norms: np.ndarray) -> dict[str, float]:
    return map_metrics(log_norms, "jacobian")


def causal(maps: np.ndarray) -> np.ndarray:
    """Return maps with −inf where k > t."""
    return np.where(np.tri(maps.shape[-1], dtype=bool), maps, -np.inf)


ENTRIES = st.sampled_from([-np.inf, np.nan, 0.0, 1.5, -2.0])
MAPS = arrays(float, (2, 5, 5), elements=ENTRIES).map(causal)


@given(maps=MAPS)
def test_the_profile_is_the_mean_of_the_pairs_that_are_measured_and_not_zero(
    maps: np.ndarray,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        profile, share = decay.lag_profile(maps), decay.zero_share(maps)
        rate, horizon = decay.decay_rate(profile), decay.horizon(profile)
    below = [(maps[s, t, k], t - k) for s in range(2) for t in range(5) for k in range(t + 1)]
    for lag in range(5):
        pairs = [x for x, of_lag in below if of_lag == lag]
        finite = [x for x in pairs if np.isfinite(x)]
        if finite:
            assert profile[lag] == pytest.approx(np.mean(finite))
        elif all(np.isnan(pairs)):
            assert np.isnan(profile[lag])
        else:
            assert not np.isfinite(profile[lag])
    measured = [x for x, lag in below if lag and not np.isnan(x)]
    if measured:
        assert share == pytest.approx(np.mean(np.isneginf(measured)))
    else:
        assert np.isnan(share)
    finite_lags = np.flatnonzero(np.isfinite(profile[1:])) + 1
    if len(finite_lags) > 1:
        assert rate == pytest.approx(np.polyfit(finite_lags, profile[finite_lags], 1)[0], abs=1e-9)
    assert np.isnan(horizon) == np.isnan(profile).all()


def test_means_without_an_exact_zero_are_numpys_to_the_last_bit() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 40, 40))
    profile = decay.lag_profile(causal(maps))
    expected = [np.diagonal(maps, -lag, -2, -1).mean() for lag in range(40)]
    np.testing.assert_array_equal(profile, expected)
    columns = maps.astype(np.float32)
    np.testing.assert_array_equal(decay.mean_log_norm(columns, 0), columns.mean(0))


def test_a_nilpotent_network_forgets_at_its_index() -> None:
    shift = np.eye(4, k=-1)  # shift⁴ = 0
    maps = log_norm_map(np.tile(shift, (20, 1, 1)))
    profile = decay.lag_profile(maps)
    np.testing.assert_array_equal(profile[:4], 0)
    assert (profile[4:] == -np.inf).all()
    assert decay.horizon(profile) == 4
    metrics = metrics_of(maps)
    assert decay.verdict_of(metrics, 20) == "vanishing"
    assert metrics["jacobian/zero_share"] == pytest.approx(1 - (20 + 19 + 18) / 210)
    sentence = sentences.verdict_sentence(metrics, 20)
    assert sentence.startswith("vanishing: 72.9% of the pairs are exactly zero, all at lag 4; of")


@pytest.mark.parametrize("dead", [[0], [0, 1, 2], [29], [15], [4, 20]])
def test_steps_of_slope_zero_do_not_hide_the_other_gradients(dead: list[int]) -> None:
    jacobians = np.tile(1.1 * np.eye(3), (30, 1, 1))
    jacobians[dead] = 0
    metrics = metrics_of(log_norm_map(jacobians))
    assert metrics["jacobian/decay_rate"] == pytest.approx(np.log(1.1))
    assert metrics["jacobian/horizon"] == np.inf
    assert metrics["jacobian/log_norm/lag_4"] == pytest.approx(4 * np.log(1.1))
    crossing = sum(any(k <= step < t for step in dead) for t in range(31) for k in range(t))
    assert metrics["jacobian/zero_share"] == pytest.approx(crossing / 465)
    assert decay.verdict_of(metrics, 30) == "exploding"
    assert f"{crossing / 465:.1%} of the pairs are exactly zero" in sentences.verdict_sentence(
        metrics, 30
    )


def test_where_most_gradients_are_zero_the_sentence_says_so() -> None:
    jacobians = np.tile(2.0 * np.eye(3), (40, 1, 1))
    jacobians[::4] = 0
    metrics = metrics_of(log_norm_map(jacobians))
    assert metrics["jacobian/zero_share"] > 0.9
    sentence = sentences.verdict_sentence(metrics, 40)
    assert sentence.startswith("exploding: the log norm changes by +0.3010 decades a step")
    assert f"{metrics['jacobian/zero_share']:.1%} of the pairs are exactly zero" in sentence


def test_a_network_without_any_gradient_vanishes_at_once() -> None:
    metrics = metrics_of(log_norm_map(np.zeros((8, 3, 3))))
    assert metrics["jacobian/decay_rate"] == -np.inf
    assert metrics["jacobian/horizon"] == 1
    sentence = sentences.verdict_sentence(metrics, 8)
    assert sentence == "vanishing: the gradient is exactly zero at every lag"


def test_what_was_not_measured_has_no_verdict() -> None:
    for maps in (np.full((2, 5, 5), np.nan), np.where(np.eye(5) > 0, 0.0, np.nan)):
        metrics = metrics_of(maps)
        assert np.isnan(metrics["jacobian/decay_rate"])
        assert np.isnan(metrics["jacobian/zero_share"])
        assert decay.verdict_of(metrics, 4) == "unmeasured"
        assert sentences.verdict_sentence(metrics, 4) == "unmeasured: no lag was measured"
    overflowed = geometric_map(1.0, 4)
    overflowed[4, 0] = np.inf
    assert np.isnan(decay.decay_rate(decay.lag_profile(overflowed)))


def test_horizons_lie_between_the_lags_that_were_measured() -> None:
    assert decay.horizon(np.array([0.0, np.nan, -0.5, np.nan, np.nan, -1.25])) == pytest.approx(4)
    assert decay.horizon(np.array([0.0, -0.5, np.nan, -np.inf])) == 3
    assert decay.horizon(np.array([0.0, -0.5, np.nan, np.nan])) == np.inf


# Maps as they come: plain, of JAX, labelled


def every_other(rate: float, length: int, stride: int, samples: int = 2) -> xr.DataArray:
    steps = np.arange(0, length + 1, stride)
    maps = np.stack([geometric_map(rate, length)[::stride, ::stride]] * samples)
    return xr.DataArray(maps, dims=("sample", "t", "k"), coords={"t": steps, "k": steps})


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, xr.DataArray, list])
def test_a_map_is_summarised_whatever_holds_it(kind: type) -> None:
    found = gradlab.summary(kind(geometric_map(-0.25, 40)))
    assert found["decay_rate"] == pytest.approx(-0.25)
    assert found["horizon"] == pytest.approx(4)
    assert found["zero_share"] == 0
    assert [found[f"log_norm/lag_{lag}"] for lag in (1, 8, 32)] == pytest.approx([-0.25, -2, -8])
    assert found["verdict"] == "vanishing"


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_a_labelled_map_counts_in_steps(stride: int) -> None:
    maps = every_other(-0.125, 40, stride)
    profile = gradlab.lag_profile(maps)
    assert profile["lag"].to_numpy().tolist() == list(range(0, 41, stride))
    for measured in (maps, profile, maps.transpose("k", "t", "sample")):
        assert gradlab.decay_rate(measured) == pytest.approx(-0.125)
        assert gradlab.horizon(measured) == pytest.approx(8)
        assert gradlab.verdict(measured) == "vanishing"
    assert gradlab.summary(maps)[f"log_norm/lag_{2 * stride}"] == pytest.approx(-0.25 * stride)


@given(maps=MAPS, stride=st.integers(1, 3))
def test_the_summary_is_what_a_run_logs(maps: np.ndarray, stride: int) -> None:
    steps = stride * np.arange(5)
    labelled = xr.DataArray(maps, dims=("sample", "t", "k"), coords={"t": steps, "k": steps})
    found, logged = gradlab.summary(labelled), map_metrics(maps, stride=stride)
    verdict = found.pop("verdict")
    np.testing.assert_equal({f"jacobian/{name}": x for name, x in found.items()}, logged)
    assert verdict == decay.verdict_of(logged, 4 * stride)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (np.zeros((3, 4)), r"\(3, 4\)"),
        (causal(np.zeros((3, 3))).T, "have changed places"),
        (np.exp(causal(np.zeros((3, 3)))), "norms instead of their logs"),
        (causal(np.zeros((3, 3))) + 0j, "complex"),
        (every_other(-1, 4, 1).isel(t=slice(2, 4), k=slice(0, 2)), "same steps, evenly spaced"),
        (every_other(-1, 4, 1).isel(t=[0, 1, 3], k=[0, 1, 3]), "same steps, evenly spaced"),
        (every_other(-1, 4, 1).isel(t=[2, 1, 0], k=[2, 1, 0]), "same steps, evenly spaced"),
        (np.zeros(4), r"\(4,\)"),
        (xr.Dataset({"jacobian_log_norm": every_other(-1, 4, 1)}), "one variable of"),
        (every_other(-1, 4, 1).expand_dims(step=[0, 5]), "2 training steps: choose one"),
    ],
)
def test_what_is_no_map_is_refused(wrong: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        gradlab.summary(wrong)  # type: ignore[arg-type]


def test_a_rate_without_a_length_has_no_verdict() -> None:
    with pytest.raises(ValueError, match=r"verdict\(-0.1, 50\)"):
        gradlab.verdict(-0.1)


@pytest.mark.parametrize("length", [0, -3, np.nan])
def test_a_length_that_is_none_is_refused(length: float) -> None:
    with pytest.raises(ValueError, match="a number of steps above 0"):
        gradlab.verdict(-0.1, length)  # type: ignore[arg-type]
