"""Losses and evaluation metrics: cross entropy for classes, squared error for values."""

import math

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Shaped

from gradlab.components import ConfigError
from gradlab.tasks import Batch, Task
from gradlab.tasks.checks import is_classes

LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)  # the smallest that float32 holds in full


def losses(outputs: Float[Array, "*batch o"], targets: Array) -> Float[Array, "*batch"]:
    """Return the loss of each time step: cross entropy (nats), or mean squared error for values."""
    if is_classes(targets):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
    return jnp.mean((outputs - targets) ** 2, axis=-1)


def weighted_mean(values: Shaped[Array, "batch time"], batch: Batch) -> Float[Array, ""]:
    """Return the mean of the time steps' values, weighted by `batch.weights`; 0 if all are 0."""
    return jnp.sum(values * batch.weights) / total_weight(batch)


def total_weight(batch: Batch) -> Float[Array, ""]:
    """Return the sum of a batch's weights; 1 if all are 0."""
    total = jnp.sum(batch.weights)
    return jnp.where(total > 0, total, 1)


def half_sum(batch: Batch, outputs: int) -> Float[Array, ""]:
    """Return the factor from the mean squared error to ½ Σ (output − target)² of a sequence.

    The sum is over the weighted steps and the outputs, and its mean is taken over the sequences:
    the error whose gradient the formulas of Hochreiter & Schmidhuber 1997 descend (eq. 19 to 28).
    """
    return total_weight(batch) * outputs / (2 * batch.weights.shape[0])


def check_objective(name: str, task: Task) -> None:
    """Check `train.objective` against a task.

    Raises:
        ConfigError: half_sum, a squared error, is asked for classes.
    """
    if name == "half_sum" and is_classes(task.test.targets):
        raise ConfigError(
            "train.objective=half_sum is a squared error and needs a task with values; this one "
            "has classes: take train.objective=mean."
        )


def worst_loss(batch: Batch) -> float:
    """Return the loss of the worst answers that are themselves targets.

    For values, the end of the targets' range that is farther from the right value, at every step
    and for every output: no answer within the range is worse. For classes, certainty of a wrong
    class, as far as float32 has probabilities for it: −ln 2⁻¹²⁶ = 87.3 nats. A greater loss is that
    of outputs that no target asks for.

    Args:
        batch: the sequences that are judged.

    Returns:
        Nats, or a squared error; inf if all values are the same, which have no range.
    """
    if is_classes(batch.targets):
        return -math.log(LEAST_PROBABILITY)
    weights = np.asarray(batch.weights, np.float64)
    targets = np.asarray(batch.targets, np.float64)
    due = targets[weights > 0]
    low, high = due.min(axis=0), due.max(axis=0)
    farthest = np.maximum(targets - low, high - targets)
    return float(np.average(np.mean(farthest**2, axis=-1), weights=weights)) or math.inf


def is_right(
    outputs: Float[Array, "batch time o"], targets: Array, tolerance: float | None
) -> Bool[Array, "batch time"]:
    """Return whether each time step's answer is right: its class, or all values within tolerance.

    Args:
        outputs: the network's.
        targets: classes or values.
        tolerance: of a task with values; None: no value is wrong.
    """
    if is_classes(targets):
        return jnp.argmax(outputs, axis=-1) == targets
    largest = math.inf if tolerance is None else tolerance
    return jnp.all(jnp.abs(outputs - targets) <= largest, axis=-1)


def metrics(outputs: Float[Array, "batch time o"], task: Task) -> dict[str, Float[Array, ""]]:
    """Evaluate outputs for the held-out sequences.

    Args:
        outputs: the network's outputs for `task.test.inputs`.
        task: its `test` gives the targets; its `tolerance`, where it has one, tells how far a value
            may be from its target and still be right.

    Returns:
        By W&B names: the loss; the task's baseline, a loss to beat; for classes, the share of time
        steps that are right; for values, their mean absolute error; and for classes or with a
        tolerance, the share of sequences that have a wrong time step, among those with an answer
        due. Of a text, also bits per character and the perplexity. NaN where no answer is due at
        all.
    """
    batch = task.test
    due = batch.weights > 0
    judged = jnp.where(due.any(), 1.0, jnp.nan)
    row = {
        "eval/loss": judged * weighted_mean(losses(outputs, batch.targets), batch),
        "eval/baseline": jnp.asarray(task.baseline),
    }
    if not is_classes(batch.targets):
        error = jnp.mean(jnp.abs(outputs - batch.targets), axis=-1)
        row["eval/absolute_error"] = judged * weighted_mean(error, batch)
        if task.tolerance is None:
            return row
    right = is_right(outputs, batch.targets, task.tolerance)
    if is_classes(batch.targets):
        row["eval/accuracy"] = judged * weighted_mean(right, batch)
    row["eval/error_rate"] = jnp.mean(jnp.any(~right & due, axis=1), where=due.any(axis=1))
    if task.predicts_text:
        row["eval/bits_per_character"] = row["eval/loss"] / math.log(2)
        row["eval/perplexity"] = jnp.exp(row["eval/loss"])
    return row
