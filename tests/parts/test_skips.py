"""Stacks with ways around their layers, against their definitions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx

from gradlab import jacobian_log_norms
from gradlab.cells import LSTM, Elman, gates
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.cells.skips import Highway, Residual
from gradlab.components import ConfigError
from gradlab.jacobian import step_jacobians
from gradlab.models import Stack
from gradlab.training.program import Program, hyperparameters_of

FEATURES, N, STEPS, BATCH = 3, 4, 6, 2


def inputs(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(*shape, FEATURES)), jnp.float32)


def skips_of(kind: str, rngs: nnx.Rngs) -> list[Any]:
    made = {"none": [], "residual": [Residual()] * 2}
    return made[kind] if kind in made else [Highway(N, rngs) for _ in range(2)]


def stack_of(kind: str, top: Any = LSTM) -> Stack:
    rngs = nnx.Rngs(0)
    layers = [Elman(FEATURES, N, rngs=rngs), Elman(N, N, rngs=rngs), top(N, N, rngs=rngs)]
    return Stack(layers, skips_of(kind, rngs))


def passed_on(skip: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if isinstance(skip, Residual):
        return x + y
    w, b = (np.asarray(v[...], float) for v in (skip.gate.kernel, skip.gate.bias))
    share = 1 / (1 + np.exp(-(x @ w + b)))
    return share * y + (1 - share) * x


@pytest.mark.parametrize("kind", ["residual", "highway"])
def test_a_layer_passes_on_what_the_definition_says(kind: str) -> None:
    stack = stack_of(kind)
    carry = stack.initialize_carry((FEATURES,), nnx.Rngs(0))
    for x in inputs(STEPS):
        before = [carry[f"layer{i}"] for i in range(3)]
        _, y = stack.layers[0](before[0].h, x)
        for i in (1, 2):
            state = before[i].h if i == 1 else before[i]
            _, output = stack.layers[i](state, y)
            y = passed_on(stack.skips[i - 1], np.asarray(y, float), np.asarray(output, float))
            y = jnp.asarray(y, jnp.float32)
        carry, found = stack(carry, x)
        np.testing.assert_allclose(found, y, atol=1e-6)


@pytest.mark.parametrize("kind", ["residual", "highway"])
def test_layer_after_layer_is_step_by_step_forward_and_backward(kind: str) -> None:
    definition, weights = nnx.split(stack_of(kind))
    x = inputs(STEPS, BATCH)
    start = stack_of(kind).initialize_carry(x.shape[1:], nnx.Rngs(0))

    def differentiated(way: Any) -> Any:
        def run(weights: Any, x: Any) -> Any:
            return way(nnx.merge(definition, weights), start, x)

        values, pull = jax.vjp(run, weights, x)
        return values, pull(jax.tree.map(jnp.cos, values))

    fast, slow = differentiated(unroll), differentiated(step_by_step)
    for found, expected in zip(*map(jax.tree.leaves, (fast, slow)), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_residual_layers_join_states_of_all_layers_below_by_a_part_of_the_identity() -> None:
    """Of linear layers, ∂h₂⁽ᵗ⁾/∂h₀⁽ᵗ⁻¹⁾ is U₂ (U₁ + I) W₀; without skips it is U₂ U₁ W₀."""
    layers: list[Any] = []
    for features in (FEATURES, N, N):
        cell = Elman(features, N, activation="identity", rngs=nnx.Rngs(len(layers)))
        layers.append(cell)
    u1, u2, w0 = (
        np.asarray(w.kernel[...], float).T
        for w in (layers[1].dense_i, layers[2].dense_i, layers[0].dense_h)
    )
    for skips, between in (([], u1), ([Residual(), Residual()], u1 + np.eye(N))):
        (jacobian,) = step_jacobians(Stack(layers, skips), inputs(1))
        np.testing.assert_allclose(jacobian[2 * N :, :N], u2 @ between @ w0, atol=1e-5)
        own = np.asarray(layers[2].dense_h.kernel[...]).T
        np.testing.assert_allclose(jacobian[2 * N :, 2 * N :], own, atol=1e-6)


def test_gates_of_upper_layers_read_what_is_passed_on() -> None:
    stack, x = stack_of("residual"), inputs(2)
    carry, _ = stack(stack.initialize_carry((FEATURES,), nnx.Rngs(0)), x[0])
    _, y = stack.layers[0](carry["layer0"].h, x[1])
    _, output = stack.layers[1](carry["layer1"].h, y)
    expected = gates(stack.layers[2], carry["layer2"], y + output)["forget"]
    np.testing.assert_allclose(gates(stack, carry, x[1])["layer2.forget"], expected, rtol=1e-6)


def test_a_highway_starts_by_carrying() -> None:
    skip = Highway(400, nnx.Rngs(0))
    np.testing.assert_array_equal(skip.gate.bias[...], -1)
    x, y = jnp.zeros(400), jnp.ones(400)
    np.testing.assert_allclose(skip(x, y), 1 / (1 + np.e), rtol=1e-6)


@pytest.mark.parametrize("kind", ["residual", "highway"])
def test_deep_stacks_are_configured_train_and_are_measured(kind: str, composed: Compose) -> None:
    words = (
        *("model=gru", "model.num_layers=3", f"model.skip={kind}", "model.hidden_size=8"),
        *("task=echo", "task.length=8", "task.delay=1", "optim.learning_rate=0.02"),
        "task.test_size=50",
    )
    config = composed(*words, "probe=[spectral,statistics]")
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    cell = program.merge(state.parameters, state.constants).cell
    assert [type(skip).__name__.lower() for skip in cell.skips] == [kind, kind]
    state, telemetry = program.advance(hyperparameters, state, 150)
    assert not telemetry.nonfinite.any()
    assert program.evaluate(state)["eval/loss"] < 0.7 * program.task.baseline
    assert np.isfinite(program.measure(hyperparameters, state).metrics["jacobian/log_norm/lag_1"])
    probing = Program(composed(*words, "probe=adjoint"))
    with pytest.raises(ConfigError, match=f"that of model.skip={kind} is none: leave out the prob"):
        probing.measure(hyperparameters, state)
    across = jacobian_log_norms(cell, inputs(STEPS)[:, :1], of="layer2.h", wrt="layer0.h")
    assert np.isfinite(np.asarray(across)[1, 0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("model.num_layers=1",), "needs model.num_layers of 2 or more; got 1"),
        (
            ("model=lstm_1997", "model.cell.connections=below", "model.num_layers=2"),
            "needs layers whose outputs have one size; those of LSTM1997 have",
        ),
    ],
)
def test_stacks_without_room_for_skips_are_refused(
    words: tuple[str, ...], sentence: str, composed: Compose
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Program(composed("model.skip=residual", "model.hidden_size=4", *words))
