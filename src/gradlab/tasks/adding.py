"""The adding problem (many-to-one), in the four definitions that the literature calls by one name.

They differ in range, in where the marked values lie, in the target, and so in the loss to beat: a
loss of 0.03 solves nothing in one and is far below the baseline in another.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.sequences import at_end, held_out, lengths, shortest

Variant = Literal["hochreiter", "pascanu", "arjovsky", "vorontsov"]


class Rule(NamedTuple):
    """Values from U[low, 1]; target offset + scale · (X₁ + X₂); further off than this is wrong."""

    low: float
    offset: float
    scale: float
    tolerance: float
    least: int  # steps that the marks have room in

    def variance(self) -> float:
        """Of one term of the target."""
        return self.scale**2 * (1 - self.low) ** 2 / 12


RULES: dict[Variant, Rule] = {
    "hochreiter": Rule(-1.0, 0.5, 0.25, 0.04, least=24),
    "pascanu": Rule(0.0, 0.0, 0.5, math.sqrt(0.04), least=10),  # it is the square that is compared
    "arjovsky": Rule(0.0, 0.0, 1.0, 0.08, least=2),
    "vorontsov": Rule(0.0, 0.0, 0.5, 0.04, least=2),
}
FIRST = 10  # Hochreiter's X₁ is among so many


def adding(
    length: Count = 100,
    min_length: Count | None = None,
    variant: Variant = "arjovsky",
    test_size: Count = 1000,
) -> Task:
    """Add up the two marked values of a sequence of (value, mark).

    - "hochreiter" (Hochreiter & Schmidhuber 1997, 5.4): values from U[−1, 1]; X₁ among the first
      ten, X₂ among the first T/2 − 1, T the least length; marks 1, but −1 at the first and the
      last step; target ½ + (X₁ + X₂)/4. The first value is 0 where it is drawn as X₁ or X₂. Wrong:
      off by more than 0.04. Baseline: just below 1/24, for that 0.
    - "pascanu" (Pascanu et al. 2013, their code): U[0, 1]; X₁ in the first tenth, X₂ in the next
      four; target the mean. Wrong: a *squared* error above 0.04, which the constant ½ passes on
      64 % of sequences. Baseline 1/24.
    - "arjovsky" (Arjovsky et al. 2016, Tallec & Ollivier 2018): U[0, 1]; one in each half; target
      the sum. Baseline 1/6; 1/12 knows one of the two.
    - "vorontsov" (Vorontsov et al. 2017, their code): the same with half the sum. Baseline 1/24.

    The last two papers call no sequence wrong; here it is one that is off by more than 4 % of the
    target's range, as in 1997.

    Args:
        length: steps at most.
        min_length: steps at least, uniform between; by default `length` for the last two, and for
            the first two `length`/1.1, their own range.
        variant: which of the four.
        test_size: sequences held out.

    Raises:
        ConfigError: lengths without room for the marks.
    """
    rule = RULES[variant]
    if min_length is None and variant in ("hochreiter", "pascanu"):
        min_length = max(rule.least, -(-10 * length // 11))
    least = shortest(length, min_length, rule.least)

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        length_key, mark_key, value_key = jax.random.split(key, 3)
        ends = lengths(length_key, batch_size, least, length)
        places = _places(mark_key, ends, least, variant)
        values = jax.random.uniform(value_key, (batch_size, length), minval=rule.low)
        marks = jnp.any(jnp.arange(length) == places[..., None], axis=1).astype(values.dtype)
        if variant == "hochreiter":
            values = values.at[:, 0].multiply(1 - marks[:, 0])
            marks = marks.at[:, 0].set(-1).at[jnp.arange(batch_size), ends - 1].set(-1)
        marked = jnp.take_along_axis(values, places, axis=1)
        target = rule.offset + rule.scale * jnp.sum(marked, axis=1, keepdims=True)
        return at_end(jnp.stack([values, marks], axis=-1), target, ends)

    return Task(
        features=2,
        outputs=1,
        sample=sample,
        test=held_out(sample, test_size),
        baseline=rule.variance() * _expected_terms(variant, least),
        tolerance=rule.tolerance,
    )


def _places(
    key: Key[Array, ""], ends: Int[Array, "batch"], least: int, variant: Variant
) -> Int[Array, "batch 2"]:
    """Where the two marked values are, counted from 0."""
    first_key, second_key = jax.random.split(key)
    shape = ends.shape
    if variant == "hochreiter":
        first = jax.random.randint(first_key, shape, 0, FIRST)
        second = jax.random.randint(second_key, shape, 0, least // 2 - 2)
        second += second >= first  # never the same one twice
    elif variant == "pascanu":
        first = jax.random.randint(first_key, shape, 0, ends // 10)
        second = ends // 10 + jax.random.randint(second_key, shape, 0, 2 * ends // 5)
    else:
        first = jax.random.randint(first_key, shape, 0, ends // 2)
        second = jax.random.randint(second_key, shape, ends // 2, ends)
    return jnp.stack([first, second], axis=1)


def _expected_terms(variant: Variant, least: int) -> float:
    """How many of the two values are drawn and not set to 0, on average."""
    if variant != "hochreiter":
        return 2.0
    at_start = 1 / FIRST
    return 2 - at_start - (1 - at_start) / (least // 2 - 2)
