"""One point of a sweep from config to records: build, measure, train, measure, keep, log."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gradlab import decay, records, tracking
from gradlab.config import ConfigError, check
from gradlab.figures import point_figure, style
from gradlab.probes import Measurement, dataset
from gradlab.training import State, Telemetry, as_numbers, program_for

Row = dict[str, float]
Status = dict[str, Any]
VERSIONS = ("gradlab", "jax", "flax", "optax", "numpy")
CLIP_ROUNDING = 1e-5  # a clip coefficient this near to 1 is rounding, not clipping


@dataclass(frozen=True)
class Point:
    """One job of a sweep: a checked config and the folder that its records go to."""

    config: Mapping[str, Any]
    folder: Path
    name: str  # what sets it apart from its neighbours, e.g. "init.gain=2,model=rnn"

    @property
    def sweep(self) -> str:
        """Name of the sweep, which W&B groups its runs by."""
        return f"{self.folder.parent.parent.name}/{self.folder.parent.name}"


def point_of_job(composed: DictConfig) -> Point:
    """The point that the present Hydra job stands for.

    Raises:
        ConfigError: its config is wrong.
    """
    if composed.measure is not None:
        raise ConfigError("measure is computed directly, once: leave --multirun and sweeps out.")
    job = HydraConfig.get()
    overrides = [entry for entry in job.overrides.task if not entry.startswith("+experiment=")]
    folder = Path(job.runtime.output_dir)
    return Point(check(composed), folder, ",".join(overrides) or composed.name)


def run_point(point: Point) -> Status:
    """Train and measure one point and leave its records in its folder.

    Returns:
        What status.json keeps: "state" is done, diverged or failed. An exception of the point ends
        in "failed" with its reason, and never in the sweep.
    """
    status = running()
    records.save_config(point.folder, point.config)
    records.save_status(point.folder, status)
    clock = time.perf_counter()
    try:
        status |= _measure_and_train(point)
    except Exception as error:
        status |= {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
    status |= {"finished": _now(), "seconds": round(time.perf_counter() - clock, 3)}
    records.save_status(point.folder, status)
    return status


def running() -> Status:
    """What status.json says from the start."""
    return {
        "state": "running",
        "started": _now(),
        "device": str(jax.devices()[0]),
        "versions": {package: version(package) for package in VERSIONS},
    }


def _measure_and_train(point: Point) -> Status:
    config, folder = point.config, point.folder
    rows: list[Row] = []
    measured: dict[int, Measurement] = {}
    with tracking.track(folder, config, group=point.sweep, name=point.name) as tracker:
        try:
            for row in _run(config, measured):
                rows.append(row)
                tracker.log(row)
        finally:  # what was measured before a failure is kept
            records.save_metrics(folder, pd.DataFrame(rows))
            if measured:
                _keep_gradients(folder, dataset(measured), point.name)
        status = _conclude(rows[-1], program_for(config).task.test.inputs.shape[1])
        tracker.finish(status["summary"], folder / records.PICTURE, folder / records.GRADIENTS)
    return status


def _keep_gradients(folder: Path, gradients: xr.Dataset, name: str) -> None:
    records.save_gradients(folder, gradients)
    if "jacobian_log_norm" in gradients:
        style.save(point_figure(gradients, name), folder / records.PICTURE)


def _run(config: Mapping[str, Any], measured: dict[int, Measurement]) -> Iterator[Row]:
    """Yield a row of metrics before training and after every `train.log_every` updates.

    What the probes find before and after training is added to `measured` by training step. A run
    that diverges ends with the row in which it did.
    """
    program, numbers = program_for(config), as_numbers(config)
    steps, log_every = config["train"]["steps"], config["train"]["log_every"]
    state = program.initialise(numbers)
    row: Row = {"train/step": 0}
    while True:
        done = int(row["train/step"])
        row |= {name: float(value) for name, value in program.evaluate(state).items()}
        if done in (0, steps):
            measured[done] = program.measure(numbers, state)
            row |= measured[done].metrics
        yield row
        if done == steps:
            return
        state, seen = program.advance(numbers, state, min(log_every, steps - done))
        row = _training_row(state, seen)
        if state.diverged:
            yield row
            return


def _training_row(state: State, seen: Telemetry) -> Row:
    """Means over the updates since the last row; norms are of the whole gradient."""
    raw, clipped = np.asarray(seen.grad_norm), np.asarray(seen.grad_norm_clipped)
    coefficient = np.divide(clipped, raw, out=np.ones_like(raw), where=raw > 0)
    return {
        "train/step": int(state.step),
        "train/loss": float(np.mean(seen.loss)),
        "train/grad_norm": float(np.mean(raw)),
        "train/grad_norm_clipped": float(np.mean(clipped)),
        "train/clip_coefficient": float(np.mean(coefficient)),
        "train/clip_fraction": float(np.mean(coefficient < 1 - CLIP_ROUNDING)),
    }


def _conclude(last: Row, length: int) -> Status:
    """State, reason and summary: the last row, with the verdict on the last map."""
    if not np.isfinite([last.get("train/loss", 0), last.get("train/grad_norm", 0)]).all():
        reason = f"the loss or its gradient was not finite at update {last['train/step'] + 1:.0f}"
        return {"state": "diverged", "reason": reason, "summary": last | {"verdict": "diverged"}}
    if "jacobian/decay_rate" not in last:
        return {"state": "done", "summary": last | {"verdict": "unmeasured"}}
    verdict = decay.verdict(last["jacobian/decay_rate"], length)
    reason = decay.reasons(last, length)
    return {"state": "done", "reason": reason, "summary": last | {"verdict": verdict}}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
