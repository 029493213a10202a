"""Temporal order (many-to-one): classify the order in which relevant symbols came."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import (
    checked_min_length,
    draw_lengths,
    draw_test_batch,
    last_step_batch,
)

# For 2 or 3 relevant symbols, the tenths of the sequence in which they lie, counted from 0.
STARTS = {2: (1, 5), 3: (1, 3, 6)}
RELEVANT, DISTRACTORS = 2, 4


def temporal_order(
    length: Count = 50,
    min_length: Count | None = None,
    symbols: Literal[2, 3] = 2,
    test_size: Count = 1000,
) -> Task:
    """Classify the order of two or three symbols, each A or B, among distractors c, d, e, f.

    As in the code of Pascanu, Mikolov & Bengio 2013; the task is experiment 6a (two symbols) or 6b
    (three) of Hochreiter & Schmidhuber 1997. Inputs are one-hot codes of six symbols. The relevant
    ones lie in the second and sixth tenth of the sequence, or in the second, fourth and seventh.
    The class Σ_i 2ⁱ [symbol i is B] is due at the last step.

    Baseline: symbols · ln 2, the cross entropy of a guess (ln 4 or ln 8). Each relevant symbol that
    the network learns to remember lowers it by ln 2: leaving the first plateau and solving the task
    are two events.

    Args:
        length: steps of the longest sequence, at least 10.
        min_length: steps of the shortest one, uniform between (50 to 200 in 2013); None: `length`.
        symbols: number of relevant symbols, 2 or 3.
        test_size: number of held-out sequences; 10,000 in 2013.

    Raises:
        ConfigError: a length is below 10, or `min_length` is above `length`.

    Example:
        >>> from gradlab.tasks.temporal_order import temporal_order
        >>> task = temporal_order(length=20, test_size=16)
        >>> task.outputs, round(task.baseline, 3)  # nats: 2 ln 2
        (4, 1.386)
    """
    shortest = checked_min_length(length, min_length, least=10)
    starts = jnp.array(STARTS[symbols])

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        length_key, position_key, relevant_key, distractor_key = jax.random.split(key, 4)
        lengths = draw_lengths(length_key, batch_size, shortest, length)
        shape = (batch_size, symbols)
        offsets = jax.random.randint(position_key, shape, 0, lengths[:, None] // 10)
        positions = starts * lengths[:, None] // 10 + offsets
        relevant = jax.random.randint(relevant_key, shape, 0, RELEVANT)
        distractors = jax.random.randint(distractor_key, (batch_size, length), 0, DISTRACTORS)
        shown = RELEVANT + distractors
        shown = shown.at[jnp.arange(batch_size)[:, None], positions].set(relevant)
        classes = jnp.sum(relevant * RELEVANT ** jnp.arange(symbols), axis=1)
        return last_step_batch(jax.nn.one_hot(shown, RELEVANT + DISTRACTORS), classes, lengths)

    return Task(
        features=RELEVANT + DISTRACTORS,
        outputs=RELEVANT**symbols,
        sample=sample,
        test=draw_test_batch(sample, test_size),
        baseline=math.log(RELEVANT**symbols),
    )
