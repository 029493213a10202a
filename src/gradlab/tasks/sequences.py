"""Helpers that several tasks share: sequence lengths, where targets lie, and test sequences."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from gradlab.components import ConfigError
from gradlab.tasks import Batch, Task

TEST_SEED = 0x7E57  # training keys are split off the run's seed, so none equals this one


def draw_test_batch(sample: Callable[[Key[Array, ""], int], Batch], size: int) -> Batch:
    """Draw the test sequences of a generated task, the same for every seed of a run."""
    return jax.jit(sample, static_argnums=1)(jax.random.key(TEST_SEED), size)


def checked_min_length(length: int, min_length: int | None, least: int = 1) -> int:
    """Check a task's lengths and return the shortest one that it draws.

    Args:
        length: the longest sequence, in steps.
        min_length: the shortest one; None: all are `length` long.
        least: the fewest steps that the task can use.

    Raises:
        ConfigError: a length is below `least`, or `min_length` is above `length`.
    """
    if length < least:
        raise ConfigError(f"task.length must be at least {least}; got {length}.")
    if min_length is not None and not least <= min_length <= length:
        raise ConfigError(
            f"task.min_length must be from {least} to task.length, which is {length}; "
            f"got {min_length}."
        )
    return length if min_length is None else min_length


def check_longer(length: int, steps: int, name: str) -> None:
    """Check that a sequence is longer than a number of steps that the task needs.

    Args:
        length: of the sequence, in steps.
        steps: what the length must exceed, such as a delay.
        name: of that number, for the error.

    Raises:
        ConfigError: the sequence is too short.
    """
    if length <= steps:
        raise ConfigError(
            f"task.length must be above {name}, which is {steps} steps; got {length}."
        )


def draw_lengths(
    key: Key[Array, ""], batch_size: int, min_length: int, max_length: int
) -> Int[Array, "batch"]:
    """Draw lengths uniformly from `min_length` to `max_length`, both included."""
    return jax.random.randint(key, (batch_size,), min_length, max_length + 1)


def last_step_batch(
    inputs: Float[Array, "batch time features"],
    targets: Int[Array, "batch"] | Float[Array, "batch outputs"],
    lengths: Int[Array, "batch"],
) -> Batch:
    """Return a many-to-one batch: a target at each sequence's last step, zeros after that step."""
    steps = jnp.arange(inputs.shape[1])
    inside = steps < lengths[:, None]
    repeated = jnp.repeat(targets[:, None], steps.size, axis=1)
    weights = (steps == lengths[:, None] - 1).astype(inputs.dtype)
    return Batch(inputs * inside[..., None], repeated, weights)


def bit_batch(
    bits: Int[Array, "batch time"], classes: Int[Array, "batch time"], unanswered: int
) -> Batch:
    """Return a batch of bits with a class due at every step after the first `unanswered` ones."""
    weights: Float[Array, "batch time"] = jnp.ones(bits.shape).at[:, :unanswered].set(0)
    return Batch(bits[..., None].astype(weights.dtype), classes, weights)


def labelled_task(
    training: tuple[Shaped[np.ndarray, "sequences time features"], Int[np.ndarray, "sequences"]],
    held_out: tuple[Shaped[np.ndarray, "others time features"], Int[np.ndarray, "others"]],
    classes: int,
    largest: float = 1.0,
) -> Task:
    """Return the task of naming the class of given sequences at their last step.

    Baseline: ln classes, the cross entropy of a guess.

    Args:
        training: sequences to draw from, with replacement, and their classes from 0.
        held_out: test sequences and their classes.
        classes: number of classes.
        largest: what inputs are divided by as they are drawn; bytes take a quarter of the memory.
    """
    kept, labels = map(jnp.asarray, training)

    def batch_of(x: Array, classes: Int[Array, "batch"]) -> Batch:
        inputs = x.astype(jnp.float32) / largest
        return last_step_batch(inputs, classes, jnp.full(classes.shape, x.shape[1]))

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        index = jax.random.randint(key, (batch_size,), 0, labels.size)
        return batch_of(kept[index], labels[index])

    return Task(
        features=kept.shape[2],
        outputs=classes,
        sample=sample,
        test=batch_of(*map(jnp.asarray, held_out)),
        baseline=math.log(classes),
    )


def check_pieces(length: int, size: int, what: str) -> None:
    """Check that a sequence of numbers can be read in steps of equal size.

    Args:
        length: number of steps.
        size: of the sequence.
        what: it consists of, such as "points".

    Raises:
        ConfigError: it cannot.
    """
    if size % length:
        lengths = [str(steps) for steps in range(1, size + 1) if size % steps == 0]
        raise ConfigError(
            f"task.length must cut {size} {what} into equal pieces, so it is one of "
            f"{', '.join(lengths)}; got {length}."
        )
