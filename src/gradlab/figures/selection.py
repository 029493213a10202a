"""Which points of a sweep a figure shows, found from what varies in its runs table."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import records
from gradlab.figures import style
from gradlab.figures.labels import key_label, level_label, point_label

SECTIONS = ("model", "init", "task", "clip", "tbptt", "optim", "train")
FIRST_OF_SECTION = ("model.name", "init.gain", "task.length", "clip.threshold")
NOT_CONFIG = ("verdict", "status", "reason", "path")
PINNED_TO_LARGEST = ("task.length", "clip.threshold")  # the longest way back, no clipping
NAMED = 3
PROBES = {"jacobian": "spectral", "adjoint": "adjoint", "contribution": "contribution"}
PROBES |= {"lyapunov": "lyapunov", "singular": "singular_values", "statistics": "statistics"}
PROBES |= {"theory": "theory"}


class Grid(NamedTuple):
    """The points of a figure, laid out: one axis across, combinations of others down."""

    runs: pd.DataFrame
    across: str | None
    down: list[str]

    def columns(self) -> list[str]:
        """The label of each column; one without a name if nothing is across."""
        if self.across is None:
            return [""]
        return [level_label(self.across, x) for x in levels_of(self.runs, self.across)]

    def rows(self) -> list[tuple[str, pd.DataFrame]]:
        """The label and the points of each row."""
        if not self.down:
            return [("", self.runs)]
        groups = self.runs.groupby(self.down, sort=False, dropna=False)
        return [(point_label(group.iloc[0], self.down), group) for _, group in groups]

    def cells(self, row: pd.DataFrame) -> list[pd.DataFrame]:
        """The points of a row by column; several in a cell if they differ in seed alone."""
        if self.across is None:
            return [row]
        return [row[row[self.across].isin([x])] for x in levels_of(self.runs, self.across)]

    def one_seed(self) -> "Grid":
        """The same grid with no more than one point, the first, in a cell."""
        axes = [*self.down, self.across] if self.across else self.down
        return self._replace(runs=self.runs.drop_duplicates(axes) if axes else self.runs.head(1))


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with configured lists as text, so that their values can be told apart and sorted."""
    return runs.map(lambda value: value if isinstance(value, Hashable) else str(value))


def drawable(runs: pd.DataFrame) -> pd.DataFrame:
    """The points that have gradient maps, `comparable`.

    Raises:
        ValueError: none has.
    """
    return _having(runs, records.GRADIENTS, "a gradient map")


def logged(runs: pd.DataFrame) -> pd.DataFrame:
    """The points that have logged metrics, `comparable`.

    Raises:
        ValueError: none has.
    """
    return _having(runs, records.METRICS, "logged metrics")


def axes_of(runs: pd.DataFrame) -> list[str]:
    """The config keys that vary, the most telling first, `seed` last.

    A key that another of its section determines (`model.cell._target_` beside `model.name`) is
    left out.
    """
    numbers = {key: pd.factorize(runs[key], use_na_sentinel=False)[0] for key in _config_keys(runs)}
    varying = sorted((key for key in numbers if numbers[key].max() > 0), key=_rank)
    kept: list[str] = []
    for key in varying:
        siblings = [other for other in kept if _section(other) == _section(key)]
        if not any(_determines(numbers[other], numbers[key]) for other in siblings):
            kept.append(key)
    return kept


def across_of(axes: Sequence[str], runs: pd.DataFrame) -> str | None:
    """The axis to lay out from left to right: the gain, else the first with numbers, else any."""
    axes = [axis for axis in axes if axis != "seed"] or list(axes)
    numbers = [axis for axis in axes if pd.api.types.is_numeric_dtype(runs[axis])]
    gain = [axis for axis in axes if axis == "init.gain"]
    return next(iter([*gain, *numbers, *axes]), None)


def levels_of(runs: pd.DataFrame, axis: str) -> list[Any]:
    """The values that an axis takes: numbers ascending, names in the order of the runs."""
    found = runs[axis].drop_duplicates()
    return list(found.sort_values() if pd.api.types.is_numeric_dtype(found) else found)


def arrange(
    runs: pd.DataFrame, across: str | None, down: Sequence[str], *, columns: int, rows: int
) -> Grid:
    """Lay points out in at most `columns` values of an axis and `rows` combinations of others.

    What does not fit is left out: the last axes are pinned to one value each until the rest fits.
    Of one that has too many values by itself stay the first names, or evenly spread numbers with
    both ends.
    """
    down = [axis for axis in down if axis not in (across, "seed")]
    runs = _thin(runs, down, rows)
    runs = _thin(runs, [across], columns) if across else runs
    return Grid(runs, across, [axis for axis in down if len(levels_of(runs, axis)) > 1])


