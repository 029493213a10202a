"""Lyapunov exponents agree with closed forms and with a loop of NumPy's QR."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import (
    jacobian_log_norms,
    log_singular_values,
    lyapunov_exponents,
    lyapunov_spectrum,
)
from gradlab.jacobian import step_jacobians
from gradlab.jacobian.steps import random_frame

N, FEATURES = 6, 3


def make_inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(*shape, FEATURES)).astype(np.float32)


def linear(matrix: np.ndarray) -> Any:
    constant = jnp.asarray(matrix, jnp.float32)
    return lambda h, x: (constant @ h, h)


def test_exponents_of_a_symmetric_recurrence_are_the_logs_of_its_eigenvalues() -> None:
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(N, N)))[0]
    eigenvalues = np.array([2.0, 1.5, 1.0, -0.7, 0.4, 0.1])
    step = linear(rotation * eigenvalues @ rotation.T)
    exponents = lyapunov_exponents(step, make_inputs(2000), initial_carry=jnp.zeros(N))
    np.testing.assert_allclose(exponents, np.log(np.abs(eigenvalues)), atol=5e-3)


def test_exponents_of_an_lstm_agree_with_numpy() -> None:
    cell, inputs = nnx.OptimizedLSTMCell(FEATURES, N, rngs=nnx.Rngs(0)), make_inputs(50)
    jacobians = np.asarray(step_jacobians(cell, inputs), np.float64)
    key = jax.random.key(0)
    with jax.enable_x64(True):  # the engine's frame: 50 steps do not forget it
        frame = np.linalg.qr(np.asarray(jax.random.normal(key, (2 * N, 2 * N), jnp.float64)))[0]
    growth = np.zeros(2 * N)
    for jacobian in jacobians:
        frame, triangle = np.linalg.qr(jacobian @ frame)
        growth += np.log(np.abs(np.diagonal(triangle)))
    exponents = lyapunov_exponents(cell, inputs)
    np.testing.assert_allclose(exponents, np.sort(growth / 50)[::-1], rtol=1e-4)
    determinants = np.linalg.slogdet(jacobians).logabsdet
    assert float(exponents.sum()) == pytest.approx(determinants.mean(), rel=1e-4)


def test_the_largest_exponent_is_the_slope_of_the_spectral_norm() -> None:
    kernel = jax.nn.initializers.normal(1.5 / np.sqrt(N))
    cell = nnx.SimpleCell(FEATURES, N, recurrent_kernel_init=kernel, rngs=nnx.Rngs(2))
    inputs = make_inputs(2000)
    (largest,) = lyapunov_exponents(cell, inputs, count=1)
    whole = float(jacobian_log_norms(cell, inputs, stride=500)[-1, 0]) / 2000
    assert float(largest) == pytest.approx(whole, abs=2e-3)  # which differs by O(1/T)


def test_a_batch_has_the_exponents_of_its_samples_and_count_limits_them() -> None:
    cell, inputs = nnx.GRUCell(FEATURES, N, rngs=nnx.Rngs(0)), make_inputs(2, 50)
    spectra = lyapunov_exponents(cell, inputs)
    assert spectra.shape == (2, N)
    for sample, exponents in zip(inputs, spectra, strict=True):
        np.testing.assert_allclose(exponents, lyapunov_exponents(cell, sample), atol=1e-5)
    assert lyapunov_exponents(cell, inputs, count=2).shape == (2, 2)


def test_the_frame_is_the_same_whatever_random_numbers_the_user_chose() -> None:
    cell, inputs = nnx.GRUCell(FEATURES, N, rngs=nnx.Rngs(0)), make_inputs(3)
    exponents = lyapunov_exponents(cell, inputs)
    jax.clear_caches()
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(lyapunov_exponents(cell, inputs), exponents)


@pytest.mark.parametrize("count", [0, N + 1])
def test_count_beyond_the_size_of_the_carry_is_refused(count: int) -> None:
    cell = nnx.GRUCell(FEATURES, N, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=f"count must be a whole number from 1 to the size of the carry, {N}"
    ):
        lyapunov_exponents(cell, make_inputs(5), count=count)


def test_lengths_cut_each_sample_whatever_follows() -> None:
    """The errors are those of a mean over ten intervals, of NumPy's QR of the steps before T."""
    lengths = np.array([1, 2, 2, 2, 2, 7, 23, 40])
    inputs = np.random.default_rng(0).normal(size=(8, 40, 4)).astype(np.float32)
    orders = []
    spectrum = lyapunov_spectrum(
        lambda h, x: (x.reshape(2, 2) @ h, h),
        inputs,
        initial_carry=jnp.zeros(2),
        lengths=jnp.asarray(lengths),
    )
    for sample, length in enumerate(lengths):
        frame, logs = np.asarray(random_frame(2, 2)), np.zeros((length, 2))
        for t in range(length):
            frame, triangle = np.linalg.qr(inputs[sample, t].reshape(2, 2) @ frame)
            logs[t] = np.log(np.abs(np.diagonal(triangle)))
        order = np.argsort(-logs.mean(axis=0))
        orders.append(tuple(order))
        blocks = min(10, length)
        interval = np.arange(length) * blocks // length
        means = np.array([logs[interval == i].mean(axis=0) for i in range(blocks)])
        with np.errstate(all="ignore"):
            error = np.sqrt(((means - means.mean(0)) ** 2).sum(0) / (blocks - 1) / blocks)
        np.testing.assert_allclose(spectrum.exponents[sample], logs.mean(0)[order], atol=1e-5)
        np.testing.assert_allclose(spectrum.standard_error[sample], error[order], rtol=1e-4)
    assert set(orders[1:]) == {(0, 1), (1, 0)}  # of two steps, QR finds them in either order


