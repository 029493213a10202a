"""Sequence tasks: what a network is shown and what it has to answer.

Every kind of task has the same form, outputs wanted at some steps with weights: many-to-one weighs
the last step only, many-to-many every step. To add one: a file here with a function that returns a
Task, and a YAML in conf/task/.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float, Int, Key


class Batch(NamedTuple):
    """Sequences, the answers wanted, and how much each step counts (0: not at all).

    Sequences of several lengths are padded at their end, where inputs and weights are 0.
    """

    inputs: Float[Array, "batch time features"]
    targets: Int[Array, "batch time"] | Float[Array, "batch time outputs"]
    weights: Float[Array, "batch time"]


class Task(NamedTuple):
    """A source of sequences.

    Integer targets are classes (cross entropy, accuracy); real targets are values (squared error).
    A sequence is wrong if a step of it that counts is: another class, or a value further than
    `tolerance` from its target (None: values are not judged right or wrong).

    `baseline` is the loss to beat, of the best answer that ignores the sequence; each task says
    what that is.
    `has_answer_flag`: the last input feature is 0 while the sequence is shown, 1 while it is answered.
    """

    features: int
    outputs: int
    sample: Callable[[Key[Array, ""], int], Batch]
    test: Batch
    baseline: float
    tolerance: float | None = None
    has_answer_flag: bool = False
