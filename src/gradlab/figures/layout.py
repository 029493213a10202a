"""Lay the points of a sweep out: which config key parts lines, columns and rows of panels."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from gradlab.figures import style
from gradlab.figures.choice import ANY, Choice, chosen
from gradlab.figures.labels import level_label, point_label
from gradlab.figures.networks import NETWORK, with_networks
from gradlab.figures.selection import (
    check_key,
    choose_level_key,
    levels_of,
    varying_keys,
)

PINNED_TO_LARGEST = ("task.length", "clip.threshold")  # the longest sequence, no clipping
MOST_COLUMNS, MOST_ROWS = 6, 6  # of panels that are asked for, at most


class Grid(NamedTuple):
    """The points of a figure by row and column of panels and, in a panel, by level of one key.

    In a figure of lines a level is a line; in a figure of maps it is a column of a block of panels.

    Attributes:
        runs: the points.
        level_key: the config key whose levels part a panel; None: it has one part.
        group_keys: the config keys whose combinations of levels are the columns.
        row_key: the config key whose levels are the rows; None: there is one.
    """

    runs: pd.DataFrame
    level_key: str | None
    group_keys: list[str]
    row_key: str | None = None

    def level_labels(self) -> list[str]:
        """Return the label of each level; only "" if there is no level key."""
        return self._labels(self.level_key)

    def row_labels(self) -> list[str]:
        """Return the label of each row; only "" if there is one."""
        return self._labels(self.row_key)

    def groups(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the label and the points of each column."""
        if not self.group_keys:
            return [("", self.runs)]
        groups = self.runs.groupby(self.group_keys, sort=False, dropna=False)
        return [(point_label(group.iloc[0], self.group_keys), group) for _, group in groups]

    def rows(self) -> list["Grid"]:
        """Return the grid of each row, whose groups are those of all rows, some of them empty."""
        if self.row_key is None:
            return [self]
        levels = levels_of(self.runs, self.row_key)
        return [self._replace(runs=_at(self.runs, self.row_key, level)) for level in levels]

    def panels(self) -> list[list[pd.DataFrame]]:
        """Return the points of each panel, [row][column]."""
        columns = [group for _, group in self.groups()]
        return [
            [group.loc[group.index.intersection(row.runs.index)] for group in columns]
            for row in self.rows()
        ]

    def cells(self, group: pd.DataFrame) -> list[pd.DataFrame]:
        """Return the points of a panel by level; points of one cell differ only in their seed."""
        if self.level_key is None:
            return [group]
        levels = levels_of(self.runs, self.level_key)
        return [_at(group, self.level_key, level) for level in levels]

    def one_seed(self) -> "Grid":
        """Return the same grid with only the first point of each cell."""
        keys = [key for key in (*self.group_keys, self.row_key, self.level_key) if key]
        return self._replace(runs=self.runs.drop_duplicates(keys) if keys else self.runs.head(1))

    def _labels(self, key: str | None) -> list[str]:
        return [level_label(key, level) for level in levels_of(self.runs, key)] if key else [""]


def arrange(
    runs: pd.DataFrame,
    level_key: str | None,
    group_keys: Sequence[str],
    *,
    levels: int,
    groups: int,
    row_key: str | None = None,
) -> Grid:
    """Lay points out in a grid of limited size, and leave out the points that do not fit.

    To fit, the last group keys are pinned to one level each. If the first one by itself, or the
    level key, has too many levels, its first names are kept, or numbers evenly spread over its
    range, both ends included.

    Args:
        runs: from `selection.comparable`.
        level_key: the key whose levels part each panel; None: none does.
        group_keys: the keys whose combinations of levels are the columns; `level_key` and
            `row_key` are ignored.
        levels: at most.
        groups: at most.
        row_key: the key whose levels are the rows, at most MOST_ROWS; None: there is one.
    """
    group_keys = [key for key in group_keys if key not in (level_key, row_key)]
    runs = _limit_levels(runs, group_keys, groups)
    runs = _limit_levels(runs, [level_key], levels) if level_key else runs
    runs = _limit_levels(runs, [row_key], MOST_ROWS) if row_key else runs
    varying = [key for key in group_keys if len(levels_of(runs, key)) > 1]
    return Grid(runs, level_key, varying, row_key)


