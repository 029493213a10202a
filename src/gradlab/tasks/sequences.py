"""Helpers that several tasks share: sequence lengths, where targets lie, and test sequences."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gradlab.components import ConfigError
from gradlab.tasks import Batch

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
