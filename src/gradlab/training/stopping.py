"""Rules that end a training run by what its updates saw, such as a row of right answers.

To add a rule, write a function here or in your own package that returns a `StopRule`, and a YAML in
conf/train/stop/ whose `_target_` is its dotted path. A rule is part of the compiled program.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree
from pydantic import Field

from gradlab.components import ConfigError
from gradlab.config import Count
from gradlab.tasks import Batch, Task
from gradlab.tasks.checks import is_classes
from gradlab.training.losses import is_right, losses


class Seen(NamedTuple):
    """An update's sequences as it saw them, before it changed the weights."""

    wrong: Bool[Array, "batch"]  # at any step at which an answer is due
    error: Float[Array, "batch"]  # mean over those steps; absolute, or cross entropy (nats)


class StopRule(NamedTuple):
    """A rule with a state that every update changes.

    Attributes:
        init: returns the state before the first update.
        update: (state, seen) -> (new state, whether training ends after this update).
        judged: the steps of a sequence that count: all at which an answer is due, or the last one.
    """

    init: Callable[[], PyTree]
    update: Callable[[PyTree, Seen], tuple[PyTree, Bool[Array, ""]]]
    judged: Literal["all", "last"] = "all"


def recent(
    last: Count = 2000,
    most_wrong: Annotated[int, Field(ge=0)] = 0,
    mean_error: Annotated[float, Field(gt=0)] = float("inf"),
    judged: Literal["all", "last"] = "all",
) -> StopRule:
    """End once few of the most recent training sequences were wrong and their mean error is small.

    Hochreiter & Schmidhuber 1997 end training so in their tasks 4 to 6, with the last 2000.

    Args:
        last: number of sequences looked back on; before as many were seen, training goes on.
        most_wrong: the most of them that may be wrong; see `Task`.
        mean_error: their mean error must be below this: the mean absolute error of a value, the
            cross entropy of classes (nats).
        judged: which steps of a sequence count: all at which an answer is due, or the last one.

    Example:
        >>> from gradlab.training.stopping import Seen, recent
        >>> rule = recent(last=2)
        >>> right = Seen(wrong=jnp.zeros(2, bool), error=jnp.zeros(2))
        >>> bool(rule.update(rule.init(), right)[1])  # the last two sequences were right
        True
    """

    def init() -> Seen:
        return Seen(jnp.ones(last, bool), jnp.full(last, jnp.inf))

    def update(history: Seen, seen: Seen) -> tuple[Seen, Array]:
        new = jax.tree.map(lambda old, x: jnp.concatenate([old, x])[-last:], history, seen)
        return new, (jnp.sum(new.wrong) <= most_wrong) & (jnp.mean(new.error) < mean_error)

    return StopRule(init, update, judged)


def observe_batch(
    outputs: Float[Array, "batch time o"],
    batch: Batch,
    tolerance: float | None,
    judged: Literal["all", "last"],
) -> Seen:
    """Return which of an update's sequences were wrong, and their errors.

    Args:
        outputs: the network's, before the update.
        batch: the sequences.
        tolerance: of a task with values.
        judged: the steps that count; see `StopRule`.
    """
    due = batch.weights > 0
    if judged == "last":
        due = due & (jnp.cumsum(due[:, ::-1], axis=1)[:, ::-1] == 1)
    wrong = jnp.any(~is_right(outputs, batch.targets, tolerance) & due, axis=1)
    error = (
        losses(outputs, batch.targets)
        if is_classes(batch.targets)
        else jnp.mean(jnp.abs(outputs - batch.targets), axis=-1)
    )
    return Seen(wrong, jnp.mean(error, axis=1, where=due))


def check_stop_rule(rule: Any, task: Task, by_segment: bool) -> None:
    """Check what `train.stop` builds against the task.

    Args:
        rule: a `StopRule`; None: there is none.
        task: the task that it judges.
        by_segment: whether updates see segments of sequences instead of whole ones.

    Raises:
        ConfigError: it is no rule, or has nothing to judge by.
    """
    if rule is None:
        return
    if not isinstance(rule, StopRule):
        raise ConfigError(
            "train.stop._target_ must return a gradlab.training.stopping.StopRule; it returned a "
            f"{type(rule).__name__}."
        )
    if by_segment:
        raise ConfigError("train.stop judges whole sequences: it needs tbptt.update=sequence.")
    if task.tolerance is None and not is_classes(task.test.targets):
        raise ConfigError(
            "train.stop needs a task whose answers are right or wrong: one with classes or a "
            "tolerance."
        )