def choose(runs: pd.DataFrame, *, panels: int, lines: int) -> Grid:
    """A row of the grid for each panel of a figure of lines, in it a column for each line.

    The gain (or what else varies) tells lines apart, the model and the rest the panels; the seeds
    of a line are together in a cell.
    """
    axes = axes_of(runs)
    across = across_of(axes, runs)
    down = [axis for axis in axes if axis not in (across, "seed")]
    return arrange(with_lines(runs, across), across, down, columns=lines, rows=panels)


def with_lines(runs: pd.DataFrame, axis: str | None) -> pd.DataFrame:
    """Sort points by an axis and add the `line` each belongs to and its `colour`.

    A line is named by its value of the axis, or its model if that is the axis; its colour is a
    shade of its model's, so that lines of one name may have several colours.
    """
    shaded = None if axis == "model.name" else axis
    levels = levels_of(runs, shaded) if shaded else [None]
    places = (
        pd.Index(levels).get_indexer(pd.Index(runs[shaded])) if shaded else np.zeros(len(runs), int)
    )
    name = shaded or "model.name"
    colours = {m: style.shades(c, len(levels)) for m, c in style.model_colours(runs).items()}
    lines = runs.assign(
        line=[level_label(name, value) for value in runs[name]],
        colour=[colours[m][place] for m, place in zip(runs["model.name"], places, strict=True)],
    )
    return lines.iloc[np.argsort(places, kind="stable")]


def moments(run: pd.Series, *needed: str) -> dict[str, xr.Dataset]:
    """What a point measured first and last, by "before" and "after" training.

    A point that diverged, or was not trained, has no "after".

    Raises:
        ValueError: one of the needed variables was not measured.
    """
    gradients = records.load_gradients(run["path"])
    for name in needed:
        if name not in gradients:
            probe = next(p for v, p in PROBES.items() if name.startswith(v))
            needs = dict.fromkeys(["spectral", probe])
            raise ValueError(
                f"{run['path']} did not measure {name}: run it with probe=[{','.join(needs)}]."
            )
    ended = run["status"] == "done" and gradients.sizes["step"] > 1
    ends = {"before": gradients.isel(step=0)}
    return ends | {"after": gradients.isel(step=-1)} if ended else ends


def notes(runs: pd.DataFrame, usable: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """Sentences that say which points a figure leaves out, and why.

    Args:
        runs: all points.
        usable: those of them that have what the figure shows.
        shown: those of these that it shows.
    """
    runs = comparable(runs)
    return [*_chosen(usable, shown), *_missing(runs.drop(usable.index), axes_of(runs))]


def _having(runs: pd.DataFrame, file: str, what: str) -> pd.DataFrame:
    runs = comparable(runs)
    having = runs[[(Path(path) / file).is_file() for path in runs["path"]]]
    if having.empty:
        raise ValueError(f"none of the {len(runs)} points has {what} to draw.")
    return having


def _chosen(usable: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    if len(usable) == len(shown):
        return []
    chosen = []
    for axis in axes_of(usable):
        every, some = levels_of(usable, axis), levels_of(shown, axis)
        if len(some) == 1:
            chosen.append(level_label(axis, some[0]))
        elif len(some) < len(every):
            chosen.append(f"{len(some)} of {len(every)} values of {key_label(axis)}")
    where = f" ({', '.join(chosen)})" if chosen else ""
    return [f"Shown: {len(shown)} of {len(usable)} points{where}."]


def _missing(missing: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    if missing.empty:
        return []
    names = [f"{point_label(row, axes)} ({row['status']})" for _, row in missing.iterrows()]
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return [f"Not measured: {'; '.join(names[:NAMED] + more)}."]


def _thin(runs: pd.DataFrame, axes: Sequence[str], most: int) -> pd.DataFrame:
    for axis in reversed(axes):
        if len(runs[list(axes)].drop_duplicates()) <= most:
            break
        levels = levels_of(runs, axis)
        if axis != axes[0]:
            kept = [levels[-1 if axis in PINNED_TO_LARGEST else 0]]
        elif pd.api.types.is_numeric_dtype(runs[axis]):
            kept = [levels[i] for i in np.linspace(0, len(levels) - 1, most).round().astype(int)]
        else:
            kept = levels[:most]
        runs = runs[runs[axis].isin(kept)]
    return runs


def _config_keys(runs: pd.DataFrame) -> list[str]:
    return [
        key
        for key in runs.columns
        if "/" not in key and key not in NOT_CONFIG and _section(key) != "wandb"
    ]


def _section(key: str) -> str:
    return key.partition(".")[0]


def _determines(one: Any, other: Any) -> bool:
    return len(set(zip(one, other, strict=True))) == len(set(one))


def _rank(key: str) -> tuple[bool, int, bool]:
    known = SECTIONS.index(_section(key)) if _section(key) in SECTIONS else len(SECTIONS)
    return key == "seed", known, key not in FIRST_OF_SECTION
