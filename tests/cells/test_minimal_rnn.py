"""The MinimalRNN against its papers' equations in float64."""

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

from gradlab.cells import MinimalRNN, gates, set_gate_biases
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.theory import of_cells
from gradlab.training.program import Program, hyperparameters_of

FEATURES, N = 3, 4
FUNCTIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "identity": lambda x: x,
}


def minimal(**options: Any) -> Any:
    return make(lambda *sizes, rngs: MinimalRNN(*sizes, rngs=rngs, **options))


def encoded_and_gate(
    cell: Any, h: np.ndarray, x: np.ndarray, activation: str = "tanh"
) -> tuple[np.ndarray, np.ndarray]:
    """Return z and u."""
    w = weights_of(cell)
    z = FUNCTIONS[activation](x @ w["encoder.kernel"] + w.get("encoder.bias", 0))
    from_z = z @ w["dense_i.kernel"] + w.get("dense_i.bias", 0)
    return z, sigmoid(h @ w["dense_h.kernel"] + from_z)


@settings(max_examples=8)
@given(activation=st.sampled_from(list(FUNCTIONS)), use_bias=st.booleans(), seed=st.integers(0, 99))
def test_outputs_are_those_of_the_papers(activation: str, use_bias: bool, seed: int) -> None:
    cell = minimal(activation=activation, use_bias=use_bias)
    inputs = np.random.default_rng(seed).normal(size=(7, FEATURES)).astype(np.float32)
    h, expected = np.zeros(N), []
    for x in inputs:
        z, u = encoded_and_gate(cell, h, x, activation)
        h = u * h + (1 - u) * z
        expected.append(h)
    np.testing.assert_allclose(outputs_by_steps(cell, inputs), expected, rtol=1e-5, atol=1e-5)
    _, unrolled = unroll(cell, jnp.zeros((1, N)), jnp.asarray(inputs)[:, None])
    np.testing.assert_allclose(unrolled[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_the_step_jacobian() -> None:
    cell, rng = minimal(), np.random.default_rng(0)
    h, x = rng.normal(size=N), rng.normal(size=FEATURES)
    z, u = encoded_and_gate(cell, h, x)
    to_gate = weights_of(cell)["dense_h.kernel"].T
    expected = np.diag(u) + np.diag((h - z) * u * (1 - u)) @ to_gate
    by_jax, numeric = step_jacobians(cell, h, x)
    np.testing.assert_allclose(by_jax, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(by_jax, numeric, rtol=1e-7, atol=1e-8)


def test_reading_all_inputs_at_once_runs_as_the_steps_do() -> None:
    cell = minimal()
    args = problem(cell, jnp.float32)
    assert_same(
        with_gradients(unroll, cell)(*args), with_gradients(step_by_step, cell)(*args), 1e-5
    )
    with jax.enable_x64(True):
        cell = in_float64(minimal())
        args = problem(cell, jnp.float64)
        expected = with_gradients(step_by_step, cell)(*args)
        assert_same(with_gradients(unroll, cell)(*args), expected, 1e-12)


def test_a_rule_for_adjoints_is_kept_to() -> None:
    cell = minimal()
    args = problem(cell, jnp.float32)
    ruled, plain = (with_gradients(unroll, cell, rule)(*args) for rule in (jnp.tanh, None))
    assert_same(ruled, with_gradients(step_by_step, cell, jnp.tanh)(*args), 0.0)
    assert np.abs(np.asarray(ruled[1][1]) - np.asarray(plain[1][1])).max() > 1e-3


class Leaky(MinimalRNN):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        h, _ = super().__call__(carry, inputs)
        return 0.5 * carry + 0.5 * h, h


class Doubled(MinimalRNN):
    def advance(self, h: Any, read: Any) -> Any:
        return 2 * super().advance(h, read)


@pytest.mark.parametrize("kind", [Doubled, Leaky])
def test_a_subclass_with_a_step_of_its_own_runs_by_it(kind: Any) -> None:
    cell = make(kind)
    args = problem(cell, jnp.float32)
    assert_same(unroll(cell, *args), step_by_step(cell, *args), 1e-5)
    sentence = f"no gates of {kind.__name__}, whose step is not that of MinimalRNN"
    with pytest.raises(TypeError, match=sentence):
        gates(cell, jnp.zeros(N), jnp.zeros(FEATURES))


def test_the_gate_explains_the_next_state_and_takes_a_forget_bias() -> None:
    cell, rng = minimal(), np.random.default_rng(1)
    h, x = (jnp.asarray(rng.normal(size=n), jnp.float32) for n in (N, FEATURES))
    _, u = encoded_and_gate(cell, np.asarray(h, float), np.asarray(x, float))
    np.testing.assert_allclose(gates(cell, h, x)["update"], u, rtol=1e-5)
    set_gate_biases(cell, {"forget": jnp.arange(4.0), "input": -jnp.arange(4.0)})
    cell.dense_i.kernel[...] = jnp.zeros((N, N))
    opened = gates(cell, jnp.zeros(N), x)["update"]
    np.testing.assert_allclose(opened, sigmoid(np.arange(4.0)), rtol=1e-6)


@settings(max_examples=10)
@given(scale=st.floats(0.125, 32, width=32), seed=st.integers(0, 9))
def test_states_stay_within_the_range_of_the_encoded_inputs(scale: float, seed: int) -> None:
    cell = minimal()
    inputs = scale * np.random.default_rng(seed).normal(size=(20, FEATURES))
    z = np.stack([encoded_and_gate(cell, np.zeros(N), x)[0] for x in inputs])
    outputs = outputs_by_steps(cell, inputs)
    highest, lowest = (extreme(z, 0) for extreme in (np.maximum.reduce, np.minimum.reduce))
    assert (outputs <= np.maximum(highest, 0) + 1e-5).all()
    assert (outputs >= np.minimum(lowest, 0) - 1e-5).all()


def test_weights_at_the_start() -> None:
    normal = nnx.initializers.normal(0.2)
    cells = [
        MinimalRNN(30, 50, kernel_init=normal, rngs=nnx.Rngs(0), **options)  # type: ignore[arg-type]
        for options in ({}, {"input_gain": 1.5}, {"use_bias": False})
    ]
    plain, scaled, without = map(weights_of, cells)
    gram = plain["dense_h.kernel"].T @ plain["dense_h.kernel"]
    np.testing.assert_allclose(gram, np.eye(50), atol=1e-5)
    np.testing.assert_array_equal(plain["dense_i.bias"], 0)
    np.testing.assert_array_equal(plain["encoder.bias"], 0)
    assert plain["dense_i.kernel"].std() == pytest.approx(0.2, rel=0.05)
    np.testing.assert_allclose(scaled["dense_i.kernel"], 1.5 * plain["dense_i.kernel"], rtol=1e-6)
    assert set(without) == {"encoder.kernel", "dense_i.kernel", "dense_h.kernel"}
    for name, values in without.items():
        np.testing.assert_array_equal(values, plain[name])


def test_the_network_of_its_name_has_the_quoted_deviations(composed: Compose) -> None:
    config = composed("+network=minimal_rnn", "model.hidden_size=100")
    program = Program(config)
    state = program.initialise(hyperparameters_of(config))
    w = weights_of(program.merge(state.parameters).cell)
    assert w["dense_h.kernel"].std() == pytest.approx(6.88 / np.sqrt(100), rel=0.03)
    assert w["dense_i.kernel"].std() == pytest.approx(1.39 / np.sqrt(100), rel=0.03)
    np.testing.assert_array_equal(w["dense_i.bias"], 0)
    assert of_cells.minimal_rnn_mean_field(6.88, 1.39, 0.46).chi == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("gain", "input_gain", "power", "bias"), [(6.88, 1.39, 0.46, 0.0), (2.0, 1.0, 1.0, 1.0)]
)
def test_the_mean_field_is_that_of_weights_drawn_at_every_step(
    gain: float, input_gain: float, power: float, bias: float
) -> None:
    n, steps, settled = 400, 150, 30
    rng = np.random.default_rng(0)
    h, change = np.zeros(n), rng.normal(size=n)
    variances, growths = [], []
    for _ in range(steps):
        z = np.sqrt(power) * rng.normal(size=n)
        u_h = gain / np.sqrt(n) * rng.normal(size=(n, n))
        e = u_h @ h + input_gain * np.sqrt(np.mean(z**2)) * rng.normal(size=n)
        u = sigmoid(e + bias)
        after = u * change + (h - z) * u * (1 - u) * (u_h @ change)
        growths.append(np.log(np.sum(after**2) / np.sum(change**2)))
        variances.append(np.var(e))
        h, change = u * h + (1 - u) * z, after
    expected = of_cells.minimal_rnn_mean_field(gain, input_gain, power, bias)
    assert np.mean(variances[settled:]) == pytest.approx(expected.q, rel=0.05)
    assert np.mean(growths[settled:]) == pytest.approx(np.log(expected.chi), abs=0.04)
    assert expected.rate == pytest.approx(np.log(expected.chi) / 2)


def test_of_two_stable_states_the_mean_field_is_the_one_reached_from_rest() -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights /= weights.sum()

    def settled_q(power: float) -> float:
        """Return q after many steps of the mean square of h, from a start of it."""
        for _ in range(4000):
            u = sigmoid(5 + np.sqrt(8**2 * power + 0.1**2) * nodes)
            power = float(weights @ (u**2 * power + (1 - u) ** 2))
        return 8**2 * power + 0.1**2

    field = of_cells.minimal_rnn_mean_field(gain=8, input_gain=0.1, input_power=1, bias=5)
    assert field.q == pytest.approx(settled_q(0.0), rel=1e-6)
    assert settled_q(1.0) > 10 * field.q


def test_the_mean_field_of_gates_that_are_open_to_rounding() -> None:
    gain, bias = 1e8, 40.0  # 1 − u is e⁻ᵉ here, so that all means are those of lognormal numbers
    q = of_cells.minimal_rnn_mean_field(gain, bias=bias).q
    assert q == pytest.approx(1 + gain**2 * np.exp(-bias + 1.5 * q) / 2, rel=1e-9)
    assert q > 1.05


def test_the_mean_field_without_inputs_is_a_gate_at_rest() -> None:
    field = of_cells.minimal_rnn_mean_field(3.0, input_power=0.0, bias=1.0)
    assert field.q == 0
    assert field.rate == pytest.approx(np.log(sigmoid(np.float64(1))))


def test_other_activations_are_named() -> None:
    with pytest.raises(ValueError, match="activation must be one of tanh, relu, sigmoid, identity"):
        MinimalRNN(2, 3, activation="softsign", rngs=nnx.Rngs(0))  # type: ignore[arg-type]


def test_it_trains(composed: Compose) -> None:
    assert trained_loss(composed, "model=minimal_rnn") < 0.7
