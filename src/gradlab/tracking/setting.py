"""A point's setting, by which W&B groups runs over their seeds, and its outcome by what was swept.

A setting is worded by what the point's sweep varies, as its sweep.json lists it. It says nothing
that the point's config does not, so it is no part of the point's identity.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import records
from gradlab.tracking.run_config import BOOKKEEPING

if TYPE_CHECKING:
    import wandb

LAST = 1e300  # the place of "none" among numbers: W&B's tables are JSON, which has no infinity
MEASURES = {  # columns of the table of outcomes: the entries of the summary that they show
    "decay_rate": "jacobian/decay_rate",
    "horizon": "jacobian/horizon",
    "solved": "success/solved",
    "accuracy": "eval/accuracy",
}
# Sections of a config that tell networks and their trainings apart.
DESCRIBING = ("model.", "init.", "bias.", "task.", "optim.", "clip.", "tbptt.", "regulariser.")
COLUMNS = ("axis", "value", "order", "series", *MEASURES)


class Axis(NamedTuple):
    """A config key that the sweep varies, and where a point lies on it."""

    key: str
    value: str  # its label: "0.5", "none"
    order: float  # the value's place among others
    series: str  # the rest of the point's setting


class Setting(NamedTuple):
    """The settings by which a point differs from the others of its sweep.

    Attributes:
        text: without the seed: "LSTM, gain 0.5, length 64"; if nothing varies, the model and what
            the command sets of the network, its task and its training.
        name: with the seed, if that varies or nothing does.
        axes: the keys that vary, the seed apart.
    """

    text: str
    name: str
    axes: Sequence[Axis] = ()


def setting_of(folder: Path, config: Mapping[str, Any], name: str) -> Setting:
    """Return a point's setting.

    Args:
        folder: the point's.
        config: its resolved config.
        name: its overrides. They name it as they are where its sweep has no sweep.json (another
            launcher than gradlab's runs it).

    Example:
        >>> from gradlab.tracking.setting import setting_of
        >>> from pathlib import Path
        >>> config = {"model": {"name": "rnn"}, "init": {"gain": 1.0}, "seed": 0}
        >>> setting_of(Path(runs["path"].iloc[1]), config, "model=rnn,init.gain=1").text
        'RNN, gain 1'
    """
    from gradlab.figures.labels import level_label, point_label, value_label

    varying = _varying(folder)
    if varying is None:
        return Setting(",".join(x for x in name.split(",") if not x.startswith("seed=")), name)
    point = pd.Series(_flat(config), dtype=object)
    keys = [key for key in varying if key != "seed"]
    point = point.reindex([*point.index, *(key for key in varying if key not in point)])
    if not keys:
        text = point_label(point, _set_keys(name, point))
        return Setting(text, f"{text}, {level_label('seed', point['seed'])}")
    axes = []
    for key in keys:
        others = [other for other in keys if other != key]
        series = point_label(point, others) if others else ""
        axes.append(Axis(key, value_label(key, point[key]), _order(point[key]), series))
    return Setting(point_label(point, keys), point_label(point, varying), axes)


def run_name(given: str | None, setting: Setting, folder: Path) -> str:
    """Return the name of a point's run: its setting's, after a given one if there are others.

    Args:
        given: a name for all runs of the sweep; None: there is none.
        setting: the point's.
        folder: the point's.
    """
    if given and (not setting.name or _varying(folder) == []):
        return given
    return f"{given}, {setting.name}" if given else setting.name


def _set_keys(overrides: str, config: pd.Series) -> list[str]:
    """Return "model.name" and the keys that overrides set; a group's choice is its `_target_`."""
    words = [word.partition("=")[0].lstrip("+") for word in overrides.split(",")]
    named = [key for word in words for key in (word, f"{word}._target_") if key in config]
    return [*dict.fromkeys(["model.name", *(key for key in named if key.startswith(DESCRIBING))])]


def outcome_table(
    setting: Setting, summary: Mapping[str, Any], maps: xr.DataArray | None
) -> "wandb.Table":
    """Return a point's outcome as a W&B table, a row for each key that its sweep varies.

    Args:
        setting: the point's.
        summary: its summary entries.
        maps: its log norms (…, t, k), whose last t is the longest horizon that they can show.

    Returns:
        The columns of COLUMNS: the swept key, the point's value of it, that value's place among
        others, the rest of the setting; the decay rate (decades per step), the horizon (steps; the
        last t where it is longer, so that seeds have a mean), whether the task was solved (0 or 1)
        and the accuracy; null where one was not measured.
    """
    import wandb

    from gradlab.figures.units import from_nats

    numbers = {column: summary.get(name, np.nan) for column, name in MEASURES.items()}
    numbers["decay_rate"] = from_nats(numbers["decay_rate"], "decades")
    if maps is not None:
        numbers["horizon"] = np.minimum(numbers["horizon"], maps["t"][-1].item())  # NaN stays
    measured = [float(x) if np.isfinite(x) else None for x in numbers.values()]
    return wandb.Table([*COLUMNS], [[*axis, *measured] for axis in setting.axes])


def _varying(folder: Path) -> list[str] | None:
    """Return the config keys that a point's sweep varies; None where it has no record."""
    sweep = records.sweep_folder(folder.absolute())
    try:
        return _varying_in(sweep, (sweep / records.SWEEP).stat().st_mtime_ns)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=8)  # every point of a sweep asks for it
def _varying_in(sweep: Path, _changed: int) -> list[str] | None:
    from gradlab.figures.selection import varying_keys

    points = [_flat(entry["config"]) for entry in records.load_sweep(sweep)]
    return varying_keys(pd.DataFrame(points)) if points else None


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a config that decide numbers, flat, with lists as text."""
    decisive = {key: x for key, x in config.items() if key not in BOOKKEEPING}
    flat = records.flatten(decisive)
    return {key: x if isinstance(x, Hashable) else str(x) for key, x in flat.items()}


def _order(value: Any) -> float:
    """Return the place of a value among others of its key: numbers by size, "none" last."""
    if isinstance(value, str):
        return 0.0
    return float(value) if value is not None and np.isfinite(value) else LAST