@pytest.mark.parametrize("lengths", [[0, 5], [5, 6], [5], [[5, 5]], 5])
def test_lengths_that_do_not_fit_are_refused(lengths: Any) -> None:
    cell = nnx.GRUCell(FEATURES, N, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match="lengths must be one whole number from 1 to 5 for each sample"
    ):
        lyapunov_exponents(cell, make_inputs(2, 5), lengths=jnp.asarray(lengths))


def test_the_exponent_of_a_constant_gain_has_a_derivative() -> None:
    """Its standard error is 0, where a root has no derivative."""

    def exponent(gain: jax.Array) -> jax.Array:
        step = lambda h, x: (gain * h, h)  # noqa: E731
        return lyapunov_exponents(step, make_inputs(5), initial_carry=jnp.zeros(1))[0]

    assert jax.grad(exponent)(jnp.array(0.5)) == pytest.approx(2)


def test_what_rounding_took_is_no_number() -> None:
    """Directions that a step maps to zero by cancellation, or by units that are off."""
    singular = [[1, 2, 0], [2, 4, 0], [0, 0, 1]]  # singular values 5, 1 and 0
    switched_off = [[0, 0, 0], [0.33, 0.77, 0.21], [0, 0, 0]]
    graded = np.diag([1, 1e-9, 1e-20])  # small, but of one term
    in_float32 = np.diag([0, 0, 1.0])  # of rank 2, but for the rounding of its entries
    in_float32[:2, :2] = np.outer([0.3, 0.7], [0.9, 0.4]).astype(np.float32)
    slope = 0.3 * 0.9 + 0.7 * 0.4  # its trace: the projection on (0.3, 0.7) has no other growth
    inputs, start = np.zeros((200, 1), np.float32), jnp.zeros(3)
    for matrix, known in (
        (singular, [5, 1]),
        (in_float32, [1, slope]),
        (switched_off, [0.77]),
        (graded, np.diag(graded)),
    ):
        weights = np.array(matrix, np.float32)
        step = lambda h, x, w=weights: (w @ h, x)  # noqa: E731
        exponents = np.asarray(lyapunov_exponents(step, inputs, initial_carry=start))
        np.testing.assert_allclose(exponents[: len(known)], np.log(known), rtol=0.03, atol=0.03)
        assert not np.isfinite(exponents[len(known) :]).any()
        values = np.asarray(log_singular_values(step, inputs, [(1, 0)], initial_carry=start)[0])
        known = np.linalg.svd(weights.astype(float), compute_uv=False)[: len(known)]
        np.testing.assert_allclose(values[: len(known)], np.log(known), rtol=1e-6, atol=1e-6)
        assert not np.isfinite(values[len(known) :]).any()
