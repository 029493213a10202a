"""Norms from random vectors, and few singular values and exponents, take no step Jacobians."""

import math
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
)
from gradlab.jacobian import step_jacobians
from gradlab.jacobian.directions import directions_of
from gradlab.jacobian.flat_cell import flatten_cell
from gradlab.jacobian.steps import random_frame

N, LENGTH = 20, 12
LOWER = np.tril(np.ones((LENGTH + 1, LENGTH + 1), bool), -1)


def make_inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)


def linear(matrix: np.ndarray) -> Any:
    constant = jnp.asarray(matrix, jnp.float32)
    return lambda h, x: (constant @ h, h)


def measure(cell: Any, inputs: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    options = {"norm": "rms", "method": "sampled"} | options
    log_norms, errors = jacobian_log_norms(cell, inputs, **options)
    assert log_norms.dtype == errors.dtype == np.float32
    return np.asarray(log_norms), np.asarray(errors)


def symmetric(rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    rotation = np.linalg.qr(rng.normal(size=(N, N)))[0]
    eigenvalues = np.linspace(0.5, 1.1, N)
    square = lambda lag: np.sum(eigenvalues ** (2.0 * lag))  # noqa: E731
    return rotation * eigenvalues @ rotation.T, square


def jordan(rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    def square(lag: int) -> float:
        terms = [(N - j) * (math.comb(lag, j) * 0.8 ** (lag - j)) ** 2 for j in range(N)]
        return sum(x for j, x in enumerate(terms) if j <= lag)

    return 0.8 * np.eye(N) + np.eye(N, k=1), square


@pytest.mark.parametrize("kind", [symmetric, jordan])
def test_squares_are_unbiased_and_errors_cover(kind: Any) -> None:
    """Every start draws vectors of its own: entries of one lag are independent estimates."""
    matrix, square = kind(np.random.default_rng(1))
    log_norms, errors = measure(
        linear(matrix), make_inputs(400), initial_carry=jnp.zeros(N), norm="frobenius", vectors=8
    )
    np.testing.assert_allclose(np.diagonal(log_norms), 0.5 * np.log(N), rtol=1e-6)
    for lag in (1, 6, 60):
        deviation = np.diagonal(log_norms, -lag).astype(float) - 0.5 * np.log(square(lag))
        error, ratio = np.diagonal(errors, -lag), np.exp(2 * deviation)
        assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(len(ratio))
        assert error.mean() == pytest.approx(deviation.std(), rel=0.15)
        within = [np.mean(np.abs(deviation) < times * error) for times in (1, 2)]
        assert 0.60 < within[0] < 0.77  # 68 and 95 % of 340, by four standard errors
        assert within[1] > 0.90


def test_a_product_of_rank_one_has_the_error_of_a_chi_squared_mean() -> None:
    """The log of a mean of 8 squares has the variance ψ'(4) = 1/4 + 1/32 + …, as a Gamma's."""
    u, error = np.random.default_rng(0).normal(size=N), np.sqrt(1 / 4 + 1 / 32) / 2
    step = linear(np.outer(u, u) / (u @ u))
    log_norms, errors = measure(step, make_inputs(200), initial_carry=jnp.zeros(N), vectors=8)
    assert np.median(np.diagonal(errors, -3)) == pytest.approx(error, rel=1e-4)
    assert np.diagonal(log_norms, -3).std() == pytest.approx(error, rel=0.2)


CELLS = {
    "rnn": lambda: nnx.SimpleCell(3, N, rngs=nnx.Rngs(0)),
    "lstm": lambda: nnx.OptimizedLSTMCell(3, N, rngs=nnx.Rngs(0)),
}


@pytest.mark.parametrize(
    ("kind", "of", "wrt"), [("rnn", None, None), ("lstm", "h", "c"), ("lstm", None, "h")]
)
def test_sampled_maps_agree_with_exact_ones(kind: str, of: Any, wrt: Any) -> None:
    cell, inputs = CELLS[kind](), make_inputs(2, LENGTH)
    for vectors in (16, 64):  # more than there are columns: each is carried, and all is exact
        log_norms, errors = measure(cell, inputs, of=of, wrt=wrt, vectors=vectors)
        exact = np.asarray(jacobian_log_norms(cell, inputs, norm="rms", of=of, wrt=wrt))
        np.testing.assert_allclose(log_norms[:, ~LOWER], exact[:, ~LOWER], atol=1e-6)
        assert np.all(errors[:, ~LOWER] == 0)
        deviation = log_norms[:, LOWER] - exact[:, LOWER]
        if vectors == 64:
            assert np.abs(deviation).max() < 1e-5
            assert np.all(errors == 0)
        else:
            z = deviation / errors[:, LOWER]
            assert 0.7 < np.sqrt(np.mean(z**2)) < 1.5
            assert np.abs(z).max() < 5


def test_columns_do_not_depend_on_what_is_measured_beside_them() -> None:
    cell, inputs = CELLS["lstm"](), np.stack([make_inputs(LENGTH)] * 2)
    options = {"wrt": "h", "vectors": 4}
    whole = measure(cell, inputs, **options)
    for x in whole:  # equal samples draw vectors of their own
        assert np.all(x[0][LOWER] != x[1][LOWER])
    np.testing.assert_array_equal(measure(cell, inputs, **options), whole)
    few = measure(cell, inputs, **options, starts=[8, 2])
    for x, expected in zip(few, whole, strict=True):
        np.testing.assert_allclose(x[..., [2, 8]], expected[..., [2, 8]], atol=1e-5)
        assert np.isnan(np.delete(x, [2, 8], axis=-1)).all()
    for x, expected in zip(measure(cell, inputs[0], **options, stride=2), whole, strict=True):
        np.testing.assert_allclose(x, expected[0, ::2, ::2], atol=1e-5)
    # A start's rows and their copies take 10 KiB: two starts are carried together.
    for x, expected in zip(
        measure(cell, inputs, **options, memory_budget=30_000), whole, strict=True
    ):
        np.testing.assert_allclose(x, expected, atol=1e-5)
    with pytest.raises(ValueError, match="carrying 4 vectors of 40 numbers through 12 steps takes"):
        measure(cell, inputs, **options, memory_budget=10_000)


@pytest.mark.parametrize("vectors", [16, N])
def test_norms_neither_over_nor_underflow(vectors: int) -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
    for size in (1e-4, 1e4):  # to the power of 100
        log_norms, errors = measure(
            linear(size * rotation), make_inputs(100), initial_carry=jnp.zeros(N), vectors=vectors
        )
        deviation = np.abs(log_norms[100, 0] - 100 * np.log(size))
        assert deviation < 1e-3 if vectors == N else deviation < 4 * errors[100, 0] < 0.5


@pytest.mark.parametrize("vectors", [2, N])
def test_what_is_exactly_zero_has_no_error(vectors: int) -> None:
    step = linear(np.eye(N, k=8))
    for norm in ("rms", "spectral"):
        starts = [0] if norm == "spectral" else None
        log_norms, errors = measure(
            step, make_inputs(5), initial_carry=jnp.zeros(N), vectors=vectors, starts=starts
        )
        np.testing.assert_array_equal(np.isneginf(log_norms[:, 0]), np.arange(6) >= 3)
        assert np.all(errors[3:, 0] == 0)


@pytest.mark.parametrize(("of", "wrt"), [(None, None), ("h", "c")])
def test_spectral_norms_are_bounds_from_below(of: Any, wrt: Any) -> None:
    cell, inputs = CELLS["lstm"](), make_inputs(LENGTH)
    exact = np.asarray(jacobian_log_norms(cell, inputs, of=of, wrt=wrt))
    below, remaining = measure(
        cell, inputs, norm="spectral", of=of, wrt=wrt, vectors=6, starts=[0, 9]
    )
    for k in (0, 9):
        np.testing.assert_array_equal(below[: k + 1, k], exact[: k + 1, k])
        difference = below[k + 1 :, k] - exact[k + 1 :, k]
        assert difference.max() < 1e-5
        assert difference.min() > -0.01
        assert remaining[:, k].max() < 0.01
    all_columns, errors = measure(cell, inputs, norm="spectral", of=of, wrt=wrt, vectors=40)
    np.testing.assert_allclose(all_columns[LOWER], exact[LOWER], atol=1e-5)
    assert np.all(errors == 0)


def test_a_carry_too_wide_for_step_jacobians() -> None:
    """Of 20,000 numbers: a step Jacobian would take 1.5 GiB."""
    n, length = 20_000, 6
    factors = np.linspace(0.1, 0.4, n, dtype=np.float32)
    factors[:2] = 0.9, 0.8
    step, start = lambda h, x: (jnp.asarray(factors) * h, h), jnp.zeros(n)
    inputs = make_inputs(length)
    log_norms, errors = measure(step, inputs, initial_carry=start, vectors=8, starts=[0, 5])
    for k in (0, 5):
        powers = factors.astype(float) ** (2 * (length - k))
        assert abs(log_norms[length, k] - 0.5 * np.log(powers.mean())) < 4 * errors[length, k]
    assert errors[length, 5] < 1e-2 < errors[length, 0]
    values = log_singular_values(step, inputs, [(length, 0)], initial_carry=start, count=2)
    np.testing.assert_allclose(values[0], length * np.log([0.9, 0.8]), atol=1e-3)
    exponents = lyapunov_exponents(step, np.zeros((400, 1)), initial_carry=start, count=2)
    np.testing.assert_allclose(exponents, np.log([0.9, 0.8]), atol=0.03)
    with pytest.raises(ValueError, match="method='sampled', which takes no step Jacobians"):
        jacobian_log_norms(step, inputs, initial_carry=start)


def test_few_singular_values_are_the_largest_of_all() -> None:
    cell, inputs = CELLS["lstm"](), make_inputs(30)
    pairs = [(1, 0), (3, 3), (30, 25), (30, 0)]
    for of, wrt in ((None, None), ("c", None)):
        every = log_singular_values(cell, inputs, pairs, of=of, wrt=wrt)
        few = log_singular_values(cell, inputs, pairs, of=of, wrt=wrt, count=5)
        np.testing.assert_allclose(few, every[:, :5], atol=1e-3)
        many = log_singular_values(cell, inputs, pairs, of=of, wrt=wrt, count=15)
        np.testing.assert_allclose(many, every[:, :15], atol=1e-5)


def test_values_that_sweeps_do_not_settle_are_none() -> None:
    """500 values between 0.86 and 0.9, as close as 0.01 % to each other."""
    factors = jnp.linspace(0.86, 0.9, 500)
    values = log_singular_values(
        lambda h, x: (factors * h, h),
        make_inputs(1),
        [(1, 0)],
        initial_carry=jnp.zeros(500),
        count=1,
    )
    assert np.isnan(values).all()


def test_small_values_of_a_block_keep_their_digits() -> None:
    """(c, h) → (A c + B h, A h), diagonal: ∂c⁽ᵗ⁾/∂h⁽ᵏ⁾ = lag · A^(lag − 1) B, over 40 decades."""
    with jax.enable_x64(True):
        a, b = jnp.linspace(0.9, 0.3, N), jnp.linspace(1.0, 2.0, N)
        step = lambda s, x: ((a * s[0] + b * s[1], a * s[1]), s[1])  # noqa: E731
        values = log_singular_values(
            step,
            np.zeros((100, 1)),
            [(100, 0)],
            initial_carry=(jnp.zeros(N), jnp.zeros(N)),
            of="0",
            wrt="1",
            count=6,
        )
        known = np.log(100) + 99 * np.log(a) + np.log(b)
        np.testing.assert_allclose(values[0], known[:6], atol=1e-4)


def test_few_exponents_are_those_of_numpy() -> None:
    cell, inputs, count = CELLS["lstm"](), make_inputs(40), 5
    frame, growth = np.asarray(random_frame(2 * N, count)), np.zeros(count)
    for jacobian in np.asarray(step_jacobians(cell, inputs), np.float64):
        frame, triangle = np.linalg.qr(jacobian @ frame)
        growth += np.log(np.abs(np.diagonal(triangle)))
    exponents = lyapunov_exponents(cell, np.stack([inputs, inputs]), count=count)
    for found in exponents:
        np.testing.assert_allclose(found, np.sort(growth / 40)[::-1], atol=1e-5)


def test_rounding_is_not_taken_for_an_exponent() -> None:
    """A rank of 1 left after the first step, and a nilpotent one, in float32."""
    rng = np.random.default_rng(0)
    u, v = (x / np.linalg.norm(x) for x in rng.normal(size=(2, N)))
    inputs, start = make_inputs(50), jnp.zeros(N)
    exponents = lyapunov_exponents(linear(np.outer(u, v)), inputs, initial_carry=start, count=3)
    assert float(exponents[0]) == pytest.approx(np.log(abs(u @ v)), abs=0.1)
    assert not np.isfinite(exponents[1:]).any()
    v -= (v @ u) * u
    (growth,) = lyapunov_exponents(linear(np.outer(u, v)), inputs, initial_carry=start, count=1)
    assert not np.isfinite(growth)


def test_pushed_exponents_have_a_derivative() -> None:
    with jax.enable_x64(True):
        cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        inputs = jnp.asarray(make_inputs(6), jnp.float64)
        exponent = lambda x: lyapunov_exponents(cell, x, count=1)[0]  # noqa: E731
        direction = jnp.asarray(np.random.default_rng(1).normal(size=inputs.shape))
        slope = jnp.sum(jax.grad(exponent)(inputs) * direction)
        ends = [exponent(inputs + sign * 1e-3 * direction) for sign in (1, -1)]
        assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / 2e-3, rel=0.02, abs=2e-3)


def spiking(slope: float) -> Any:
    """A cell with a surrogate derivative in reverse mode only."""

    @jax.custom_vjp
    def spike(v: jax.Array) -> jax.Array:
        return jnp.heaviside(v, 0.0)

    spike.defvjp(lambda v: (spike(v), v), lambda v, g: (slope * g / (1 + jnp.abs(v)) ** 2,))
    weights = np.random.default_rng(0).normal(size=(N, N)).astype(np.float32) / 2
    return lambda h, x: (spike(weights @ h + x.sum()), h)


def test_a_derivative_in_reverse_mode_only() -> None:
    inputs, start = make_inputs(5), jnp.zeros(N)
    for slope in (1.0, 3.0):  # of which compiled functions know nothing
        cell = spiking(slope)
        exact = np.asarray(jacobian_log_norms(cell, inputs, initial_carry=start, norm="rms"))
        log_norms, _ = measure(cell, inputs, initial_carry=start, vectors=N)
        np.testing.assert_allclose(log_norms, exact, atol=1e-5)
        sizes = log_singular_values(cell, inputs, [(5, 1)], initial_carry=start)
        largest = log_singular_values(cell, inputs, [(5, 1)], initial_carry=start, count=1)
        np.testing.assert_allclose(largest, sizes[:, :1], atol=1e-3)


def test_a_derivative_in_forward_mode_only() -> None:
    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jax.lax.while_loop(lambda h: jnp.abs(h[0]) < 1, lambda h: 2 * h, h)
        return jnp.tanh(h), h

    inputs, start = make_inputs(5), jnp.linspace(0.3, 1, N)
    exact = jacobian_log_norms(step, inputs, initial_carry=start, norm="rms")
    log_norms, _ = measure(step, inputs, initial_carry=start, vectors=N)
    np.testing.assert_allclose(log_norms, exact, atol=1e-5)
    with pytest.raises(ValueError, match="derivative in reverse mode, which a"):
        log_singular_values(step, inputs, [(5, 1)], initial_carry=start, count=1)


def test_products_with_a_step_jacobian() -> None:
    cell, inputs = CELLS["lstm"](), make_inputs(1)
    flat = flatten_cell(cell, inputs)
    directions = directions_of(flat, inputs, backward=True)
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2 * N)), jnp.float32)
    jacobian = np.asarray(step_jacobians(cell, inputs)[0])
    pushed, pulled = (
        product(flat, flat.initial, inputs[0], rows)
        for product in (directions.push, directions.pull)
    )
    np.testing.assert_allclose(pushed, rows @ jacobian.T, atol=1e-5)
    np.testing.assert_allclose(pulled, rows @ jacobian, atol=1e-5)


