"""What a sweep would be: its groups, what varies in each, and the memory that a point takes."""

from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from gradlab.figures import labels, selection
from gradlab.point import Point
from gradlab.records import flatten
from gradlab.sweep.memory import bytes_per_point

SHOWN = 8  # values of a key


def plan_table(groups: Sequence[Sequence[Point]]) -> Table:
    """A row a group: how many points, what sets it apart, what varies in it, memory a point."""
    runs = [_runs(group) for group in groups]
    axes = selection.varying_keys(selection.comparable(pd.concat(runs)))
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("group", "points", "memory\na point"):
        drawn.add_column(heading, justify="right")
    for heading in ("program", "varies"):
        drawn.add_column(heading)
    for number, (group, table) in enumerate(zip(groups, runs, strict=True)):
        known = [axis for axis in axes if axis in table]  # one component has keys another lacks
        levels = {axis: selection.levels_of(table, axis) for axis in known}
        shared = [
            labels.level_label(a, values[0]) for a, values in levels.items() if len(values) == 1
        ]
        varying = [_values(x, levels[x]) for x in known if len(levels[x]) > 1]
        memory = f"{bytes_per_point(group[0].config) / 2**20:.3g} MiB"
        drawn.add_row(
            str(number), str(len(group)), memory, ", ".join(shared), "; ".join(varying) or "–"
        )
    return drawn


def show_plan(groups: Sequence[Sequence[Point]], ended: int) -> None:
    """Print what would run, and how many points of the sweep have ended already."""
    console = Console()
    if not console.is_terminal:  # a file has no width to keep to
        console.width = 160
    if groups:
        console.print(plan_table(groups))
    total, rest = sum(map(len, groups)), f"; {ended} have ended" if ended else ""
    console.print(f"{total} points to run as {len(groups)} programs{rest}. Nothing was run.")


def _runs(group: Sequence[Point]) -> pd.DataFrame:
    return selection.comparable(pd.DataFrame([flatten(point.config) for point in group]))


def _values(axis: str, values: Sequence[object]) -> str:
    listed = [labels.value_label(axis, value) for value in values[:SHOWN]]
    more = [f"… ({len(values)})"] if len(values) > SHOWN else []
    return f"{labels.key_label(axis)} {', '.join([*listed, *more])}"
