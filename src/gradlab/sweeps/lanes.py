"""Running groups of points on this machine.

A lane is a thread that runs one chunk of points at a time. On a CPU there is one lane per core and
a chunk is one point: batching recurrent layers of usual sizes wins nothing there, and XLA's own
threads cannot share so little work. On accelerators there is one lane per device, and a chunk is as
many points of a group, vmapped, as its memory holds; sweep.lanes=vmap does that on a CPU too, which
pays for networks of a few units.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import TypeAlias

import jax

from gradlab.config import Sweep
from gradlab.point import Point, Status
from gradlab.point.failures import reason_of
from gradlab.sweeps import elsewhere
from gradlab.sweeps.groups import Built, Group, run_built
from gradlab.sweeps.history import machine_name, measured_cost, remember
from gradlab.sweeps.interrupts import stopping
from gradlab.sweeps.memory import points_at_once
from gradlab.sweeps.program_cache import release_programs
from gradlab.sweeps.progress import ProgressDisplay

OUT_OF_MEMORY = ("resource_exhausted", "out of memory", "memoryerror")  # as XLA and Python say


@dataclass
class GroupQueue:
    """A group's points that wait for a lane."""

    program: Built
    waiting: list[Point]
    chunk_size: int  # points
    compiled: bool = False
    started: bool = False
    running: int = 0  # chunks

    @property
    def ready(self) -> bool:
        """Return whether a chunk can start without compiling what a lane compiles already."""
        return bool(self.waiting) and (self.compiled or not self.running)

    def take(self) -> list[Point]:
        """Take the next chunk."""
        chunk, self.waiting = self.waiting[: self.chunk_size], self.waiting[self.chunk_size :]
        self.started, self.running = True, self.running + 1
        return chunk


@dataclass
class ChunkResult:
    """A chunk whose lane is free again."""

    queue: GroupQueue
    chunk: list[Point]
    device: jax.Device
    statuses: list[Status] = field(default_factory=list)


Events: TypeAlias = "SimpleQueue[ChunkResult | None]"  # None: a group's program is compiled


def run_here(
    groups: Sequence[Group], display: ProgressDisplay, settings: Sweep
) -> dict[Path, Status]:
    """Run all points; return their statuses by folder. Ctrl-C or SIGTERM checkpoints and stops."""
    with stopping() as stop:
        return run_groups(groups, display, settings, stop)


def run_groups(
    groups: Sequence[Group],
    display: ProgressDisplay,
    settings: Sweep,
    stop: Event,
    cpus: int | None = None,
) -> dict[Path, Status]:
    """Run all points and return their statuses by folder.

    The first chunk of a group runs ahead of the others until it has trained a step, so that no
    program is compiled twice (GPUs share it through the programs kept on disk); while it compiles,
    other groups run. A chunk that does not fit the memory after all is halved. Points whose
    program could not be built fail. The leases of points that have ended are given up.

    Args:
        groups: programs and their points.
        display: shown every update and every point that ends.
        settings: the config's sweep section (`lanes`, `chunk`).
        stop: once it is set, running points checkpoint and end, and no other starts.
        cpus: the most that this process may use; None: all that it has.
    """
    vmapped, lanes = lanes_of(settings, cpus)
    devices = jax.local_devices()
    machine = machine_name(lanes, vmapped) if settings.keep_programs else ""
    free, busy = [devices[i % len(devices)] for i in range(lanes)], 0
    queues = [
        GroupQueue(
            group.program,
            list(group.points),
            _chunk_size(group, settings, devices, lanes) if vmapped else 1,
        )
        for group in groups
    ]
    statuses: dict[Path, Status] = {}
    events: Events = SimpleQueue()
    with _released(groups), ThreadPoolExecutor(max_workers=lanes) as pool:
        try:
            while True:
                while free and not stop.is_set() and (queue := _next(queues)):
                    chunk = queue.take()
                    pool.submit(
                        _run_chunk, queue, chunk, free.pop(), display, stop, events, machine
                    )
                    busy += 1
                if not busy:
                    return statuses
                if result := events.get():
                    busy -= 1
                    free.append(result.device)
                    for point, status in _settle(result):
                        statuses[point.folder] = status
                        elsewhere.release([point])
                        display.mark_ended(point, status)
                    if not result.queue.waiting and not result.queue.running:
                        release_programs()
        except BaseException:  # the running points checkpoint, and the pool waits for them
            stop.set()
            raise


