"""Choose which points of a sweep a figure shows, and how they are laid out.

A point is a row of the table from `gradlab.load_runs`. The choice follows from the config keys
that vary over the sweep and from the values (levels) that each of them takes.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import records
from gradlab.figures import style
from gradlab.figures.labels import key_label, level_label, point_label
from gradlab.records.layout import UNREADABLE
from gradlab.records.table import with_constants

SECTIONS = ("model", "init", "task", "clip", "tbptt", "optim", "train")
FIRST_OF_SECTION = ("model.name", "init.gain", "task.length", "clip.threshold")
PINNED_TO_LARGEST = ("task.length", "clip.threshold")  # the longest sequence, no clipping
NAMED = 3  # points that a note names before it says "and … more"
PROBES = {  # the probe that measures the variables whose names begin so
    "jacobian": "spectral",
    "adjoint": "adjoint",
    "contribution": "contribution",
    "lyapunov": "lyapunov",
    "singular": "singular_values",
    "statistics": "statistics",
    "theory": "theory",
}


class Grid(NamedTuple):
    """The points of a figure by group and, in each group, by the level of one config key.

    In a figure of lines a group is a panel and a level is a line in it; in a figure of maps a group
    is a row (or block) of panels and a level is a column of it.

    Attributes:
        runs: the points.
        level_key: the config key whose levels part a group; None: a group has one part.
        group_keys: the config keys whose combinations of levels are the groups.
    """

    runs: pd.DataFrame
    level_key: str | None
    group_keys: list[str]

    def level_labels(self) -> list[str]:
        """Return the label of each level; only "" if there is no level key."""
        if self.level_key is None:
            return [""]
        levels = levels_of(self.runs, self.level_key)
        return [level_label(self.level_key, level) for level in levels]

    def groups(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the label and the points of each group."""
        if not self.group_keys:
            return [("", self.runs)]
        groups = self.runs.groupby(self.group_keys, sort=False, dropna=False)
        return [(point_label(group.iloc[0], self.group_keys), group) for _, group in groups]

    def cells(self, group: pd.DataFrame) -> list[pd.DataFrame]:
        """Return the points of a group by level; points of one cell differ only in their seed."""
        if self.level_key is None:
            return [group]
        levels = levels_of(self.runs, self.level_key)
        return [group[group[self.level_key].isin([level])] for level in levels]

    def one_seed(self) -> "Grid":
        """Return the same grid with only the first point of each cell."""
        keys = [*self.group_keys, self.level_key] if self.level_key else self.group_keys
        return self._replace(runs=self.runs.drop_duplicates(keys) if keys else self.runs.head(1))


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs, every config key a column, with lists as text: values compare and sort."""
    return with_constants(runs).map(
        lambda value: value if isinstance(value, Hashable) else str(value)
    )


def readable(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the points whose records can be read, made `comparable`.

    Raises:
        ValueError: there are none.
    """
    runs = comparable(runs)
    usable = runs[~runs["status"].isin(UNREADABLE)]
    if usable.empty:
        raise ValueError(
            f"the records of all {len(runs)} points are damaged or incomplete: nothing to draw."
        )
    return usable.dropna(axis="columns", how="all") if len(usable) < len(runs) else usable


