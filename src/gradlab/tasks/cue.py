"""Cued oscillation (one-to-many): the first input says at which frequency to oscillate."""

from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key
from pydantic import Field

from gradlab.config import Count
from gradlab.tasks import Batch, Task

Frequency = Annotated[float, Field(gt=0, lt=0.5)]  # cycles per step
FREQUENCIES = (0.02, 0.04, 0.06, 0.08)


def cue(
    length: Count = 50,
    frequencies: Annotated[Sequence[Frequency], Field(min_length=1)] = FREQUENCIES,
) -> Task:
    """Answer sin(2πft) for t = 1 … length, given f only at the first step.

    The first input is a one-hot code of one of K frequencies; the others are 0. The baseline is the
    waves' variance, the loss of the best constant: ½ if each f makes whole cycles in the sequence.
    A network that keeps time but forgets the cue answers the mean wave, with loss (1 − 1/K)/2 at
    such frequencies. A linear network with one rotation by 2πf for each f solves the task, with
    ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖ = 1 for all t ≥ k.

    Args:
        length: steps of a sequence.
        frequencies: in cycles per step, above 0 and below ½. There is one sequence for each of
            them, and the test set is all of these.

    Example:
        >>> from gradlab.tasks.cue import cue
        >>> batch = cue(length=20, frequencies=[0.1, 0.2]).test
        >>> batch.inputs.shape, batch.targets.shape
        ((2, 20, 2), (2, 20, 1))
    """
    times = np.arange(1, length + 1)
    waves = np.sin(2 * np.pi * np.outer(frequencies, times))
    targets = jnp.asarray(waves, jnp.float32)[..., None]
    count = len(frequencies)

    def batch_of(index: Int[Array, "batch"]) -> Batch:
        inputs = jnp.zeros((index.size, length, count)).at[:, 0].set(jax.nn.one_hot(index, count))
        return Batch(inputs, targets[index], jnp.ones((index.size, length)))

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        return batch_of(jax.random.randint(key, (batch_size,), 0, count))

    return Task(
        features=count,
        outputs=1,
        sample=sample,
        test=batch_of(jnp.arange(count)),
        baseline=float(np.var(waves)),
    )
