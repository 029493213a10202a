"""At which training steps a run is logged and its probes measure."""

from typing import Annotated, Any

from pydantic import BeforeValidator

RATIO = 4  # between one training step of the "log" schedule and the next


def _check(schedule: Any) -> Any:
    many = schedule if isinstance(schedule, list) else [schedule]
    whole = all(isinstance(step, int) and not isinstance(step, bool) for step in many)
    least = 0 if isinstance(schedule, list) else 1
    if schedule in ("log", "ends") or (whole and min(many, default=0) >= least):
        return schedule
    raise ValueError(
        "must be log, ends, a whole number N (every N updates) or a list of training steps"
    )


Schedule = Annotated[Any, BeforeValidator(_check)]


def logged_steps(steps: int, every: int) -> set[int]:
    """The training steps that get a row of metrics: the first (0), every so many, the last."""
    return {*range(0, steps, every), steps}


def probed_steps(steps: int, schedule: str | int | list[int]) -> set[int]:
    """The training steps that the probes measure at, always the first (0) and the last.

    Args:
        steps: the number of updates.
        schedule: "log" for 1, 4, 16, 64, …; "ends" for no others; N for every N updates; or the
            steps themselves, of which those beyond the last are left out.
    """
    if isinstance(schedule, int):
        others = set(range(0, steps, schedule))
    elif schedule == "log":
        others = {RATIO**n for n in range(steps.bit_length())}
    else:
        others = {step for step in schedule if isinstance(step, int)}  # of "ends", none
    return {0, steps} | {step for step in others if step < steps}