def with_gradients(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the points that have gradient maps, made `comparable`.

    Raises:
        ValueError: no point has any.
    """
    return _with_file(runs, records.GRADIENTS, "a gradient map")


def with_metrics(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the points that logged metrics, made `comparable`.

    Raises:
        ValueError: no point has any.
    """
    return _with_file(runs, records.METRICS, "logged metrics")


def pools_sweeps(runs: pd.DataFrame) -> bool:
    """Return whether the points are of more than one sweep."""
    return "sweep" in runs and len(set(runs["sweep"].dropna())) > 1


def varying_keys(runs: pd.DataFrame) -> list[str]:
    """Return the config keys that vary, in order of `SECTIONS`, with `seed` last.

    A key is left out if another key of its section determines it, as `model.name` determines
    `model.cell._target_`.
    """
    codes = {key: pd.factorize(runs[key], use_na_sentinel=False)[0] for key in _config_keys(runs)}
    varying = sorted((key for key in codes if codes[key].max() > 0), key=_rank)
    keys: list[str] = []
    for key in varying:
        siblings = [known for known in keys if _section(known) == _section(key)]
        if not any(_determines(codes[sibling], codes[key]) for sibling in siblings):
            keys.append(key)
    return keys


def choose_level_key(keys: Sequence[str], runs: pd.DataFrame) -> str | None:
    """Return the key whose levels part each group of a `Grid`; None if there are no keys.

    It is the gain if that varies, else the first numeric key, else the first; `seed` only if
    nothing else varies.
    """
    keys = [key for key in keys if key != "seed"] or list(keys)
    numeric = [key for key in keys if pd.api.types.is_numeric_dtype(runs[key])]
    gain = [key for key in keys if key == "init.gain"]
    return next(iter([*gain, *numeric, *keys]), None)


def levels_of(runs: pd.DataFrame, key: str) -> list[Any]:
    """Return the values that a key takes: numbers ascending, names in the order of the runs."""
    levels = runs[key].drop_duplicates()
    return list(levels.sort_values() if pd.api.types.is_numeric_dtype(levels) else levels)


def arrange(
    runs: pd.DataFrame,
    level_key: str | None,
    group_keys: Sequence[str],
    *,
    levels: int,
    groups: int,
) -> Grid:
    """Lay points out in a grid of limited size, and leave out the points that do not fit.

    To fit, the last group keys are pinned to one level each. If the first one by itself, or the
    level key, has too many levels, its first names are kept, or numbers evenly spread over its
    range, both ends included.

    Args:
        runs: from `comparable`.
        level_key: the key whose levels part each group; None: none does.
        group_keys: the keys whose combinations of levels are the groups; `level_key` and "seed" are
            ignored.
        levels: at most.
        groups: at most.
    """
    group_keys = [key for key in group_keys if key not in (level_key, "seed")]
    runs = _limit_levels(runs, group_keys, groups)
    runs = _limit_levels(runs, [level_key], levels) if level_key else runs
    return Grid(runs, level_key, [key for key in group_keys if len(levels_of(runs, key)) > 1])


def arrange_lines(runs: pd.DataFrame, *, panels: int, lines: int) -> Grid:
    """Lay out a figure of lines: each group of the grid is a panel, each level a line in it.

    Lines differ by the key from `choose_level_key`, panels by the other keys. The seeds of a line
    are together in a cell.

    Args:
        runs: from `comparable`.
        panels: at most.
        lines: in a panel, at most.
    """
    keys = varying_keys(runs)
    level_key = choose_level_key(keys, runs)
    styled = with_line_style(runs, level_key)
    return arrange(styled, level_key, keys, levels=lines, groups=panels)


def with_line_style(runs: pd.DataFrame, key: str | None) -> pd.DataFrame:
    """Sort points by a key, and add the columns `line` (its label in the legend) and `colour`.

    A line is named by its level of the key; by its model if `key` is None. Its colour is a shade
    of its model's colour, so that lines with one label may have several colours.
    """
    shaded = None if key == "model.name" else key
    levels = levels_of(runs, shaded) if shaded else [None]
    ranks = (
        pd.Index(levels).get_indexer(pd.Index(runs[shaded])) if shaded else np.zeros(len(runs), int)
    )
    name = shaded or "model.name"
    shades = {
        model: style.shades(colour, len(levels))
        for model, colour in style.model_colours(runs).items()
    }
    lines = runs.assign(
        line=[level_label(name, level) for level in runs[name]],
        colour=[shades[model][rank] for model, rank in zip(runs["model.name"], ranks, strict=True)],
    )
    return lines.iloc[np.argsort(ranks, kind="stable")]


def load_before_and_after(run: pd.Series, *needed: str) -> dict[str, xr.Dataset]:
    """Read a point's first and last measurements, by "before" and "after" training.

    A point that diverged, or was not trained, has no "after".

    Args:
        run: a row of the runs.
        needed: variables that the point must have measured.

    Raises:
        ValueError: one of them is missing.
    """
    gradients = load_measured(run, *needed)
    measurements = {"before": gradients.isel(step=0)}
    if run["status"] == "done" and gradients.sizes["step"] > 1:
        measurements["after"] = gradients.isel(step=-1)
    return measurements


def load_measured(run: pd.Series, *needed: str) -> xr.Dataset:
    """Read a point's measurements.

    Args:
        run: a row of the runs.
        needed: variables that the point must have measured.

    Raises:
        ValueError: one of them is missing.
    """
    gradients = records.load_gradients(run["path"])
    for variable in needed:
        if variable not in gradients:
            probe = next(p for prefix, p in PROBES.items() if variable.startswith(prefix))
            probes = ",".join(dict.fromkeys(["spectral", probe]))
            raise ValueError(
                f"{run['path']} did not measure {variable}: run it with probe=[{probes}]."
            )
    return gradients


def notes(runs: pd.DataFrame, usable: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """Return the sentences that say which points a figure leaves out, and why.

    Args:
        runs: all points.
        usable: the points with the data that the figure needs.
        shown: the usable points that the figure shows.
    """
    runs = comparable(runs)
    return [
        *_pooled_note(shown),
        *_choice_note(usable, shown),
        *_missing_note(runs.drop(usable.index), varying_keys(readable(runs))),
    ]


def _with_file(runs: pd.DataFrame, file: str, description: str) -> pd.DataFrame:
    usable = readable(runs)
    usable = usable[[(Path(path) / file).is_file() for path in usable["path"]]]
    if usable.empty:
        raise ValueError(f"none of the {len(runs)} points has {description} to draw.")
    return usable


def _pooled_note(shown: pd.DataFrame) -> list[str]:
    if not pools_sweeps(shown):
        return []
    return [f"Points of {shown['sweep'].nunique()} sweeps are pooled."]


def _choice_note(usable: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    if len(usable) == len(shown):
        return []
    choices = []
    for key in varying_keys(usable):
        levels, shown_levels = levels_of(usable, key), levels_of(shown, key)
        if len(shown_levels) == 1:
            choices.append(level_label(key, shown_levels[0]))
        elif len(shown_levels) < len(levels):
            choices.append(f"{len(shown_levels)} of {len(levels)} values of {key_label(key)}")
    where = f" ({', '.join(choices)})" if choices else ""
    return [f"Shown: {len(shown)} of {len(usable)} points{where}."]


def _missing_note(missing: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    if missing.empty:
        return []
    names = [f"{_name(run, keys)} ({run['status']})" for _, run in missing.iterrows()]
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return [f"Not measured: {'; '.join(names[:NAMED] + more)}."]


def _name(run: pd.Series, keys: Sequence[str]) -> str:
    """Name a point by its config, or by its folder if that cannot be trusted."""
    return Path(run["path"]).name if run["status"] in UNREADABLE else point_label(run, keys)


def _limit_levels(runs: pd.DataFrame, keys: Sequence[str], most: int) -> pd.DataFrame:
    """Drop levels of the last keys until at most `most` combinations of the keys are left."""
    for key in reversed(keys):
        if len(runs[list(keys)].drop_duplicates()) <= most:
            break
        levels = levels_of(runs, key)
        if key != keys[0]:
            levels = [levels[-1 if key in PINNED_TO_LARGEST else 0]]
        elif pd.api.types.is_numeric_dtype(runs[key]):
            levels = [levels[i] for i in np.linspace(0, len(levels) - 1, most).round().astype(int)]
        else:
            levels = levels[:most]
        runs = runs[runs[key].isin(levels)]
    return runs


def _config_keys(runs: pd.DataFrame) -> list[str]:
    return [
        key
        for key in runs.columns
        if "/" not in key
        and key not in records.NOT_CONFIG
        and _section(key) not in ("wandb", "sweep")
    ]


def _section(key: str) -> str:
    return key.partition(".")[0]


def _determines(codes: Any, others: Any) -> bool:
    """Return whether equal entries of `codes` always meet equal entries of `others`."""
    return len(set(zip(codes, others, strict=True))) == len(set(codes))


def _rank(key: str) -> tuple[bool, int, bool]:
    section = SECTIONS.index(_section(key)) if _section(key) in SECTIONS else len(SECTIONS)
    return key == "seed", section, key not in FIRST_OF_SECTION
