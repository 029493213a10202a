"""The time that a sweep takes and the disk that it needs, before it runs.

Seconds come from the history of the same programs (`history`), bytes from there or else from
shapes (`disk`).
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax

from gradlab.config import Sweep
from gradlab.point import checkpoints
from gradlab.sweeps.disk import point_size, row_bytes
from gradlab.sweeps.groups import Group
from gradlab.sweeps.history import Work, machine_name, recall, work_of
from gradlab.sweeps.lanes import lanes_of

LISTING = 2500  # bytes that sweep.json has of a point
SWEEP = 150e3  # bytes of the sweep's figure and of Hydra's own config
CLOCK = {"days": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
SIZES = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}


class Workers(NamedTuple):
    """The processes that a sweep's groups run in.

    Attributes:
        lanes: of each: chunks of points that run at the same time.
        vmapped: whether the points of a chunk are vmapped.
        place: all of them in words, such as "on 2 cores".
        jobs: None: one process runs all groups; else the number of processes at once.
        points: that a job runs at most; None: all that share a program.
        minutes: that a job may take; None: any number.
    """

    lanes: int
    vmapped: bool
    place: str
    jobs: int | None = None
    points: int | None = None
    minutes: int | None = None

    @property
    def slots(self) -> int:
        """Return the number of points or, if there are jobs, of jobs at once."""
        return self.lanes if self.jobs is None else self.jobs


@dataclass(frozen=True)
class Estimate:
    """The cost of a group's points that are still to run.

    Attributes:
        points: their number.
        seconds: of each point, without compiling; empty: not known.
        training: seconds of all updates of all points, those made before among them.
        probing: seconds of all their measurements.
        compiling: seconds.
        stops: whether training may end before its last update.
        earlier: points that have run before, which the seconds come from.
        is_of_this_machine: whether these ran on a machine like the workers'.
        bytes: of all points on disk.
        maps: those of their maps.
        weighed: whether the bytes are those of earlier points; else they come from shapes.
        left_out: probes whose arrays the bytes lack.
    """

    points: int
    seconds: Sequence[float]
    training: float
    probing: float
    compiling: float
    stops: bool
    earlier: int
    is_of_this_machine: bool
    bytes: float
    maps: float
    weighed: bool
    left_out: Sequence[str]

    def tasks(self, workers: Workers) -> list[float]:
        """Return the seconds of each point or, if there are jobs, of each job.

        The first point of a process waits for the compiler.
        """
        if workers.jobs is None or not self.seconds:
            return [x + (0 if i else self.compiling) for i, x in enumerate(self.seconds)]
        size = workers.points or len(self.seconds)
        jobs = [self.seconds[i : i + size] for i in range(0, len(self.seconds), size)]
        return [self.compiling + makespan(job, workers.lanes) for job in jobs]


def workers_here(settings: Sweep) -> Workers:
    """Return this process as the one worker."""
    vmapped, lanes = lanes_of(settings)
    what = "core" if jax.default_backend() == "cpu" else "device"
    return Workers(lanes, vmapped, f"on {lanes} {what}{'s'[: lanes > 1]}")


def estimate(group: Group, workers: Workers) -> Estimate | None:
    """Estimate a group's cost; None if its program cannot be built."""
    program, config = group.program, group.points[0].config
    if isinstance(program, BaseException):
        return None
    work, count = work_of(config), len(group.points)
    try:
        size = point_size(program, work)
    except (Exception, SystemExit):  # a part of the user's fails, as it will in each point
        return None
    found = recall(config, machine_name(workers.lanes, workers.vmapped))
    total, maps, weighed = size.total, size.maps, False
    seconds = list[float | None]()
    if found:
        made = [_updates_made(point.folder) for point in group.points]
        of_one = {n: found.cost.seconds_of(work_of(config, n)) for n in set(made)}
        seconds = [of_one[n] for n in made]
        if weighed := found.cost.measurements > 0:
            more_rows = work.evaluations - found.cost.evaluations / found.cost.points
            total = found.cost.bytes_of(work) + max(0.0, more_rows) * row_bytes(config)
            maps = found.cost.bytes_of(work) - found.cost.bytes_of(Work(0, 0, 0))
    known = [x for x in seconds if x is not None]
    return Estimate(
        points=count,
        seconds=known if len(known) == count else [],
        training=count * found.cost.training_of(work) if found else 0.0,
        probing=count * found.cost.probing_of(work) if found else 0.0,
        compiling=found.cost.compile_seconds if found else 0.0,
        stops=config.train.stop is not None,
        earlier=round(found.cost.points) if found else 0,
        is_of_this_machine=found is None or found.is_of_this_machine,
        bytes=count * total,
        maps=count * maps,
        weighed=weighed,
        left_out=[] if weighed else size.left_out,
    )


