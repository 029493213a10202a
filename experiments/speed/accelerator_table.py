"""The accelerator's table: its cases, what they gave, and its Markdown."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

from timing import markdown  # type: ignore[import-not-found, unused-ignore]

HEADER = "what|precision|first call, s|repeated, s|fastest–slowest|time of others / its own"
HEADER += "|result|notes"
AGAIN = 5.0  # seconds planned for a case that is compiled already


class LeftOut(Exception):
    """A case cannot be measured here, for the reason that the message gives."""


class Outcome(NamedTuple):
    """What a case gave: seconds of the first and of later calls, and what else it found.

    Attributes:
        first: seconds of the first call, with compilation.
        repeats: seconds of later calls, of the whole even if only a part was run.
        result: a number that is no time, with its unit: a rate, an error.
        beside: the first call ran beside others, which made it slower; the table marks it by ≤.
        estimated: the seconds are those of a part, scaled up; the table marks them by ≈.
    """

    first: float | None = None
    repeats: Sequence[float] = ()
    result: str = ""
    beside: bool = False
    estimated: bool = False

    def times(self, factor: float) -> "Outcome":
        """Return the outcome of a whole of which this is one part in `factor`."""
        return self._replace(repeats=[factor * x for x in self.repeats], estimated=True)


class Case(NamedTuple):
    """A row of the table that is yet to be measured.

    Attributes:
        name: what is measured; with the precision it is unique in its table.
        precision: of the numbers.
        measure: measures it.
        seconds: that it may take with compilation; it is not started where less is left.
        others: the cases, by (name, precision), whose time is shown relative to this one's.
        notes: what the row includes.
        ahead: what may be done before, beside others: as a rule the first call, which compiles.
        again: seconds that it may take if that is done.
    """

    name: str
    precision: str
    measure: Callable[[], Outcome]
    seconds: float
    others: tuple[tuple[str, str], ...] = ()
    notes: str = ""
    ahead: Callable[[], Any] | None = None
    again: float = AGAIN


class Group(NamedTuple):
    """Cases that stand under one title; that of another group puts them below its cases."""

    title: str
    reserve: float  # seconds that earlier groups leave for these
    cases: Callable[[], Sequence[Case]]


Row = dict[str, Any]


def empty_row(group: Group, case: Case) -> Row:
    """Return the row of a case that is not measured yet."""
    row: Row = {"group": group.title, "name": case.name, "precision": case.precision}
    row |= Outcome()._asdict() | {"repeats": [], "reason": "not reached", "error": ""}
    return row | {"others": [list(x) for x in case.others], "notes": case.notes}


def seconds_of(row: Row) -> float | None:
    """Return the median of a row's repeats."""
    return median(row["repeats"]) if row["repeats"] else None


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table of every group under its title."""
    titles = list(dict.fromkeys(row["group"] for row in rows))
    parts = []
    for title in titles:
        lines = [_cells(row, rows) for row in rows if row["group"] == title]
        parts += [f"### {title}", markdown(HEADER.split("|"), lines)]
    return "\n\n".join(parts)


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    repeats, own = row["repeats"], seconds_of(row)
    at_most, about = "≤ " if row["beside"] else "", "≈ " if row["estimated"] else ""
    first = "" if row["first"] is None else f"{at_most}{row['first']:.3g}"
    repeated = "" if own is None else f"{about}{own:.4g}"
    spread = f"{min(repeats):.3g}–{max(repeats):.3g}" if len(repeats) > 1 else ""
    said = [x for x in (row["error"], row["reason"], row["result"]) if x]
    cells = [row["name"], row["precision"], first, repeated, spread]
    cells += ["; ".join(_ratios(row, rows)), "; ".join(said), row["notes"]]
    return [x.replace("|", "\\|") for x in cells]


def _ratios(row: Row, rows: Sequence[Row]) -> Iterator[str]:
    for name, precision in row["others"]:
        for other in rows:
            is_it = (other["group"], other["name"]) == (row["group"], name)
            if is_it and other["precision"] == precision:
                theirs, own = seconds_of(other), seconds_of(row)
                if theirs and own:
                    yield f"{name} ({precision}) {theirs / own:.3g}"
