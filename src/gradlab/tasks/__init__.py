"""Sequence tasks: what a network is shown and what it has to answer.

Every kind of task has the same form, outputs wanted at some steps with weights: many-to-one weighs
the last step only, many-to-many every step. To add one: a file here with a function that returns a
Task, and a YAML in conf/task/.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Int, Key


class Batch(NamedTuple):
    """Sequences, the answers wanted, and how much each step counts (0: not at all)."""

    inputs: Float[Array, "batch time features"]
    targets: Int[Array, "batch time"] | Float[Array, "batch time outputs"]
    weights: Float[Array, "batch time"]


class Task(NamedTuple):
    """A source of sequences.

    Integer targets are classes (cross entropy, accuracy); real targets are values (squared error).
    """

    features: int
    outputs: int
    sample: Callable[[Key[Array, ""], int], Batch]
    test: Batch
