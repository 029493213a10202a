"""The choice of points, panels, moment and band that a reader asks a figure for.

From a shell these are --where, --hue, --col, --row, --step and --band.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from pandas.api.types import is_list_like

from gradlab.figures.bands import DEFAULT as BAND
from gradlab.figures.bands import Band
from gradlab.figures.levels import find_levels, join_levels, level_word
from gradlab.figures.moments import DEFAULT as STEP
from gradlab.figures.moments import Step
from gradlab.figures.selection import check_key, levels_of

Where = Mapping[str, Any]


class Choice(NamedTuple):
    """The choice that a reader makes; a figure makes the rest of it from what varies.

    Attributes:
        where: config keys with the level, or list of levels, to show: {"model.name": "lstm",
            "clip.threshold": [1, "none"]}. A level may be written as figures label it ("LSTM");
            "none" is a value that is missing, of a threshold an infinite one, "unknown" a missing
            one.
        hue: the config key by which lines differ.
        col, row: those by which columns and rows of panels differ.
        step: the moments of training to show: "first" and "last" measurement, both ("ends"),
            "all", or that after so many updates.
        band: of a line over seeds, as in `bands.over_seeds`.
    """

    where: Where | None = None
    hue: str | None = None
    col: str | None = None
    row: str | None = None
    step: Step = STEP
    band: Band = BAND

    def keys(self) -> set[str]:
        """Return the config keys that are asked for."""
        return {*(self.where or ()), *(key for key in (self.hue, self.col, self.row) if key)}


ANY = Choice()  # nothing is asked for


def chosen(runs: pd.DataFrame, where: Where | None) -> pd.DataFrame:
    """Return the points at the levels that are asked for.

    Args:
        runs: from `selection.comparable`.
        where: as in `Choice`.

    Raises:
        ValueError: `where` is no mapping, a key is not in the runs' configs, it has no such level,
            or no point has all.
    """
    everything = runs
    if not isinstance(where, Mapping | None):
        raise ValueError(
            "where must be a mapping from config keys to levels, such as {'model.name': 'lstm'}; "
            f"got {where!r:.80}."
        )
    for name, asked in (where or {}).items():
        key = check_key(everything, name)
        levels = levels_of(everything, key)
        kept: list[Any] = []
        several = is_list_like(asked) and not isinstance(asked, Mapping)
        for value in asked if several else [asked]:
            same = find_levels(key, levels, value)
            if not same:
                known = ", ".join(join_levels([level_word(key, levels, x)]) for x in levels)
                raise ValueError(f"{key} is one of {known} in these runs; got {value!r}.")
            kept += same
        runs = runs[runs[key].isin(kept)]
    if runs.empty:
        raise ValueError(f"no point has all of {dict(where or {})}.")
    return runs
