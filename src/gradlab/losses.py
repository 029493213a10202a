"""What a network's answers cost, and how many are right: cross entropy or squared error."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Shaped

from gradlab.tasks import Batch


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


def metrics(outputs: Float[Array, "batch time o"], batch: Batch) -> dict[str, Float[Array, ""]]:
    """Loss and, for classes, accuracy, by their W&B names."""
    found = {"eval/loss": weighted_mean(losses(outputs, batch.targets), batch)}
    if is_classes(batch.targets):
        correct = jnp.argmax(outputs, axis=-1) == batch.targets
        found["eval/accuracy"] = weighted_mean(correct, batch)
    return found
