"""Sequence reversal (many-to-many, delayed): read a sequence, then answer it backwards."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import checked_min_length, draw_lengths, draw_test_batch


def reversal(
    length: Count = 10,
    min_length: Count | None = None,
    symbols: Count = 8,
    test_size: Count = 1000,
) -> Task:
    """Answer ℓ random symbols in reverse order, in the ℓ steps after the last one was shown.

    The last input feature is a flag: 0 while symbols are shown, 1 while they are answered. With
    `model.decoder=true` it selects the cell that acts. The other inputs are 0 during the answer, so
    all that is answered went through the carry. The form is that of Sutskever, Vinyals & Le 2014;
    Grefenstette et al. 2015 use reversal as a test of memory.

    Baseline: ln symbols, the cross entropy of a guess.

    Args:
        length: the largest ℓ; a sequence has 2ℓ steps.
        min_length: the smallest ℓ, uniform between the two; None: `length`.
        symbols: number of different symbols.
        test_size: number of held-out sequences.

    Raises:
        ConfigError: `min_length` is above `length`.

    Example:
        >>> from gradlab.tasks.reversal import reversal
        >>> batch = reversal(length=5, test_size=16).test
        >>> shown = batch.inputs[:, :5, :-1].argmax(axis=-1)
        >>> bool((batch.targets[:, 5:] == shown[:, ::-1]).all())
        True
    """
    shortest = checked_min_length(length, min_length)
    steps = jnp.arange(2 * length)

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        length_key, symbol_key = jax.random.split(key)
        lengths = draw_lengths(length_key, batch_size, shortest, length)[:, None]
        word = jax.random.randint(symbol_key, (batch_size, length), 0, symbols)
        answering = (steps >= lengths) & (steps < 2 * lengths)
        # The one-hot code of `symbols` is all zeros: nothing is shown.
        shown = jnp.where(steps < lengths, jnp.tile(word, 2), symbols)
        flag = answering.astype(float)
        inputs = jnp.concatenate([jax.nn.one_hot(shown, symbols), flag[..., None]], axis=-1)
        source = jnp.clip(2 * lengths - 1 - steps, 0, length - 1)
        return Batch(inputs, jnp.take_along_axis(word, source, axis=1), flag)

    return Task(
        features=symbols + 1,
        outputs=symbols,
        sample=sample,
        test=draw_test_batch(sample, test_size),
        baseline=math.log(symbols),
        has_answer_flag=True,
    )
