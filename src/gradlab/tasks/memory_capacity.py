"""Linear memory capacity (many-to-many, synchronised): recall the inputs of many past steps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import check_longer, draw_test_batch

INPUT_VARIANCE = 1 / 12  # of U[−½, ½]


def memory_capacity(length: Count = 100, delays: Count = 20, test_size: Count = 1000) -> Task:
    """Answer u⁽ᵗ⁻ᵈ⁾ for d = 0 … delays − 1, of white input u from U[−½, ½] (Jaeger 2002).

    The capacity at delay d is MC_d = 1 − MSE_d / var u, the share of the variance that is recalled.
    The sum over d is `delays` · (1 − loss / baseline). It is at most n, and equals n for a linear
    network of n units with generic weights. Delays start at 0 here because the readout sees only
    the state; Jaeger's start at 1 because his readout also sees the input.

    Baseline: var u = 1/12, the squared error of answering the mean.

    Args:
        length: steps of a sequence, at least `delays`.
        delays: number of outputs, one for each delay. The first `delays` − 1 steps have weight 0.
        test_size: number of held-out sequences.

    Raises:
        ConfigError: the sequence is shorter than `delays`.

    Example:
        >>> from gradlab.tasks.memory_capacity import memory_capacity
        >>> batch = memory_capacity(length=20, delays=3, test_size=16).test
        >>> bool((batch.targets[:, 2:, 2] == batch.inputs[:, :-2, 0]).all())
        True
    """
    check_longer(length, delays - 1, "the longest delay")

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        u = jax.random.uniform(key, (batch_size, length), minval=-0.5, maxval=0.5)
        targets = u[:, jnp.arange(length)[:, None] - jnp.arange(delays)]
        weights = jnp.ones(u.shape).at[:, : delays - 1].set(0)
        return Batch(u[..., None], targets, weights)

    test = draw_test_batch(sample, test_size)
    return Task(features=1, outputs=delays, sample=sample, test=test, baseline=INPUT_VARIANCE)
