"""What a network's answers cost, and how many are right: cross entropy or squared error."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Shaped

from gradlab.tasks import Batch, Task


def is_classes(targets: Array) -> bool:
    """Whether targets are classes (integers) rather than values."""
    return jnp.issubdtype(targets.dtype, jnp.integer)


def losses(outputs: Float[Array, "*batch o"], targets: Array) -> Float[Array, "*batch"]:
    """Loss of each step: cross entropy (nats) of classes, mean squared error of values."""
    if is_classes(targets):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
    return jnp.mean((outputs - targets) ** 2, axis=-1)


def weighted_mean(values: Shaped[Array, "batch time"], batch: Batch) -> Float[Array, ""]:
    """Mean over the steps that count, by their weights; 0 where none does."""
    total = jnp.sum(batch.weights)
    return jnp.sum(values * batch.weights) / jnp.where(total > 0, total, 1)


def metrics(outputs: Float[Array, "batch time o"], task: Task) -> dict[str, Float[Array, ""]]:
    """How good answers to the held-out sequences are, by W&B names.

    Loss and the loss to beat; for classes, the share of steps that are right; and, where the task
    says what is wrong, the share of sequences with a wrong step.
    """
    batch = task.test
    found = {
        "eval/loss": weighted_mean(losses(outputs, batch.targets), batch),
        "eval/baseline": jnp.asarray(task.baseline),
    }
    if is_classes(batch.targets):
        right = jnp.argmax(outputs, axis=-1) == batch.targets
        found["eval/accuracy"] = weighted_mean(right, batch)
    elif task.tolerance is not None:
        right = jnp.all(jnp.abs(outputs - batch.targets) <= task.tolerance, axis=-1)
    else:
        return found
    found["eval/error_rate"] = jnp.mean(jnp.any(~right & (batch.weights > 0), axis=1))
    return found