def _run_chunk(
    queue: GroupQueue,
    chunk: list[Point],
    device: jax.Device,
    display: ProgressDisplay,
    stop: Event,
    events: Events,
    machine: str,
) -> None:
    """Run a chunk in a lane; its result is an event, and so is the end of its compilation.

    What it has cost is remembered under the machine's name; "": nowhere.
    """
    compiles, started, updates = not queue.compiled, time.perf_counter(), 0

    def on_updates(count: int) -> None:
        nonlocal updates
        updates += count
        display.add_updates(chunk, count)
        if not queue.compiled:
            queue.compiled = True
            events.put(None)  # other chunks of the group may start

    result = ChunkResult(queue, chunk, device)
    try:
        with jax.default_device(device):
            result.statuses = run_built(queue.program, chunk, on_updates, stop)
    except BaseException as error:  # not even their records could be begun
        result.statuses = [{"state": "failed", "reason": reason_of(error)} for _ in chunk]
    if machine:
        seconds = time.perf_counter() - started
        with suppress(Exception):  # no estimate is worth a sweep
            if cost := measured_cost(chunk, result.statuses, updates, seconds, compiles):
                remember(chunk[0].config, machine, cost)
    events.put(result)


@contextmanager
def _released(groups: Sequence[Group]) -> Iterator[None]:
    """Give up the leases of all points at the end of the block."""
    try:
        yield
    finally:
        elsewhere.release(point for group in groups for point in group.points)


def lanes_of(settings: Sweep, cpus: int | None = None) -> tuple[bool, int]:
    """Return whether the points of a chunk are vmapped, and the number of lanes.

    Args:
        settings: the config's sweep section.
        cpus: the most that the process may use; None: all that it has.
    """
    on_cpu = jax.default_backend() == "cpu"
    vmapped = settings.lanes == "vmap" or (settings.lanes == "auto" and not on_cpu)
    threads = min(cores(), cpus or cores())
    return vmapped, threads if on_cpu or not vmapped else jax.local_device_count()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunk_size(group: Group, settings: Sweep, devices: list[jax.Device], lanes: int) -> int:
    if isinstance(group.program, BaseException):
        return 1
    try:
        return settings.chunk or points_at_once(group.program, len(group.points), devices, lanes)
    except (Exception, SystemExit):  # a part of the user's fails, as it will in each point
        return 1


def _next(queues: Sequence[GroupQueue]) -> GroupQueue | None:
    """Return a queue that has started before one that has not: fewer programs live at a time."""
    ready = [queue for queue in queues if queue.ready]
    return next((queue for queue in ready if queue.started), ready[0] if ready else None)


def _settle(result: ChunkResult) -> list[tuple[Point, Status]]:
    """Return the points of a chunk that have ended; queue those that ran out of memory again."""
    queue, chunk = result.queue, result.chunk
    queue.running -= 1
    queue.compiled = True
    pairs = list(zip(chunk, result.statuses, strict=True))
    if len(chunk) == 1:
        return pairs
    retried = [point for point, status in pairs if _out_of_memory(status)]
    if retried:
        queue.chunk_size = min(queue.chunk_size, len(chunk) // 2)
        queue.waiting = [*retried, *queue.waiting]
    return [(point, status) for point, status in pairs if not _out_of_memory(status)]


def _out_of_memory(status: Status) -> bool:
    reason = status.get("reason", "").lower()
    return status["state"] == "failed" and any(sign in reason for sign in OUT_OF_MEMORY)
