"""The IndRNN against its equations in float64, its closed form and its published start."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from step_checks import (
    BATCH,
    FEATURES,
    HIDDEN,
    STEPS,
    assert_batch_axes_are_free,
    assert_unrolls_as_its_steps,
    configured,
    in_float64,
    loss_after,
    random_carry,
    random_inputs,
    run,
    step_jacobian,
    weights_of,
    with_random_weights,
)

from gradlab.cells import IndRNN, set_gate_biases
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.jacobian import jacobian_log_norms
from gradlab.theory import of_cells

# Float64 values in float32 weights, which a later JAX refuses.
pytestmark = pytest.mark.filterwarnings("error:scatter inputs:FutureWarning")
PHI: dict[str, Any] = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0)}


def cell_of(**options: Any) -> IndRNN:
    """An IndRNN with random weights; some of its u lie beyond the bound."""
    cell = with_random_weights(IndRNN(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **options))
    cell.u[...] = jnp.asarray([0.8, -0.6, 1.7, -2.0], jnp.float32)
    return cell


def preactivations(cell: IndRNN, u: np.ndarray, h: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Return a⁽¹⁾ to a⁽ᵀ⁾ by the paper's equation."""
    w, b = weights_of(cell.dense_i)
    found = []
    for x in inputs:
        found.append(x @ w.T + u * h + b)
        h = PHI[cell.activation](found[-1])
    return np.stack(found)


@settings(max_examples=15)
@given(
    activation=st.sampled_from(sorted(PHI)),
    longest=st.none() | st.integers(1, 1000),
    growth=st.floats(1, 10),
    constrain=st.booleans(),
    use_bias=st.booleans(),
)
def test_steps_are_those_of_the_equation(
    activation: Any, longest: int | None, growth: float, constrain: bool, use_bias: bool
) -> None:
    cell = cell_of(
        activation=activation,
        longest=longest,
        growth=growth,
        constrain=constrain,
        use_bias=use_bias,
    )
    bound = growth ** (1 / longest if longest else 0) / (1 if activation == "relu" else 0.9**0.1)
    u = np.asarray(cell.u[...], float)
    u = np.clip(u, -bound, bound) if constrain else u
    carry, inputs = random_carry(cell, BATCH), random_inputs(STEPS, BATCH)
    a = preactivations(cell, u, np.asarray(carry, float), np.asarray(inputs, float))
    last, outputs = run(cell, carry, inputs)
    np.testing.assert_allclose(outputs, PHI[activation](a), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(last, outputs[-1])


@pytest.mark.parametrize("activation", PHI)
def test_the_step_jacobian_is_diagonal(activation: Any) -> None:
    with jax.enable_x64(True):
        cell = in_float64(cell_of(activation=activation, constrain=False))
        state, x = random_carry(cell, dtype=jnp.float64), random_inputs(dtype=jnp.float64)
        jacobian = step_jacobian(cell, state, x)
        u = np.asarray(cell.u[...])
    a = preactivations(cell, u, np.asarray(state), np.asarray(x)[None])
    expected = of_cells.indrnn_diagonals(u, a, activation)
    np.testing.assert_allclose(jacobian, np.diag(expected[0]), atol=1e-12)
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize("activation", PHI)
def test_its_map_is_that_of_the_closed_form(activation: Any) -> None:
    cell, length, is_relu = cell_of(activation=activation, longest=20), 20, activation == "relu"
    if is_relu:
        cell.dense_i.bias[...] = jnp.asarray([6.0, 0.5, 6.0, -0.5])  # two units stay active
    inputs = random_inputs(length) * (1.0 if is_relu else 0.3)  # φ′ of a tanh near 1 is inexact
    u = np.clip(np.asarray(cell.u[...], float), -cell.bound, cell.bound)
    a = preactivations(cell, u, np.zeros(HIDDEN), np.asarray(inputs, float))
    with np.errstate(divide="ignore"):
        factors = np.log(np.abs(of_cells.indrnn_diagonals(u, a, activation)))
    expected = of_cells.diagonal_log_norms(factors)
    found = np.asarray(jacobian_log_norms(cell, inputs))
    lower = np.tril_indices(length + 1)
    assert np.isfinite(expected[lower]).all()
    np.testing.assert_allclose(found[lower], expected[lower], atol=2e-4)


def test_a_unit_that_is_always_active_grows_by_gamma_in_t_steps() -> None:
    cell = cell_of(longest=30, growth=5.0)
    cell.dense_i.bias[...] = jnp.full(HIDDEN, 100.0)
    cell.u[...] = jnp.full(HIDDEN, 3.0)
    found = jacobian_log_norms(cell, random_inputs(30))
    assert found[30, 0] == pytest.approx(np.log(5), abs=1e-4)


def test_the_gradient_reaches_a_weight_beyond_the_bound() -> None:
    carry, inputs = random_carry(cell_of(), BATCH), random_inputs(STEPS, BATCH)

    def gradient(cell: IndRNN) -> np.ndarray:
        found = nnx.grad(lambda cell: jnp.sum(unroll(cell, carry, inputs)[1] ** 2))(cell)
        return np.asarray(found["u"][...])

    clipped, at_the_bound = cell_of(activation="tanh"), cell_of(activation="tanh", constrain=False)
    at_the_bound.u[...] = jnp.clip(clipped.u[...], -clipped.bound, clipped.bound)
    np.testing.assert_allclose(gradient(clipped), gradient(at_the_bound), rtol=1e-5, atol=1e-6)
    assert (gradient(clipped) != 0).all()
    assert np.abs(clipped.recurrent_weights()).max() == pytest.approx(clipped.bound)


@pytest.mark.parametrize("activation", PHI)
def test_it_unrolls_as_its_steps(activation: Any) -> None:
    assert_unrolls_as_its_steps(cell_of(activation=activation))


def test_batch_axes_are_free() -> None:
    assert_batch_axes_are_free(cell_of())


class Summed(IndRNN):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        new, output = super().__call__(carry, inputs)
        return new + carry, output


def test_a_subclass_runs_by_its_own_step() -> None:
    cell = Summed(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    carry, inputs = random_carry(cell, BATCH), random_inputs(STEPS, BATCH)
    outputs = [way(cell, carry, inputs)[1] for way in (unroll, step_by_step, run)]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)
    np.testing.assert_allclose(outputs[0], outputs[2], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({"longest": 50}, 0, 2 ** (1 / 50)),
        ({"longest": 50, "growth": 10.0}, 0, 10 ** (1 / 50)),
        ({}, 0, 1),
        ({"longest": 50, "start": "long"}, 2 ** (-1 / 50), 2 ** (1 / 50)),
        ({"longest": 50, "activation": "tanh"}, -(2 ** (1 / 50)) / 0.9**0.1, None),
    ],
)
def test_its_start_is_the_published_one(
    options: dict[str, Any], low: float, high: float | None
) -> None:
    cell = IndRNN(FEATURES, 2000, rngs=nnx.Rngs(1), **options)
    high = -low if high is None else high
    assert cell.bound == pytest.approx(high)
    u = np.asarray(cell.u[...], float)
    assert kstest((u - low) / (high - low), "uniform").pvalue > 1e-3
    assert low - 1e-6 <= u.min() < u.max() <= high + 1e-6
    np.testing.assert_array_equal(cell.dense_i.bias[...], 0)


