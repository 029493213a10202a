"""Systems whose gradients are known in closed form or in the limit of many units."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import (
    backpropagate,
    jacobian_log_norms,
    log_singular_values,
    lyapunov_spectrum,
    theory,
)
from gradlab.cells import LSTM, Elman, set_gate_biases
from gradlab.jacobian import map_log_norms, step_jacobians
from gradlab.models import Stack
from gradlab.studies import identities

LENGTH = 37


def powers(matrix: Any, length: int = LENGTH, **options: Any) -> np.ndarray:
    """Return the log norms of the powers of a matrix, by lag."""
    steps = np.broadcast_to(np.asarray(matrix), (length, *np.shape(matrix)))
    return np.asarray(map_log_norms(steps, **options))[:, 0]


def linear(w_hh: np.ndarray, features: int = 1) -> Elman:
    cell = Elman(features, len(w_hh), activation="identity", rngs=nnx.Rngs(0))
    cell.dense_h.kernel[...] = jnp.asarray(w_hh.T, jnp.float32)
    return cell


def test_e1_e2_orthogonal_matrices_keep_norms_and_scaled_ones_change_them_by_the_scale() -> None:
    for n, norm in ((6, "spectral"), (200, "rms")):
        q = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
        np.testing.assert_allclose(powers(q, norm=norm), 0, atol=1e-5)
        slope = powers(0.7 * q, norm=norm)[-1] / LENGTH
        assert slope == pytest.approx(np.log(0.7), rel=1e-6)


def test_e3_a_jordan_block_grows_first() -> None:
    block = np.zeros((6, 6))  # a shape that other tests compile too
    block[:2, :2] = [[0.9, 1.0], [0.0, 0.9]]
    log_norms = powers(block)
    expected = [theory.jordan_log_norm(0.9, 1.0, lag) for lag in range(1, LENGTH + 1)]
    np.testing.assert_allclose(log_norms[1:], expected, atol=1e-6, rtol=1e-6)
    assert np.argmax(log_norms) == 9
    assert np.exp(log_norms[9]) == pytest.approx(3.912567, rel=1e-6)


def test_e4_a_long_jordan_block_grows_a_millionfold() -> None:
    block = 0.9 * np.eye(8) + np.eye(8, k=1)
    by_threes = powers(np.linalg.matrix_power(block, 3))
    assert np.argmax(by_threes) == 69 // 3
    assert np.exp(by_threes[23]) == pytest.approx(1.5862e6, rel=1e-4)
    by_eights = powers(np.linalg.matrix_power(block, 8))
    assert np.exp(by_eights[25]) == pytest.approx(3372, rel=1e-3)  # known to four digits


def test_e5_powers_of_a_ginibre_matrix_have_another_edge_than_typical_vectors() -> None:
    n, draws = 400, 5
    rng = np.random.default_rng(0)
    worst, typical = np.zeros((2, 5))
    for _ in range(draws):
        w = rng.normal(size=(n, n)) / np.sqrt(n)
        worst += np.exp(powers(w, 5)[1:]) / draws
        typical += np.exp(powers(w, 5, norm="rms")[1:]) / draws
    edge = [np.exp(theory.ginibre_power_edge(lag)) for lag in range(1, 6)]
    np.testing.assert_allclose(edge, [2, 2.598, 3.079, 3.494, 3.864], atol=1e-3)
    np.testing.assert_allclose(worst, edge, rtol=0.05)
    np.testing.assert_allclose(typical, 1, rtol=0.05)


def test_e6_independent_ginibre_factors_have_newmans_exponents() -> None:
    n, length = 32, 4000
    assert theory.ginibre_exponents(64)[[0, -1]] == pytest.approx([-0.007853, -2.7146], abs=1e-4)
    assert theory.ginibre_fluctuation(64) == pytest.approx(0.0891, abs=1e-4)

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x.reshape(n, n) @ h, h

    inputs = np.random.default_rng(0).normal(size=(length, n * n)).astype(np.float32) / np.sqrt(n)
    spectrum = lyapunov_spectrum(step, inputs, initial_carry=jnp.zeros(n))
    error = theory.ginibre_fluctuation(n) / np.sqrt(length)
    expected = theory.ginibre_exponents(n)
    assert abs(spectrum.exponents[0] - expected[0]) < 3 * error
    # Exponents further down fluctuate more: each is held to its own standard error.
    z = (np.asarray(spectrum.exponents) - expected) / np.asarray(spectrum.standard_error)
    assert np.sqrt(np.mean(z**2)) < 3


def test_e7_stacked_linear_layers_multiply_paths() -> None:
    layers = []
    for i in range(3):
        cell = linear(np.array([[0.9]]))
        cell.dense_i.kernel[...] = jnp.array([[0.7 if i else 1.0]])
        layers.append(cell)
    log_norms = jacobian_log_norms(
        Stack(layers),
        np.zeros((20, 1), np.float32),
        of="layer2.h",
        wrt="layer0.h",
        norm="frobenius",
    )
    assert theory.stacked_linear(0.9, 0.7, 3, 20) == pytest.approx(np.log(13.7612615331), abs=1e-9)
    for lag in (0, 7, 19):
        expected = theory.stacked_linear(0.9, 0.7, 3, lag) + np.log(0.9)
        assert float(log_norms[lag + 1, 0]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("weight", "at", "factor"), [(1.25, 0.7104, 0.6191), (2.0, 0.9575, 0.1664)]
)
def test_e8_a_unit_at_its_fixed_point_has_the_slope_there(
    weight: float, at: float, factor: float
) -> None:
    found_at, found_factor = theory.scalar_fixed_point(weight)
    assert (found_at, found_factor) == pytest.approx((at, factor), abs=1e-4)

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.tanh(weight * h), h

    with jax.enable_x64(True):
        inputs = np.zeros((LENGTH, 1))
        logs = jacobian_log_norms(step, inputs, initial_carry=jnp.array([found_at]), norm="rms")
    assert float(logs[-1, 0]) / LENGTH == pytest.approx(np.log(found_factor), rel=1e-6)


def resting_lstm(biases: np.ndarray) -> LSTM:
    """Return an LSTM whose weights are 0, so that gates depend on their biases only."""
    zero = jax.nn.initializers.zeros
    cell = LSTM(1, len(biases), kernel_init=zero, recurrent_kernel_init=zero, rngs=nnx.Rngs(0))
    set_gate_biases(cell, {"forget": jnp.asarray(biases, jnp.float32)})
    return cell


def test_e9_e10_a_resting_lstm_forgets_by_its_bias() -> None:
    known = {0: -0.6931, 1: -0.3133, 2: -0.1269, 3: -0.0486, 5: -0.00672}
    inputs = np.zeros((LENGTH, 1), np.float32)
    for bias, rate in known.items():
        assert theory.forget_rate(bias) == pytest.approx(rate, abs=1e-4)
        logs = jacobian_log_norms(
            resting_lstm(np.array([bias])), inputs, of="c", wrt="c", norm="rms"
        )
        slope = float(logs[-1, 0]) / LENGTH
        assert slope == pytest.approx(theory.forget_rate(bias), rel=1e-5)  # weights are float32
    for constant, tau in ((20, 19.496), (100, 99.499), (500, 499.5)):
        assert -1 / theory.forget_rate(np.log(constant - 1)) == pytest.approx(tau, abs=1e-3)


def test_e11_chrono_forget_gates_have_a_heavy_tail() -> None:
    known = {1: 0.97674, 10: 0.83375, 50: 0.52099, 100: 0.32841, 200: 0.14907, 400: 0.03757}
    for lag, mean in known.items():
        assert theory.chrono_mean(lag, 200.0) == pytest.approx(mean, abs=1e-5)
    units = 4000
    biases = np.log(np.random.default_rng(0).uniform(1, 199, units))
    step = step_jacobians(resting_lstm(biases[:16]), np.zeros((1, 1), np.float32))
    gates = 1 / (1 + np.exp(-biases))
    np.testing.assert_allclose(np.diagonal(step[0])[:16], gates[:16], rtol=1e-5)
    for lag in (10, 100):
        error = (gates**lag).std() / np.sqrt(units)
        assert abs((gates**lag).mean() - known[lag]) < 3 * error


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_e13_no_norm_exceeds_the_bound(activation: Any) -> None:
    n = 6
    kernel = jax.nn.initializers.normal(2 / np.sqrt(n))
    cell = Elman(3, n, activation=activation, recurrent_kernel_init=kernel, rngs=nnx.Rngs(0))
    bound = theory.jacobian_bound(np.asarray(cell.dense_h.kernel[...]).T, activation)
    inputs = np.random.default_rng(0).normal(size=(LENGTH, 3)).astype(np.float32)
    logs = np.asarray(map_log_norms(step_jacobians(cell, inputs)))
    lag = np.subtract.outer(np.arange(LENGTH + 1), np.arange(LENGTH + 1))
    lower = lag > 0
    assert (logs[lower] <= lag[lower] * bound + 1e-4).all()
    assert np.isfinite(logs[lower]).any()


def test_e14_linear_memory_capacities_add_up_to_the_number_of_units() -> None:
    """Capacities are squared norms of ∂h/∂u where the state is white (Jaeger 2002)."""
    for row in identities.memory(np.random.default_rng(0)):
        assert row["measured"] == pytest.approx(row["expected"], rel=1e-4)


def test_e15_white_noise_gives_a_state_and_its_gradient_their_known_variances() -> None:
    """E h² = 1/(1 − λ²) and E (∂h/∂λ)² = (1 + λ²)/(1 − λ²)³ (Zucchet & Orvieto 2024)."""
    for row in identities.white_noise():
        assert row["measured"] == pytest.approx(row["expected"], rel=1e-6)
    eigenvalue, chains, length = 0.9, 20_000, 120

    def step(weight: jax.Array, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = weight * h + x[0]
        return h, h

    noise = np.random.default_rng(0).normal(size=(length, chains)).astype(np.float32)
    weight = np.float32(eigenvalue)
    h, slope = np.zeros(chains), np.zeros(chains)
    for x in noise:
        h, slope = weight * h + x, h + weight * slope
    assert np.mean(h**2) == pytest.approx(5.263, rel=0.03)
    assert np.mean(slope**2) == pytest.approx(263.89, rel=0.03)

    def last(carry: jax.Array, is_last: jax.Array) -> jax.Array:
        return carry * is_last

    only_last = np.eye(length, dtype=np.float32)[-1]
    for chain in range(3):  # the engine's sum of terms is that slope
        backpropagation = backpropagate(
            step,
            noise[:, chain, None],
            last,
            only_last,
            initial_carry=jnp.zeros(()),
            parameters=jnp.asarray(weight),
        )
        (terms,) = backpropagation.by_lag.values()
        total = float(terms.sum() * np.exp(backpropagation.log_scale))
        assert total == pytest.approx(slope[chain], rel=1e-4)


def test_e16_the_one_unit_network_has_three_fixed_points_between_its_folds() -> None:
    low, high = theory.fold_points(5.0)
    assert (low, high) == pytest.approx((-2.65561034, -2.34438966), abs=1e-6)
    for bias, count in ((low - 1e-3, 1), (low + 1e-3, 3), (high - 1e-3, 3), (high + 1e-3, 1)):
        x = np.linspace(-5, 5, 200_001)
        crossings = np.diff(np.sign(5 / (1 + np.exp(-x)) + bias - x))
        assert np.count_nonzero(crossings) == count


def test_the_mean_field_describes_a_wide_network() -> None:
    n, gain, noise = 1500, 1.5, 0.5
    rng = np.random.default_rng(0)
    w = gain / np.sqrt(n) * rng.normal(size=(n, n))
    a = rng.normal(size=n)
    for _ in range(60):
        a = w @ np.tanh(a) + np.sqrt(noise) * rng.normal(size=n)
    field = theory.mean_field(gain, noise)
    assert np.mean(a**2) == pytest.approx(field.q, rel=0.1)
    assert gain**2 * np.mean(np.cosh(a) ** -4.0) == pytest.approx(field.chi, rel=0.1)
    assert theory.mean_field(0.8).rate == pytest.approx(np.log(0.8))
    assert theory.mean_field(1.5).rate > 0 > field.rate  # noise takes the chaos away


def test_the_path_through_the_cell_state_is_included() -> None:
    """At forget bias 3, h⁽¹⁰⁰⁾ depends on h⁽⁰⁾ through cell states, not through hidden states."""
    n, lag = 32, 100
    total, frozen = [], []  # log norms of ∂h⁽¹⁰⁰⁾/∂h⁽⁰⁾, and of the same with c held constant
    for seed in range(5):
        cell = LSTM(8, n, rngs=nnx.Rngs(seed))
        set_gate_biases(cell, {"forget": jnp.full(n, 3.0)})
        inputs = np.random.default_rng(seed).normal(size=(lag, 8)).astype(np.float32)
        total.append(float(log_singular_values(cell, inputs, [(lag, 0)], of="h", wrt="h")[0, 0]))
        steps = np.asarray(step_jacobians(cell, inputs), np.float64)[:, n:, n:]
        log_scale, product = 0.0, np.eye(n)
        for step in steps:
            product = step @ product
            size = np.linalg.norm(product, 2)
            product, log_scale = product / size, log_scale + np.log(size)
        frozen.append(log_scale)
    assert -2.5 < np.mean(total) / np.log(10) < 0.5
    assert np.mean(frozen) / np.log(10) < -40


def test_the_top_layer_of_a_stack_has_the_map_of_the_layer_alone() -> None:
    """The reference is the top layer alone, driven by the outputs of the layer below."""
    cell = Stack([Elman(3, 6, rngs=nnx.Rngs(0)), Elman(6, 6, rngs=nnx.Rngs(1))])
    inputs = np.random.default_rng(0).normal(size=(LENGTH, 3)).astype(np.float32)
    logs = jacobian_log_norms(cell, inputs, of="layer1.h", wrt="layer1.h", norm="frobenius")
    top = cell.layers[1]
    outputs, h = [], jnp.zeros(6)
    for x in inputs:
        h, _ = cell.layers[0](h, x)
        outputs.append(h)
    alone = jacobian_log_norms(top, np.array(outputs), norm="frobenius")
    np.testing.assert_allclose(logs, alone, atol=1e-4)
    assert np.isfinite(np.asarray(logs)[-1]).all()
