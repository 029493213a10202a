"""Newton's method on a whole trajectory, and products by a scan, agree with loops in NumPy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import (
    jacobian_log_norms,
    lyapunov_spectrum,
    parallel_evaluation,
    parallel_exponent,
)
from gradlab.jacobian.prefixes import prefix_products

T, N, FEATURES = 20, 3, 2
RNG = np.random.default_rng(0)
W, B = RNG.normal(size=(N, N)).astype(np.float32), RNG.normal(size=(N, FEATURES))
INPUTS = RNG.normal(size=(T, FEATURES)).astype(np.float32)
START = jnp.zeros(N)


def tanh_layer(w: np.ndarray, b: np.ndarray) -> Any:
    w_hh, w_xh = jnp.asarray(w, jnp.float32), jnp.asarray(b, jnp.float32)

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(w_hh @ h + w_xh @ x)
        return h, h

    return step


def gaussian_layer(gain: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    w = gain / np.sqrt(n) * rng.normal(size=(n, n))
    return w.astype(np.float32), 0.3 * rng.normal(size=(n, FEATURES)).astype(np.float32)


def run(w: np.ndarray, b: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Return the states of a tanh layer, step by step in float64."""
    h, states = np.zeros(len(w)), []
    for drive in inputs.astype(np.float64) @ b.astype(np.float32).astype(np.float64).T:
        h = np.tanh(w.astype(np.float64) @ h + drive)
        states.append(h)
    return np.array(states)


def newton(
    f: Callable[[int, np.ndarray], np.ndarray],
    jacobian: Callable[[int, np.ndarray], np.ndarray],
    start: np.ndarray,
) -> tuple[list[float], np.ndarray]:
    """Return the residual after each Newton step, with one dense linear system for all times."""
    n = len(start)
    states, residuals = np.tile(start, (T, 1)), []
    while True:
        before = np.vstack([start, states[:-1]])
        residual = states - [f(t, h) for t, h in enumerate(before)]
        residuals.append(np.abs(residual).max())
        if residuals[-1] <= 1e-10:
            return residuals, states
        matrix = np.eye(T * n)
        for t in range(1, T):
            matrix[t * n : (t + 1) * n, (t - 1) * n : t * n] = -jacobian(t, before[t])
        states = states - np.linalg.solve(matrix, residual.ravel()).reshape(T, n)


def test_newton_steps_are_those_of_a_dense_linear_system() -> None:
    w, drive = W.astype(float), INPUTS.astype(float) @ B.astype(np.float32).astype(float).T

    def f(t: int, h: np.ndarray) -> np.ndarray:
        return np.tanh(w @ h + drive[t])

    def jacobian(t: int, h: np.ndarray) -> np.ndarray:
        return (1 - f(t, h) ** 2)[:, None] * w

    residuals, states = newton(f, jacobian, np.zeros(N))
    found = parallel_evaluation(tanh_layer(W, B), INPUTS, initial_carry=START)
    assert found.converged
    assert int(found.steps) == len(residuals) - 1 > 3
    measured = np.asarray(found.residuals)
    np.testing.assert_allclose(measured[: len(residuals)], residuals, rtol=1e-4, atol=1e-11)
    assert np.isnan(measured[len(residuals) :]).all()
    np.testing.assert_allclose(found.states, states, atol=1e-10)
    np.testing.assert_allclose(found.states, run(W, B, INPUTS), atol=1e-10)


def test_conditioning_is_bounded_by_the_products_of_the_trajectory() -> None:
    states = run(W, B, INPUTS)
    inverse = np.zeros((T * N, T * N))
    jacobians = (1 - states**2)[:, :, None] * W
    for k in range(T):
        product = np.eye(N)
        for t in range(k, T):
            product = jacobians[t] @ product if t > k else product
            inverse[t * N : (t + 1) * N, k * N : (k + 1) * N] = product
    exact = -np.log(np.linalg.norm(inverse, 2))
    rows = [inverse[t * N : (t + 1) * N] for t in range(T)]
    squares = [(np.linalg.norm(r @ r.T) ** 2, np.linalg.norm(r) ** 2) for r in rows]
    found = parallel_evaluation(tanh_layer(W, B), INPUTS, initial_carry=START)
    lower, upper, from_exponent = map(float, found.conditioning)
    assert lower < exact < upper < 0
    assert lower == pytest.approx(-np.log(np.linalg.norm(inverse)), abs=1e-5)
    assert upper == pytest.approx(-0.5 * np.log(max(a / b for a, b in squares)), abs=1e-5)
    rate = float(found.exponent)
    ratio = (np.exp(rate) - 1) / (np.exp(rate * T) - 1)
    assert from_exponent == pytest.approx(np.log(ratio), abs=1e-4)


