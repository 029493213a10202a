"""Points of a sweep from config to records: build, measure, train, measure, keep, log."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gradlab.config import check
from gradlab.lockstep import Lockstep
from gradlab.recorder import Point, Recorder, Row, Status
from gradlab.training import Telemetry, as_numbers, program_for

__all__ = ["Point", "Status", "point_of_job", "run_point", "run_points"]

CLIP_ROUNDING = 1e-5  # a clip coefficient this near to 1 is rounding, not clipping


def point_of_job(composed: DictConfig) -> Point:
    """The point that the present Hydra job stands for.

    Raises:
        ConfigError: its config is wrong.
    """
    job = HydraConfig.get()
    overrides = [entry for entry in job.overrides.task if not entry.startswith("+experiment=")]
    folder = Path(job.runtime.output_dir)
    return Point(check(composed), folder, ",".join(overrides) or composed.name)


def run_point(point: Point) -> Status:
    """Train and measure one point and leave its records in its folder; see `run_points`."""
    (status,) = run_points([point])
    return status


def run_points(
    points: Sequence[Point], trained: Callable[[int], None] = lambda steps: None
) -> list[Status]:
    """Train and measure points of one program in lock-step; each leaves its records in its folder.

    One point runs as the plain program, several as one vmapped program, which pays on an
    accelerator. One that diverges or fails is recorded as such, and the others go on.

    Args:
        points: points that differ in traced numbers alone (`training.program_key`).
        trained: is told of the steps that all have taken since it was last.

    Returns:
        What each one's status.json keeps: "state" is done, diverged or failed. An exception ends in
        "failed" with its reason, and never in the sweep.
    """
    recorders = [Recorder(point) for point in points]
    for recorder in recorders:
        with recorder.guarded():
            recorder.open()
    try:
        _train(recorders, trained)
    except Exception as error:  # of what they share
        for _, recorder in _running(recorders):
            recorder.fail(error)
    return [recorder.status for recorder in recorders]


def _train(recorders: Sequence[Recorder], trained: Callable[[int], None]) -> None:
    """Give each a row before training and after every `train.log_every` updates, until it ends."""
    config = recorders[0].point.config
    program = program_for(config)
    together = Lockstep(program, [as_numbers(recorder.point.config) for recorder in recorders])
    length = program.task.test.inputs.shape[1]
    steps, log_every = config["train"]["steps"], config["train"]["log_every"]

    state, done = together.initialise(), 0
    rows: list[Row] = [{"train/step": 0} for _ in recorders]
    while any(recorder.running for recorder in recorders):
        evaluated = together.evaluate(state)
        for index, recorder in _running(recorders):
            with recorder.guarded():
                found = together.member(evaluated, index).items()
                measured = together.measure(state, index) if done in (0, steps) else None
                recorder.add(rows[index] | {k: float(v) for k, v in found}, measured)
                if done == steps:
                    recorder.finish(length)
        piece = min(log_every, steps - done)
        if piece == 0:
            return
        state, seen = together.advance(state, piece, log_every)
        done += piece
        trained(piece)
        reached, diverged = np.asarray(state.step), np.asarray(state.diverged)
        for index, recorder in _running(recorders):
            rows[index] = _training_row(
                int(together.member(reached, index)), together.member(seen, index)
            )
            if together.member(diverged, index):
                with recorder.guarded():
                    recorder.add(rows[index])
                    recorder.finish(length)


def _running(recorders: Sequence[Recorder]) -> Iterator[tuple[int, Recorder]]:
    return ((i, recorder) for i, recorder in enumerate(recorders) if recorder.running)


def _training_row(step: int, seen: Telemetry) -> Row:
    """Means over the updates since the last row; norms are of the whole gradient."""
    raw, clipped = seen.grad_norm, seen.grad_norm_clipped
    coefficient = np.divide(clipped, raw, out=np.ones_like(raw), where=raw > 0)
    return {
        "train/step": step,
        "train/loss": float(np.mean(seen.loss)),
        "train/grad_norm": float(np.mean(raw)),
        "train/grad_norm_clipped": float(np.mean(clipped)),
        "train/clip_coefficient": float(np.mean(coefficient)),
        "train/clip_fraction": float(np.mean(coefficient < 1 - CLIP_ROUNDING)),
    }
