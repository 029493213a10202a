"""What one point leaves behind: its rows, measurements, W&B run, files and status."""

import contextlib
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

from gradlab import decay, records, tracking
from gradlab.config import identity
from gradlab.figures import point_figure, style
from gradlab.probes import Measurement, dataset

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

    `status` is what status.json keeps: "state" is running, done, diverged or failed.
    """

    def __init__(self, point: Point) -> None:
        """Begin a point; nothing is written before `open`."""
        self.point = point
        self.rows: list[Row] = []
        self.measured: dict[int, Measurement] = {}
        self.status: Status = {
            "state": "running",
            "started": _now(),
            "identity": identity(point.config),
            "device": str(jnp.zeros(()).device),
            "versions": {package: version(package) for package in VERSIONS},
        }
        self._begin = time.perf_counter()
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

    def open(self) -> None:
        """Write the config and the first status, and open the W&B run."""
        point = self.point
        records.save_config(point.folder, point.config)
        records.save_status(point.folder, self.status)
        self._tracker = self._open.enter_context(
            tracking.track(point.folder, point.config, group=point.sweep, name=point.name)
        )

    def add(self, row: Row, measured: Measurement | None = None) -> None:
        """Take down a row of metrics, and what the probes found at its training step."""
        if measured:
            row = row | measured.metrics
            self.measured[int(row["train/step"])] = measured
        self.rows.append(row)
        self._tracker.log(row)

    def finish(self, length: int) -> None:
        """End the point as done or diverged, by its last row; `length` is its sequences'."""
        self._keep()
        status = _conclude(self.rows[-1], length)
        folder = self.point.folder
        self._tracker.finish(
            status["summary"], folder / records.PICTURE, folder / records.GRADIENTS
        )
        self._open.close()
        self._end(status)

    def fail(self, error: Exception) -> None:
        """End the point as failed; what was measured before is kept."""
        with contextlib.suppress(Exception):  # the first failure is the one to tell
            self._keep()
        with contextlib.suppress(Exception):
            self._open.__exit__(type(error), error, error.__traceback__)
        self._end({"state": "failed", "reason": f"{type(error).__name__}: {error}"})

    def _keep(self) -> None:
        folder = self.point.folder
        records.save_metrics(folder, pd.DataFrame(self.rows))
        if self.measured:
            gradients = dataset(self.measured)
            records.save_gradients(folder, gradients)
            if "jacobian_log_norm" in gradients:
                style.save(point_figure(gradients, self.point.name), folder / records.PICTURE)

    def _end(self, status: Status) -> None:
        seconds = round(time.perf_counter() - self._begin, 3)
        status |= {"files": records.digests(self.point.folder)}
        self.status |= status | {"finished": _now(), "seconds": seconds}
        records.save_status(self.point.folder, self.status)


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
