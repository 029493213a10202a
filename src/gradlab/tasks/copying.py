"""Copying memory (many-to-many, delayed): repeat ten symbols after T blanks."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import held_out

BLANK = 0


def copying(
    length: Count = 100, items: Count = 10, symbols: Count = 8, test_size: Count = 1000
) -> Task:
    """Show `items` symbols, wait T steps, the last of them a delimiter, and have them repeated.

    Arjovsky, Shah & Bengio 2016, after Hochreiter & Schmidhuber 1997: T + 20 steps, the symbols,
    T − 1 blanks, a delimiter, ten blanks; wanted are T + 10 blanks and the symbols, and every step
    counts. Baseline 10 ln 8 / (T + 20): blanks until the delimiter, then a guess. Accuracy is
    nearly 1 for blanks alone: look at the share of wrong sequences.

    Args:
        length: T.
        items: symbols to keep, ten in the literature.
        symbols: kinds of them, eight in the literature.
        test_size: sequences held out.
    """
    delimiter, steps = symbols + 1, length + 2 * items

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        kept = jax.random.randint(key, (batch_size, items), 1, symbols + 1)
        blank = jnp.full((batch_size, steps), BLANK)
        shown = blank.at[:, :items].set(kept).at[:, items + length - 1].set(delimiter)
        inputs = jax.nn.one_hot(shown, symbols + 2)
        return Batch(inputs, blank.at[:, -items:].set(kept), jnp.ones((batch_size, steps)))

    return Task(
        features=symbols + 2,
        outputs=symbols + 1,
        sample=sample,
        test=held_out(sample, test_size),
        baseline=items * math.log(symbols) / steps,
    )
