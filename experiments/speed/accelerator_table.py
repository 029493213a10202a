"""A table that is measured against the clock: its cases, their budget, and its Markdown."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

import jax
from timing import markdown  # type: ignore[import-not-found, unused-ignore]

HEADER = "what|precision|first call, s|repeated, s|fastest–slowest|time of others / its own"
HEADER += "|result|notes"
REPEATS = 5
LONGEST = 12.0  # seconds that the repeats of one case take at most, the last one over
GRACE = 10.0  # seconds after the budget's end at which a call that still runs is given up


class LeftOut(Exception):
    """A case cannot be measured here, for the reason that the message gives."""


class Outcome(NamedTuple):
    """What a case gave: seconds of the first and of later calls, and what else it found.

    Attributes:
        first: seconds of the first call, with compilation.
        repeats: seconds of later calls.
        result: a number that is no time, with its unit: a rate, an error.
        scale: what was measured in part is scaled up by this; the table marks it by ≈.
    """

    first: float | None = None
    repeats: Sequence[float] = ()
    result: str = ""
    scale: float = 1.0


class Case(NamedTuple):
    """A row of the table that is yet to be measured.

    Attributes:
        name: what is measured; with the precision it is unique in its table.
        precision: of the numbers.
        measure: measures it.
        seconds: that it may take with compilation; it is not started where less is left.
        others: the cases, by (name, precision), whose time is shown relative to this one's.
        notes: what the row includes.
    """

    name: str
    precision: str
    measure: Callable[[], Outcome]
    seconds: float
    others: tuple[tuple[str, str], ...] = ()
    notes: str = ""


class Group(NamedTuple):
    """Cases that share a part of the budget, which are made as late as they are measured."""

    title: str
    share: float  # of the budget, relative to the others'
    cases: Callable[[], Sequence[Case]]


Row = dict[str, Any]


def timed(run: Callable[[], Any], repeats: int = REPEATS) -> tuple[Any, Outcome]:
    """Return what a function returns, and the seconds of its first call and of its repeats."""
    begin = time.perf_counter()
    result = finish(run())
    first = time.perf_counter() - begin
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < LONGEST:
        begin = time.perf_counter()
        finish(run())
        seconds.append(time.perf_counter() - begin)
    return result, Outcome(first, seconds)


def finish(result: Any) -> Any:
    """Wait until the device has computed what JAX or PyTorch was asked for."""
    result = jax.block_until_ready(result)
    if _cuda_of_torch is not None:
        _cuda_of_torch()
    return result


def _synchronise() -> Callable[[], None] | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.synchronize if torch.cuda.is_available() else None


_cuda_of_torch = _synchronise()


def run_groups(
    groups: Iterable[Group], budget: float, keep: Callable[[list[Row]], None]
) -> list[Row]:
    """Measure the cases in order, and keep the table after each row.

    A case is skipped if its seconds do not fit into what is left of its group's share, and tried
    once more at the end if the budget is not spent. A case that fails gives a row with its error.
    A call that still runs `GRACE` seconds after the budget's end is given up, and the process with
    it.

    Args:
        groups: in order of their worth.
        budget: seconds for all, from the call on.
        keep: writes the rows so far.
    """
    groups = list(groups)
    clock, shares = _Clock(budget), sum(group.share for group in groups)
    rows: list[Row] = []
    skipped: list[tuple[Row, Case]] = []
    watch = threading.Timer(budget + GRACE, _give_up, (rows, keep))
    watch.daemon = True
    watch.start()
    for group in groups:
        clock.open(group.share / shares)
        for case in _cases(group):
            row = _empty(group, case)
            rows.append(row)
            if (left := clock.left_of_share()) < case.seconds:
                skipped.append((row, case))
                _state(row, reason=f"skipped: {left:.0f} s left of {case.seconds:.0f} s planned")
            else:
                _measure(row, case)
            keep(rows)
    for row, case in skipped:
        if clock.left() >= case.seconds:
            _measure(row, case)
            keep(rows)
    watch.cancel()
    return rows


class _Clock:
    """Seconds that are left of the budget, and of the shares opened so far; none is lost."""

    def __init__(self, budget: float) -> None:
        self.end = time.perf_counter() + budget
        self.budget, self.opened = budget, 0.0

    def open(self, share: float) -> None:
        self.opened += share

    def left(self) -> float:
        return self.end - time.perf_counter()

    def left_of_share(self) -> float:
        return self.left() - self.budget * max(0.0, 1 - self.opened)


def _cases(group: Group) -> Sequence[Case]:
    try:
        return group.cases()
    except Exception as error:  # it becomes the row's
        reason = error

        def fail() -> Outcome:
            raise reason

        return [Case("all of it", "", fail, 0)]


def _empty(group: Group, case: Case) -> Row:
    row: Row = {"group": group.title, "name": case.name, "precision": case.precision}
    row |= {"first": None, "repeats": [], "result": "", "scale": 1.0, "reason": "", "error": ""}
    return row | {"others": [list(x) for x in case.others], "notes": case.notes}


def _state(row: Row, **values: Any) -> None:
    row.update(values)
    text = row["error"] or row["reason"] or row["result"]
    seconds = f"{row['scale'] * median(row['repeats']):.4g} s" if row["repeats"] else ""
    print(f"{row['group']}: {row['name']} {row['precision']}: {seconds} {text}", flush=True)


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


def _give_up(rows: list[Row], keep: Callable[[list[Row]], None]) -> None:
    for row in rows:
        if row["reason"] == "running":
            _state(row, reason="given up: still running at the budget's end")
    keep(rows)
    os._exit(0)  # a thread in the middle of a compilation cannot be ended otherwise


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table of every group under its title."""
    titles = list(dict.fromkeys(row["group"] for row in rows))
    parts = []
    for title in titles:
        lines = [_cells(row, rows) for row in rows if row["group"] == title]
        parts += [f"### {title}", markdown(HEADER.split("|"), lines)]
    return "\n\n".join(parts)


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    seconds, own = row["repeats"], _seconds(row)
    approximately = "≈ " if row["scale"] != 1 else ""
    times = ["" if row["first"] is None else f"{row['first']:.3g}"]
    times.append("" if own is None else f"{approximately}{own:.4g}")
    spread = [f"{row['scale'] * x:.3g}" for x in (min(seconds), max(seconds))] if seconds else []
    ratios = "; ".join(_ratios(row, rows))
    said = [x for x in (row["error"], row["reason"], row["result"]) if x]
    cells = [row["name"], row["precision"], *times, "–".join(spread), ratios, "; ".join(said)]
    return [x.replace("|", "\\|") for x in (*cells, row["notes"])]


def _ratios(row: Row, rows: Sequence[Row]) -> Iterator[str]:
    for name, precision in row["others"]:
        for other in rows:
            is_it = (other["group"], other["name"]) == (row["group"], name)
            if is_it and other["precision"] == precision:
                theirs, own = _seconds(other), _seconds(row)
                if theirs and own:
                    yield f"{name} ({precision}) {theirs / own:.3g}"


def _seconds(row: Row) -> float | None:
    return row["scale"] * median(row["repeats"]) if row["repeats"] else None