def arrange_lines(
    runs: pd.DataFrame,
    choice: Choice = ANY,
    *,
    panels: int,
    lines: int,
    apart: Collection[str] = (),
) -> Grid:
    """Lay out a figure of lines or maps by what is asked for, else by what varies.

    Lines differ by the gain, or else by the first number that varies; columns by the other keys,
    or by that which is asked for, where the others are pinned to one level each. The seeds of a
    line are together in a cell.

    Args:
        runs: from `selection.comparable`.
        choice: of points and keys.
        panels: columns, at most, unless they are asked for.
        lines: in a panel, at most.
        apart: keys that part columns only if they are asked for; else they are pinned.

    Raises:
        ValueError: a key that is asked for is not in the runs' configs, or stands twice.
    """
    runs, choice = chosen(runs, choice.where), _check_parting(runs, choice)
    others = _free_keys(runs, [choice.hue, choice.col, choice.row])
    if choice.hue is None:
        runs, others = with_networks(runs, others)
    if choice.step == "all":  # of which lines are the moments
        if choice.hue:
            raise ValueError("with step all, colours are moments of training: give col, not hue.")
        level_key = None
    else:
        level_key = choice.hue or choose_level_key(others, runs)
    others = [key for key in others if key != level_key]
    runs = _pin(runs, others if choice.col else [key for key in others if key in apart])
    if choice.col:
        others, panels = [choice.col], MOST_COLUMNS
    runs = with_line_style(runs, level_key)
    return arrange(runs, level_key, others, levels=lines, groups=panels, row_key=choice.row)


def arrange_along(
    runs: pd.DataFrame, along: Collection[str], choice: Choice, *, panels: int, lines: int = 1
) -> Grid:
    """Lay out a figure whose panels have config keys along their axes.

    Lines differ by the hue of the choice; columns as in `arrange_lines`.

    Args:
        runs: from `selection.comparable`.
        along: the keys, all of whose levels every panel shows.
        choice: of points and keys.
        panels: columns, at most, unless they are asked for.
        lines: in a panel, at most.

    Raises:
        ValueError: a key that is asked for is not in the runs' configs, stands twice, or is along
            an axis.
    """
    runs, choice = chosen(runs, choice.where), _check_parting(runs, choice)
    asked = [key for key in (choice.hue, choice.col, choice.row) if key]
    if doubled := set(asked) & set(along):
        raise ValueError(f"{doubled.pop()} is along an axis: hue, col and row take other keys.")
    others = _free_keys(runs, [*asked, *along])
    if choice.col:
        runs = _pin(runs, others)
        others, panels = [choice.col], MOST_COLUMNS
    runs = with_line_style(runs, choice.hue)
    return arrange(runs, choice.hue, others, levels=lines, groups=panels, row_key=choice.row)


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
    shade, counts = pd.Series(ranks, runs.index), dict.fromkeys(runs["model.name"], len(levels))
    if shaded == NETWORK:  # each has one model, whose shades are for its own networks
        shade = shade.groupby(runs["model.name"]).rank(method="dense").astype(int) - 1
        counts = runs.groupby("model.name")[NETWORK].nunique().to_dict()
    colours = style.model_colours(runs)
    shades = {model: style.shades(colours[model], count) for model, count in counts.items()}
    lines = runs.assign(
        line=[level_label(name, level) for level in runs[name]],
        colour=[shades[model][i] for model, i in zip(runs["model.name"], shade, strict=True)],
    )
    return lines.iloc[np.argsort(ranks, kind="stable")]


def _free_keys(runs: pd.DataFrame, taken: Sequence[str | None]) -> list[str]:
    """Return the keys that vary and are not taken; where sweeps are, within one of them."""
    keys = [key for key in varying_keys(runs) if key not in (*taken, "seed")]
    if "sweep" not in taken:
        return keys
    sweeps = runs["sweep"].nunique()
    return [key for key in keys if len(runs[["sweep", key]].drop_duplicates()) > sweeps]


def _check_parting(runs: pd.DataFrame, choice: Choice) -> Choice:
    """Return the choice with the runs' own keys for lines and panels; they must differ."""
    hue, col, row = (
        check_key(runs, x) if x else None for x in (choice.hue, choice.col, choice.row)
    )
    asked = [key for key in (hue, col, row) if key]
    if len(set(asked)) < len(asked):
        raise ValueError(f"hue, col and row must be different keys; got {', '.join(asked)}.")
    return choice._replace(hue=hue, col=col, row=row)


def _at(runs: pd.DataFrame, key: str, level: object) -> pd.DataFrame:
    """Return the points at a level of a key; a missing value is a level as any other."""
    return runs[runs[key].isin([level])]


def _pin(runs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Keep one level of each key, known if any is: PINNED_TO_LARGEST or the first."""
    for key in keys:
        levels = levels_of(runs, key)
        known = [level for level in levels if not pd.isna(level)] or levels
        runs = _at(runs, key, known[-1 if key in PINNED_TO_LARGEST else 0])
    return runs


def _limit_levels(runs: pd.DataFrame, keys: Sequence[str], most: int) -> pd.DataFrame:
    """Drop levels of the last keys until at most `most` combinations of the keys are left."""
    for key in reversed(keys):
        if len(runs[list(keys)].drop_duplicates()) <= most:
            break
        levels = levels_of(runs, key)
        if key != keys[0]:
            runs = _pin(runs, [key])
            continue
        if pd.api.types.is_numeric_dtype(runs[key]):
            levels = [levels[i] for i in np.linspace(0, len(levels) - 1, most).round().astype(int)]
        else:
            levels = levels[:most]
        runs = runs[runs[key].isin(levels)]
    return runs
