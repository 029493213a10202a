"""JANET against its paper's equations in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from definitions import outputs_by_steps, sigmoid, step_jacobians, trained_loss, weights_of
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recurrence import assert_same, in_float64, make, problem, with_gradients

from gradlab.cells import JANET, gates, set_gate_biases
from gradlab.cells.affine import affine_form
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.components import ConfigError
from gradlab.training.program import Program, hyperparameters_of

FEATURES, N = 3, 4


def janet(**options: Any) -> Any:
    return make(lambda *sizes, rngs: JANET(*sizes, rngs=rngs, **options))


def net_inputs(cell: Any, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return s and the candidate's net input."""
    w = weights_of(cell)
    net = x @ w["dense_i.kernel"] + h @ w["dense_h.kernel"] + w.get("dense_i.bias", 0)
    return net[..., :N], net[..., N:]


def by_the_paper(cell: Any, inputs: np.ndarray, beta: float) -> np.ndarray:
    h, states = np.zeros(N), []
    for x in inputs:
        s, candidate = net_inputs(cell, h, x)
        h = sigmoid(s) * h + (1 - sigmoid(s - beta)) * np.tanh(candidate)
        states.append(h)
    return np.stack(states)


@settings(max_examples=6)
@given(beta=st.floats(-1, 4, width=32), use_bias=st.booleans(), seed=st.integers(0, 99))
def test_outputs_are_those_of_the_paper(beta: float, use_bias: bool, seed: int) -> None:
    cell = janet(beta=beta, use_bias=use_bias)
    inputs = np.random.default_rng(seed).normal(size=(7, FEATURES)).astype(np.float32)
    expected = by_the_paper(cell, inputs, beta)
    np.testing.assert_allclose(outputs_by_steps(cell, inputs), expected, rtol=1e-5, atol=1e-5)
    _, unrolled = unroll(cell, jnp.zeros((1, N)), jnp.asarray(inputs)[:, None])
    np.testing.assert_allclose(unrolled[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_step_jacobian(beta: float) -> None:
    cell, rng = janet(beta=beta), np.random.default_rng(0)
    h, x = rng.normal(size=N), rng.normal(size=FEATURES)
    s, candidate = net_inputs(cell, h, x)
    f, j, g = sigmoid(s), sigmoid(s - beta), np.tanh(candidate)
    to_forget, to_candidate = np.split(weights_of(cell)["dense_h.kernel"].T, 2)
    expected = (
        np.diag(f)
        + np.diag(h * f * (1 - f) - g * j * (1 - j)) @ to_forget
        + np.diag((1 - j) * (1 - g**2)) @ to_candidate
    )
    by_jax, numeric = step_jacobians(cell, h, x)
    np.testing.assert_allclose(by_jax, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(by_jax, numeric, rtol=1e-7, atol=1e-8)


def test_the_affine_form_runs_as_the_steps_do() -> None:
    cell = janet(beta=1.5)
    assert affine_form(cell) is not None
    args = problem(cell, jnp.float32)
    assert_same(
        with_gradients(unroll, cell)(*args), with_gradients(step_by_step, cell)(*args), 1e-5
    )
    with jax.enable_x64(True):
        cell = in_float64(janet(beta=1.5))
        args = problem(cell, jnp.float64)
        expected = with_gradients(step_by_step, cell)(*args)
        assert_same(with_gradients(unroll, cell)(*args), expected, 1e-12)


class Halved(JANET):
    def net_inputs(self, carry: Any, inputs: Any) -> Any:
        forget, candidate = super().net_inputs(carry, inputs)
        return forget, candidate / 2


class Leaky(JANET):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        h, _ = super().__call__(carry, inputs)
        return 0.5 * carry + 0.5 * h, h


@pytest.mark.parametrize("kind", [Halved, Leaky])
def test_a_subclass_with_a_step_of_its_own_runs_by_it(kind: Any) -> None:
    cell = make(kind)
    assert affine_form(cell) is None
    args = problem(cell, jnp.float32)
    assert_same(unroll(cell, *args), step_by_step(cell, *args), 0.0)


def test_gates_of_a_step_of_its_own_are_not_guessed() -> None:
    with pytest.raises(TypeError, match="no gates of Leaky, whose step is not that of JANET"):
        gates(make(Leaky), jnp.zeros(N), jnp.zeros(FEATURES))


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_gates_explain_the_next_state(beta: float) -> None:
    cell, rng = janet(beta=beta), np.random.default_rng(1)
    h, x = (jnp.asarray(rng.normal(size=n), jnp.float32) for n in (N, FEATURES))
    values = {name: np.asarray(value) for name, value in gates(cell, h, x).items()}
    s, candidate = net_inputs(cell, np.asarray(h, float), np.asarray(x, float))
    np.testing.assert_allclose(values["forget"], sigmoid(s), rtol=1e-5)
    np.testing.assert_allclose(values["input"], 1 - sigmoid(s - beta), rtol=1e-5)
    added = np.asarray(cell(h, x)[0]) - values["forget"] * h
    np.testing.assert_allclose(added, values["input"] * np.tanh(candidate), rtol=1e-4, atol=1e-6)
    assert ((values["forget"] + values["input"] > 1 + 1e-6) == (beta > 0)).all()


@settings(max_examples=10)
@given(beta=st.floats(0, 2, width=32), scale=st.floats(0.125, 32, width=32))
def test_states_stay_below_the_exponential_of_beta(beta: float, scale: float) -> None:
    cell = janet(beta=beta)
    inputs = scale * np.random.default_rng(2).normal(size=(50, FEATURES))
    assert np.abs(outputs_by_steps(cell, inputs)).max() <= np.exp(beta) * (1 + 1e-5)


def test_the_start_of_the_authors_code_without_chrono() -> None:
    features, n = 30, 40
    cell = JANET(features, n, rngs=nnx.Rngs(0))
    w = weights_of(cell)
    np.testing.assert_array_equal(w["dense_i.bias"], [1.0] * n + [0.0] * n)
    for name, rows in (("dense_i.kernel", features), ("dense_h.kernel", n)):
        limit = np.sqrt(6 / (rows + 2 * n))
        assert 0.98 * limit < np.abs(w[name]).max() <= limit * (1 + 1e-6)
        assert w[name].std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
    without = weights_of(JANET(features, n, use_bias=False, rngs=nnx.Rngs(0)))
    assert set(without) == {"dense_i.kernel", "dense_h.kernel"}
    for name, values in without.items():
        np.testing.assert_array_equal(values, w[name])


def biases(composed: Compose, *overrides: str) -> tuple[np.ndarray, np.ndarray]:
    """Return b_f and b_g of a configured network at its start."""
    config = composed(*overrides, "model.hidden_size=64")
    program = Program(config)
    state = program.initialise(hyperparameters_of(config))
    bias = np.asarray(program.merge(state.parameters).cell.dense_i.bias[...])
    return bias[:64], bias[64:]


def test_chrono_sets_the_forget_gate_alone(composed: Compose) -> None:
    for overrides in (
        ("model=janet", "bias=chrono", "bias.longest=50", "task.length=8"),
        ("+network=janet", "task=adding", "task.length=50"),
    ):
        forget, candidate = biases(composed, *overrides)
        assert forget.min() >= 0
        assert np.log(30) < forget.max() <= np.log(49) + 1e-6
        np.testing.assert_array_equal(candidate, 0)
    forget, candidate = biases(composed, "model=janet", "model.cell.forget_bias=0.5")
    np.testing.assert_array_equal(forget, 0.5)
    np.testing.assert_array_equal(candidate, 0)
    cell = janet()
    set_gate_biases(cell, {"forget": jnp.arange(4.0), "input": -jnp.arange(4.0)})
    opened = gates(cell, jnp.zeros(N), jnp.zeros(FEATURES))["forget"]
    np.testing.assert_allclose(opened, sigmoid(np.arange(4.0)), rtol=1e-6)


def test_the_network_of_its_name_has_the_authors_recurrent_weights(composed: Compose) -> None:
    n = 64
    config = composed("+network=janet", f"model.hidden_size={n}")
    program = Program(config)
    state = program.initialise(hyperparameters_of(config))
    kernel = weights_of(program.merge(state.parameters).cell)["dense_h.kernel"]
    assert kernel.shape == (n, 2 * n)
    limit = np.sqrt(2 / n)
    assert 0.98 * limit < np.abs(kernel).max() <= 1.0001 * limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)


def test_options_out_of_range_are_named(composed: Compose) -> None:
    with pytest.raises(ConfigError, match=r"model\.cell\.beta must be a finite number"):
        composed("model=janet", "model.cell.beta=inf")


def test_it_trains(composed: Compose) -> None:
    assert trained_loss(composed, "model=janet") < 0.7
