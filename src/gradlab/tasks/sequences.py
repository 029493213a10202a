"""What tasks share: how long a sequence is, where it ends, and which are held out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gradlab.config import ConfigError
from gradlab.tasks import Batch

HELD_OUT = 0x7E57  # training draws from keys split off the seed's, so never from this one


def held_out(sample: Callable[[Key[Array, ""], int], Batch], size: int) -> Batch:
    """The test sequences of a generated task, the same for every seed."""
    return jax.jit(sample, static_argnums=1)(jax.random.key(HELD_OUT), size)


def shortest(length: int, min_length: int | None, least: int = 1) -> int:
    """The least length of a sequence; all are `length` long if `min_length` is None.

    Raises:
        ConfigError: a length that the task has no room in, or a least that is above the largest.
    """
    if length < least:
        raise ConfigError(f"task.length must be at least {least}; got {length}.")
    if min_length is not None and not least <= min_length <= length:
        raise ConfigError(
            f"task.min_length must be from {least} to task.length, which is {length}; "
            f"got {min_length}."
        )
    return length if min_length is None else min_length


def check_room(length: int, back: int, what: str) -> None:
    """Refuse to look further back than any step can.

    Raises:
        ConfigError: it is so.
    """
    if length <= back:
        raise ConfigError(f"task.length must be above {what}, which is {back} steps; got {length}.")


def lengths(key: Key[Array, ""], batch_size: int, least: int, most: int) -> Int[Array, "batch"]:
    """Lengths uniform from `least` to `most`, both included."""
    return jax.random.randint(key, (batch_size,), least, most + 1)


def at_end(
    inputs: Float[Array, "batch time features"],
    answers: Int[Array, "batch"] | Float[Array, "batch outputs"],
    lengths: Int[Array, "batch"],
) -> Batch:
    """A many-to-one batch: the answer counts at a sequence's last step, and nothing comes after."""
    steps = jnp.arange(inputs.shape[1])
    shown = steps < lengths[:, None]
    targets = jnp.repeat(answers[:, None], steps.size, axis=1)
    weights = (steps == lengths[:, None] - 1).astype(inputs.dtype)
    return Batch(inputs * shown[..., None], targets, weights)
