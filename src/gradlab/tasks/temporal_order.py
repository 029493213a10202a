"""Temporal order (many-to-one): in which order did the relevant symbols come?"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import at_end, held_out, lengths, shortest

STARTS = {2: (1, 5), 3: (1, 3, 6)}  # tenths of the sequence in which a relevant symbol lies
RELEVANT, DISTRACTORS = 2, 4


def temporal_order(
    length: Count = 50,
    min_length: Count | None = None,
    symbols: Literal[2, 3] = 2,
    test_size: Count = 1000,
) -> Task:
    """Classify the order of two or three symbols, each A or B, among distractors c, d, e, f.

    As in the code of Pascanu, Mikolov & Bengio 2013 (the task is Hochreiter & Schmidhuber's 6a and
    6b): of six channels one is 1; the symbols lie in the second and sixth tenth, or the second,
    fourth and seventh. The class, the sum of 2^i over the symbols i that are B, is wanted at the
    last step. Baseline ln 4 or ln 8. Each symbol that the network learns to keep takes
    ln 2 off: leaving the first plateau and solving the task are two events.

    Args:
        length: steps at most.
        min_length: steps at least, uniform between (50 to 200 in 2013); by default `length`.
        symbols: how many are to be told apart, 2 or 3.
        test_size: sequences held out; 10,000 in 2013.

    Raises:
        ConfigError: fewer than 10 steps, or a least above the largest.
    """
    least = shortest(length, min_length, least=10)
    starts = jnp.array(STARTS[symbols])

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        length_key, place_key, symbol_key, other_key = jax.random.split(key, 4)
        ends = lengths(length_key, batch_size, least, length)
        shape = (batch_size, symbols)
        within = jax.random.randint(place_key, shape, 0, ends[:, None] // 10)
        places = starts * ends[:, None] // 10 + within
        relevant = jax.random.randint(symbol_key, shape, 0, RELEVANT)
        shown = RELEVANT + jax.random.randint(other_key, (batch_size, length), 0, DISTRACTORS)
        shown = shown.at[jnp.arange(batch_size)[:, None], places].set(relevant)
        classes = jnp.sum(relevant * RELEVANT ** jnp.arange(symbols), axis=1)
        return at_end(jax.nn.one_hot(shown, RELEVANT + DISTRACTORS), classes, ends)

    return Task(
        features=RELEVANT + DISTRACTORS,
        outputs=RELEVANT**symbols,
        sample=sample,
        test=held_out(sample, test_size),
        baseline=math.log(RELEVANT**symbols),
    )
