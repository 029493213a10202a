"""The points of a sweep that can be drawn, what varies over them, and what a figure leaves out.

A point is a row of the table from `gradlab.load_runs`; a level is a value that a config key takes.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab import records
from gradlab.figures import moments
from gradlab.figures.labels import key_label, level_label, point_label
from gradlab.figures.levels import where_flag
from gradlab.records.layout import UNREADABLE
from gradlab.records.table import with_constants

SECTIONS = ("model", "init", "task", "clip", "tbptt", "optim", "train")
FIRST_OF_SECTION = ("model.name", "init.gain", "task.length", "clip.threshold")
MAPS = "jacobian_log_norm"  # the variable of a gradient map
NAMED = 3  # points that a note names before it says "and … more"


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs, every config key a column, lists as text, NaN for what is missing.

    Points of tables that were joined, and have the same numbers, are numbered anew; one that is in
    several counts once.
    """
    runs = with_constants(runs)
    if not runs.index.is_unique:
        runs = runs.drop_duplicates("path" if "path" in runs else None).reset_index(drop=True)
    runs = runs.map(lambda value: value if isinstance(value, Hashable) else str(value))
    return runs.where(runs.notna(), np.nan)  # of other columns than numbers, None is one level


def every_point(runs: pd.DataFrame) -> pd.DataFrame:
    """Return all points, made `comparable`.

    Raises:
        ValueError: there are none, or the table is another one.
    """
    runs = comparable(runs)
    if not {"status", "path"} <= set(runs):
        raise ValueError(
            "runs must be the table of gradlab.load_runs; this one lacks the columns status, path."
        )
    if runs.empty:
        raise ValueError("there is nothing to draw: the table of runs has no rows.")
    return runs


