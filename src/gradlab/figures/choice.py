"""The choice of points, panels, moment and band that a reader asks a figure for.

From a shell these are --where, --hue, --col, --row, --step and --band.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradlab.figures.bands import DEFAULT as BAND
from gradlab.figures.bands import Band
from gradlab.figures.labels import NONE, value_label
from gradlab.figures.moments import DEFAULT as STEP
from gradlab.figures.moments import Step
from gradlab.figures.selection import check_key, levels_of

Where = Mapping[str, Any]


class Choice(NamedTuple):
    """The choice that a reader makes; a figure makes the rest of it from what varies.

    Attributes:
        where: config keys with the level, or list of levels, to show: {"model.name": "lstm",
            "clip.threshold": [1, "none"]}. A name may be written as figures label it ("LSTM");
            "none" is a value that is missing or, of a threshold, infinite.
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
        ValueError: a key is not in the runs' configs, it has no such level, or no point has all.
    """
    everything = runs
    for key, asked in (where or {}).items():
        levels = levels_of(everything, check_key(everything, key))
        kept: list[Any] = []
        for value in asked if isinstance(asked, list | tuple | set | np.ndarray) else [asked]:
            same = [level for level in levels if _is_same(key, level, value)]
            if not same:
                known = ", ".join(value_label(key, level) for level in levels)
                raise ValueError(f"{key} is one of {known} in these runs; got {value!r}.")
            kept += same
        runs = runs[runs[key].isin(kept)]
    if runs.empty:
        raise ValueError(f"no point has all of {dict(where or {})}.")
    return runs


def _is_same(key: str, level: Any, value: Any) -> bool:
    """Return whether a value, maybe as text, is a level."""
    label = value_label(key, level)
    if value is None or str(value) == NONE or (isinstance(value, float) and np.isnan(value)):
        return label == NONE
    if isinstance(level, int | float | np.number) and not isinstance(level, bool):
        try:
            return bool(np.isclose(float(value), float(level), rtol=1e-9, atol=0))
        except (TypeError, ValueError):
            return False
    return str(value).casefold() in (str(level).casefold(), label.casefold())
