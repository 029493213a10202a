"""Measuring the accelerator's table against the clock."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
from accelerator_table import (  # type: ignore[import-not-found, unused-ignore]
    Case,
    Group,
    LeftOut,
    Outcome,
    Row,
    empty_row,
    seconds_of,
)

REPEATS = 5
LONGEST = 4.0  # seconds that the repeats of one case take at most, the last one over
GRACE = 10.0  # seconds after the budget's end at which a call that still runs is given up

_first_calls: dict[Callable[[], Any], float] = {}


def call_first(run: Callable[[], Any]) -> None:
    """Call a function, which compiles it, and keep the seconds for `timed` of the same function."""
    begin = time.perf_counter()
    jax.block_until_ready(run())
    _first_calls[run] = time.perf_counter() - begin


def timed(run: Callable[[], Any], repeats: int = REPEATS) -> tuple[Any, Outcome]:
    """Return what a function returns, and the seconds of its first call and of its repeats."""
    begin = time.perf_counter()
    result = jax.block_until_ready(run())
    first = _first_calls.get(run, time.perf_counter() - begin)
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < LONGEST:
        begin = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - begin)
    return result, Outcome(first, seconds, beside=run in _first_calls)


class Together:
    """What cases do ahead, several at once: nearly all of it is compiling, on one core each.

    What fails here is done again, and its error told, when its case is measured.
    """

    def __init__(self, cases: Iterable[Case], workers: int) -> None:
        """Start with the first cases, on threads that end with the process."""
        self._waiting = deque(cases) if workers else deque[Case]()
        self._running: list[Case] = []
        self._done: list[Case] = []
        self._changed = threading.Condition()
        for _ in range(workers):
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    return
                case = self._waiting.popleft()
                self._running.append(case)
            is_done = True
            try:
                case.ahead()
            except Exception:  # the row's, once it is measured
                is_done = False
            with self._changed:
                self._running.remove(case)
                self._done += [case] if is_done else []
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait so long for all of them; start none after it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._running, seconds)
            self._waiting.clear()

    def is_done(self, case: Case) -> bool:
        """Return whether a case did what it may do ahead."""
        return case in self._done

    def is_running(self, case: Case | None = None) -> bool:
        """Return whether a case, or any, is at it."""
        return bool(self._running) if case is None else case in self._running


class _Clock:
    """Seconds that are left, and what of them groups keep for themselves."""

    def __init__(self, budget: float, reserves: Sequence[float]) -> None:
        self._end, self._reserves = time.perf_counter() + budget, reserves

    def left(self, after: int | None = None) -> float:
        """Return the seconds that are left, less those of the groups from `after` on."""
        kept = 0.0 if after is None else sum(self._reserves[after:])
        return self._end - time.perf_counter() - kept


class _Line(NamedTuple):
    """A case, its row, and the place of its group."""

    group: int
    row: Row
    case: Case


def run_groups(
    groups: Sequence[Group], budget: float, keep: Callable[[list[Row]], None], workers: int = 0
) -> list[Row]:
    """Measure the cases in order, and keep the table after each row.

    Before the first case that can do something ahead, all such cases do it at once. A case is
    skipped if its seconds do not fit into what is left before the reserves of later groups, and
    tried once more at the end if the budget is not spent. A case that fails gives a row with its
    error. A call that still runs `GRACE` seconds after the budget's end is given up, and the
    process with it.

    Args:
        groups: in order of their worth.
        budget: seconds for all, from the call on.
        keep: writes the rows so far.
        workers: threads that work ahead; 0: each case in its turn.
    """
    clock = _Clock(budget, [group.reserve for group in groups])
    lines = [
        _Line(place, empty_row(group, case), case)
        for place, group in enumerate(groups)
        for case in _cases(group)
    ]
    rows = [line.row for line in lines]
    watch = threading.Timer(budget + GRACE, _give_up, (rows, keep))
    watch.daemon = True
    watch.start()
    ahead = None
    skipped = []
    for line in lines:
        if ahead is None and line.case.ahead:
            ahead = Together([x.case for x in lines if x.case.ahead], workers)
            ahead.wait(clock.left(after=line.group))
        if not _measured(line, ahead, clock.left(after=line.group + 1)):
            skipped.append(line)
        keep(rows)
    if ahead and ahead.is_running():
        ahead.wait(clock.left() / 2)
    for line in skipped:
        _measured(line, ahead, clock.left())
        keep(rows)
    if not (ahead and ahead.is_running()):  # else it ends the process, should that hang
        watch.cancel()
    return rows


def _cases(group: Group) -> Sequence[Case]:
    try:
        return group.cases()
    except Exception as error:  # it becomes the row's
        reason = error

        def fail() -> Outcome:
            raise reason

        return [Case("all of it", "", fail, 0)]


def _measured(line: _Line, ahead: Together | None, left: float) -> bool:
    """Measure a case if its time has come, and return whether it did."""
    row, case = line.row, line.case
    if ahead and ahead.is_running(case):
        _state(row, reason="skipped: still compiling, beside others")
        return False
    planned = case.again if ahead and ahead.is_done(case) else case.seconds
    if left < planned:
        _state(row, reason=f"skipped: {left:.0f} s left of {planned:.0f} s planned")
        return False
    if ahead and ahead.is_running():
        row["notes"] = "; ".join(filter(None, (row["notes"], "while others were compiled")))
    _measure(row, case)
    return True


def _measure(row: Row, case: Case) -> None:
    row |= {"reason": "running", "error": ""}  # what the table says if it is given up
    try:
        outcome = case.measure()
    except (LeftOut, ImportError) as error:
        _state(row, reason=f"left out: {error}")
    except Exception as error:  # whatever one row raises, the others are measured
        text = str(error).strip().splitlines()
        _state(row, reason="", error=f"{type(error).__name__}: {text[0] if text else ''}"[:300])
    else:
        _state(row, reason="", **(outcome._asdict() | {"repeats": list(outcome.repeats)}))


def _state(row: Row, **values: Any) -> None:
    row.update(values)
    text = row["error"] or row["reason"] or row["result"]
    own = seconds_of(row)
    seconds = "" if own is None else f" {own:.4g} s"
    now = time.strftime("%M:%S")
    print(f"{now} {row['group']}: {row['name']} {row['precision']}:{seconds} {text}", flush=True)


def _give_up(rows: list[Row], keep: Callable[[list[Row]], None]) -> None:
    for row in rows:
        if row["reason"] == "running":
            _state(row, reason="given up: still running at the budget's end")
    keep(rows)
    os._exit(0)  # a thread in the middle of a compilation cannot be ended otherwise
