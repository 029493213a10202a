"""Checks that a task's sequences can be trained on and judged: shapes, classes, weights."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradlab.components import ConfigError
from gradlab.tasks import Batch, Task

OWN = "gradlab.tasks."  # tests hold the training sequences of these to the same


def check_task(task: Task, name: str, batch_size: int) -> None:
    """Check a task's held-out sequences, and one training batch of somebody's own task.

    Args:
        task: the task.
        name: its `_target_`.
        batch_size: training sequences of one update.

    Raises:
        ConfigError: shapes do not agree, numbers are not finite, a class does not exist, or no step
            has a weight.
    """
    check_batch(task.test, task, f"the held-out sequences of {name}")
    drawn = f"the training sequences of {name}"
    shapes = jax.eval_shape(lambda key: task.sample(key, batch_size), jax.random.key(0))
    _check_shapes(shapes, task, drawn)
    if not name.startswith(OWN):
        sample = jax.jit(task.sample, static_argnums=1)
        check_batch(sample(jax.random.key(0), batch_size), task, drawn)


def check_batch(batch: Batch, task: Task, where: str) -> None:
    """Check one batch; see `check_task`."""
    _check_shapes(batch, task, where)
    inputs, targets, weights = (np.asarray(x) for x in batch)
    for part, values in (("inputs", inputs), ("targets", targets), ("weights", weights)):
        if not np.isfinite(values).all():
            raise ConfigError(f"{part} must be finite numbers; {where} have NaN or infinite ones.")
    if (weights < 0).any():
        raise ConfigError(f"weights must be at least 0; {where} have {weights.min():g}.")
    if not weights.any():
        raise ConfigError(
            f"weights must be above 0 at some step, where an answer is due; {where} have none."
        )
    if is_classes(batch.targets) and not ((targets >= 0) & (targets < task.outputs)).all():
        wrong = targets[(targets < 0) | (targets >= task.outputs)][0]
        raise ConfigError(
            f"classes must be from 0 to {task.outputs - 1}, the task's outputs less 1, also where "
            f"the weight is 0; {where} have {wrong}."
        )


def _check_shapes(batch: Batch, task: Task, where: str) -> None:
    """Check the shapes of a batch against each other and against the task's sizes."""
    shape = jnp.shape(batch.inputs)
    sizes = shape[:2]
    per_step = sizes if is_classes(batch.targets) else (*sizes, task.outputs)
    required = {
        "inputs": (batch.inputs, (*sizes, task.features)),
        "targets": (batch.targets, per_step),
        "weights": (batch.weights, sizes),
    }
    for part, (array, expected) in required.items():
        if len(shape) != 3 or jnp.shape(array) != expected:
            dims = "(batch, time, features)" if len(shape) != 3 else str(expected)
            raise ConfigError(f"{part} must have shape {dims}; {where} have {jnp.shape(array)}.")


def is_classes(targets: Array) -> bool:
    """Return whether targets are classes (integers) rather than values."""
    return jnp.issubdtype(targets.dtype, jnp.integer)
