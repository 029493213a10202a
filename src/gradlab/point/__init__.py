"""Points of a sweep from config to records: build, train and measure, record, log."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gradlab.config import check
from gradlab.point.failures import is_interrupt
from gradlab.point.recorder import Judge, Point, Recorder, Status
from gradlab.point.training_loop import TrainingLoop
from gradlab.training.precision import in_types_of_network
from gradlab.training.program import Program, State

__all__ = ["Judge", "Point", "Status", "fail_points", "point_of_job", "run_point", "run_points"]


def point_of_job(composed: DictConfig) -> Point:
    """Return the point of the present Hydra job.

    Raises:
        ConfigError: its config is wrong.
    """
    job = HydraConfig.get()
    return Point.named(check(composed), Path(job.runtime.output_dir), job.overrides.task)


def run_point(point: Point, stop: Event | None = None) -> Status:
    """Train and measure one point and write its records to its folder; see `run_points`."""
    (status,) = run_points(Program(point.config), [point], stop=stop)
    return status


@in_types_of_network
def run_points(
    program: Program,
    points: Sequence[Point],
    on_updates: Callable[[int], None] = lambda count: None,
    stop: Event | None = None,
) -> list[Status]:
    """Train and measure points of one program together; write each one's records to its folder.

    One point runs as the plain program, several as one vmapped program, which pays on an
    accelerator. A point that diverges or fails is recorded as such, and the others go on. A point
    whose folder holds a checkpoint of the same config goes on from there, and ends with the same
    numbers as if it had never been interrupted.

    Args:
        program: the program of the points, whose configs differ in traced values alone.
        points: the points.
        on_updates: callback, given the number of updates since its last call.
        stop: once it is set, points write a checkpoint at the next logged step and end there;
            where it is set already, no point starts.

    Returns:
        Each point's status, as in status.json: "state" is done, diverged, pruned, failed or
        interrupted. Whatever is raised ends in "failed" with its reason, and never in the sweep.
    """
    stop = stop or Event()
    if stop.is_set():
        return [{"state": "interrupted", "reason": "not begun"} for _ in points]
    recorders = [Recorder(point, program.length) for point in points]
    by_step: dict[int | None, list[tuple[Recorder, State | None]]] = {}  # of their checkpoints
    for recorder in recorders:
        with recorder.guarded():
            recorder.open()
            state = recorder.restore(program.abstract_state)
            step = None if state is None else int(state.step)
            by_step.setdefault(step, []).append((recorder, state))
    for members in by_step.values():
        states = [state for _, state in members if state is not None]
        try:
            loop = TrainingLoop(program, [recorder for recorder, _ in members], states)
            loop.run(on_updates, stop)
        except BaseException as error:  # in work that the points share
            if is_interrupt(error):
                raise
            for recorder, _ in members:
                if recorder.running:
                    recorder.fail(error)
    return [recorder.status for recorder in recorders]


def fail_points(points: Sequence[Point], error: BaseException) -> list[Status]:
    """Record points as failed that could not be begun; return each one's status."""
    recorders = [Recorder(point, length=0) for point in points]
    for recorder in recorders:
        with recorder.guarded():
            recorder.open()
            raise error
    return [recorder.status for recorder in recorders]
