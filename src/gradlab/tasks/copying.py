"""The copying memory problem (many-to-many, delayed): repeat ten symbols after T steps."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import draw_test_batch

BLANK = 0


def copying(
    length: Count = 100, items: Count = 10, symbols: Count = 8, test_size: Count = 1000
) -> Task:
    """Repeat `items` random symbols after a wait of T steps that ends with a delimiter.

    Arjovsky, Shah & Bengio 2016, after Hochreiter & Schmidhuber 1997. With ten items a sequence has
    T + 20 steps: ten symbols, T − 1 blanks, the delimiter, ten blanks. The target is T + 10 blanks,
    then the ten symbols; every step has weight 1.

    Baseline: items · ln symbols / (T + 2 · items), which is 10 ln 8 / (T + 20), the cross entropy
    of answering blanks and then guessing. Accuracy is nearly 1 for answering only blanks, so judge
    this task by its share of wrong sequences.

    Args:
        length: T, in steps.
        items: number of symbols to repeat, ten in the literature.
        symbols: number of different symbols, eight in the literature.
        test_size: number of held-out sequences.

    Example:
        >>> from gradlab.tasks.copying import copying
        >>> task = copying(length=30, test_size=16)
        >>> task.test.inputs.shape, round(task.baseline, 3)  # 10 ln 8 / (T + 20)
        ((16, 50, 10), 0.416)
    """
    delimiter, steps = symbols + 1, length + 2 * items

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        word = jax.random.randint(key, (batch_size, items), 1, symbols + 1)
        blank = jnp.full((batch_size, steps), BLANK)
        shown = blank.at[:, :items].set(word).at[:, items + length - 1].set(delimiter)
        inputs = jax.nn.one_hot(shown, symbols + 2)
        return Batch(inputs, blank.at[:, -items:].set(word), jnp.ones((batch_size, steps)))

    return Task(
        features=symbols + 2,
        outputs=symbols + 1,
        sample=sample,
        test=draw_test_batch(sample, test_size),
        baseline=items * math.log(symbols) / steps,
    )
