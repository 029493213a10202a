"""Sequences of different lengths in one batch: what follows an end is absent and moves nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import (
    adjoint_log_norms,
    backpropagate,
    contribution_log_norms,
    jacobian_log_norms,
    lyapunov_spectrum,
)
from gradlab.jacobian.certify import _within, sample_pairs
from gradlab.jacobian.lengths import absent, without_padding

HIDDEN, FEATURES, STEPS = 4, 2, 12
LENGTHS = np.array([STEPS, 5, 1])
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(3, STEPS, FEATURES)).astype(np.float32)
TARGETS = RNG.normal(size=(3, STEPS, HIDDEN)).astype(np.float32)
PADDING = np.arange(STEPS) >= LENGTHS[:, None]
CELL = nnx.GRUCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))


def padded(values: np.ndarray, *fill: float) -> np.ndarray:
    """Return values with a number in the padding, or with one of several in turn."""
    values = values.copy()
    values[PADDING] = np.resize(fill, values[PADDING].shape)
    return values


def loss(h: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.sum((h - target) ** 2)


def assert_measured_up_to_its_end(measured: Any, alone: Any, length: int, stride: int = 1) -> None:
    """Compare a map, or a row, with that of the sequence on its own; beyond it is NaN."""
    size = length // stride + 1
    inside = (slice(size),) * np.ndim(measured)
    np.testing.assert_allclose(np.asarray(measured)[inside], alone, atol=1e-5)
    beyond = np.ones(np.shape(measured), bool)
    beyond[inside] = False
    np.testing.assert_array_equal(np.isnan(measured), beyond)


@pytest.mark.parametrize(("norm", "stride"), [("frobenius", 1), ("spectral", 5)])
def test_a_map_is_that_of_each_sequence_on_its_own(norm: Any, stride: int) -> None:
    inputs = padded(INPUTS, np.nan, 1e30, np.inf)
    maps = jacobian_log_norms(CELL, inputs, norm=norm, stride=stride, lengths=LENGTHS)
    whole = np.asarray(jacobian_log_norms(CELL, INPUTS, norm=norm, stride=stride))
    for measured, alone, length in zip(maps, whole, LENGTHS, strict=True):
        size = length // stride + 1
        assert_measured_up_to_its_end(measured, alone[:size, :size], length, stride)


def test_a_network_that_overflows_in_the_padding_is_measured_before() -> None:
    """h⁽ᵗ⁾ = 10^(2^t − 1) is past float32 from t = 6 on, and a second sequence goes on at 0."""

    def square(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return 10 * (h * x[0]) ** 2, h

    inputs = np.zeros((2, STEPS, 1), np.float32)
    inputs[0], start = 1, jnp.ones(HIDDEN)
    options: dict[str, Any] = {"initial_carry": start, "norm": "rms"}
    with pytest.raises(FloatingPointError, match=r"the state is not finite at step 6 \(sample 0\)"):
        jacobian_log_norms(square, inputs, lengths=np.array([7, STEPS]), **options)
    maps = jacobian_log_norms(square, inputs, lengths=np.array([5, STEPS]), **options)
    slopes = np.log(20) + np.log(10) * (2.0 ** np.arange(5) - 1)
    np.testing.assert_allclose(maps[0, 1:6, 0], np.cumsum(slopes), rtol=1e-5)
    assert np.isnan(maps[0, 6:]).all()
    assert np.isneginf(maps[1, 1:, 0]).all()

    scaled = lambda w, h, x: square(w * h, x)  # noqa: E731
    terms = contribution_log_norms(
        scaled, inputs, lambda h, target: h.sum() / 1e30, TARGETS[:2],
        parameters=jnp.ones(()), initial_carry=start, lengths=np.array([5, STEPS]),
    )  # fmt: skip
    assert np.isfinite(terms["weights"][0, 5, 1:6]).all()


def test_a_failure_in_a_sequence_is_reported_and_none_in_the_padding() -> None:
    inputs = padded(INPUTS, np.nan)
    inputs[1, 3] = np.nan
    with pytest.raises(FloatingPointError, match=r"the input is not finite at step 4 \(sample 1\)"):
        jacobian_log_norms(CELL, inputs, norm="frobenius", lengths=LENGTHS)


@pytest.mark.parametrize("each", [False, True])
def test_adjoints_are_those_of_the_losses_up_to_the_end(each: bool) -> None:
    inputs, targets = padded(INPUTS, np.nan), padded(TARGETS, np.inf)
    measured = adjoint_log_norms(CELL, inputs, loss, targets, each=each, lengths=LENGTHS)
    for norms, x, y, length in zip(measured, INPUTS, TARGETS, LENGTHS, strict=True):
        end = STEPS if length == STEPS else 5  # a step has one loss and no way back
        if length == end:
            alone = adjoint_log_norms(CELL, x[:end], loss, y[:end], each=each)
            assert_measured_up_to_its_end(norms, alone, length)
        else:
            direct = np.log(np.linalg.norm(2 * (states(x[:1])[-1] - y[0])))
            assert float(norms[(1, 1) if each else 1]) == pytest.approx(direct, abs=1e-5)


def states(inputs: np.ndarray) -> list[np.ndarray]:
    h, reached = jnp.zeros(HIDDEN), []
    for x in inputs:
        h, _ = CELL(h, x)
        reached.append(np.asarray(h))
    return reached


def test_the_terms_add_up_to_the_gradient_of_the_real_steps() -> None:
    inputs, targets = padded(INPUTS, 1e30), padded(TARGETS, np.nan)
    terms = backpropagate(CELL, inputs, loss, targets, lengths=LENGTHS)
    definition, weights = nnx.split(CELL)

    def total(weights: Any) -> jax.Array:
        cell, sums = nnx.merge(definition, weights), 0.0
        for x, y, length in zip(INPUTS, TARGETS, LENGTHS, strict=True):
            h = jnp.zeros(HIDDEN)
            for step in range(length):
                h, _ = cell(h, x[step])
                sums += loss(h, y[step])
        return sums

    gradient = jax.grad(total)(weights)
    by_lag = terms.by_lag["dense_h.kernel"].sum(axis=0) * jnp.exp(terms.log_scale)
    np.testing.assert_allclose(by_lag, gradient["dense_h"]["kernel"][...], rtol=1e-3, atol=1e-4)
    for norms, length in zip(terms.log_norms["dense_h.kernel"], LENGTHS, strict=True):
        times = np.arange(STEPS + 1)
        beyond = (times[:, None] > length) | (times > length)
        np.testing.assert_array_equal(np.isnan(norms), beyond)
        assert np.isfinite(np.diagonal(norms)[2 : length + 1]).all()  # h⁽⁰⁾ = 0 stops step 1


def test_a_certificate_is_of_the_steps_that_there_are() -> None:
    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.stack([jnp.tanh(x[0] + h[0]), jax.nn.relu(h[1] - 1), h[2], h[3]]), h

    inputs = np.zeros((3, STEPS, FEATURES), np.float32)
    inputs[:, 7] = 20  # in the first sequence, tanh loses its derivative in step 8
    maps, certificate = jacobian_log_norms(
        step,
        padded(inputs, np.nan),
        initial_carry=jnp.zeros(HIDDEN),
        norm="frobenius",
        lengths=LENGTHS,
        certify=True,
    )
    t, k = np.indices((STEPS + 1, STEPS + 1))
    np.testing.assert_array_equal(certificate.unresolved[0], (t >= 8) & (k < 8))
    assert not certificate.unresolved[1:].any()
    assert (certificate.pairs.max(axis=(1, 2)) == LENGTHS).all()
    assert (certificate.largest_error < 1e-6).all()
    assert (certificate.difference_error < 1e-5).all()
    for errors, norms in zip(certificate.precision_error, maps, strict=True):
        np.testing.assert_array_equal(np.isnan(errors), np.isnan(norms) | (t < k))


def test_pairs_of_a_shorter_sequence_have_every_scale_of_its_lags() -> None:
    for length, stride in ((100, 1), (60, 7), (9, 1), (2, 1)):
        pairs = sample_pairs(100, stride)
        with jax.enable_x64(True):
            t, k = np.asarray(_within(pairs, 100 // stride, jnp.array(length), stride)).T
        assert (k >= 0).all()
        assert (t <= length // stride).all()
        assert {1, min(2, length // stride), length // stride} <= set(t - k)
        if length == 100:
            np.testing.assert_array_equal(np.stack([t, k], axis=1), pairs)


def test_one_sequence_traced_and_the_exponents_take_lengths_too() -> None:
    alone = np.asarray(jacobian_log_norms(CELL, INPUTS[1], norm="frobenius"))[:6, :6]
    options: dict[str, Any] = {"norm": "frobenius"}
    inputs = padded(INPUTS, np.nan)
    assert_measured_up_to_its_end(
        jacobian_log_norms(CELL, inputs[1], lengths=5, **options), alone, 5
    )
    traced = jax.vmap(lambda x, length: jacobian_log_norms(CELL, x, lengths=length, **options))
    assert_measured_up_to_its_end(traced(inputs, LENGTHS)[1], alone, 5)
    spectrum = lyapunov_spectrum(CELL, padded(INPUTS, 0.0), lengths=LENGTHS)
    assert np.isfinite(spectrum.exponents).all()


@pytest.mark.parametrize("lengths", [[12, 5], [12, 5, 0], [12, 5, 13], [12.0, 5.0, 1.0], 5])
def test_lengths_that_do_not_fit_are_refused(lengths: Any) -> None:
    with pytest.raises(ValueError, match="lengths must be one whole number from 1 to 12 for each"):
        jacobian_log_norms(CELL, INPUTS, lengths=lengths)
    with pytest.raises(ValueError, match="lengths must be one whole number from 1 to 12 for each"):
        adjoint_log_norms(CELL, INPUTS, loss, TARGETS, lengths=lengths)


def test_a_row_in_strides_is_absent_past_the_end() -> None:
    masked = np.asarray(absent(jnp.zeros((2, 4, 4)), jnp.array([9, 8]), stride=3))
    np.testing.assert_array_equal(np.isnan(masked[0]).any(axis=1), [False] * 4)
    np.testing.assert_array_equal(np.isnan(masked[1, :, 0]), [False, False, False, True])
    np.testing.assert_array_equal(np.isnan(masked[1]), np.isnan(masked[1]).T)
    tokens = without_padding(jnp.arange(8).reshape(2, 4), jnp.array([4, 2]))
    np.testing.assert_array_equal(tokens, [[0, 1, 2, 3], [4, 5, 5, 5]])
