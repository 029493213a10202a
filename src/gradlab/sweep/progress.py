"""A progress bar over the points of a sweep."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gradlab.point import Point, Status


@contextmanager
def shown(total: int) -> Iterator[Callable[[Point, Status], None]]:
    """Show points done, diverged and failed, and the time left; yields what to call for each."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("points"),
        TextColumn("{task.fields[trouble]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("training and measuring", total=total, trouble="")
        states: Counter[str] = Counter()

        def on_done(point: Point, status: Status) -> None:
            states[status["state"]] += 1
            trouble = ", ".join(f"{states[s]} {s}" for s in ("diverged", "failed") if states[s])
            progress.update(bar, advance=1, trouble=trouble)
            if status["state"] == "failed":
                progress.console.print(f"point {point.folder.name} failed: {status['reason']}")

        yield on_done
