"""The training steps at which a run is logged and its probes measure."""

from math import inf
from typing import Annotated, Any

from pydantic import BeforeValidator

RATIO = 4  # between one training step of the "log" schedule and the next


def _plain(schedule: Any) -> Any:
    """Return a schedule with ranges, tuples and arrays as lists, and whole numbers as Python's."""
    schedule = schedule.tolist() if hasattr(schedule, "tolist") else schedule
    if isinstance(schedule, list | tuple | range):
        return [_plain(step) for step in schedule]
    return schedule


def _check(schedule: Any) -> Any:
    schedule = _plain(schedule)
    steps = schedule if isinstance(schedule, list) else [schedule]
    whole = all(isinstance(step, int) and not isinstance(step, bool) for step in steps)
    least = 0 if isinstance(schedule, list) else 1
    if schedule in ("log", "ends") or (whole and min(steps, default=0) >= least):
        return schedule
    raise ValueError(
        "must be log, ends, a whole number N (every N updates) or a list of training steps"
    )


Schedule = Annotated[Any, BeforeValidator(_check)]


def logged_steps(steps: int, every: int) -> set[int]:
    """Return the training steps that get a row of metrics: 0, every `every`-th, and the last."""
    return {*range(0, steps, every), steps}


def probed_steps(steps: int, schedule: str | int | list[int]) -> set[int]:
    """Return the training steps at which the probes measure: always 0 and the last.

    Args:
        steps: the number of updates.
        schedule: further ones: "log" for 1, 4, 16, 64, …; "ends" for none; N for every N updates;
            or a list of steps, of which those beyond the last are left out.
    """
    if isinstance(schedule, int):
        further = set(range(0, steps, schedule))
    elif schedule == "log":
        further = {RATIO**n for n in range(steps.bit_length())}
    else:
        further = {step for step in schedule if isinstance(step, int)}  # "ends" has none
    return {0, steps} | {step for step in further if step < steps}


def next_probed(step: int, schedule: str | int | list[int]) -> float:
    """Return the first step after `step` at which a run of unknown length is measured; inf: none.

    Args:
        step: that of the last measurement.
        schedule: as in `probed_steps`.
    """
    if isinstance(schedule, int):
        return (step // schedule + 1) * schedule
    if schedule == "log":
        due = 1
        while due <= step:
            due *= RATIO
        return due
    return min((x for x in schedule if isinstance(x, int) and x > step), default=inf)
