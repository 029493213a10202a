"""Delayed XOR (many-to-many, synchronised): memory of two steps, and no linear answer to them."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.echo import of_bits
from gradlab.tasks.sequences import check_room, held_out


def xor(length: Count = 50, delay: Count = 10, test_size: Count = 1000) -> Task:
    """Answer y⁽ᵗ⁾ = s⁽ᵗ⁻ᵈ⁾ ⊕ s⁽ᵗ⁻²ᵈ⁾ of random bits s, at every step that has one 2d before it.

    The task of Engelken 2023 (gradient flossing), there with 300 steps and a delay of 10. Neither
    bit alone says anything. Chance: accuracy ½, cross entropy ln 2.

    Args:
        length: steps.
        delay: d, in steps.
        test_size: sequences held out.

    Raises:
        ConfigError: no step has one 2d before it.
    """
    check_room(length, 2 * delay, "twice task.delay")

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        bits = jax.random.bernoulli(key, shape=(batch_size, length)).astype(int)
        one, other = (jnp.roll(bits, lag, axis=1) for lag in (delay, 2 * delay))
        return of_bits(bits, one ^ other, 2 * delay)

    test = held_out(sample, test_size)
    return Task(features=1, outputs=2, sample=sample, test=test, baseline=math.log(2))
