"""Delayed echo (many-to-many, synchronised): say at every step what came d steps ago."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import check_room, held_out


def echo(length: Count = 50, delay: Count = 10, test_size: Count = 1000) -> Task:
    """Answer y⁽ᵗ⁾ = s⁽ᵗ⁻ᵈ⁾ of random bits s, at every step that has one d before it.

    Linear memory is enough, unlike for `xor`. Chance: accuracy ½, cross entropy ln 2.

    Args:
        length: steps.
        delay: d, in steps.
        test_size: sequences held out.

    Raises:
        ConfigError: no step has one d before it.
    """
    check_room(length, delay, "task.delay")

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        bits = jax.random.bernoulli(key, shape=(batch_size, length)).astype(int)
        return of_bits(bits, jnp.roll(bits, delay, axis=1), delay)

    test = held_out(sample, test_size)
    return Task(features=1, outputs=2, sample=sample, test=test, baseline=math.log(2))


def of_bits(bits: Int[Array, "batch time"], classes: Int[Array, "batch time"], first: int) -> Batch:
    """Bits as inputs, and a class wanted at every step but the `first` ones."""
    weights: Float[Array, "batch time"] = jnp.ones(bits.shape).at[:, :first].set(0)
    return Batch(bits[..., None].astype(weights.dtype), classes, weights)