@pytest.mark.parametrize("rate", [-1.0, 0.0, 2.0])
def test_a_linear_network_takes_one_step_whatever_it_amplifies(rate: float) -> None:
    matrix = (np.exp(rate) * np.linalg.qr(W)[0]).astype(np.float32)
    inputs = np.tile(matrix.ravel(), (T, 1))
    found = parallel_evaluation(
        lambda h, x: (x.reshape(N, N) @ h + 1, h), inputs, initial_carry=START
    )
    h, states = np.zeros(N), []
    for _ in range(T):
        h = matrix.astype(float) @ h + 1
        states.append(h)
    assert found.converged
    assert found.steps == 1
    np.testing.assert_allclose(found.states, states, rtol=1e-10, atol=1e-10 * np.abs(h).max())
    assert float(found.exponent) == pytest.approx(rate, abs=1e-6)


def test_an_amplifying_network_is_never_said_to_have_converged_to_a_wrong_trajectory() -> None:
    """Past λ₁ T ≈ 36 two runs in float64 share nothing; a small residual shows nothing there."""
    inputs = np.random.default_rng(2).normal(size=(200, FEATURES)).astype(np.float32)
    steps = {}
    for gain in (0.5, 2.0, 4.0):
        w, b = gaussian_layer(gain, 32)
        found = parallel_evaluation(tanh_layer(w, b), inputs, initial_carry=jnp.zeros(32))
        steps[gain] = int(found.steps)
        distance = np.abs(np.asarray(found.states) - run(w, b, inputs)).max()
        if found.converged:
            assert distance < 1e-5
            assert found.error < 1e-6
        assert steps[gain] <= 200
        if gain == 0.5:
            assert distance < 1e-10
    assert found.exponent > 0.2
    assert not found.converged
    assert np.nanmin(found.residuals) <= 1e-10
    assert distance > 0.1
    assert steps[0.5] < 8
    assert steps[2.0] > 5 * steps[0.5]
    assert steps[4.0] == 200


