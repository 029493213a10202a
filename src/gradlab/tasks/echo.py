"""Delayed echo (many-to-many, synchronised): answer at every step the bit of d steps ago."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import bit_batch, check_longer, draw_test_batch


def echo(length: Count = 50, delay: Count = 10, test_size: Count = 1000) -> Task:
    """Answer y⁽ᵗ⁾ = s⁽ᵗ⁻ᵈ⁾ of random bits s, at every step t > d.

    A linear memory is enough, unlike for `xor`. Baseline: ln 2, the cross entropy of a guess; its
    accuracy is ½.

    Args:
        length: steps of a sequence, more than d.
        delay: d, in steps.
        test_size: number of held-out sequences.

    Raises:
        ConfigError: the sequence is not longer than d.

    Example:
        >>> from gradlab.tasks.echo import echo
        >>> batch = echo(length=20, delay=2, test_size=16).test
        >>> bool((batch.targets[:, 2:] == (batch.inputs[:, :-2, 0] > 0)).all())
        True
    """
    check_longer(length, delay, "task.delay")

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        bits = jax.random.bernoulli(key, shape=(batch_size, length)).astype(int)
        return bit_batch(bits, jnp.roll(bits, delay, axis=1), delay)

    test = draw_test_batch(sample, test_size)
    return Task(features=1, outputs=2, sample=sample, test=test, baseline=math.log(2))
