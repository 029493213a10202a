"""Running groups of points on this machine.

A lane runs one chunk of points at a time. On a CPU there is a lane a core and a chunk is one point:
batching small recurrent layers wins nothing there, and XLA's own threads cannot share so little
work. On accelerators there is a lane a device, and a chunk is as many points of a group, vmapped,
as its memory holds.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import jax

from gradlab.point import Point, Status, run_points
from gradlab.sweep.interrupts import stopping
from gradlab.sweep.memory import points_at_once
from gradlab.sweep.program_cache import release_programs
from gradlab.sweep.progress import ProgressDisplay

OUT_OF_MEMORY = ("resource_exhausted", "out of memory", "memoryerror")  # as XLA and Python say


@dataclass
class Group:
    """Points of one program that wait for a lane."""

    waiting: list[Point]
    size: int  # points to a chunk
    compiled: bool = False
    begun: bool = False
    running: int = 0

    @property
    def ready(self) -> bool:
        """Whether a chunk can begin without compiling what a neighbour compiles already."""
        return bool(self.waiting) and (self.compiled or not self.running)

    def take(self) -> list[Point]:
        """The next chunk."""
        chunk, self.waiting = self.waiting[: self.size], self.waiting[self.size :]
        self.begun, self.running = True, self.running + 1
        return chunk


@dataclass
class Ended:
    """A chunk that a lane is through with; free, the lane takes the next."""

    group: Group
    chunk: list[Point]
    device: jax.Device
    statuses: list[Status] = field(default_factory=list)
    error: BaseException | None = None


def run_here(
    groups: Sequence[Sequence[Point]], display: ProgressDisplay, settings: Mapping[str, Any]
) -> dict[Path, Status]:
    """Run all points and return their statuses by folder; Ctrl-C or SIGTERM ends them orderly."""
    with stopping() as stop:
        return run_groups(groups, display, settings, stop)


def run_groups(
    groups: Sequence[Sequence[Point]],
    display: ProgressDisplay,
    settings: Mapping[str, Any],
    stop: Event,
    cpus: int | None = None,
) -> dict[Path, Status]:
    """Run all points and return their statuses by folder.

    The first chunk of a group runs ahead of the others until it has trained a step, so that no
    program is compiled twice (GPUs share it through the programs kept on disk); while it compiles,
    other groups run. A chunk that does not fit the memory after all is halved.

    Args:
        groups: points of one program each.
        display: is told of every step and every point that has ended.
        settings: the config's sweep section: `lanes`, `chunk`.
        stop: once it is set, points that run are interrupted and no other begins.
        cpus: that this process may use at most; None: all that it is given.
    """
    vmapped = settings["lanes"] == "vmap" or (
        settings["lanes"] == "auto" and jax.default_backend() != "cpu"
    )
    devices = jax.local_devices()
    count = len(devices) if vmapped else min(cores(), cpus or cores())
    free, busy = [devices[i % len(devices)] for i in range(count)], 0
    queue = [Group(list(group), _size(group, vmapped, settings, devices)) for group in groups]
    statuses: dict[Path, Status] = {}
    events: SimpleQueue[Ended | None] = SimpleQueue()

    def run(group: Group, chunk: list[Point], device: jax.Device) -> None:
        def trained(steps: int) -> None:
            display.trained(chunk, steps)
            if not group.compiled:
                group.compiled = True
                events.put(None)

        ended = Ended(group, chunk, device)
        try:
            with jax.default_device(device):
                ended.statuses = run_points(chunk, trained, stop)
        except BaseException as error:
            ended.error = error
        events.put(ended)

    with ThreadPoolExecutor(max_workers=count) as pool:
        try:
            while True:
                while free and not stop.is_set() and (group := _next(queue)):
                    pool.submit(run, group, group.take(), free.pop())
                    busy += 1
                if not busy:
                    return statuses
                if ended := events.get():
                    busy -= 1
                    free.append(ended.device)
                    for point, status in _settle(ended):
                        statuses[point.folder] = status
                        display.ended(point, status)
                    if not ended.group.waiting and not ended.group.running:
                        release_programs()
        except BaseException:  # then the running points are interrupted, and waited for
            stop.set()
            raise


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(
    group: Sequence[Point], vmapped: bool, settings: Mapping[str, Any], devices: list[jax.Device]
) -> int:
    if not vmapped:
        return 1
    return settings["chunk"] or points_at_once(group[0].config, len(group), devices)


def _next(queue: Sequence[Group]) -> Group | None:
    """A group that is under way before one that is not: fewer programs are alive at a time."""
    ready = [group for group in queue if group.ready]
    return next((group for group in ready if group.begun), ready[0] if ready else None)


def _settle(ended: Ended) -> list[tuple[Point, Status]]:
    """The points of a chunk that have ended; those it had no memory for wait again, in halves."""
    if ended.error:
        raise ended.error
    group, chunk = ended.group, ended.chunk
    group.running -= 1
    group.compiled = True
    pairs = list(zip(chunk, ended.statuses, strict=True))
    if len(chunk) == 1:
        return pairs
    again = [point for point, status in pairs if _out_of_memory(status)]
    if again:
        group.size = min(group.size, len(chunk) // 2)
        group.waiting = [*again, *group.waiting]
    return [(point, status) for point, status in pairs if not _out_of_memory(status)]


def _out_of_memory(status: Status) -> bool:
    reason = status.get("reason", "").lower()
    return status["state"] == "failed" and any(sign in reason for sign in OUT_OF_MEMORY)