def readable(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the points whose records can be read, made `comparable`.

    Raises:
        ValueError: there are none.
    """
    runs = every_point(runs)
    usable = runs[~runs["status"].isin(UNREADABLE)]
    if usable.empty:
        raise ValueError(
            f"the records of all {len(runs)} points are damaged or incomplete: nothing to draw."
        )
    return usable.dropna(axis="columns", how="all") if len(usable) < len(runs) else usable


def with_gradients(runs: pd.DataFrame, variable: str = MAPS) -> pd.DataFrame:
    """Return the points that have gradient maps, or another measurement, made `comparable`.

    Raises:
        ValueError: no point has any.
    """
    usable = _with_file(runs, records.GRADIENTS, "a gradient map")
    return moments.with_variable(usable, variable)


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
    `model.cell._target_`, or a clipping rule its threshold if each rule has one.
    """
    codes = {key: pd.factorize(runs[key], use_na_sentinel=False)[0] for key in _config_keys(runs)}
    varying = [key for key in codes if codes[key].max() > 0]
    varying.sort(key=lambda key: _rank(key, codes))
    keys: list[str] = []
    for key in varying:
        siblings = [known for known in keys if _section(known) == _section(key)]
        if not any(_determines(codes[sibling], codes[key]) for sibling in siblings):
            keys.append(key)
    return keys


def check_key(runs: pd.DataFrame, key: str) -> str:
    """Return a config key of the runs, or "sweep"; of a component ("init") that of its function.

    Raises:
        ValueError: they have no such key.
    """
    for name in (key, f"{key}._target_"):
        if name in _config_keys(runs) or (name == "sweep" and name in runs):
            return name
    varying = ", ".join(varying_keys(runs)) or "nothing"
    raise ValueError(f"the runs have no config key {key!r}; what varies: {varying}.")


def choose_level_key(keys: Sequence[str], runs: pd.DataFrame) -> str | None:
    """Return the key whose levels part each group of a `Grid`; None if there are no keys.

    It is the gain if that varies, else the first numeric key, else the first.
    """
    numeric = [key for key in keys if pd.api.types.is_numeric_dtype(runs[key])]
    gain = [key for key in keys if key == "init.gain"]
    return next(iter([*gain, *numeric, *keys]), None)


def levels_of(runs: pd.DataFrame, key: str) -> list[Any]:
    """Return the values that a key takes: numbers ascending, names in the order of the runs."""
    levels = runs[key].drop_duplicates()
    return list(levels.sort_values() if pd.api.types.is_numeric_dtype(levels) else levels)


def notes(
    runs: pd.DataFrame,
    usable: pd.DataFrame,
    shown: pd.DataFrame,
    asked: Collection[str] = (),
    variable: str = "",
) -> list[str]:
    """Return the sentences that say which points a figure leaves out, why, and what shows them.

    Args:
        runs: all points.
        usable: the points with the data that the figure needs.
        shown: the usable points that the figure shows.
        asked: config keys of which the reader has chosen the levels.
        variable: the measurement that the figure shows, if it is one.
    """
    runs = comparable(runs)
    missing = runs.drop(usable.index)
    return [
        *_pooled_note(shown, asked),
        *_choice_note(usable, shown, asked),
        *_missing_note(missing, varying_keys(readable(runs))),
        *(_probe_note(missing, variable) if variable else []),
    ]


def first_names(names: Sequence[str]) -> str:
    """Return the first names of points, and how many more there are: "seed 0; seed 1"."""
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return "; ".join([*names[:NAMED], *more])


def _with_file(runs: pd.DataFrame, file: str, description: str) -> pd.DataFrame:
    usable = readable(runs)
    usable = usable[[(Path(path) / file).is_file() for path in usable["path"]]]
    if usable.empty:
        raise ValueError(f"none of the {len(runs)} points has {description} to draw.")
    return usable


def _pooled_note(shown: pd.DataFrame, asked: Collection[str]) -> list[str]:
    if not pools_sweeps(shown) or "sweep" in asked:
        return []
    sweeps = levels_of(shown, "sweep")
    alone = where_flag("sweep", sweeps, sweeps[:1])
    return [f"Points of {len(sweeps)} sweeps are pooled. One alone: --where {alone}."]


def _choice_note(usable: pd.DataFrame, shown: pd.DataFrame, asked: Collection[str]) -> list[str]:
    if len(usable) == len(shown):
        return []
    choices, flags, reached = [], [], pd.Series(False, usable.index)
    asked = {*asked, *(f"{key}._target_" for key in asked)}  # as `check_key` finds them
    for key in varying_keys(usable):
        left_out = ~usable[key].isin(shown[key])
        is_news = (left_out & ~reached).any()  # not if another key's flag shows all of them
        if not is_news and not (left_out.any() and key in asked):
            continue
        reached |= left_out
        levels, shown_levels = levels_of(usable, key), levels_of(shown, key)
        if len(shown_levels) == 1:
            choices.append(level_label(key, shown_levels[0]))
        else:
            choices.append(f"{len(shown_levels)} of {len(levels)} values of {key_label(key)}")
        if key not in asked:
            wanted = levels_of(usable[left_out], key)
            is_one_shown = key == "seed" and len(shown_levels) == 1
            flags.append(where_flag(key, levels, wanted, most=1 if is_one_shown else NAMED))
    where = f" ({', '.join(choices)})" if choices else ""
    others = f" Others: --where {', or '.join(flags)}." if flags else ""
    return [f"Shown: {len(shown)} of {len(usable)} points{where}.{others}"]


def _missing_note(missing: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    if missing.empty:
        return []
    names = [f"{_name(run, keys)} ({run['status']})" for _, run in missing.iterrows()]
    return [f"Not measured: {first_names(names)}."]


def _probe_note(missing: pd.DataFrame, variable: str) -> list[str]:
    """Return the sentence that says what measures a variable, if a run that is done lacks it."""
    lacking = missing[missing["status"] == "done"]
    if lacking.empty:
        return []
    return [f"To measure {variable}: {moments.remedy(lacking.iloc[0], variable)}."]


def _name(run: pd.Series, keys: Sequence[str]) -> str:
    """Name a point by its config, or by its folder if that cannot be trusted."""
    return Path(run["path"]).name if run["status"] in UNREADABLE else point_label(run, keys)


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


def _rank(key: str, codes: Mapping[str, Any]) -> tuple[bool, int, int]:
    section = SECTIONS.index(_section(key)) if _section(key) in SECTIONS else len(SECTIONS)
    target = f"{_section(key)}._target_"
    is_of_target = target in codes and _determines(codes[target], codes[key])
    place = 0 if key in FIRST_OF_SECTION and not is_of_target else 1 if key == target else 2
    return key == "seed", section, place
