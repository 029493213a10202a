"""Points as work for another process, on another machine perhaps, that shares the sweep's folder.

The engine (SLURM, Ray) only has to call the work somewhere. Its results are the records it leaves
in the points' folders, as if the points had run here.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from gradlab.point import Point, Status
from gradlab.sweep import ledger
from gradlab.sweep.groups import group_by_program
from gradlab.sweep.lanes import run_groups
from gradlab.sweep.program_cache import keep_programs
from gradlab.sweep.progress import ProgressDisplay

LOOK = 1.0  # seconds between looks at the records


@dataclass(frozen=True)
class Work:
    """Points of one program that one job or task runs."""

    points: list[Point]
    settings: Mapping[str, Any]
    cpus: int

    def __call__(self) -> None:
        """Run the points that have not ended; a second call goes on where the first was cut off."""
        if self.settings["keep_programs"]:
            keep_programs()
        groups = group_by_program(ledger.clear(ledger.pending(self.points, retry=())))
        with ProgressDisplay(groups) as display:
            run_groups(groups, display, self.settings, Event(), self.cpus)

    def checkpoint(self) -> Any:
        """What SLURM is to queue when it takes the machine away (submitit asks for it)."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Handle(Protocol):
    """A piece of work that was handed over."""

    def done(self) -> bool:
        """Whether it will do nothing more."""

    def error(self) -> str:
        """Why it did not do all that it should."""

    def cancel(self) -> None:
        """Call it off."""


def pieces(
    groups: Sequence[Sequence[Point]], points: int | None, settings: Mapping[str, Any], cpus: int
) -> list[Work]:
    """Each group as pieces of at most so many points; None: as one."""
    return [
        Work(list(group[begin : begin + (points or len(group))]), settings, cpus)
        for group in groups
        for begin in range(0, len(group), points or len(group))
    ]


def follow(
    works: Sequence[Work], handles: Sequence[Handle], display: ProgressDisplay
) -> dict[Path, Status]:
    """Wait for work to end and collect its points' statuses, each as soon as it is on disk.

    A point that its work has left without an end is interrupted, with the reason.
    """
    statuses: dict[Path, Status] = {}
    waiting = list(zip(works, handles, strict=True))
    try:
        while waiting:
            time.sleep(LOOK)
            left = []
            for work, handle in waiting:
                done = handle.done()  # before the look at the records, which it may still write
                for point in work.points:
                    if point.folder in statuses:
                        continue
                    status = ledger.status_of(point)
                    if status["state"] not in ledger.ENDED:
                        if not done:
                            continue
                        status = {"state": "interrupted", "reason": handle.error()}
                    statuses[point.folder] = status
                    display.ended(point, status)
                if not done:
                    left.append((work, handle))
            waiting = left
    except BaseException:
        for _, handle in waiting:
            handle.cancel()
        raise
    return statuses
