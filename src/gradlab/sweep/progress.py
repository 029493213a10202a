"""The progress of a sweep: one live line in a terminal, a plain line now and then in a file."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from gradlab.point import Point, Status
from gradlab.sweep.groups import Group

PRINT_SECONDS = 10.0  # between plain lines
FORECAST_FROM = 0.01  # of the steps; before that, time passes mostly in compiling


class ProgressDisplay:
    """Points and groups that have ended, failures, training steps a second, time left.

    A context manager; its methods may be called from any thread.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        """Start the clock; all points are still to run."""
        numbered = [(number, p) for number, group in enumerate(groups) for p in group.points]
        self._left = {point.folder: number for number, point in numbered}
        self._points, self._groups = len(self._left), len(groups)
        self._length = {p.folder: max(1, p.config.train.steps) for _, p in numbered}
        self._reached: Counter[Path] = Counter()  # steps, of each point
        self._trained, self._states = 0, Counter[str]()
        self._started, self._printed = time.monotonic(), time.monotonic()
        self._lock = threading.Lock()
        self._console = Console()
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(str(self), total=sum(self._length.values()))

    def __enter__(self) -> Self:
        """Start the live line."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last line standing."""
        with self._lock:
            self._update(last=True)
        self._bar.stop()

    def add_updates(self, points: Sequence[Point], count: int) -> None:
        """Count the updates that each of these points has made."""
        with self._lock:
            self._reached.update({point.folder: count for point in points})
            self._trained += count * len(points)
            self._update()

    def mark_ended(self, point: Point, status: Status) -> None:
        """Count a point that has ended, and say so if it failed."""
        with self._lock:
            del self._left[point.folder]
            self._reached[point.folder] = self._length[point.folder]
            self._states[status["state"]] += 1
            if status["state"] == "failed":
                self._console.print(f"point {point.folder.name} failed: {status['reason']}")
            self._update()

    def __str__(self) -> str:
        """Return the progress in words."""
        ended = self._points - len(self._left)
        groups = self._groups - len(set(self._left.values()))
        parts = [f"{ended}/{self._points} points", f"{groups}/{self._groups} groups"]
        parts += [f"{n} {state}" for state, n in sorted(self._states.items()) if state != "done"]
        elapsed = time.monotonic() - self._started
        if self._trained:
            parts.append(f"{self._trained / elapsed:,.0f} steps/s")
        share = self._reached.total() / max(1, sum(self._length.values()))
        if self._left and share > FORECAST_FROM:
            parts.append(f"{_clock(elapsed * (1 - share) / share)} left")
        return ", ".join([*parts, f"{_clock(elapsed)} passed"])

    def _update(self, last: bool = False) -> None:
        self._bar.update(self._task, description=str(self), completed=self._reached.total())
        if not self._console.is_terminal and (
            last or time.monotonic() - self._printed > PRINT_SECONDS
        ):
            self._printed = time.monotonic()
            self._console.print(str(self), highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
