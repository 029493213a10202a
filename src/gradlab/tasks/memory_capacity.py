"""Linear memory capacity (many-to-many, synchronised): the input of many steps at once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import check_room, held_out

VARIANCE = 1 / 12  # of U[−½, ½]


def memory_capacity(length: Count = 100, delays: Count = 20, test_size: Count = 1000) -> Task:
    """Answer u⁽ᵗ⁻ᵈ⁾ of white input u from U[−½, ½] for d = 0 … delays − 1 (Jaeger 2002).

    The capacity MC_d = 1 − MSE_d / var u is the share of the variance found again; their sum,
    `delays` · (1 − loss / baseline), is at most n, and n for a linear network of n units with
    generic weights. d starts at 0 since the readout sees the state alone: Jaeger's, from 1, sees
    the input too. Baseline: 1/12, of the mean.

    Args:
        length: steps.
        delays: outputs, one a delay. Steps before the longest delay do not count.
        test_size: sequences held out.

    Raises:
        ConfigError: no step has all the delays before it.
    """
    check_room(length, delays - 1, "the longest delay")

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        u = jax.random.uniform(key, (batch_size, length), minval=-0.5, maxval=0.5)
        targets = u[:, jnp.arange(length)[:, None] - jnp.arange(delays)]
        weights = jnp.ones(u.shape).at[:, : delays - 1].set(0)
        return Batch(u[..., None], targets, weights)

    test = held_out(sample, test_size)
    return Task(features=1, outputs=delays, sample=sample, test=test, baseline=VARIANCE)
