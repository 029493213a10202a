"""Points as work for another process, on another machine perhaps, that shares the sweep's folder.

The scheduler (SLURM, Ray) only has to call the work somewhere. Its results are the records in the
points' folders, as if the points had run here.
"""

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from gradlab.components import ConfigError
from gradlab.config import Sweep
from gradlab.point import Point, Status
from gradlab.printable import escape_what_cannot_be_printed
from gradlab.records import leases
from gradlab.sweeps import elsewhere, ledger
from gradlab.sweeps.groups import Group, group_by_program
from gradlab.sweeps.lanes import run_groups
from gradlab.sweeps.program_cache import keep_programs
from gradlab.sweeps.progress import ProgressDisplay

POLL_SECONDS = 1.0  # between looks at the records


@dataclass(frozen=True)
class Work:
    """Points of one program that one job or task runs."""

    points: list[Point]
    settings: Sweep
    cpus: int
    working_folder: str = field(default_factory=os.getcwd)
    id: str = field(default_factory=partial(secrets.token_hex, 8))

    def __call__(self) -> None:
        """Run the points that have not ended; a second call goes on where the first was cut off."""
        with suppress(OSError):  # another machine may not have it
            os.chdir(self.working_folder)
        if self.settings.keep_programs:
            keep_programs()
        escape_what_cannot_be_printed()
        to_run = elsewhere.claim(self.points, retry=(), work=self.id)
        groups = group_by_program(ledger.clear(to_run))
        with ProgressDisplay(groups) as display:
            run_groups(groups, display, self.settings, Event(), self.cpus)

    def checkpoint(self) -> Any:
        """Return the submission that SLURM queues again after preemption; submitit calls this."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def import_scheduler(module: str, name: str, extra: str) -> Any:
    """Import the package of a scheduler, which is an extra of gradlab's.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"hydra/launcher=fused_{extra} needs {name}: pip install 'gradlab[{extra}]'."
        ) from error


class Handle(Protocol):
    """Work that was handed over to a scheduler."""

    def done(self) -> bool:
        """Return whether the scheduler has finished with it."""

    def error(self) -> str:
        """Return why points were left unfinished."""

    def cancel(self) -> None:
        """Take it back or end it."""


def split_groups(
    groups: Sequence[Group], limit: int | None, settings: Sweep, cpus: int
) -> list[Work]:
    """Split groups into work of at most `limit` points each; None: one piece per group.

    The leases of the points are given up here, for the work to take.
    """
    for group in groups:
        elsewhere.release(group.points)
    return [Work(piece, settings, cpus) for piece in pieces(groups, limit)]


def pieces(groups: Sequence[Group], limit: int | None) -> list[list[Point]]:
    """Return the points of each piece of work: at most `limit`; None: all of a group."""
    return [
        list(group.points[start : start + (limit or len(group.points))])
        for group in groups
        for start in range(0, len(group.points), limit or len(group.points))
    ]


def follow(
    works: Sequence[Work], handles: Sequence[Handle], display: ProgressDisplay
) -> dict[Path, Status]:
    """Wait for work to end; collect its points' statuses, each as soon as it is on disk.

    A point that its work has left unfinished is interrupted, with the reason; Ctrl-C ends all work.
    """
    statuses: dict[Path, Status] = {}
    running = list(zip(works, handles, strict=True))
    try:
        while running:
            time.sleep(POLL_SECONDS)
            still_running = []
            for work, handle in running:
                done = handle.done()  # before the look at the records, which it may still write
                for point in work.points:
                    if point.folder in statuses:
                        continue
                    status = ledger.status_in(point.folder)
                    if status["state"] not in ledger.ENDED:
                        if not done:
                            continue
                        other = leases.holder(point.folder)
                        status = (
                            {"state": "running", "reason": str(other)}
                            if other
                            else {"state": "interrupted", "reason": handle.error()}
                        )
                    statuses[point.folder] = status
                    display.mark_ended(point, status)
                if not done:
                    still_running.append((work, handle))
            running = still_running
    except BaseException as error:
        for work, handle in running:
            handle.cancel()
            for point in work.points:
                statuses.setdefault(point.folder, {"state": "interrupted", "reason": "by SIGINT"})
        if not isinstance(error, KeyboardInterrupt):
            raise
    return statuses
