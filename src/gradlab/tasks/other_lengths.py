"""Held-out sequences of other lengths than those that a network is trained on."""

from collections.abc import Sequence

from gradlab.components import (
    Component,
    ConfigError,
    build,
    check_component,
    locate,
    parameters_of,
    takes,
)
from gradlab.tasks import Task
from gradlab.tasks.checks import check_batch

KEY = "test_lengths"  # of a task's section, though its function does not take it
RANGES = ("min_length", "test_length")  # make a task draw several lengths: set to None


def without_test_lengths(component: Component) -> tuple[Component, Sequence[int]]:
    """Return the section of a task as its function takes it, and its `test_lengths`.

    Args:
        component: the checked section `task` of a config.
    """
    own = {name: value for name, value in component.items() if name != KEY}
    return own, component.get(KEY) or ()


def tasks_of_lengths(
    component: Component, lengths: Sequence[int], trained: Task
) -> dict[int, Task]:
    """Return the same task at other lengths, for the sake of its held-out sequences.

    All other settings are those of the task that is trained on, but for the range of its lengths:
    at 100, sequences are those that it draws for `task.length=100` alone. They are as many as
    `task.test_size` says, so long ones take memory in proportion.

    Args:
        component: the task's section without `test_lengths`.
        lengths: each a `task.length`.
        trained: the task that is trained on.

    Raises:
        ConfigError: the task has no length to choose, none of this size, or inputs or answers of
            another size at it.

    Example:
        >>> from gradlab.components import build
        >>> from gradlab.tasks.other_lengths import tasks_of_lengths
        >>> echo = {"_target_": "gradlab.tasks.echo.echo", "length": 50, "delay": 10}
        >>> tasks_of_lengths(echo, [100, 1000], build(echo))[1000].test.inputs.shape
        (1000, 1000, 1)
    """
    target = component["_target_"]
    if lengths and not takes(parameters_of(locate(target)), "length"):
        raise ConfigError(
            f"task.{KEY} needs a task with a length that can be chosen, by task.length; {target} "
            f"has none: leave task.{KEY} out."
        )
    return {length: _task_of_length(component, length, trained) for length in lengths}


def _task_of_length(component: Component, length: int, trained: Task) -> Task:
    settings = component | {name: None for name in RANGES if name in component}
    try:
        task: Task = build(check_component(settings | {"length": length}, "task"))
    except ConfigError as error:
        raise ConfigError(f"task.{KEY} has {length}, and {error}") from error
    sizes, trained_on = ((x.features, x.outputs) for x in (task, trained))
    if sizes != trained_on:
        raise ConfigError(
            f"task.{KEY} needs a task whose inputs and answers have one size at all lengths; "
            f"{component['_target_']} has {trained_on} as it is trained and {sizes} at {length}."
        )
    check_batch(task.test, trained, f"the held-out sequences of length {length}")
    return task
