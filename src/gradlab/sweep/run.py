"""Running groups of points on one machine.

On a CPU the points of a group call one compiled program from one thread a core: batching small
recurrent layers wins nothing there, and XLA's own threads cannot share so little work.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

from gradlab.point import Point, Status, run_point


def run_groups(
    groups: Sequence[Sequence[Point]], on_done: Callable[[Point, Status], None], stop: Event
) -> dict[Path, Status]:
    """Run all points and return their statuses by folder.

    The first point of a group runs ahead of the others, so that no program is compiled twice.
    """
    statuses: dict[Path, Status] = {}
    with ThreadPoolExecutor(max_workers=_cores()) as pool:
        running: dict[Future[Status], tuple[Point, list[Point]]] = {
            pool.submit(run_point, lead, stop): (lead, rest) for lead, *rest in groups
        }
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    point, rest = running.pop(future)
                    statuses[point.folder] = future.result()
                    on_done(point, future.result())
                    running |= {
                        pool.submit(run_point, follower, stop): (follower, []) for follower in rest
                    }
        except BaseException:  # an interrupt: points that have not begun never will
            pool.shutdown(cancel_futures=True)
            raise
    return statuses


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
