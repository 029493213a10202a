"""Delayed XOR (many-to-many, synchronised): combine two past bits that no linear readout can."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import bit_batch, check_longer, draw_test_batch


def xor(length: Count = 50, delay: Count = 10, test_size: Count = 1000) -> Task:
    """Answer y⁽ᵗ⁾ = s⁽ᵗ⁻ᵈ⁾ ⊕ s⁽ᵗ⁻²ᵈ⁾ of random bits s, at every step t > 2d.

    The task of Engelken 2023 (gradient flossing), who uses 300 steps and d = 10. Neither bit alone
    carries information. Baseline: ln 2, the cross entropy of a guess; its accuracy is ½.

    Args:
        length: steps of a sequence, more than 2d.
        delay: d, in steps.
        test_size: number of held-out sequences.

    Raises:
        ConfigError: the sequence is not longer than 2d.

    Example:
        >>> from gradlab.tasks.xor import xor
        >>> batch = xor(length=20, delay=2, test_size=16).test
        >>> bits = batch.inputs[:, :, 0] > 0
        >>> bool((batch.targets[:, 4:] == (bits[:, 2:-2] ^ bits[:, :-4])).all())
        True
    """
    check_longer(length, 2 * delay, "twice task.delay")

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        bits = jax.random.bernoulli(key, shape=(batch_size, length)).astype(int)
        recent, earlier = (jnp.roll(bits, lag, axis=1) for lag in (delay, 2 * delay))
        return bit_batch(bits, recent ^ earlier, 2 * delay)

    test = draw_test_batch(sample, test_size)
    return Task(features=1, outputs=2, sample=sample, test=test, baseline=math.log(2))
