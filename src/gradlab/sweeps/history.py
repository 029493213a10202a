"""The cost of a program's points on a machine, kept for the estimate in a later plan.

One small file per program and machine, beside the compiled programs. It has sums over points, so
that a few updates tell the cost of many. Nothing in it is a path, and its name is a digest. A file
is replaced whole; of two processes that write at once, one loses a point. What cannot be read or
written is passed over.
"""

import contextlib
import hashlib
import json
import math
import os
import platform
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax

from gradlab import records
from gradlab.config import Config
from gradlab.identity import program_key
from gradlab.point import Point, Status
from gradlab.records.files import read_text
from gradlab.schedule import logged_steps, probed_steps
from gradlab.sweeps.program_cache import programs_folder

MOST_FILES = 1000  # the oldest go first
MOST_POINTS = 256.0  # in a sum, which is halved there: what is old weighs less and less
_lock = threading.Lock()


class Work(NamedTuple):
    """The work of a point: its numbers of updates, evaluations and measurements."""

    updates: int
    evaluations: int
    measurements: int


@dataclass(frozen=True)
class Cost:
    """Sums over points of one program, in seconds and bytes of disk."""

    points: float
    updates: float
    evaluations: float
    measurements: float
    train_seconds: float
    evaluate_seconds: float
    probe_seconds: float
    rest_seconds: float  # records, W&B, checkpoints, what is compiled for each point
    map_bytes: float  # gradients.nc
    other_bytes: float
    compile_seconds: float  # of the program, when it was compiled last; no sum

    def __add__(self, other: "Cost") -> "Cost":
        """Return the sums of both; those of this one are halved if they are of many points."""
        share = 0.5 if self.points >= MOST_POINTS else 1.0
        added = asdict(other)
        sums = {name: share * value + added[name] for name, value in asdict(self).items()}
        last = other.compile_seconds or self.compile_seconds
        return Cost(**sums | {"compile_seconds": last})

    def seconds_of(self, work: Work) -> float | None:
        """Return the seconds of a point without compiling; None: no point did such work."""
        pairs = (
            (self.train_seconds, self.updates, work.updates),
            (self.evaluate_seconds, self.evaluations, work.evaluations),
            (self.probe_seconds, self.measurements, work.measurements),
        )
        if any(count and not counted for _, counted, count in pairs):
            return None
        parts = (count * seconds / counted for seconds, counted, count in pairs if counted)
        return self.rest_seconds / self.points + sum(parts)

    def training_of(self, work: Work) -> float:
        """Return the seconds of a point's updates; 0 where none was ever made."""
        return work.updates * self.train_seconds / self.updates if self.updates else 0.0

    def probing_of(self, work: Work) -> float:
        """Return the seconds of a point's measurements; 0 where none was ever made."""
        count = self.measurements
        return work.measurements * self.probe_seconds / count if count else 0.0

    def bytes_of(self, work: Work) -> float:
        """Return the bytes of a point on disk."""
        maps = self.map_bytes / self.measurements if self.measurements else 0.0
        return self.other_bytes / self.points + work.measurements * maps


class Found(NamedTuple):
    """The history of a program, and whether it is of this machine."""

    cost: Cost
    is_of_this_machine: bool


def work_of(config: Config, done: int = 0) -> Work:
    """Return the work of a point from update `done` to the last one.

    A point that has not begun also does what is due before the first update.
    """
    train = config.train
    logged = logged_steps(train.steps, train.log_every)
    probed = probed_steps(train.steps, config.probe["schedule"])
    to_come = [sum(step > done or not done for step in steps) for steps in (logged, probed)]
    return Work(train.steps - done, *to_come)


