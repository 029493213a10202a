"""Many points as one sweep: planned into groups, run together, shown while they run, reported."""

from collections.abc import Sequence

from gradlab.interrupts import stopping
from gradlab.point import Point, Status
from gradlab.sweep.plan import group_by_program
from gradlab.sweep.progress import shown
from gradlab.sweep.report import report
from gradlab.sweep.run import run_groups


def run_sweep(points: Sequence[Point]) -> list[Status]:
    """Run points of one sweep, show how far they are, and end with the table and the figure.

    Returns:
        The points' statuses, in their order.
    """
    with stopping() as stop, shown(len(points)) as on_done:
        statuses = run_groups(group_by_program(points), on_done, stop)
    report(points)
    return [statuses[point.folder] for point in points]