@pytest.mark.filterwarnings("error::UserWarning")  # 64-bit types lost on the way
def test_jit_and_vmap_change_nothing() -> None:
    cell, inputs = CELLS["rnn"](), jnp.asarray(make_inputs(2, 5))

    def measured(x: jax.Array) -> jax.Array:
        return jacobian_log_norms(cell, x, norm="rms", method="sampled", starts=[1])[0][5, 1]

    alone = [measured(x) for x in inputs]
    for together in (jax.vmap(measured), jax.jit(jax.vmap(measured))):
        np.testing.assert_allclose(together(inputs), alone, atol=1e-5)
    with pytest.raises(TypeError, match="sampled norms cannot be differentiated"):
        jax.grad(measured)(inputs[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "guessed"}, "method must be one of 'exact', 'sampled'; got 'guessed'"),
        ({"vectors": 1}, "vectors must be a whole number of at least 2, .* got 1"),
        ({"vectors": 2.0}, "vectors must be a whole number of at least 2"),
        ({"vectors": True}, "vectors must be a whole number of at least 2"),
        ({"starts": []}, r"starts must be a few k, whole numbers from 0 to 5, as \[0\]; got \[\]"),
        ({"starts": 3}, "starts must be a few k"),
        ({"starts": [1.0]}, "starts must be a few k"),
        ({"starts": [True]}, "starts must be a few k"),
        ({"starts": [6]}, "starts must be a few k"),
        ({"starts": [-1]}, "starts must be a few k"),
        ({"starts": [3], "stride": 2}, "starts must be a few k, multiples of the stride, 2, from"),
        ({"norm": "spectral"}, r"name a few k, as starts=\[0\], or use norm='rms'"),
        ({"norm": "nuclear"}, "norm must be one of"),
        ({"of": "c"}, "of must be None"),
        ({"stride": 0}, "stride must be a whole number"),
        ({"memory_budget": None}, "memory_budget must be a number of at least 0"),
        ({"certify": True}, "lengths of method='exact'"),
        ({"method": "exact", "starts": [0]}, "starts are of method='sampled'"),
    ],
)
def test_wrong_values(options: dict[str, Any], sentence: str) -> None:
    cell, inputs = nnx.SimpleCell(3, N, rngs=nnx.Rngs(0)), jnp.ones((5, 3))
    with pytest.raises(ValueError, match=sentence):
        measure(cell, inputs, **options)


def test_a_step_that_is_not_finite_is_named() -> None:
    cell, inputs = CELLS["rnn"](), make_inputs(LENGTH)
    inputs[3] = np.nan
    for measured in (
        lambda: measure(cell, inputs, vectors=4),
        lambda: log_singular_values(cell, inputs, [(2, 0)], count=1),
        lambda: lyapunov_exponents(cell, inputs, count=1),
    ):
        with pytest.raises(FloatingPointError, match="is not finite at step 4"):
            measured()
