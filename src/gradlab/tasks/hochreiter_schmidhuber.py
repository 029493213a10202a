"""The tasks of Hochreiter & Schmidhuber 1997: values as targets, judged by their rules of success.

`length` is the paper's T, p or q: the least number of steps, which most sequences exceed by up to a
tenth. Symbols are one-hot codes. The adding problem's definition stands in `gradlab.tasks.adding`,
as variant "hochreiter".
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from pydantic import Field

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.adding import adding as adding_problem
from gradlab.tasks.adding import mark_ends, mark_positions
from gradlab.tasks.sequences import draw_lengths, draw_test_batch, last_step_batch

TEST_SIZE = 2560  # of the paper's test sets
LeastLength = Annotated[int, Field(ge=30)]
Sample = Callable[[Key[Array, ""], int], Batch]
NOISE = math.sqrt(0.2)  # standard deviation of the two-sequence problem's inputs
TARGET_NOISE = math.sqrt(0.1)
LONGEST_SUFFIX = 100  # distractors; one sequence in 40,000 would have more
GOES_ON = 0.9  # probability that another distractor follows


def adding(length: LeastLength = 100, test_size: Count = TEST_SIZE) -> Task:
    """Add up the two marked values of T to 1.1 T pairs (task 4).

    Args:
        length: T, in steps.
        test_size: number of held-out sequences.

    Example:
        >>> from gradlab.tasks.hochreiter_schmidhuber import adding
        >>> adding(length=50, test_size=16).test.inputs.shape
        (16, 55, 2)
    """
    return adding_problem(longest(length), length, "hochreiter", test_size)


def multiplication(length: LeastLength = 100, test_size: Count = TEST_SIZE) -> Task:
    """Multiply the two marked values, of U[0, 1], of T to 1.1 T pairs (task 5).

    Marks lie as in the adding problem. If the first pair is marked, its value is set to 1. Wrong:
    an absolute error above 0.04. Baseline: 7/144, the variance of a product of two such values.

    Args:
        length: T, in steps.
        test_size: number of held-out sequences.

    Example:
        >>> from gradlab.tasks.hochreiter_schmidhuber import multiplication
        >>> round(multiplication(length=50, test_size=16).baseline, 4)
        0.0486
    """
    steps = longest(length)

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        length_key, mark_key, value_key = jax.random.split(key, 3)
        lengths = draw_lengths(length_key, batch_size, length, steps)
        positions = mark_positions(mark_key, lengths, length, "hochreiter")
        values = jax.random.uniform(value_key, (batch_size, steps))
        marks = jnp.any(jnp.arange(steps) == positions[..., None], axis=1).astype(values.dtype)
        values, marks = mark_ends(values, marks, lengths, neutral=1.0)
        product = jnp.prod(jnp.take_along_axis(values, positions, axis=1), axis=1, keepdims=True)
        return last_step_batch(jnp.stack([values, marks], axis=-1), product, lengths)

    return _values(2, 1, sample, test_size, baseline=7 / 144, tolerance=0.04)


def temporal_order(
    length: LeastLength = 100, symbols: Literal[2, 3] = 2, test_size: Count = TEST_SIZE
) -> Task:
    """Classify the order of two or three symbols, each X or Y, among a, b, c, d (tasks 6a, 6b).

    A sequence starts with E and ends with B, at which the class is due as a one-hot code. The first
    relevant symbol comes T/10 to T/5 steps after the start, and the others at T/2 (6a) or at 0.33 T
    and 0.66 T (6b) and up to T/10 later. Wrong: an output off by more than 0.3. Baseline: the
    squared error of answering 1/classes everywhere.

    Args:
        length: T, in steps; 100 in the paper.
        symbols: 2 for task 6a, 3 for 6b.
        test_size: number of held-out sequences.

    Example:
        >>> from gradlab.tasks.hochreiter_schmidhuber import temporal_order
        >>> temporal_order(length=50, symbols=3, test_size=16).outputs
        8
    """
    starts = jnp.array({2: (10, 50), 3: (10, 33, 66)}[symbols]) * length // 100
    classes, features, steps = 2**symbols, 8, longest(length)
    (start, end, relevant_code), distractors = (0, 1, 2), 4

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        length_key, position_key, relevant_key, distractor_key = jax.random.split(key, 4)
        lengths = draw_lengths(length_key, batch_size, length, steps)
        shape, rows = (batch_size, symbols), jnp.arange(batch_size)
        positions = starts + jax.random.randint(position_key, shape, 0, length // 10 + 1)
        relevant = jax.random.randint(relevant_key, shape, 0, 2)
        shown = 4 + jax.random.randint(distractor_key, (batch_size, steps), 0, distractors)
        shown = shown.at[rows[:, None], positions].set(relevant_code + relevant)
        shown = shown.at[:, 0].set(start).at[rows, lengths - 1].set(end)
        order = jnp.sum(relevant * 2 ** jnp.arange(symbols)[::-1], axis=1)
        target = jax.nn.one_hot(order, classes)
        return last_step_batch(jax.nn.one_hot(shown, features), target, lengths)

    baseline = (classes - 1) / classes**2
    return _values(features, classes, sample, test_size, baseline=baseline, tolerance=0.3)


def first_and_last(
    length: Annotated[int, Field(ge=2)] = 100,
    between: Literal["fixed", "random"] = "fixed",
    test_size: Count = TEST_SIZE,
) -> Task:
    """Predict the next symbol; the last one is the first again, p steps later (tasks 2a, 2b).

    A sequence is x or y, then p − 1 of p − 1 other symbols, then the first one again, so that a
    network reads p symbols and predicts p. In task 2a the symbols between are always the same, in
    2b they are random. Training weights every step. Wrong: an output off by more than 0.25, at any
    step (2a) or at the last (2b, which weights the last step alone in its held-out sequences).
    Baseline: the squared error if only the first symbol is forgotten.

    Args:
        length: p, in steps.
        between: "fixed" for task 2a, "random" for 2b.
        test_size: number of held-out sequences.

    Example:
        >>> from gradlab.tasks.hochreiter_schmidhuber import first_and_last
        >>> first_and_last(length=10, between="random", test_size=16).test.inputs.shape
        (16, 10, 11)
    """
    p = length

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        first_key, between_key = jax.random.split(key)
        first = p - 1 + jax.random.randint(first_key, (batch_size, 1), 0, 2)
        middle = jnp.broadcast_to(jnp.arange(p - 1), (batch_size, p - 1))
        if between == "random":
            middle = jax.random.randint(between_key, (batch_size, p - 1), 0, p - 1)
        codes = jax.nn.one_hot(jnp.concatenate([first, middle, first], axis=1), p + 1)
        return Batch(codes[:, :-1], codes[:, 1:], jnp.ones((batch_size, p)))

    def sample_test(key: Key[Array, ""], batch_size: int) -> Batch:
        batch = sample(key, batch_size)
        if between == "fixed":
            return batch
        return batch._replace(weights=jnp.zeros_like(batch.weights).at[:, -1].set(1))

    judged = p if between == "fixed" else 1
    task = _values(p + 1, p + 1, sample_test, test_size, 0.5 / (judged * (p + 1)), tolerance=0.25)
    return task._replace(sample=sample)


def distractors(length: Count = 100, symbols: Count = 100, test_size: Count = TEST_SIZE) -> Task:
    """Name the second symbol, x or y, at the trigger e that comes q or more steps later (task 2c).

    A sequence is b, x or y, q of p distractors, further ones as long as a draw of probability 0.9
    succeeds (here at most 100), and e. Two outputs; wrong: one is off by more than 0.2. Baseline:
    ¼, the squared error of answering ½.

    Args:
        length: q, in steps.
        symbols: p, the number of different distractors.
        test_size: number of held-out sequences.

    Example:
        >>> from gradlab.tasks.hochreiter_schmidhuber import distractors
        >>> task = distractors(length=20, symbols=10, test_size=16)
        >>> task.features, task.outputs
        (14, 2)
    """
    trigger, begin, first = symbols, symbols + 1, symbols + 2
    steps = length + LONGEST_SUFFIX + 3

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        class_key, symbol_key, suffix_key = jax.random.split(key, 3)
        answer = jax.random.randint(class_key, (batch_size,), 0, 2)
        uniform = jax.random.uniform(suffix_key, (batch_size,), minval=jnp.finfo(jnp.float32).tiny)
        suffix = jnp.floor(jnp.log(uniform) / math.log(GOES_ON)).astype(int)
        lengths = length + 3 + jnp.minimum(suffix, LONGEST_SUFFIX)
        shown = jax.random.randint(symbol_key, (batch_size, steps), 0, symbols)
        shown = shown.at[:, 0].set(begin).at[:, 1].set(first + answer)
        shown = shown.at[jnp.arange(batch_size), lengths - 1].set(trigger)
        return last_step_batch(
            jax.nn.one_hot(shown, symbols + 4), jax.nn.one_hot(answer, 2), lengths
        )

    return _values(symbols + 4, 2, sample, test_size, baseline=0.25, tolerance=0.2)


def two_sequences(
    length: LeastLength = 100,
    informative: Literal[1, 3] = 3,
    noise: Literal["none", "inputs", "targets"] = "none",
    test_size: Count = TEST_SIZE,
) -> Task:
    """Tell two classes apart by a sequence's first elements, 1 or −1 (tasks 3a, 3b, 3c).

    All later elements are noise of variance 0.2. The target at the end is 1 for the first class and
    0 for the second, and an error above 0.2 is wrong; with noisy targets it is 0.2 and 0.8, with
    noise of variance 0.1 in training alone, and an error above 0.1 is wrong. Baseline: the squared
    error of the mean of both targets.

    Args:
        length: T, in steps; sequences have T to 1.1 T.
        informative: N, the number of first elements that tell the class.
        noise: "none" for task 3a; "inputs" adds noise to the informative elements too (3b);
            "targets" is 3c.
        test_size: number of held-out sequences.

    Example:
        >>> from gradlab.tasks.hochreiter_schmidhuber import two_sequences
        >>> two_sequences(length=50, informative=1, test_size=16).test.inputs.shape
        (16, 55, 1)
    """
    steps = longest(length)
    low, high, tolerance = (0.8, 0.2, 0.1) if noise == "targets" else (0.0, 1.0, 0.2)

    def sample_test(key: Key[Array, ""], batch_size: int) -> Batch:
        length_key, class_key, noise_key = jax.random.split(key, 3)
        lengths = draw_lengths(length_key, batch_size, length, steps)
        is_first = jax.random.bernoulli(class_key, shape=(batch_size, 1))
        drawn = NOISE * jax.random.normal(noise_key, (batch_size, steps))
        told = jnp.where(is_first, 1.0, -1.0) + (drawn if noise == "inputs" else 0.0)
        values = jnp.where(jnp.arange(steps) < informative, told, drawn)
        return last_step_batch(values[..., None], jnp.where(is_first, high, low), lengths)

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        batch_key, target_key = jax.random.split(key)
        batch = sample_test(batch_key, batch_size)
        shift: Float[Array, "batch 1 1"] = jax.random.normal(target_key, (batch_size, 1, 1))
        return batch._replace(targets=batch.targets + TARGET_NOISE * shift)

    baseline = (high - low) ** 2 / 4
    task = _values(1, 1, sample_test, test_size, baseline, tolerance)
    return task._replace(sample=sample) if noise == "targets" else task


def longest(length: int) -> int:
    """Return the most steps of a sequence, 1.1 T."""
    return length + length // 10


def _values(
    features: int, outputs: int, sample: Sample, test_size: int, baseline: float, tolerance: float
) -> Task:
    """Return a task with values whose held-out sequences are drawn as its training sequences."""
    test = draw_test_batch(sample, test_size)
    return Task(features, outputs, sample, test, baseline, tolerance)
