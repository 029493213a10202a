"""Points that another process runs at this moment: they are left alone, and it is said where."""

from collections.abc import Collection, Iterable, Sequence

from gradlab.point import Point
from gradlab.printable import printable
from gradlab.records import leases
from gradlab.records.leases import Holder
from gradlab.sweeps import ledger
from gradlab.sweeps.screen import listed, screen, show


def claim(
    points: Iterable[Point], retry: Collection[str], work: str = ""
) -> list[tuple[Point, str]]:
    """Take the leases of the points still to run, and say which of them other processes run.

    Args:
        points: of a sweep.
        retry: states of points that run again; see `ledger.pending`.
        work: the scheduler's unit of work that this process is, if it is one.

    Returns:
        The points to run here, as of `ledger.pending`.
    """
    taken, running = [], list[tuple[Point, Holder]]()
    for point, _ in ledger.pending(points, retry):
        if other := leases.take(point.folder, work):
            running.append((point, other))
        else:
            taken.append(point)
    for sentence in sentences(running):
        show(screen(), sentence)
    to_run = ledger.pending(taken, retry)  # again: another process may have ended one since
    kept = {point.folder for point, _ in to_run}
    release(point for point in taken if point.folder not in kept)
    return to_run


def release(points: Iterable[Point]) -> None:
    """Give up the leases that this process has of points."""
    for point in points:
        leases.release(point.folder)


def running(points: Iterable[Point]) -> list[tuple[Point, Holder]]:
    """Return the points that a living process runs, and which."""
    held = ((point, leases.holder(point.folder)) for point in points)
    return [(point, holder) for point, holder in held if holder]


def sentences(running: Sequence[tuple[Point, Holder]]) -> list[str]:
    """Return for each process which points it runs, and how to take them over."""
    by_process: dict[str, list[tuple[Point, Holder]]] = {}
    for point, holder in running:
        by_process.setdefault(str(holder), []).append((point, holder))
    return [_sentence(members) for members in by_process.values()]


def _sentence(members: Sequence[tuple[Point, Holder]]) -> str:
    holder = members[0][1]
    names = [point.folder.name for point, _ in members]
    several = len(names) > 1
    wait = "" if holder.expires is None else f", wait {holder.expires:.0f} s"
    return (
        f"{holder} runs point{'s'[:several]} {printable(listed(names))}, which "
        f"{'are' if several else 'is'} left alone; to take {'them' if several else 'it'} over, "
        f"end it there ({holder.end}){wait}, and resume again."
    )
