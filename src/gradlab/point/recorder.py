"""What one point leaves behind: its rows, measurements, W&B run, files, checkpoints and status."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from gradlab import decay, records
from gradlab.config import identity
from gradlab.point import checkpoints
from gradlab.point.stopwatch import Stopwatch, times
from gradlab.probes import Measurement, dataset, measurements
from gradlab.tracking.runs import track
from gradlab.training.program import State, program_for
from gradlab.training.success import success
from gradlab.training.telemetry import divergence

Row = dict[str, float]
Status = dict[str, Any]
VERSIONS = ("gradlab", "jax", "flax", "optax", "numpy")


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


class Recorder:
    """Takes down what happens to a point while it runs, and keeps it once it has ended.

    `status` is what status.json keeps: "state" is running, done, diverged, failed or interrupted.
    """

    def __init__(self, point: Point) -> None:
        """Begin a point; nothing is written before `open`."""
        self.point = point
        self.rows: list[Row] = []
        self.measured: dict[int, Measurement] = {}
        self.timer: Stopwatch = {}
        self.status: Status = running(point.config)
        self._begin = self._checked = time.perf_counter()
        self._kept_steps = 0
        self._open = contextlib.ExitStack()

    @property
    def running(self) -> bool:
        """Whether the point has not ended yet."""
        return self.status["state"] == "running"

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Let an exception of the block end this point as failed, and no other."""
        try:
            yield
        except Exception as error:
            self.fail(error)

    def open(self) -> State | None:
        """Write the config and the first status, and open the W&B run.

        Returns:
            The state to go on from, if the folder holds a checkpoint of the same config: the rows
            and measurements up to it are taken over, those after it dropped. A checkpoint that does
            not fit is named, and the point starts anew.
        """
        point = self.point
        records.save_config(point.folder, point.config)
        records.save_status(point.folder, self.status)
        state = self._restore()
        self._tracker = self._open.enter_context(
            track(point.folder, point.config, group=point.sweep, name=point.name)
        )
        for row in self.rows:
            self._tracker.log(row)
        return state

    def add(self, row: Row, measured: Measurement | None = None) -> None:
        """Take down a row of metrics, and what the probes found at its training step."""
        if measured is not None:
            row = row | measured.metrics
            self.measured[int(row["train/step"])] = measured
        self.rows.append(row)
        self._tracker.log(row)

    def checkpoint_is_due(self) -> bool:
        """Whether `train.checkpoint_seconds` have passed since the last."""
        passed = time.perf_counter() - self._checked
        return passed >= self.point.config["train"]["checkpoint_seconds"]

    def checkpoint(self, state: State) -> None:
        """Keep the state and all that was taken down before it."""
        self._keep()
        checkpoints.save(self.point.folder, self.point.config, state)
        self._checked = time.perf_counter()

    def finish(self, state: State) -> None:
        """End the point as done or diverged, by its last row; its last good state is kept."""
        gradients = self._keep()
        if np.isfinite(self.point.config["train"]["checkpoint_seconds"]):
            checkpoints.save(self.point.folder, self.point.config, state)
        status = _conclude(self.rows[-1], program_for(self.point.config).length)
        status["summary"] |= success(self.rows) | times(self.timer)
        self._tracker.finish(self.status | status, gradients)
        self._open.close()
        self._end(status)

    def interrupt(self, state: State) -> None:
        """End the point as interrupted, with a checkpoint to go on from."""
        self.checkpoint(state)
        done, steps = int(state.step), self.point.config["train"]["steps"]
        reason = f"stopped after {done} of {steps} updates: run again, it goes on from there"
        summary = self.rows[-1] | times(self.timer)
        self._close_unfinished(KeyboardInterrupt())
        self._end({"state": "interrupted", "reason": reason, "summary": summary})

    def fail(self, error: Exception) -> None:
        """End the point as failed; what was measured before is kept."""
        with contextlib.suppress(Exception):  # the first failure is the one to tell
            self._keep()
        self._close_unfinished(error)
        is_sentence = isinstance(error, records.RecordError)
        reason = str(error) if is_sentence else f"{type(error).__name__}: {error}"
        with contextlib.suppress(records.RecordError):  # the status reaches the sweep all the same
            self._end({"state": "failed", "reason": reason})

    def _restore(self) -> State | None:
        folder = self.point.folder
        try:
            state = checkpoints.load(folder, self.point.config)
            if state is not None and not state.diverged:
                self._restore_records(int(state.step))
                return state
        except (OSError, ValueError) as error:  # the checkpoint's, or the records' beside it
            print(f"gradlab: {error}; {self.point.name} starts anew.", file=sys.stderr)
        checkpoints.discard(folder)
        return None

    def _restore_records(self, step: int) -> None:
        metrics = records.load_metrics(self.point.folder)
        found = measurements(records.load_gradients(self.point.folder))
        rows = metrics[metrics["train/step"] <= step].to_dict("records")
        self.rows = [{str(name): value for name, value in row.items()} for row in rows]
        self.measured = {at: values for at, values in found.items() if at <= step}
        self._kept_steps = len(self.measured)

    def _keep(self) -> xr.Dataset | None:
        """Write the rows, and the measurements, which are returned."""
        folder = self.point.folder
        records.save_metrics(folder, pd.DataFrame(self.rows))
        if not self.measured:
            return None
        gradients = dataset(self.measured)
        if len(self.measured) > self._kept_steps:
            records.save_gradients(folder, gradients)
            self._kept_steps = len(self.measured)
        return gradients

    def _close_unfinished(self, error: BaseException) -> None:
        with contextlib.suppress(Exception, KeyboardInterrupt):
            self._open.__exit__(type(error), error, error.__traceback__)

    def _end(self, status: Status) -> None:
        seconds = round(time.perf_counter() - self._begin, 3)
        status |= {"files": records.digests(self.point.folder)}
        self.status |= status | {"finished": now(), "seconds": seconds}
        records.save_status(self.point.folder, self.status)


def _conclude(last: Row, length: int) -> Status:
    """State, reason and summary: the last row, with the verdict on the last map."""
    if reason := divergence(last):
        return {"state": "diverged", "reason": reason, "summary": last | {"verdict": "diverged"}}
    if "jacobian/decay_rate" not in last:
        return {"state": "done", "summary": last | {"verdict": "unmeasured"}}
    verdict = decay.verdict(last["jacobian/decay_rate"], length)
    reason = decay.reasons(last, length)
    return {"state": "done", "reason": reason, "summary": last | {"verdict": verdict}}


def running(config: Mapping[str, Any]) -> Status:
    """What status.json says from the start."""
    return {
        "state": "running",
        "started": now(),
        "identity": identity(config),
        "device": str(jnp.zeros(()).device),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "versions": {package: version(package) for package in VERSIONS},
    }


def now() -> str:
    """The time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
