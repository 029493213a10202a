"""The progress of a sweep: one live line in a terminal or notebook, plain lines in a file."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task
from rich.table import Column
from rich.text import Text

from gradlab.point import Point, Status
from gradlab.printable import printable
from gradlab.records import TRACEBACK
from gradlab.sweeps.groups import Group
from gradlab.sweeps.screen import NotebookLine, screen, show, unread

PRINT_SECONDS = 10.0  # between plain lines
NOTEBOOK_SECONDS = 0.5  # between two states of a notebook's line
FORECAST_FROM = 0.01  # of the steps; before that, time passes mostly in compiling
SURE_FROM = 0.2  # of the steps; before that, and before a point has ended, it is an estimate


class Shown(NamedTuple):
    """The content of the line beside the clock, as of the last event."""

    words: list[str]
    trained: int  # steps, of all points
    at: float  # seconds since the start
    left: float | None  # seconds from then on
    is_sure: bool

    def line(self, elapsed: float) -> str:
        """Return the progress in words, so many seconds after the start."""
        parts = [*self.words]
        if self.trained:
            parts.append(f"{self.trained / elapsed:,.0f} steps/s")
        if self.left is not None:
            left = _clock(max(0.0, self.left - (elapsed - self.at)))
            parts.append(f"{left} left" if self.is_sure else f"about {left} left")
        return ", ".join([*parts, f"{_clock(elapsed)} passed"])


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
        self._console = screen()
        self._shown = self._see()
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            _Line(self),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=sum(self._length.values()))
        self._cell = NotebookLine() if self._console.is_jupyter else None

    def __enter__(self) -> Self:
        """Start the live line."""
        with unread():
            self._bar.start()
        if self._cell:
            self._cell.show(str(self))
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
        with unread():
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
                show(self._console, sentence_on(point, status))
            self._update()

    def __str__(self) -> str:
        """Return the progress in words."""
        return self._shown.line(time.monotonic() - self._started)

    def _see(self) -> Shown:
        ended = self._points - len(self._left)
        groups = self._groups - len(set(self._left.values()))
        words = [f"{ended}/{self._points} points", f"{groups}/{self._groups} groups"]
        words += [f"{n} {state}" for state, n in sorted(self._states.items()) if state != "done"]
        elapsed = time.monotonic() - self._started
        share = self._reached.total() / max(1, sum(self._length.values()))
        is_known = bool(self._left) and share > FORECAST_FROM
        left = elapsed * (1 - share) / share if is_known else None
        return Shown(words, self._trained, elapsed, left, bool(ended) and share > SURE_FROM)

    def _update(self, last: bool = False) -> None:
        self._shown = self._see()
        with unread():
            self._bar.update(self._task, completed=self._reached.total())
        pause = NOTEBOOK_SECONDS if self._cell else PRINT_SECONDS
        if not self._console.is_terminal and (last or time.monotonic() - self._printed > pause):
            self._printed = time.monotonic()
            (self._cell.show if self._cell else partial(show, self._console))(str(self))


class _Line(ProgressColumn):
    """The progress in words; rich draws it ten times a second, so that its clock runs."""

    def __init__(self, display: ProgressDisplay) -> None:
        super().__init__(Column(no_wrap=True))
        self._display = display

    def render(self, task: Task) -> Text:
        return Text(str(self._display))


def sentence_on(point: Point, status: Status) -> str:
    """Return how a point has ended, in one line, and where its traceback is if it has one."""
    outcome = status.get("reason") or status.get("summary", {}).get("verdict", "")
    sentence = f"point {point.folder.name} {status['state']}: {outcome}"
    traceback = point.folder / TRACEBACK
    return printable(f"{sentence} (see {traceback})" if traceback.is_file() else sentence)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
