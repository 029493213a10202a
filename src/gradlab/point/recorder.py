"""The records of one point: its rows, measurements, W&B run, files, checkpoints and status."""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import decay, records, sentences
from gradlab.advice.points import point_advice
from gradlab.advice.starts import kind_of
from gradlab.components import locate
from gradlab.config import Config
from gradlab.identity import identity
from gradlab.point import checkpoints
from gradlab.point.environment import environment
from gradlab.point.failures import is_interrupt, reason_of, traceback_of
from gradlab.point.sources import sources
from gradlab.point.stopwatch import Stopwatch, times
from gradlab.printable import printable
from gradlab.probes import Measurement, join_steps, split_steps
from gradlab.records import leases
from gradlab.records.files import RecordError
from gradlab.tracking.runs import track
from gradlab.training.flossing import flossing_entries
from gradlab.training.program import State, has_ended
from gradlab.training.success import success
from gradlab.training.telemetry import divergence

Row = dict[str, float]
Status = dict[str, Any]
Judge = Callable[[Sequence[Row]], str]  # why a point with these rows is pruned; "": it is not
LEFT: Status = {"state": "running"}  # by another process


class TakenOver(RuntimeError):
    """Another process runs the point now."""


@dataclass(frozen=True)
class Point:
    """One job of a sweep: a checked config and the folder that its records go to."""

    config: Config
    folder: Path
    name: str  # how it differs from its neighbours, e.g. "init.gain=2,model=rnn"
    judge: Callable[[], Judge] | None = None  # of a search that prunes; one for each attempt

    @classmethod
    def named(cls, config: Config, folder: Path, overrides: Sequence[str]) -> "Point":
        """Return a point that is named by its overrides, or by its config if it has none."""
        own = [word for word in overrides if not word.startswith(("+experiment=", "sweep."))]
        return cls(config, folder, ",".join(own) or config.name)

    @property
    def sweep(self) -> str:
        """Return the name of the sweep, by which W&B groups its runs."""
        folder = records.sweep_folder(self.folder.absolute())
        return f"{folder.parent.name}/{folder.name}"


