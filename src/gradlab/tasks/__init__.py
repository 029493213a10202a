"""Sequence tasks: the inputs that a network reads and the targets that it is trained on.

All tasks have one form: inputs, targets and a weight for every step. A many-to-one task weights
only the last step, a many-to-many task every step at which an answer is due.

To add a task, write a function that returns a `Task` (in a file here or in your own package) and a
YAML in conf/task/ whose `_target_` is that function's dotted path. The function's arguments become
the config keys `task.…`, and their annotations the limits that a config is checked against.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Key


class Batch(NamedTuple):
    """Sequences with the target of every step and the step's weight in the loss.

    Sequences shorter than the batch's time axis are padded at their end: inputs and weights are 0.
    Probes measure each sequence up to its own end (`lengths`).

    Attributes:
        inputs: x⁽¹⁾ to x⁽ᵀ⁾.
        targets: integers are classes, real numbers are values.
        weights: how much a step counts; 0 leaves it out.

    Example:
        >>> from gradlab.tasks.echo import echo
        >>> batch = echo(length=20, delay=2, test_size=16).test
        >>> batch.inputs.shape, batch.targets.shape, batch.weights[0, :4].tolist()
        ((16, 20, 1), (16, 20), [0.0, 0.0, 1.0, 1.0])
    """

    inputs: Float[Array, "batch time features"]
    targets: Int[Array, "batch time"] | Float[Array, "batch time outputs"]
    weights: Float[Array, "batch time"]

    @property
    def lengths(self) -> Int[np.ndarray, "batch"]:
        """Return each sequence's length: its last step whose inputs or weight are not all 0."""
        return used_steps(np.asarray(self.inputs), np.asarray(self.weights))


def used_steps(inputs: np.ndarray | Array, weights: np.ndarray | Array) -> Any:
    """Return the last step of each sequence whose inputs or weight are not all 0.

    Args:
        inputs: (batch, time, features), of NumPy or JAX, also while JAX traces them.
        weights: (batch, time).

    Returns:
        Whole numbers (batch,); 1 for a sequence of nothing but zeros.
    """
    used = (inputs != 0).any(axis=-1) | (weights != 0)
    return (used * np.arange(1, used.shape[1] + 1)).max(axis=1, initial=1)


class Task(NamedTuple):
    """A generator of training sequences with fixed test sequences and rules for judging answers.

    Classes are trained with cross entropy (nats) and judged by accuracy; values are trained with
    squared error. A step is wrong if its class is, or if its value is further than `tolerance` from
    the target. A sequence is wrong if any step of positive weight is.

    Attributes:
        features: size of the input at one step.
        outputs: size of the answer at one step: the number of classes, or of values.
        sample: draws training sequences, (key, batch size) -> Batch.
        test: held-out sequences, the same for every seed.
        baseline: the loss to beat, that of a trivial answer. Each task says which one; for most it
            is the best answer that ignores the inputs.
        tolerance: largest error of a right value; None: values are not judged right or wrong.
        has_answer_flag: the last input feature is 0 while the sequence is shown and 1 while it is
            answered.
        predicts_text: classes are characters of a text, of which each step asks for the next one;
            evaluation has bits per character and the perplexity too.

    Example:
        >>> from gradlab.tasks.echo import echo
        >>> task = echo(length=20, delay=2, test_size=16)
        >>> task.features, task.outputs, round(task.baseline, 3)  # nats
        (1, 2, 0.693)
        >>> task.sample(jax.random.key(0), 4).inputs.shape
        (4, 20, 1)
    """

    features: int
    outputs: int
    sample: Callable[[Key[Array, ""], int], Batch]
    test: Batch
    baseline: float
    tolerance: float | None = None
    has_answer_flag: bool = False
    predicts_text: bool = False
