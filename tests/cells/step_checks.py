"""Checks of a cell's step and of the ways to run it, for tests of several cells."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from conftest import Compose
from flax import nnx
from jax.flatten_util import ravel_pytree

from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.training.program import Program, hyperparameters_of

FEATURES, HIDDEN, STEPS, BATCH = 3, 4, 6, 2


def with_random_weights(cell: Any, scale: float = 0.7, seed: int = 0) -> Any:
    """Draw every weight and bias of a cell from N(0, scale²), in place."""
    noise = np.random.default_rng(seed)
    state = nnx.state(cell, nnx.Param)
    nnx.update(
        cell,
        jax.tree.map(lambda x: jnp.asarray(scale * noise.normal(size=x.shape), x.dtype), state),
    )
    return cell


def in_float64(cell: Any) -> Any:
    """Give a cell float64 weights, in place."""
    nnx.update(cell, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(cell, nnx.Param)))
    return cell


def weights_of(layer: nnx.Linear) -> tuple[np.ndarray, np.ndarray]:
    """Return W, which acts from the left, and b, in float64."""
    b = 0.0 if layer.bias is None else np.asarray(layer.bias[...], np.float64)
    return np.asarray(layer.kernel[...], np.float64).T, np.asarray(b)


def random_carry(cell: Any, *batch: int, dtype: Any = jnp.float32, seed: int = 1) -> Any:
    noise = np.random.default_rng(seed)
    zeros = cell.initialize_carry((*batch, FEATURES))
    return jax.tree.map(lambda x: jnp.asarray(noise.normal(size=x.shape), dtype), zeros)


def random_inputs(*shape: int, dtype: Any = jnp.float32, seed: int = 2) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*shape, FEATURES)), dtype)


def run(cell: Any, carry: Any, inputs: jax.Array) -> tuple[Any, np.ndarray]:
    """Return the last carry and the outputs of a cell's own steps, in a loop."""
    outputs = []
    for x in inputs:
        carry, output = cell(carry, x)
        outputs.append(output)
    return carry, np.stack(outputs)


def step_jacobian(cell: Any, carry: Any, x: jax.Array) -> np.ndarray:
    """Return ∂s⁽ᵗ⁾/∂s⁽ᵗ⁻¹⁾ of one sample, checked against central differences."""
    flat, rebuild = ravel_pytree(carry)

    def step(state: jax.Array) -> jax.Array:
        return ravel_pytree(cell(rebuild(state), x)[0])[0]

    jacobian = np.asarray(jax.jacobian(step)(flat))
    size = 1e-6
    moves = size * jnp.eye(len(flat))
    columns = [(step(flat + move) - step(flat - move)) / (2 * size) for move in moves]
    np.testing.assert_allclose(jacobian, np.stack(columns, axis=1), atol=1e-8)
    return jacobian


def assert_batch_axes_are_free(cell: Any) -> None:
    """Check that a cell runs on any number of leading axes, and treats each sample alike."""
    carry, x = random_carry(cell, 5, 2), random_inputs(5, 2)
    together = cell(carry, x)
    for index in np.ndindex(5, 2):
        alone = cell(jax.tree.map(lambda s, i=index: s[i], carry), x[index])
        of_sample = jax.tree.map(lambda s, i=index: s[i], together)
        _assert_close(alone, of_sample, 1e-6)


def assert_unrolls_as_its_steps(cell: Any) -> None:
    """Check `unroll` against `step_by_step`: values, all gradients, and a rule for the adjoint."""
    _assert_same_runs(cell, jnp.float32, 2e-5, None)
    with jax.enable_x64(True):
        in_float64(cell)
        _assert_same_runs(cell, jnp.float64, 1e-12, None)
        _assert_same_runs(cell, jnp.float64, 1e-12, partial(jax.tree.map, jnp.tanh))
        _assert_sees_new_weights(cell)


def _assert_sees_new_weights(cell: Any) -> None:
    """Check that `unroll` runs a cell as it is now, if its weights have changed in place."""
    carry = random_carry(cell, BATCH, dtype=jnp.float64)
    inputs = random_inputs(STEPS, BATCH, dtype=jnp.float64)
    before = unroll(cell, carry, inputs)
    with_random_weights(cell, scale=0.4, seed=9)
    after = unroll(cell, carry, inputs)
    _assert_close(after, run(cell, carry, inputs), 1e-12)
    assert not np.allclose(before[1], after[1])


def _assert_same_runs(cell: Any, dtype: Any, tolerance: float, rule: Any) -> None:
    definition, weights, rest = nnx.split(cell, nnx.Param, ...)
    carry = random_carry(cell, BATCH, dtype=dtype)
    inputs = random_inputs(STEPS, BATCH, dtype=dtype)

    def differentiated(run_cell: Callable[..., Any], *arguments: Any) -> Any:
        def values(weights: Any, carry: Any, inputs: Any) -> Any:
            return run_cell(nnx.merge(definition, weights, rest), carry, inputs, rule)

        found, pull = jax.vjp(values, *arguments)
        return found, pull(jax.tree.map(lambda x: jnp.cos(3 * x + 1), found))

    fast, slow = (
        jax.jit(partial(differentiated, way))(weights, carry, inputs)
        for way in (unroll, step_by_step)
    )
    _assert_close(fast, slow, tolerance)


def _assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        scale = max(1.0, float(jnp.max(jnp.abs(y))))
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale)


def configured(composed: Compose, *overrides: str) -> Any:
    """Return the cell of a config at its start."""
    config = composed(*overrides)
    program = Program(config)
    state = program.initialise(hyperparameters_of(config))
    return program.merge(state.parameters, state.constants).cell


def loss_after(composed: Compose, updates: int, *overrides: str) -> float:
    """Train on the digits; return the held-out loss, where that of a guess is 1."""
    config = composed("task=digits", "optim.learning_rate=0.01", "wandb=disabled", *overrides)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, _ = program.advance(hyperparameters, program.initialise(hyperparameters), updates)
    assert not state.diverged
    return float(program.evaluate(state)["eval/loss"]) / program.task.baseline