def measured_cost(
    points: Sequence[Point],
    statuses: Sequence[Status],
    updates: int,
    seconds: float,
    compiles: bool,
) -> Cost | None:
    """Return the cost of points that have run together; None if they do not tell that of others.

    Args:
        points: the points.
        statuses: theirs.
        updates: those made now; a point that has gone on from a checkpoint does not count.
        seconds: wall time that they took.
        compiles: whether the program was compiled for them.
    """
    summaries = [status.get("summary", {}) for status in statuses]
    made = [int(summary.get("train/step", -1)) for summary in summaries]
    if not all(status["state"] == "done" for status in statuses) or updates < max(made):
        return None
    works = [
        work_of(replace(point.config, train=replace(point.config.train, steps=steps)))
        for point, steps in zip(points, made, strict=True)
    ]
    spent = {
        name: sum(summary.get(f"time/{name}_seconds", 0.0) for summary in summaries)
        for name in ("train", "evaluate", "probe", "compile")
    }
    kept = spent["train"] + spent["evaluate"] + spent["probe"] + compiles * spent["compile"]
    maps = sum(_allocated(point.folder / records.GRADIENTS) for point in points)
    return Cost(
        points=len(points),
        updates=sum(work.updates for work in works),
        evaluations=sum(work.evaluations for work in works),
        measurements=sum(work.measurements for work in works),
        train_seconds=spent["train"],
        evaluate_seconds=spent["evaluate"],
        probe_seconds=spent["probe"],
        rest_seconds=max(0.0, seconds - kept),
        map_bytes=maps,
        other_bytes=sum(disk_bytes(point.folder) for point in points) - maps,
        compile_seconds=compiles * spent["compile"],
    )


def remember(config: Config, machine: str, cost: Cost) -> None:
    """Add the cost of points to the history of their program.

    Args:
        config: that of one of the points.
        machine: as of `machine_name`.
        cost: theirs.
    """
    folder = history_folder()
    if folder is None:
        return
    path = folder / f"{_digest(_cost_key(config))}-{_digest(machine)}.json"
    with _lock, contextlib.suppress(OSError):
        before = _read(path)
        text = json.dumps(asdict(before + cost if before else cost))
        records.write_whole(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
        if before is None:
            _delete_oldest(folder.glob("*.json"))


def recall(config: Config, machine: str) -> Found | None:
    """Return the history of a config's program: this machine's, or else the newest of another."""
    folder = history_folder()
    if folder is None:
        return None
    program, own = _digest(_cost_key(config)), _digest(machine)
    if cost := _read(folder / f"{program}-{own}.json"):
        return Found(cost, True)
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob(f"{program}-*.json"), key=_age_key, reverse=True):
            if cost := _read(path):
                return Found(cost, False)
    return None


def history_folder() -> Path | None:
    """Return the folder of the history; None where compiled programs are kept in no folder."""
    programs = programs_folder()
    return programs / "history" if programs else None


def machine_name(cores: int, vmapped: bool) -> str:
    """Return what the seconds of a program depend on beside itself.

    Args:
        cores: those that its process may use.
        vmapped: whether points run vmapped.
    """
    device = jax.local_devices()[0].device_kind
    return f"jax {jax.__version__}, {device}, {_processor()}, {cores} cores, vmapped {vmapped}"


def disk_bytes(folder: Path) -> float:
    """Return the bytes that a point's files take on disk, those of its W&B run among them."""
    files: dict[tuple[int, int], float] = {}  # by device and inode: a file may have two names
    for root in (folder, (folder / records.WANDB).resolve()):
        for parent, _, names in os.walk(root):
            for path in (Path(parent, name) for name in names):
                with contextlib.suppress(OSError):
                    status = path.lstat()
                    files[status.st_dev, status.st_ino] = _allocated(path)
    return sum(files.values())


def _allocated(path: Path) -> float:
    """Return the bytes that a file takes, in whole blocks where the system tells; 0: no file."""
    try:
        status = path.lstat()
    except OSError:
        return 0.0
    return 512.0 * getattr(status, "st_blocks", 0) or float(status.st_size)


def _cost_key(config: Config) -> str:
    """Return a key that is equal for points whose updates and measurements cost the same."""
    once = replace(config.train, steps=1, log_every=1)
    alike = replace(config, train=once, probe={**config.probe, "schedule": "ends"})
    return f"{program_key(alike)} {config.wandb.mode != 'disabled'}"


def _read(path: Path) -> Cost | None:
    """Return the content of a file of the history; None if there is none, or it is damaged."""
    try:
        content = json.loads(read_text(path))
        cost = Cost(**{entry.name: _amount(content[entry.name]) for entry in fields(Cost)})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return cost if cost.points > 0 else None


def _amount(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError("it is no amount")
    return float(value)


def _delete_oldest(paths: Iterable[Path]) -> None:
    for path in sorted(paths, key=_age_key, reverse=True)[MOST_FILES:]:
        path.unlink(missing_ok=True)


def _age_key(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has deleted it
        return 0.0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _processor() -> str:
    """Return the model of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
