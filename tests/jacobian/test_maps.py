"""Jacobian maps agree with float64 products, closed forms and finite differences."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab import jacobian_log_norms
from gradlab.jacobian import map_log_norms, step_jacobians
from gradlab.models import Stack

HIDDEN, FEATURES = 12, 3
CELLS = [nnx.SimpleCell, nnx.OptimizedLSTMCell, nnx.GRUCell]
TOLERANCE = {"frobenius": 1e-4, "spectral": 1e-3}  # relative, of the norm


def make_cell(kind: type[nnx.RNNCellBase], gain: float, hidden: int = HIDDEN) -> nnx.RNNCellBase:
    kernel = jax.nn.initializers.normal(gain / np.sqrt(hidden))
    return kind(FEATURES, hidden, recurrent_kernel_init=kernel, rngs=nnx.Rngs(0))


def make_inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*shape, FEATURES)).astype(np.float32)


def repeated(matrix: np.ndarray, length: int) -> np.ndarray:
    """Return the step Jacobians of a linear recurrence h⁽ᵗ⁾ = W h⁽ᵗ⁻¹⁾."""
    return np.broadcast_to(matrix, (length, *matrix.shape))


def lags(length: int) -> np.ndarray:
    return np.subtract.outer(np.arange(length + 1), np.arange(length + 1))


@nnx.jit
def reverse_mode_jacobians(cell: nnx.RNNCellBase, inputs: jax.Array) -> list[Any]:
    """Return the step Jacobians by reverse mode; the engine uses forward mode.

    The states come from a scan, as in the engine: a network of high gain is chaotic, and a loop
    that rounds differently soon reaches other states.
    """

    def advance(carry: Any, x: jax.Array) -> tuple[Any, Any]:
        def step(carry: Any) -> jax.Array:
            return jnp.concatenate(jax.tree.leaves(cell(carry, x)[0]))

        return cell(carry, x)[0], jax.jacrev(step)(carry)

    start = cell.initialize_carry((FEATURES,), nnx.Rngs(0))
    return jax.tree.leaves(jax.lax.scan(advance, start, inputs)[1])


def reference(cell: nnx.RNNCellBase, inputs: np.ndarray) -> np.ndarray:
    blocks = [np.asarray(block, np.float64) for block in reverse_mode_jacobians(cell, inputs)]
    return np.concatenate(blocks, axis=-1)


def float64_map(
    jacobians: np.ndarray, norm: str, of: slice = slice(None), wrt: slice = slice(None)
) -> np.ndarray:
    """Return the log norm of every product, multiplied in float64 and rescaled at each step."""
    length, n, _ = jacobians.shape
    log_norms = np.full((length + 1, length + 1), -np.inf)
    for k in range(length + 1):
        product, log_scale = np.eye(n), 0.0
        for t in range(k, length + 1):
            if t > k:
                product = jacobians[t - 1] @ product
                size = np.linalg.norm(product)
                if size == 0:
                    break
                product, log_scale = product / size, log_scale + np.log(size)
            value = np.linalg.norm(product[of, wrt], 2 if norm == "spectral" else None)
            with np.errstate(divide="ignore"):
                log_norms[t, k] = np.log(value) + log_scale
    return log_norms


def assert_same_norms(log_norms: Any, expected: np.ndarray, tolerance: float) -> None:
    log_norms = np.asarray(log_norms, np.float64)
    np.testing.assert_array_equal(np.isfinite(log_norms), np.isfinite(expected))
    finite = np.isfinite(expected)
    # float32 output resolves a log norm of several hundred nats to 1e-5 of a nat.
    assert np.abs(np.expm1(log_norms[finite] - expected[finite])).max() < tolerance


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
@pytest.mark.parametrize(
    ("kind", "length"), [*((kind, 37) for kind in CELLS), *((CELLS[1], x) for x in (1, 2, 100))]
)
def test_a_map_agrees_with_float64_products(
    kind: type[nnx.RNNCellBase], length: int, norm: Any
) -> None:
    inputs = make_inputs(length)
    for gain in (0.5, 1.0, 2.0):  # at higher gains, rounding alone separates the trajectories
        cell = make_cell(kind, gain)
        expected = float64_map(reference(cell, inputs), norm)
        assert_same_norms(jacobian_log_norms(cell, inputs, norm=norm), expected, TOLERANCE[norm])


@pytest.mark.parametrize(
    ("of", "wrt", "norm"),
    [
        *(("h", "h", "frobenius"), ("c", "c", "frobenius"), ("h", "c", "frobenius")),
        *(("c", None, "frobenius"), ("h", "c", "spectral"), ("c", None, "spectral")),
    ],
)
def test_blocks_are_rows_and_columns_of_the_total_product(of: Any, wrt: Any, norm: Any) -> None:
    cell, inputs = make_cell(nnx.OptimizedLSTMCell, 1.5), make_inputs(37)
    part = {"c": slice(0, HIDDEN), "h": slice(HIDDEN, None), None: slice(None)}
    expected = float64_map(reference(cell, inputs), norm, part[of], part[wrt])
    log_norms = jacobian_log_norms(cell, inputs, norm=norm, of=of, wrt=wrt)
    assert_same_norms(log_norms, expected, TOLERANCE[norm])


def test_a_batch_has_the_maps_of_its_samples() -> None:
    cell, inputs = make_cell(nnx.GRUCell, 1.0), make_inputs(3, 37)
    maps = jacobian_log_norms(cell, inputs, norm="frobenius")
    for sample, log_norms in zip(inputs, maps, strict=True):
        np.testing.assert_allclose(
            log_norms, jacobian_log_norms(cell, sample, norm="frobenius"), atol=1e-5
        )


def test_the_rms_norm_is_frobenius_over_root_n() -> None:
    cell, inputs = make_cell(nnx.SimpleCell, 1.0), make_inputs(37)
    rms, frobenius = (
        np.asarray(jacobian_log_norms(cell, inputs, norm=norm)) for norm in ("rms", "frobenius")
    )
    lower = lags(37) >= 0
    np.testing.assert_allclose(frobenius[lower] - rms[lower], 0.5 * np.log(HIDDEN), atol=1e-5)


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_stride_measures_every_stride_th_step(norm: Any) -> None:
    cell, inputs = make_cell(nnx.SimpleCell, 1.0), make_inputs(37)
    whole = np.asarray(jacobian_log_norms(cell, inputs, norm=norm))
    strided = jacobian_log_norms(cell, inputs, norm=norm, stride=4)
    np.testing.assert_allclose(strided, whole[:37:4, :37:4], atol=1e-4)


LENGTH, N = 37, 6  # shared by the maps of given step Jacobians, so that they compile once


def test_orthogonal_recurrence_keeps_every_singular_value() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
    for norm, at_zero in (("spectral", 0.0), ("frobenius", 0.5 * np.log(N))):
        log_norms = map_log_norms(repeated(0.8 * rotation, LENGTH), norm=norm)
        lag = lags(LENGTH)
        expected = np.where(lag >= 0, at_zero + np.log(0.8) * lag, -np.inf)
        assert_same_norms(log_norms, expected, 1e-5)


def test_powers_of_a_jordan_block_have_binomial_entries() -> None:
    """Jᵐ has the entries C(m, j − i) λ^(m − j + i) at (i, j)."""
    eigenvalue = 0.9
    block = eigenvalue * np.eye(N) + np.eye(N, k=1)
    log_norms = np.asarray(map_log_norms(repeated(block, LENGTH)))
    for lag in (1, 5, 37):
        power = [
            [math.comb(lag, j - i) * eigenvalue ** (lag - j + i) if j >= i else 0 for j in range(N)]
            for i in range(N)
        ]
        np.testing.assert_allclose(
            np.diagonal(log_norms, -lag), np.log(np.linalg.norm(power, 2)), atol=1e-4
        )


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_nilpotent_recurrence_is_exactly_zero_from_its_index_on(norm: Any) -> None:
    log_norms = np.asarray(map_log_norms(repeated(np.eye(N, k=1), LENGTH), norm=norm))
    lag = lags(LENGTH)
    np.testing.assert_array_equal(np.isfinite(log_norms), (lag >= 0) & (lag < N))


@pytest.mark.parametrize(("norm", "length"), [("frobenius", 2000), ("spectral", 500)])
def test_thousands_of_steps_neither_overflow_nor_underflow(norm: Any, length: int) -> None:
    for gain in (0.01, 90.0):
        matrix = gain / np.sqrt(N) * np.random.default_rng(0).normal(size=(N, N))
        log_norms = np.asarray(map_log_norms(repeated(matrix, length), norm=norm))
        assert np.isfinite(log_norms[lags(length) >= 0]).all()
        expected = float64_column(matrix, length, norm)
        np.testing.assert_allclose(log_norms[:, 0], expected, rtol=1e-6, atol=1e-4)
        assert abs(log_norms[-1, 0]) > 1500  # far outside what any float can hold as a norm


def float64_column(matrix: np.ndarray, length: int, norm: str) -> np.ndarray:
    product, log_scale, logs = np.eye(len(matrix)), 0.0, []
    for _ in range(length + 1):
        value = np.linalg.norm(product, 2 if norm == "spectral" else None)
        logs.append(np.log(value) + log_scale)
        product, log_scale = matrix @ product / value, log_scale + np.log(value)
    return np.array(logs)


def test_norms_agree_with_finite_differences_of_the_trajectory() -> None:
    """The test moves h⁽ᵏ⁾ itself, in its own float64 arithmetic."""
    cell, inputs = make_cell(nnx.SimpleCell, 1.5), make_inputs(20)
    w_xh, b, w_hh = (
        np.asarray(x[...], np.float64)
        for x in (cell.dense_i.kernel, cell.dense_i.bias, cell.dense_h.kernel)
    )

    def run(h: np.ndarray, begin: int, end: int) -> np.ndarray:
        for x in inputs[begin:end].astype(np.float64):
            h = np.tanh(x @ w_xh + h @ w_hh + b)
        return h

    log_norms = jacobian_log_norms(cell, inputs, norm="frobenius")
    for t, k in ((20, 0), (20, 13), (7, 6), (15, 2)):
        start, eps = run(np.zeros(HIDDEN), 0, k), 1e-6
        columns = [
            (run(start + eps * e, k, t) - run(start - eps * e, k, t)) / (2 * eps)
            for e in np.eye(HIDDEN)
        ]
        assert float(log_norms[t, k]) == pytest.approx(np.log(np.linalg.norm(columns)), abs=1e-4)


SPECTRA = st.lists(st.floats(-3, 1), min_size=N, max_size=N)


@settings(max_examples=15)
@given(exponents=SPECTRA, seed=st.integers(0, 2**16))
def test_spectral_and_frobenius_norms_obey_their_inequalities(
    exponents: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rotations = np.linalg.qr(rng.normal(size=(LENGTH, N, N)))[0]
    jacobians = rotations * 10.0 ** np.array(exponents)
    spectral, frobenius = (
        np.asarray(map_log_norms(jacobians, norm=norm)) for norm in ("spectral", "frobenius")
    )
    lower = lags(LENGTH) >= 0
    assert (spectral <= frobenius + 1e-4)[lower].all()
    assert (frobenius <= spectral + 0.5 * np.log(N) + 1e-4)[lower].all()
    for log_norms in (spectral, frobenius):
        through = log_norms[:, 9, None] + log_norms[9, None, :]  # ‖AB‖ ≤ ‖A‖‖B‖ at time 9
        assert (log_norms[9:, :10] <= through[9:, :10] + 1e-3).all()
    scaled = np.asarray(map_log_norms(3.0 * jacobians, norm="spectral"))
    per_step = (np.log(3) * lags(LENGTH))[lower]
    np.testing.assert_allclose(scaled[lower] - spectral[lower], per_step, atol=1e-3)
    assert_same_norms(spectral, float64_map(jacobians, "spectral"), 1e-3)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_spectral_norms_are_right_for_close_and_for_spread_singular_values(precision: Any) -> None:
    rng = np.random.default_rng(0)
    rotations = np.linalg.qr(rng.normal(size=(2, 37, 32, 32)))[0]
    for spectrum in (np.linspace(0.9, 1, 32), 10.0 ** np.linspace(-3, 0, 32), np.ones(32)):
        jacobians = rotations[0] * spectrum @ rotations[1]
        log_norms = map_log_norms(jacobians, norm="spectral", precision=precision)
        assert_same_norms(log_norms, float64_map(jacobians, "spectral"), 1e-3)


def test_a_users_own_cell_and_a_stack_are_measured_by_the_names_of_their_parts() -> None:
    class Oscillator(nnx.RNNCellBase):
        """A cell whose carry has parts x and v, position and velocity."""

        def initialize_carry(
            self, input_shape: Any, rngs: Any = None, carry_init: Any = None
        ) -> Any:
            return {"x": jnp.ones(2), "v": jnp.zeros(2)}

        def __call__(self, carry: Any, inputs: jax.Array) -> Any:
            v = 0.9 * carry["v"] - 0.2 * jnp.sin(carry["x"]) + 0.1 * inputs[:2]
            return {"x": carry["x"] + v, "v": v}, v

        @property
        def num_feature_axes(self) -> int:
            return 1

    cell, inputs = Oscillator(), make_inputs(20)
    jacobians = np.asarray(step_jacobians(cell, inputs), np.float64)
    expected = float64_map(jacobians, "frobenius", slice(2, 4), slice(0, 2))  # v before x
    log_norms = jacobian_log_norms(cell, inputs, norm="frobenius", of="x", wrt="v")
    assert_same_norms(log_norms, expected, 1e-4)

    stack = Stack([make_cell(nnx.SimpleCell, 1.0), nnx.GRUCell(HIDDEN, HIDDEN, rngs=nnx.Rngs(1))])
    jacobians = np.asarray(step_jacobians(stack, inputs), np.float64)
    expected = float64_map(jacobians, "frobenius", slice(HIDDEN, None), slice(0, HIDDEN))
    log_norms = jacobian_log_norms(stack, inputs, norm="frobenius", of="layer1.h", wrt="layer0.h")
    assert_same_norms(log_norms, expected, 1e-4)
    top = jacobian_log_norms(stack, inputs, norm="frobenius", of="h", wrt="layer0.h")
    np.testing.assert_array_equal(top, log_norms)


def test_a_plain_step_function_is_measured_like_a_cell() -> None:
    matrix = jnp.asarray(0.5 * np.eye(3), jnp.float32)

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.tanh(matrix @ h + x), h

    inputs = np.zeros((5, 3), np.float32)
    log_norms = jacobian_log_norms(step, inputs, initial_carry=jnp.zeros(3))
    expected = np.where(lags(5) >= 0, np.log(0.5) * lags(5), -np.inf)  # tanh' is 1 at rest
    assert_same_norms(log_norms, expected, 1e-5)


def test_tokens_are_inputs() -> None:
    gains = jnp.array([0.5, 2.0, 3.0])
    tokens = np.array([[1], [0], [2], [2]])
    log_norms = jacobian_log_norms(
        lambda h, x: (gains[x[0]] * h, h), tokens, initial_carry=jnp.zeros(3), certify=True
    )[0]
    growth = np.log(np.asarray(gains, np.float64)[tokens[:, 0]])
    np.testing.assert_allclose(log_norms[4, :4], np.cumsum(growth[::-1])[::-1], rtol=1e-6)


def test_new_weights_do_not_compile_again() -> None:
    from gradlab.jacobian.steps import jacobians_along

    inputs = make_inputs(23)
    jacobian_log_norms(make_cell(nnx.SimpleCell, 1.0), inputs, norm="frobenius")
    compiled = jacobians_along._cache_size()
    jacobian_log_norms(make_cell(nnx.SimpleCell, 2.0), inputs, norm="frobenius")
    assert jacobians_along._cache_size() == compiled


def test_given_jacobians_keep_the_digits_and_the_range_of_float64() -> None:
    log_norms = map_log_norms(np.full((3, 1, 1), 1e-100), norm="frobenius")
    np.testing.assert_allclose(log_norms[:, 0], -100 * np.log(10) * np.arange(4), rtol=1e-6)
