"""The plan of a sweep: its groups, what varies in each, and what they take of time and room."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from rich.table import Table

from gradlab.figures import labels, selection
from gradlab.point.failures import reason_of
from gradlab.printable import printable
from gradlab.records import flatten
from gradlab.sentences import counted
from gradlab.sweeps.estimate import (
    Estimate,
    Workers,
    disk_sentence,
    duration,
    estimate,
    makespan,
    size,
    time_sentence,
)
from gradlab.sweeps.groups import Built, Group
from gradlab.sweeps.memory import bytes_per_point
from gradlab.sweeps.screen import screen, show

LISTED = 8  # values of a key


def plan_table(
    groups: Sequence[Group], estimates: Sequence[Estimate | None], workers: Workers
) -> Table:
    """Return one row per group: points, memory per point, time, disk, program, varying keys."""
    configs = [_config_table(group) for group in groups]
    every_point = pd.concat([config.astype(object) for config in configs])  # pandas 2 warns of None
    keys = selection.varying_keys(selection.comparable(every_point))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("group", "points", "memory\na point", "time", "disk"):
        table.add_column(heading, justify="right")
    for heading in ("program", "varies"):
        table.add_column(heading)
    rows = zip(groups, configs, estimates, strict=True)
    for number, (group, config, cost) in enumerate(rows):
        own = [key for key in keys if key in config]  # one component has keys another lacks
        levels = {key: selection.levels_of(config, key) for key in own}
        shared = [
            labels.level_label(key, values[0]) for key, values in levels.items() if len(values) == 1
        ]
        varying = [_values(key, levels[key]) for key in own if len(levels[key]) > 1]
        table.add_row(
            str(number),
            str(len(group.points)),
            _memory(group.program),
            _time(cost, workers),
            size(cost.bytes) if cost else "–",
            printable(", ".join(shared)),
            printable("; ".join(varying) or "–"),
        )
    return table


def show_plan(
    groups: Sequence[Group],
    ended: int,
    workers: Workers,
    folder: Path,
    sentences: Sequence[str] = (),
) -> None:
    """Print what would run, how long it takes and how much disk it needs.

    Args:
        groups: the points that are still to run, by program.
        ended: number of points that have ended already.
        workers: the processes that the groups would run in.
        folder: the sweep's.
        sentences: more to say: which points run elsewhere, what a scheduler would be given.
    """
    console = screen()
    estimates = [estimate(group, workers) for group in groups]
    if groups:
        show(console, plan_table(groups, estimates, workers))
    for group in groups:
        if isinstance(group.program, BaseException):
            points = counted(len(group.points), "point")
            show(console, f"{points} cannot be built: {reason_of(group.program)}")
    if known := [cost for cost in estimates if cost]:
        show(console, time_sentence(known, workers))
        show(console, disk_sentence(known, folder))
    for sentence in sentences:
        show(console, sentence)
    points = counted(sum(len(group.points) for group in groups), "point")
    rest = f"; {ended} have ended" if ended else ""
    show(console, f"{points} to run as {counted(len(groups), 'program')}{rest}. Nothing was run.")


def _time(cost: Estimate | None, workers: Workers) -> str:
    """Return the wall time of a group that all workers run, in words; "?": not known."""
    if not cost:
        return "–"
    if not cost.seconds:
        return "?"
    return duration(makespan(cost.tasks(workers), workers.slots))


def _memory(program: Built) -> str:
    """Return the memory of a point in words; "–" where the user's part of it fails."""
    if isinstance(program, BaseException):
        return "–"
    try:
        return f"{bytes_per_point(program) / 2**20:.3g} MiB"
    except (Exception, SystemExit):
        return "–"


def _config_table(group: Group) -> pd.DataFrame:
    rows = [flatten(asdict(point.config)) for point in group.points]
    return selection.comparable(pd.DataFrame(rows))


def _values(key: str, values: Sequence[object]) -> str:
    listed = [labels.value_label(key, value) for value in values[:LISTED]]
    more = [f"… ({len(values)})"] if len(values) > LISTED else []
    return f"{labels.key_label(key)} {', '.join([*listed, *more])}"