def test_a_layer_that_only_keeps_has_weights_of_1_at_any_length() -> None:
    cell = IndRNN(FEATURES, HIDDEN, start="long", rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(cell.u[...], 1)


def test_its_bound_is_that_of_the_tasks_length(composed: Compose) -> None:
    cell = configured(composed, "model=indrnn", "task=adding", "task.length=40")
    assert cell.bound == pytest.approx(2 ** (1 / 40))
    assert configured(composed, "model=indrnn", "~task.length").bound == 1


def test_its_start_may_be_that_of_the_config(composed: Compose) -> None:
    drawn = configured(
        composed, "model=indrnn", "model.cell.start=init", "init=identity", "init.gain=0.7"
    )
    np.testing.assert_allclose(drawn.u[...], 0.7, rtol=1e-6)


def test_rules_for_gates_leave_it_as_it_is() -> None:
    cell = cell_of()
    before = np.asarray(cell.dense_i.bias[...])
    set_gate_biases(cell, {"forget": jnp.ones(HIDDEN)})
    np.testing.assert_array_equal(cell.dense_i.bias[...], before)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"activation": "sigmoid"}, "activation must be one of relu, tanh; got 'sigmoid'"),
        ({"start": "last"}, "start must be one of uniform, long, init; got 'last'"),
        ({"growth": 0.5}, "growth must be at least 1, and longest None or at least 1; got 0.5"),
        ({"longest": 0}, "longest None or at least 1; got 2.0 and 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        IndRNN(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **options)
    with pytest.raises(ValueError, match="activation must be relu or tanh; got 'elu'"):
        of_cells.indrnn_diagonals(np.ones(2), np.ones((1, 2)), "elu")


def test_it_learns(composed: Compose) -> None:
    assert loss_after(composed, 150, "model=indrnn") < 0.6