class Recorder:
    """Records a point's metrics and status while it runs and writes them to disk.

    `status` is the content of status.json: "state" is running, done, diverged, pruned, failed or
    interrupted.
    """

    def __init__(self, point: Point, length: int) -> None:
        """Start a point's clock; nothing is written before `open`.

        Args:
            point: the point.
            length: T, the steps of its sequences, which the verdict depends on.
        """
        self.point = point
        self.length = length
        self.rows: list[Row] = []
        self.measured: dict[int, Measurement] = {}
        self.timer: Stopwatch = {}
        self._begun_by: Status = {}  # code of an earlier attempt
        self.status: Status = running_status(point.config)
        self._started = self._checkpointed = time.perf_counter()
        self._written_steps = 0
        self._open = contextlib.ExitStack()
        self._judge: Judge | None = None

    @property
    def running(self) -> bool:
        """Return whether the point has not ended yet."""
        return self.status["state"] == "running"

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn whatever is raised in the block into the failure of this point alone."""
        try:
            yield
        except BaseException as error:
            if is_interrupt(error):
                raise
            self.fail(error)

    def open(self) -> None:
        """Write the config and the first status, and open the W&B run."""
        point, config = self.point, asdict(self.point.config)
        self.status["files"] = self._earlier_seals()
        records.save_config(point.folder, config, self.status)
        (point.folder / records.TRACEBACK).unlink(missing_ok=True)  # of an earlier attempt
        self._tracker = self._open.enter_context(
            track(point.folder, config, group=point.sweep, name=point.name)
        )
        if point.judge:
            self._judge = point.judge()

    def restore(self, abstract_state: Callable[[], State]) -> State | None:
        """Read what an earlier process has recorded.

        Args:
            abstract_state: gives the shapes and types of the point's state.

        Returns:
            The state to go on from, if the folder holds a checkpoint of the same config: the rows
            and measurements up to it are restored, later ones dropped. A checkpoint that does not
            fit is reported, and the point starts from the first step.
        """
        state = self._restored(abstract_state)
        for row in self.rows:
            self._tracker.log(row)
        return state

    def add(self, row: Row, measured: Measurement | None = None) -> None:
        """Record a row of metrics, and the probes' measurement at its training step."""
        if measured is not None:
            row = row | measured.metrics
            self.measured[int(row["train/step"])] = measured
        self.rows.append(row)
        self._tracker.log(row)

    def checkpoint_is_due(self) -> bool:
        """Return whether `train.checkpoint_seconds` have passed since the last checkpoint."""
        passed = time.perf_counter() - self._checkpointed
        return passed >= self.point.config.train.checkpoint_seconds

    def checkpoint(self, state: State) -> None:
        """Write a checkpoint of the state, and everything recorded so far."""
        self._write()
        checkpoints.save(self.point.folder, self.point.config, state)
        self._checkpointed = time.perf_counter()

    def finish(self, state: State, found: str = "") -> None:
        """End the point as done or diverged, by its last row, with a checkpoint of its state.

        Args:
            state: the point's last.
            found: what a probe has met that is not finite, which then is the reason.
        """
        status = _conclude(self.rows[-1], self.length)
        if found:
            status["reason"] = found
        status["summary"] |= success(self.rows) | flossing_entries(self.rows)
        self._complete(state, status | self._advice())

    def reason_to_prune(self) -> str:
        """Return why the point's search has no use for the rest of its training; "": it has."""
        return self._judge(self.rows) if self._judge else ""

    def prune(self, state: State, reason: str) -> None:
        """End the point as pruned, with a checkpoint of its state; no probe measures it."""
        summary = self.rows[-1] | flossing_entries(self.rows)
        self._complete(state, {"state": "pruned", "reason": reason, "summary": summary})

    def interrupt(self, state: State) -> None:
        """End the point as interrupted, with a checkpoint to go on from."""
        self.checkpoint(state)
        done, steps = int(state.step), self.point.config.train.steps
        reason = f"stopped after {done} of {steps} updates: run again, it goes on from there"
        summary = self.rows[-1] | times(self.timer) | flossing_entries(self.rows)
        status = {"state": "interrupted", "reason": reason, "summary": summary}
        self._close_unfinished(status, KeyboardInterrupt())
        self._end(status)

    def fail(self, error: BaseException) -> None:
        """End the point as failed; everything recorded so far is written, and the traceback."""
        if isinstance(error, TakenOver):  # nothing more is written: the folder is another's
            self._close_unfinished(LEFT, error)
            self.status |= LEFT | {"reason": str(error)}
            return
        with contextlib.suppress(Exception):  # the first failure is the one to report
            if self.rows:
                self._write()
        if not isinstance(error, RecordError):  # which says all there is to say
            with contextlib.suppress(RecordError):
                records.save_traceback(self.point.folder, traceback_of(error))
        status = {"state": "failed", "reason": reason_of(error)}
        self.status.pop("summary", None)  # what could not be written
        self._close_unfinished(status, error)
        self.status |= status  # which reaches the sweep even where it cannot be written
        with contextlib.suppress(Exception):
            self._end(status)

    def _complete(self, state: State, status: Status) -> None:
        """Write and log everything, and end the point with a status."""
        gradients = self._write()
        if np.isfinite(self.point.config.train.checkpoint_seconds):
            checkpoints.save(self.point.folder, self.point.config, state)
        status["summary"] |= times(self.timer)
        self._tracker.finish(self.status | status, gradients)
        self._open.close()
        self._end(status)

    def _advice(self) -> Status:
        """Return the advice that the rows support; nothing if there is none."""
        config = self.point.config
        clip = config.clip
        is_global = clip["_target_"] == "gradlab.clipping.global_norm"
        sentences = point_advice(
            self.rows,
            self.length,
            threshold=float(clip["threshold"]) if is_global else np.nan,
            window=config.tbptt.window,
            kind=kind_of(locate(config.model.cell["_target_"])),
            start=records.flatten({key: asdict(config)[key] for key in ("init", "bias", "model")}),
        )
        return {"advice": sentences} if sentences else {}

    def _earlier_seals(self) -> dict[str, Any]:
        """Return the seals of an earlier attempt's rows and maps, if all its files fit theirs."""
        folder = self.point.folder
        try:
            earlier = records.load_verified(folder)
        except OSError:  # there is none, or writing here will say what is wrong
            return {}
        except ValueError as error:
            self._say_anew(error)
            records.delete_records(folder)
            return {}
        self._begun_by = {"sources": earlier["sources"]} if "sources" in earlier else {}
        files = earlier.get("files", {})
        return {name: entry for name, entry in files.items() if name in records.RESULTS}

    def _say_anew(self, error: Exception) -> None:
        sentence = f"gradlab: {error}; {self.point.name} starts anew."
        print(printable(sentence), file=sys.stderr)

    def _restored(self, abstract_state: Callable[[], State]) -> State | None:
        folder = self.point.folder
        try:
            state = checkpoints.load(folder, self.point.config, abstract_state)
            if state is not None and not has_ended(state):
                self._restore_records(int(state.step))
                self.status |= self._begun_by
                return state
        except (OSError, ValueError) as error:  # the checkpoint's, or the records' beside it
            self._say_anew(error)
        records.delete_checkpoints(folder)
        return None

    def _restore_records(self, step: int) -> None:
        metrics = records.load_metrics(self.point.folder)
        measured = split_steps(records.load_gradients(self.point.folder))
        rows = metrics[metrics["train/step"] <= step].to_dict("records")
        self.rows = [{str(name): value for name, value in row.items()} for row in rows]
        self.measured = {at: measurement for at, measurement in measured.items() if at <= step}
        self._written_steps = len(self.measured)

    def _write(self) -> xr.Dataset | None:
        """Write the rows and the measurements; return the latter.

        Raises:
            TakenOver: the lease could not be renewed in time, and another process runs the point.
        """
        folder = self.point.folder
        if other := leases.taken_over(folder):
            raise TakenOver(f"{other} has taken it over")
        rows = pd.DataFrame(self.rows)  # the first, before any update, has no losses
        names = sorted(map(str, rows), key=lambda name: not name.startswith("train/"))
        records.save_metrics(folder, rows[names], self.status)
        if not self.measured:
            return None
        gradients = join_steps(self.measured)
        if len(self.measured) > self._written_steps:
            records.save_gradients(folder, gradients, self.status)
            self._written_steps = len(self.measured)
        return gradients

    def _close_unfinished(self, status: Status, error: BaseException) -> None:
        with contextlib.suppress(Exception):
            self._tracker.finish(self.status | status, None)
        with contextlib.suppress(Exception, KeyboardInterrupt):
            self._open.__exit__(type(error), error, error.__traceback__)

    def _end(self, status: Status) -> None:
        seconds = round(time.perf_counter() - self._started, 3)
        status |= {"files": records.settled(self.point.folder, self.status.get("files", {}))}
        self.status |= status | {"finished": now(), "seconds": seconds}
        records.save_status(self.point.folder, self.status)


def _conclude(last: Row, length: int) -> Status:
    """Return state, reason and summary: the last row, with the verdict on the last map."""
    if reason := divergence(last):
        return {"state": "diverged", "reason": reason, "summary": last | {"verdict": "diverged"}}
    if "jacobian/decay_rate" not in last:
        return {"state": "done", "summary": last | {"verdict": "unmeasured"}}
    verdict = decay.verdict_of(last, length)
    reason = sentences.verdict_sentence(last, length)
    return {"state": "done", "reason": reason, "summary": last | {"verdict": verdict}}


def running_status(config: Config) -> Status:
    """Return the status of a point that starts now."""
    own = sources(config)
    return {"identity": identity(config), **process_status(), **({"sources": own} if own else {})}


def process_status() -> Status:
    """Return the status of work that starts now in this process."""
    return {
        "state": "running",
        "started": now(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **environment(),
    }


def now() -> str:
    """Return the time (UTC), to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