def time_sentence(estimates: Sequence[Estimate], workers: Workers) -> str:
    """Return how long the sweep takes, and how that is known."""
    known = [one for one in estimates if one.seconds]
    if not known:
        return (
            "Time: not known, since none of these programs has run here yet. A run of one point of "
            "each with train.steps=50 tells it, for any number of updates."
        )
    tasks = [task for one in known for task in one.tasks(workers)]
    bound = "at most" if any(one.stops for one in known) else "about"
    points, new = sum(one.points for one in known), len(estimates) - len(known)
    share = f" for {points} of {sum(one.points for one in estimates)} points" if new else ""
    earlier = sum(one.earlier for one in known)
    whence = f"from {earlier} earlier point{'s'[: earlier > 1]} of {'their' if new else 'these'} "
    whence += "programs"
    if not all(one.is_of_this_machine for one in known):
        whence += ", some on another processor, number of cores or version of JAX"
    wall = duration(makespan(tasks, workers.slots))
    parts = [f"Time: {bound} {wall}{share} {workers.place}, {whence}"]
    if new:
        parts.append(f"not known for {new} of {len(estimates)} programs, which are new here")
    if training := sum(one.training for one in known):
        probing = sum(one.probing for one in known)
        parts.append(f"probes take {probing / training:.0%} of training")
    if workers.minutes and workers.jobs is not None:
        longest = duration(max(tasks))
        parts.append(f"the longest job takes {bound} {longest} of its {workers.minutes} min")
    return f"{'; '.join(parts)}."


def disk_sentence(estimates: Sequence[Estimate], folder: Path) -> str:
    """Return how much disk the sweep needs, how that is known, and how much is free.

    Args:
        estimates: of all groups.
        folder: the sweep's, which need not be there yet.
    """
    needed = SWEEP + sum(one.bytes + one.points * LISTING for one in estimates)
    maps = sum(one.maps for one in estimates) / needed
    weighed = sum(one.weighed for one in estimates)
    how = "as earlier points weighed" if weighed else "computed from shapes"
    if 0 < weighed < len(estimates):
        new = len(estimates) - weighed
        how += f", and computed from shapes for {new} of {len(estimates)} programs"
    parts = [f"Disk: about {size(needed)} ({maps:.0%} maps), {how}"]
    if left_out := sorted({name for one in estimates for name in one.left_out}):
        parts.append(f"what the probes {', '.join(left_out)} keep is not counted")
    free = _free(folder)
    few = "ONLY " if free < needed else ""
    return f"{'; '.join([*parts, f'{few}{size(free)} are free'])}."


def makespan(tasks: Sequence[float], slots: int) -> float:
    """Return the wall time of tasks of which `slots` run at once, from below."""
    return max(sum(tasks) / slots, max(tasks))


def duration(seconds: float) -> str:
    """Return seconds in words, such as "12 min"."""
    return _in_words(seconds, CLOCK)


def size(count: float) -> str:
    """Return bytes in words, such as "310 MB"."""
    return _in_words(count, SIZES)


def _in_words(value: float, units: dict[str, float]) -> str:
    name = next((name for name, unit in units.items() if value >= unit), [*units][-1])
    return f"{float(f'{value / units[name]:.2g}'):g} {name}"


def _updates_made(folder: Path) -> int:
    newest = checkpoints.newest(folder)
    return int(newest.name) if newest else 0


def _free(folder: Path) -> float:
    """Return the bytes that are free where a folder is or will be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return float(shutil.disk_usage(there).free)