def test_guesses_that_overflow_start_again() -> None:
    """The logistic map leaves [0, 1] for ever where a guess does."""
    rate, start, steps = 3.9, 0.3, 40
    plain = np.full(steps, start)
    with np.errstate(all="ignore"):
        for _ in range(6):
            before, change = np.append(start, plain[:-1]), 0.0
            for t, h in enumerate(before):
                change = rate * (1 - 2 * h) * change + rate * h * (1 - h) - plain[t]
                plain[t] += change
    assert not np.isfinite(plain).all()

    def logistic(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return rate * h * (1 - h), h

    inputs, options = np.zeros((steps, 1)), {"initial_carry": jnp.array([start])}
    found = parallel_evaluation(logistic, inputs, **options)
    h, states = float(np.float32(start)), []
    for _ in range(steps):
        h = rate * h * (1 - h)
        states.append([h])
    assert found.converged
    assert 6 < found.steps <= steps
    np.testing.assert_allclose(found.states, states, atol=1e-5)
    early = parallel_evaluation(logistic, inputs, most=6, **options)
    assert (bool(early.converged), int(early.steps)) == (False, 6)
    assert early.residuals.shape == (7,)
    assert np.isfinite(early.states).all()
    np.testing.assert_array_equal(early.residuals, found.residuals[:7])


def test_samples_are_evaluated_up_to_their_own_end() -> None:
    cell = nnx.OptimizedLSTMCell(FEATURES, N, rngs=nnx.Rngs(0))
    inputs = np.stack([INPUTS, 2 * INPUTS])
    lengths = np.array([T, 7])
    inputs[1, 7:] = np.nan
    carry = tuple(np.random.default_rng(3).normal(size=(2, 2, N)).astype(np.float32))
    found = parallel_evaluation(cell, inputs, initial_carry=carry, lengths=lengths)
    scanned = parallel_exponent(cell, inputs, initial_carry=carry, lengths=lengths)
    spectrum = lyapunov_spectrum(cell, inputs, initial_carry=carry, count=1, lengths=lengths)
    for sample, length in enumerate(lengths):
        state, states = tuple(part[sample] for part in carry), []
        for x in inputs[sample, :length]:
            state, _ = cell(state, x)
            states.append(np.concatenate(state))
        assert found.converged[sample]
        assert found.steps[sample] < 6
        np.testing.assert_allclose(found.states[sample, :length], states, atol=1e-6)
        assert np.isnan(found.states[sample, length:]).all()
        alone = jacobian_log_norms(
            cell,
            inputs[sample, :length],
            initial_carry=tuple(part[sample] for part in carry),
            norm="frobenius",
        )
        np.testing.assert_allclose(scanned.log_norms[sample, :length], alone[1:, 0], atol=1e-5)
        assert np.isnan(scanned.log_norms[sample, length:]).all()
    np.testing.assert_allclose(scanned.exponent, spectrum.exponents[:, 0], atol=1e-6)
    np.testing.assert_allclose(found.exponent, spectrum.exponents[:, 0], atol=1e-6)
    with pytest.raises(FloatingPointError, match=r"the input is not finite at step 8 \(sample 1\)"):
        parallel_evaluation(cell, inputs, initial_carry=carry)


def test_complex_states_and_counts_are_carried() -> None:
    eigenvalues = jnp.array([0.9j, 0.5 - 0.5j], jnp.complex64)

    def step(carry: Any, x: jax.Array) -> Any:
        count, z = carry
        z = eigenvalues * z / (1 + jnp.abs(z) ** 2) + x * jnp.where(count % 2, 1, 1j)
        return (count + 1, z), z

    start = (jnp.array(0), jnp.zeros(2, jnp.complex64))
    found = parallel_evaluation(step, INPUTS, initial_carry=start)
    z, states = np.zeros(2, complex), []
    for t, x in enumerate(INPUTS.astype(float)):
        z = np.asarray(eigenvalues, complex) * z / (1 + np.abs(z) ** 2) + x * (1 if t % 2 else 1j)
        states.append(np.concatenate([z.real, z.imag]))
    assert found.converged
    np.testing.assert_allclose(found.states, states, atol=1e-10)
    scanned = parallel_exponent(step, INPUTS, initial_carry=start)
    norms = jacobian_log_norms(step, INPUTS, initial_carry=start, norm="frobenius")
    np.testing.assert_allclose(scanned.log_norms, norms[1:, 0], atol=1e-5)


@pytest.mark.parametrize("rate", [-100.0, 100.0])
def test_products_beyond_any_float_are_exact(rate: float) -> None:
    """Of norms e^±2000."""
    jacobians = np.exp(rate) * np.random.default_rng(4).normal(size=(T, N, N))
    log_norm, unit, expected = 0.0, np.eye(N), []
    for jacobian in jacobians:
        unit = jacobian @ unit
        size = np.linalg.norm(unit)
        log_norm, unit = log_norm + np.log(size), unit / size
        expected.append(log_norm)
    with jax.enable_x64(True):
        products, resolved = jax.jit(prefix_products)(jnp.asarray(jacobians))
    assert np.asarray(resolved).all()
    assert abs(expected[-1]) > 1900
    np.testing.assert_allclose(products.log_scale, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(products.unit[-1], unit, atol=1e-10)


def test_products_that_rounding_took_are_no_numbers() -> None:
    along, across = np.array([0.3, 0.7, 0]), np.array([0.7, -0.3, 0])
    cancelling = np.outer(along, across)  # its square is zero, but for rounding
    zero = np.eye(N, k=1)  # its cube is exactly zero
    found = {
        name: parallel_exponent(
            lambda h, x: (x.reshape(N, N) @ h, h),
            np.tile(matrix.ravel().astype(np.float32), (T, 1)),
            initial_carry=START,
        )
        for name, matrix in {"cancelling": cancelling, "zero": zero}.items()
    }
    assert np.isfinite(found["cancelling"].log_norms[0])
    assert np.isnan(found["cancelling"].log_norms[1:]).all()
    assert np.isnan(found["cancelling"].exponent)
    assert np.isneginf(found["zero"].log_norms[2:]).all()
    assert np.isneginf(found["zero"].exponent)


def test_jit_and_vmap_change_nothing() -> None:
    def measure(x: jax.Array) -> tuple[jax.Array, ...]:
        found = parallel_evaluation(tanh_layer(W, B), x, initial_carry=START)
        return found.steps, found.converged, found.states, found.residuals

    batch = jnp.stack([INPUTS, -INPUTS / 2])
    alone = [measure(x) for x in batch]
    together = jax.jit(jax.vmap(measure))(batch)
    for i, expected in enumerate(alone):
        for one, other in zip(together, expected, strict=True):
            np.testing.assert_allclose(one[i], other, atol=1e-10)


def spiking(carry: Any, x: jax.Array) -> Any:
    h, spikes = carry
    h = jnp.tanh(h + x.sum()) * jnp.where(spikes > 0, 0.0, 1.0)
    return (h, (h > 0.5).astype(int)), h


def test_what_cannot_be_evaluated_in_parallel_is_refused() -> None:
    layer = tanh_layer(W, B)
    with pytest.raises(ValueError, match="computes integers, booleans or state of its own from"):
        parallel_evaluation(spiking, INPUTS, initial_carry=(START, jnp.zeros(N, int)))
    with pytest.raises(ValueError, match="random numbers are drawn anew"):
        parallel_evaluation(
            lambda h, x: (jnp.tanh(h + jax.random.normal(jax.random.key(0), (N,))), h),
            INPUTS,
            initial_carry=START,
        )
    for most in (0, T + 1, 2.5):
        with pytest.raises(ValueError, match=f"most must be a whole number from 1 to .* {T}; got"):
            parallel_evaluation(layer, INPUTS, initial_carry=START, most=most)  # type: ignore[arg-type]
    for measure in (parallel_evaluation, parallel_exponent):
        with pytest.raises(ValueError, match="a scan over 20 steps of a state of 3 numbers takes"):
            measure(layer, INPUTS, initial_carry=START, memory_budget=1000)
    with pytest.raises(ValueError, match="tolerance must be a number of at least 0"):
        parallel_evaluation(layer, INPUTS, initial_carry=START, tolerance=-1)
