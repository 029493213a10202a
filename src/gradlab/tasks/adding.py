"""The adding problem (many-to-one), in the four definitions that share this name.

They differ in the range of the values, in where the marks lie and in the target, and so in the
loss to beat: a loss of 0.03 solves nothing under one definition and is far below the baseline of
another.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import (
    checked_min_length,
    draw_lengths,
    draw_test_batch,
    last_step_batch,
)

Variant = Literal["hochreiter", "pascanu", "arjovsky", "vorontsov"]


class Rule(NamedTuple):
    """One definition: values from U[low, 1], target offset + scale · (X₁ + X₂).

    An answer is wrong if it is off by more than `tolerance`; `min_length` is the fewest steps in
    which the marks have room.
    """

    low: float
    offset: float
    scale: float
    tolerance: float
    min_length: int

    def term_variance(self) -> float:
        """Return the variance of scale · X₁, which is that of scale · X₂."""
        return self.scale**2 * (1 - self.low) ** 2 / 12


RULES: dict[Variant, Rule] = {
    "hochreiter": Rule(-1.0, 0.5, 0.25, 0.04, min_length=24),
    # Pascanu's code compares the squared error with 0.04.
    "pascanu": Rule(0.0, 0.0, 0.5, math.sqrt(0.04), min_length=10),
    "arjovsky": Rule(0.0, 0.0, 1.0, 0.08, min_length=2),
    "vorontsov": Rule(0.0, 0.0, 0.5, 0.04, min_length=2),
}
FIRST_MARK_STEPS = 10  # Hochreiter & Schmidhuber's X₁ is one of the first ten values


def adding(
    length: Count = 100,
    min_length: Count | None = None,
    variant: Variant = "arjovsky",
    test_size: Count = 1000,
) -> Task:
    """Add up the two marked values of a sequence of pairs (value, mark).

    The target is offset + scale · (X₁ + X₂), due at the last step. The baseline is the target's
    variance, which is the loss of the best constant answer.

    - "hochreiter" (Hochreiter & Schmidhuber 1997, 5.4): values from U[−1, 1]; X₁ among the first
      ten, X₂ among the first T/2 − 1, where T is the least length; marks are 1 there and −1 at the
      first and the last step; target ½ + (X₁ + X₂)/4. If the first value of all is marked, it is
      set to 0. Wrong: an absolute error above 0.04. Baseline: just below 1/24, because of that 0.
    - "pascanu" (Pascanu et al. 2013, their code): values from U[0, 1]; X₁ in the first tenth, X₂ in
      the next four tenths; target (X₁ + X₂)/2. Wrong: a squared error above 0.04, so the constant
      ½ is right on 64 % of sequences. Baseline 1/24.
    - "arjovsky" (Arjovsky et al. 2016, Tallec & Ollivier 2018): values from U[0, 1], one mark in
      each half; target X₁ + X₂. Baseline 1/6; the loss is 1/12 if one of the two is known.
    - "vorontsov" (Vorontsov et al. 2017, their code): as before with target (X₁ + X₂)/2. Baseline
      1/24.

    The last two papers call no answer wrong; here it is wrong if it is off by more than 4 % of the
    target's range, as in 1997.

    Args:
        length: steps of the longest sequence.
        min_length: steps of the shortest one; lengths are uniform between the two. None: `length`
            for the last two variants and, as in their sources, `length`/1.1 for the first two.
        variant: which of the four definitions.
        test_size: number of held-out sequences.

    Raises:
        ConfigError: the marks have no room in a sequence, or `min_length` is above `length`.

    Example:
        >>> from gradlab.tasks.adding import adding
        >>> task = adding(length=20, test_size=16)
        >>> task.test.inputs.shape, round(task.baseline, 3)  # the marks are the second feature
        ((16, 20, 2), 0.167)
        >>> marked = jnp.prod(task.test.inputs, axis=-1).sum(axis=1)
        >>> bool(jnp.allclose(marked, task.test.targets[:, -1, 0]))
        True
    """
    rule = RULES[variant]
    if min_length is None and variant in ("hochreiter", "pascanu"):
        min_length = max(rule.min_length, -(-10 * length // 11))
    shortest = checked_min_length(length, min_length, rule.min_length)

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        length_key, mark_key, value_key = jax.random.split(key, 3)
        lengths = draw_lengths(length_key, batch_size, shortest, length)
        positions = mark_positions(mark_key, lengths, shortest, variant)
        values = jax.random.uniform(value_key, (batch_size, length), minval=rule.low)
        marks = jnp.any(jnp.arange(length) == positions[..., None], axis=1).astype(values.dtype)
        if variant == "hochreiter":
            values, marks = mark_ends(values, marks, lengths, neutral=0.0)
        marked = jnp.take_along_axis(values, positions, axis=1)
        target = rule.offset + rule.scale * jnp.sum(marked, axis=1, keepdims=True)
        return last_step_batch(jnp.stack([values, marks], axis=-1), target, lengths)

    return Task(
        features=2,
        outputs=1,
        sample=sample,
        test=draw_test_batch(sample, test_size),
        baseline=rule.term_variance() * _expected_terms(variant, shortest),
        tolerance=rule.tolerance,
    )


def mark_ends(
    values: Float[Array, "batch time"],
    marks: Float[Array, "batch time"],
    lengths: Int[Array, "batch"],
    neutral: float,
) -> tuple[Float[Array, "batch time"], Float[Array, "batch time"]]:
    """Mark the first and the last step by −1, as Hochreiter & Schmidhuber 1997 do.

    A first value that was marked is no longer seen to be, so it is set to the neutral one.
    """
    values = values.at[:, 0].set(jnp.where(marks[:, 0] > 0, neutral, values[:, 0]))
    rows = jnp.arange(len(lengths))
    return values, marks.at[:, 0].set(-1).at[rows, lengths - 1].set(-1)


def mark_positions(
    key: Key[Array, ""], lengths: Int[Array, "batch"], shortest: int, variant: Variant
) -> Int[Array, "batch 2"]:
    """Draw the steps of the two marked values, counted from 0."""
    first_key, second_key = jax.random.split(key)
    shape = lengths.shape
    if variant == "hochreiter":
        first = jax.random.randint(first_key, shape, 0, FIRST_MARK_STEPS)
        second = jax.random.randint(second_key, shape, 0, shortest // 2 - 2)
        second += second >= first  # the two marks never coincide
    elif variant == "pascanu":
        first = jax.random.randint(first_key, shape, 0, lengths // 10)
        second = lengths // 10 + jax.random.randint(second_key, shape, 0, 2 * lengths // 5)
    else:
        first = jax.random.randint(first_key, shape, 0, lengths // 2)
        second = jax.random.randint(second_key, shape, lengths // 2, lengths)
    return jnp.stack([first, second], axis=1)


def _expected_terms(variant: Variant, shortest: int) -> float:
    """Return how many of the two marked values are not set to 0, on average."""
    if variant != "hochreiter":
        return 2.0
    first_at_start = 1 / FIRST_MARK_STEPS
    return 2 - first_at_start - (1 - first_at_start) / (shortest // 2 - 2)
