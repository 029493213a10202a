"""What tests of cells share: weights and Jacobians in float64, and a short training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from conftest import Compose
from flax import nnx

from gradlab.training.program import Program, hyperparameters_of

Vector = np.ndarray


def sigmoid(x: Vector) -> Vector:
    return 1 / (1 + np.exp(-x))


def weights_of(cell: Any) -> dict[str, np.ndarray]:
    """Return a cell's weights in float64, by dotted path."""
    flat = nnx.to_flat_state(nnx.state(cell, nnx.Param))
    return {".".join(map(str, path)): np.asarray(x[...], np.float64) for path, x in flat}


def outputs_by_steps(cell: Any, inputs: np.ndarray) -> np.ndarray:
    """Return a cell's outputs on (time, features), step by step in float32."""
    carry, outputs = cell.initialize_carry(inputs[0].shape), []
    for x in inputs:
        carry, output = cell(carry, jnp.asarray(x, jnp.float32))
        outputs.append(np.asarray(output))
    return np.stack(outputs)


def step_jacobians(cell: Any, h: Vector, x: Vector) -> tuple[np.ndarray, np.ndarray]:
    """Return ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ in float64: JAX's, and by central differences."""
    with jax.enable_x64(True):
        own = nnx.clone(cell)
        in_float64 = jax.tree.map(lambda w: w.astype(jnp.float64), nnx.state(own, nnx.Param))
        nnx.update(own, in_float64)

        def step(h: Any) -> Any:
            return own(h, jnp.asarray(x, jnp.float64))[0]

        start, change = jnp.asarray(h, jnp.float64), 1e-6
        columns = [
            (step(start + change * unit) - step(start - change * unit)) / (2 * change)
            for unit in jnp.eye(len(h), dtype=jnp.float64)
        ]
        assert columns[0].dtype == jnp.float64
        return np.asarray(jax.jacobian(step)(start)), np.stack(columns, axis=1)


def trained_loss(composed: Compose, *overrides: str, updates: int = 200) -> float:
    """Return the held-out loss on digits after a short training, in units of the baseline."""
    task = ("task=digits", "task.length=8", "model.hidden_size=16", "optim.learning_rate=0.01")
    config = composed(*task, *overrides, "wandb=disabled")
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, _ = program.advance(hyperparameters, program.initialise(hyperparameters), updates)
    return float(program.evaluate(state)["eval/loss"]) / program.task.baseline
