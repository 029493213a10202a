"""Checks that a task's sequences can be trained on and judged: shapes, types, classes, weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradlab.components import CallError, ConfigError, call
from gradlab.tasks import Batch, Task

OWN = "gradlab.tasks."  # tests hold the training sequences of these to the same


def check_task(task: Any, name: str, batch_size: int) -> None:
    """Check a task, its held-out sequences, and one training batch of somebody's own task.

    Args:
        task: what the task's function returned.
        name: its `_target_`.
        batch_size: training sequences of one update.

    Raises:
        ConfigError: it is no `Task`, one of its entries is out of range, shapes or types do not
            agree, numbers are not finite, a class does not exist, or no step has a weight. What
            its sample raises is raised as it is.
    """
    if not isinstance(task, Task):
        raise ConfigError(
            f"{name} must return a gradlab.tasks.Task, as the function of a task does; it returned "
            f"a {type(task).__name__}."
        )
    _check_entries(task, name)
    check_batch(task.test, task, f"the held-out sequences of {name}")
    drawn = f"the training sequences of {name}"
    try:
        shapes = jax.eval_shape(lambda key: call(task.sample, key, batch_size), jax.random.key(0))
    except CallError as error:
        raise ConfigError(
            f"the sample of {name} must be a function of (key, batch size) that JAX can trace; "
            f"got TypeError: {error}"
        ) from error
    _check_arrays(shapes, task, drawn)
    if shapes.inputs.shape[0] != batch_size:
        raise ConfigError(
            f"sample(key, {batch_size}) must draw {batch_size} sequences; {drawn} are "
            f"{shapes.inputs.shape[0]}."
        )
    if not name.startswith(OWN):
        sample = jax.jit(task.sample, static_argnums=1)
        check_batch(sample(jax.random.key(0), batch_size), task, drawn)
    if is_classes(shapes.targets) != is_classes(task.test.targets):
        raise ConfigError(
            f"targets must be classes (integers) or values (real numbers) throughout; {drawn} have "
            f"{shapes.targets.dtype}, and its held-out ones {task.test.targets.dtype}."
        )


def check_batch(batch: Batch, task: Task, where: str) -> None:
    """Check one batch; see `check_task`."""
    _check_arrays(batch, task, where)
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


def _check_entries(task: Task, name: str) -> None:
    """Check the entries of a task that are no arrays."""
    for entry in ("features", "outputs"):
        size = getattr(task, entry)
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ConfigError(f"{entry} of {name} must be a whole number from 1; got {size!r}.")
    if not callable(task.sample):
        raise ConfigError(
            f"sample of {name} must be a function of (key, batch size); got {task.sample!r}."
        )
    if not _is_number(task.baseline):
        raise ConfigError(
            f"baseline of {name} must be a number, the loss to beat; got {task.baseline!r}."
        )
    tolerance = task.tolerance
    if tolerance is not None and not (_is_number(tolerance) and tolerance >= 0):
        raise ConfigError(
            f"tolerance of {name} must be None or a number of at least 0; got {tolerance!r}."
        )


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError):
        return False


def _check_arrays(batch: Any, task: Task, where: str) -> None:
    """Check that a batch's parts are arrays of real numbers, and their shapes."""
    if not isinstance(batch, Batch):
        raise ConfigError(
            f"{where} must be a gradlab.tasks.Batch of inputs, targets and weights; got a "
            f"{type(batch).__name__}."
        )
    for part, array in batch._asdict().items():
        dtype = getattr(array, "dtype", None)
        allowed = (jnp.floating, jnp.integer) if part == "targets" else (jnp.floating,)
        if dtype is None or not any(jnp.issubdtype(dtype, kind) for kind in allowed):
            kinds = "real numbers (values) or integers (classes)"
            raise ConfigError(
                f"{part} must be an array of {kinds if part == 'targets' else 'real numbers'}; "
                f"{where} have {dtype or type(array).__name__}."
            )
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
