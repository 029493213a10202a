"""The table of all points below a folder, whatever the folders between are called."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from gradlab.printable import escaped, pasted
from gradlab.records import flatten
from gradlab.records.layout import (
    CHECKPOINTS,
    CONFIG,
    GRADIENTS,
    METRICS,
    MULTIRUN,
    NOT_CONFIG,
    SLURM_LOGS,
    STATUS,
    SWEEP,
    UNREADABLE,
    WANDB,
)
from gradlab.records.leases import holder
from gradlab.records.links import lies_inside, real_path
from gradlab.records.points import load_verified, load_yaml
from gradlab.records.sweeps import load_sweep, sweep_folder

Columns = Literal["varying", "all"]
KEPT = ("model.name", "task.length", "seed")  # columns that are there whether they vary or not
A_POINTS = frozenset({STATUS, METRICS, GRADIENTS, CHECKPOINTS})
OWN_FOLDERS = frozenset({CONFIG.parts[0], CHECKPOINTS, WANDB, SLURM_LOGS})  # they hold no points


def load_runs(folder: str | Path, columns: Columns = "varying") -> pd.DataFrame:
    """Read every point below a folder, each once, and check its files.

    Args:
        folder: a sweep's folder, or any folder above several of them (or above links to them), or
            one point's.
        columns: "varying" leaves out the config keys that have one value in all points; "all" has
            every key.

    Returns:
        One row per point, in the order of the folders' numbers: the config flattened with dots
        (`init.gain`), the summary metrics under their W&B names (`jacobian/decay_rate`),
        `verdict`, `status`, `reason`, `sweep` (its folder's name, NAME/DATE) and `path`.
        `model.name`, `task.length` and `seed` are columns whether they vary or not; what was left
        out is in `runs.attrs["constant"]`, from which figures take it. Figures also take tables
        that `pandas.concat` has joined, and read again what that has lost. (To compute with
        them yourself, read them with "all".)

        A point with a file that is not as it was written has the status "damaged", the reason and
        no numbers. One that its sweep lists, and that has no status.json, is "unknown". One that
        runs, but whose process has ended, is "interrupted". Configs are data: `${...}` is text.

    Raises:
        FileNotFoundError: the folder does not exist, or no point lies below it.
        ValueError: `columns` is another word.

    Example:
        >>> runs = gradlab.load_runs("runs/small")
        >>> runs[["model.name", "init.gain", "status", "verdict"]]
          model.name  init.gain status    verdict
        0        rnn        0.5   done  vanishing
        1        rnn        1.0   done  vanishing
        2       lstm        0.5   done  vanishing
        3       lstm        1.0   done  vanishing
    """
    if columns not in get_args(Columns):
        raise ValueError(f"columns must be 'varying' or 'all'; got {columns!r}.")
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; give one that a sweep wrote.")
    points = sorted(find_points(folder), key=_natural_order)
    if not points:
        raise FileNotFoundError(
            f"no point was found below {str(folder)!r}: give a folder that a sweep wrote, such as "
            "those in runs/."
        )
    recorded = cache(_points_of_sweep)  # a sweep.json is read once, for all of its points
    sweeps = _names({sweep_folder(real_path(point)) for point in points})
    rows = [_row(point, recorded) for point in points]
    rows = [{escaped(key): _shown(value) for key, value in row.items()} for row in rows]
    for row, point in zip(rows, points, strict=True):
        row |= {"sweep": sweeps[sweep_folder(real_path(point))], "path": str(point)}
    runs = pd.DataFrame(rows)
    runs.attrs["constant"] = {}
    return runs if columns == "all" else _without_constants(runs)


def with_constants(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with the config that `load_runs` left out; tables of other origin as they are.

    Raises:
        ValueError: these are no runs.
    """
    if not isinstance(runs, pd.DataFrame):
        raise ValueError(
            f"runs must be the table of gradlab.load_runs; got a {type(runs).__name__}."
        )
    if runs.empty:
        return runs
    constant = runs.attrs.get("constant")
    if constant is None:  # pandas drops it where tables that differ in it are joined
        return _with_configs(runs) if {"path", "status"} <= set(runs) else runs
    missing = {key: value for key, value in constant.items() if key not in runs}
    if not missing:
        return runs
    added = pd.DataFrame({key: [value] * len(runs) for key, value in missing.items()}, runs.index)
    whole = pd.concat([added, runs], axis="columns")
    whole.attrs["constant"] = {}
    return whole


def _with_configs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with what their recorded configs say where the table says nothing."""
    rows = []
    for row in runs.to_dict("records"):
        file = Path(row["path"]) / CONFIG
        is_readable = row["status"] not in UNREADABLE and file.is_file()
        config = flatten(load_yaml(file)) if is_readable else {}
        known = {key: x for key, x in row.items() if not (pd.api.types.is_scalar(x) and pd.isna(x))}
        rows.append({escaped(key): _shown(x) for key, x in config.items()} | known)
    whole = pd.DataFrame(rows, runs.index)
    whole.attrs["constant"] = {}
    return whole


def _without_constants(runs: pd.DataFrame) -> pd.DataFrame:
    """Leave out the config keys that have one value in all points.

    (Points whose records cannot be read may lack a config; what is known of theirs counts.)
    """
    keys = [key for key in map(str, runs) if "/" not in key and key not in (*NOT_CONFIG, *KEPT)]
    readable = ~runs["status"].isin(UNREADABLE)
    constant = {}
    for key in keys:
        known = runs.loc[readable | runs[key].notna(), key]
        if len(set(map(repr, known))) == 1:
            value = known.iloc[0]
            constant[key] = value.item() if hasattr(value, "item") else value
    short = runs.drop(columns=list(constant))
    short.attrs["constant"] = constant
    return short


def find_points(folder: Path) -> list[Path]:
    """Return the folders of the points below a folder, through links too, each once.

    A folder is a point's if it holds a status.json, or any other file of a point, or if a
    sweep.json lists it. A link to a folder that is read anyway, or to one above `folder`, adds
    nothing. A link that leads nowhere and a folder that cannot be opened are warned of: points may
    lie behind them.
    """
    top = real_path(folder)
    seen = {*top.parents}
    points, folders, links = [], [(folder, top)], list[tuple[Path, Path]]()
    listed: dict[Path, Path] = {}  # by the folder without links
    while folders or links:  # links last, so that a folder is named by its own path if it has one
        here, real = folders.pop() if folders else links.pop(0)
        if real in seen:
            continue
        seen.add(real)
        entries = _entries(here)
        names = {entry.name for entry in entries}
        if names & A_POINTS:
            points.append(here)
            listed.pop(real, None)
        if SWEEP in names:
            recorded = (here / name for name in _points_of_sweep(real))
            listed |= {real_path(path): path for path in recorded if real_path(path) not in seen}
        is_ours = bool(names & {*A_POINTS, SWEEP, MULTIRUN})
        for entry in entries:
            path = here / entry.name
            if is_ours and entry.name in OWN_FOLDERS:
                continue
            if entry.is_symlink() and not path.exists():
                warnings.warn(f"{path} is a link to nothing: copy what it led to.", stacklevel=3)
            elif entry.is_symlink() and path.is_dir():
                links.append((path, real_path(path)))
            elif entry.is_dir():
                folders.append((path, real / entry.name))
    return [*points, *listed.values()]


def _row(point: Path, recorded: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Return a point's config, numbers and status; without numbers where they cannot be trusted."""
    sweep = sweep_folder(real_path(point))
    entry = recorded(sweep).get(real_path(point).relative_to(sweep).as_posix(), {})
    config = entry.get("config", {})
    try:
        status = load_verified(point)
        if len({x["identity"] for x in (status, entry) if "identity" in x}) > 1:
            raise ValueError(f"{point / STATUS} is another point's")
        config = load_yaml(point / CONFIG) if (point / CONFIG).is_file() else config
        if not entry and (original := _listed(status.get("identity"), recorded(sweep), sweep)):
            reason = f"it is a copy of {original}, which counts once"
            return {**flatten(config), "status": "unknown", "reason": reason}
    except FileNotFoundError:
        reason = f"it has no {STATUS}: it has not begun, or the file was not copied"
        return {**flatten(config), "status": "unknown", "reason": reason}
    except (ValueError, OSError) as error:
        remedy = f"{pasted('sweep.resume', sweep)} runs the point again"
        return {**flatten(config), "status": "damaged", "reason": f"{error}: {remedy}"}
    if not config:
        reason = (
            f"it has no {CONFIG}, and no {SWEEP} above it has the point: copy the sweep's folder "
            "whole, with its hidden files"
        )
        return {"status": "unknown", "reason": reason}
    state, reason = status["state"], status.get("reason", "")
    if state == "running" and not holder(point):
        state, reason = "interrupted", "the process that ran it has ended"
    settings = flatten(config)  # which no number replaces
    numbers = {k: v for k, v in status.get("summary", {}).items() if k not in settings}
    return {**settings, **numbers, "status": state, "reason": reason}


def _shown(value: Any) -> Any:
    """Return a value with the characters escaped that a table or a terminal cannot take."""
    return escaped(value) if isinstance(value, str) else value


def _points_of_sweep(folder: Path) -> dict[str, Any]:
    """Return the entries of a sweep.json by the names of the points' folders; {} without one."""
    try:
        points = {point["folder"]: point for point in load_sweep(folder)}
    except (OSError, ValueError):
        return {}
    return {name: point for name, point in points.items() if lies_inside(folder / name, folder)}


def _listed(identity: str | None, points: Mapping[str, Any], sweep: Path) -> Path | None:
    """Return the folder of the point of that identity, if its sweep's record lists one."""
    folders = (sweep / name for name, x in points.items() if x.get("identity") == identity)
    return next((x for x in folders if (x / STATUS).exists()), None) if identity else None


def _names(sweeps: Iterable[Path]) -> dict[Path, str]:
    """Return how sweeps are called: NAME/DATE, or their paths where several are called so."""
    names = {folder: f"{folder.parent.name}/{folder.name}" for folder in sweeps}
    counts = Counter(names.values())
    return {folder: name if counts[name] == 1 else str(folder) for folder, name in names.items()}


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        warnings.warn(f"{folder} may not be read: its points are left out.", stacklevel=4)
        return []


def _natural_order(path: Path) -> tuple[Path, int, str]:
    number = int(path.name) if path.name.isdigit() else -1
    return path.parent, number, path.name
