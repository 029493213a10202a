"""Sequence reversal (many-to-many, delayed): an encoder reads, a decoder answers backwards."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import held_out, lengths, shortest


def reversal(
    length: Count = 10,
    min_length: Count | None = None,
    symbols: Count = 8,
    test_size: Count = 1000,
) -> Task:
    """Show ℓ symbols, then have them answered in ℓ steps, the last one first.

    The last input is 0 while symbols are shown and 1 while they are wanted: it tells
    `model.decoder=true` which of its two cells acts, and any other cell what to do. The decoder is
    fed nothing else, so all that it answers came through the carry. Baseline ln `symbols`, of a
    guess. The task is of Sutskever, Vinyals & Le 2014's form; as a test of memory it is
    Grefenstette et al. 2015's.

    Args:
        length: ℓ at most; a sequence has 2ℓ steps.
        min_length: ℓ at least, uniform between; by default all are `length`.
        symbols: kinds of them.
        test_size: sequences held out.

    Raises:
        ConfigError: a least above the largest.
    """
    least = shortest(length, min_length)
    steps = jnp.arange(2 * length)

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        length_key, symbol_key = jax.random.split(key)
        count = lengths(length_key, batch_size, least, length)[:, None]
        word = jax.random.randint(symbol_key, (batch_size, length), 0, symbols)
        answering = (steps >= count) & (steps < 2 * count)
        shown = jnp.where(steps < count, jnp.tile(word, 2), symbols)  # past the last kind: none
        flag = answering.astype(float)
        inputs = jnp.concatenate([jax.nn.one_hot(shown, symbols), flag[..., None]], axis=-1)
        source = jnp.clip(2 * count - 1 - steps, 0, length - 1)
        return Batch(inputs, jnp.take_along_axis(word, source, axis=1), flag)

    return Task(
        features=symbols + 1,
        outputs=symbols,
        sample=sample,
        test=held_out(sample, test_size),
        baseline=math.log(symbols),
        has_answer_flag=True,
    )
