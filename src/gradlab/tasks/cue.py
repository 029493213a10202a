"""A cue, then nothing but the answer (one-to-many): which frequency to oscillate at."""

from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key
from pydantic import Field

from gradlab.config import Count
from gradlab.tasks import Batch, Task

Frequency = Annotated[float, Field(gt=0, lt=0.5)]  # cycles a step
FREQUENCIES = (0.02, 0.04, 0.06, 0.08)


def cue(
    length: Count = 50,
    frequencies: Annotated[Sequence[Frequency], Field(min_length=1)] = FREQUENCIES,
) -> Task:
    """Answer sin(2πft), t = 1 … length, with f told by one of K inputs at the first step alone.

    Baseline: the best constant, ½ where each f makes whole cycles of the sequence. A network that
    keeps time but not the cue answers the mean wave, which leaves (1 − 1/K)/2 of such frequencies.
    A rotation by 2πf for each solves it, with ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖ = 1 throughout.

    Args:
        length: steps.
        frequencies: in cycles a step, below ½. Held out is one sequence of each: there are no more.
    """
    times = np.arange(1, length + 1)
    waves = np.sin(2 * np.pi * np.outer(frequencies, times))
    targets = jnp.asarray(waves, jnp.float32)[..., None]
    kinds = len(frequencies)

    def shown(kind: Int[Array, "batch"]) -> Batch:
        inputs = jnp.zeros((kind.size, length, kinds)).at[:, 0].set(jax.nn.one_hot(kind, kinds))
        return Batch(inputs, targets[kind], jnp.ones((kind.size, length)))

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        return shown(jax.random.randint(key, (batch_size,), 0, kinds))

    return Task(
        features=kinds,
        outputs=1,
        sample=sample,
        test=shown(jnp.arange(kinds)),
        baseline=float(np.var(waves)),
    )
