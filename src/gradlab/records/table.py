"""The table of all points below a folder, whatever the folders between are called."""

import os
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from gradlab.records import (
    CHECKPOINTS,
    CONFIG,
    MULTIRUN,
    SLURM_LOGS,
    STATUS,
    SWEEP,
    WANDB,
    flatten,
    load_status,
    load_sweep,
    sweep_folder,
)

OWN_FOLDERS = frozenset({CONFIG.parts[0], CHECKPOINTS, WANDB, SLURM_LOGS})  # they hold no points


def load_runs(folder: str | Path) -> pd.DataFrame:
    """Read every point below a folder, each once.

    Args:
        folder: a sweep's folder, or any folder above several of them (or above links to them), or
            one point's.

    Returns:
        One row per point, in the order of the folders' numbers: the config flattened with dots
        (`init.gain`), the summary metrics under their W&B names (`jacobian/decay_rate`),
        `verdict`, `status`, `reason` and `path`.

    Raises:
        FileNotFoundError: the folder does not exist, no point lies below it, or a point's config
            was not copied with it.

    Example:
        >>> runs = gradlab.load_runs("runs/quickstart")
        >>> runs.groupby("init.gain")["jacobian/decay_rate"].mean()
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; give one that a sweep wrote.")
    points = sorted(find_points(folder), key=_natural_order)
    if not points:
        raise FileNotFoundError(
            f"no point was found below {str(folder)!r}: give a folder that a sweep wrote, such as "
            "those in runs/."
        )
    configs = cache(_configs_of_sweep)  # a sweep.json is read once, for all of its points
    return pd.DataFrame([_row(point, configs) for point in points])


def find_points(folder: Path) -> list[Path]:
    """Return the folders of the points below a folder, through links too, each once.

    A link to a folder that is read anyway, or to one above `folder`, adds nothing. A link that
    leads nowhere and a folder that cannot be opened are warned of: points may lie behind them.
    """
    top = folder.resolve()
    seen = {*top.parents}
    points, folders, links = [], [(folder, top)], list[tuple[Path, Path]]()
    while folders or links:  # links last, so that a folder is named by its own path if it has one
        here, real = folders.pop() if folders else links.pop(0)
        if real in seen:
            continue
        seen.add(real)
        entries = _entries(here)
        names = {entry.name for entry in entries}
        if STATUS in names:
            points.append(here)
        is_ours = bool(names & {STATUS, SWEEP, MULTIRUN})
        for entry in entries:
            path = here / entry.name
            if is_ours and entry.name in OWN_FOLDERS:
                continue
            if entry.is_symlink() and not path.exists():
                warnings.warn(f"{path} is a link to nothing: copy what it led to.", stacklevel=3)
            elif entry.is_symlink() and path.is_dir():
                links.append((path, path.resolve()))
            elif entry.is_dir():
                folders.append((path, real / entry.name))
    return points


def _row(point: Path, configs: Callable[[Path], Mapping[Path, Any]]) -> dict[str, Any]:
    status = load_status(point)
    return {
        **flatten(_config(point, configs)),
        **status.get("summary", {}),
        "status": status["state"],
        "reason": status.get("reason", ""),
        "path": str(point),
    }


def _config(point: Path, configs: Callable[[Path], Mapping[Path, Any]]) -> Any:
    """Return a point's config, from sweep.json if the folder was copied without hidden files.

    Args:
        point: the point's folder.
        configs: returns the configs of a sweep, by the folders of its points.

    Raises:
        FileNotFoundError: neither has it.
    """
    if (point / CONFIG).is_file():
        return OmegaConf.to_container(OmegaConf.load(point / CONFIG), resolve=True)
    real = point.resolve()
    try:
        return configs(sweep_folder(real))[real]
    except (FileNotFoundError, KeyError) as error:
        raise FileNotFoundError(
            f"{point} has no {CONFIG}, and no {SWEEP} above it has the point: copy the sweep's "
            "folder whole, with its hidden files."
        ) from error


def _configs_of_sweep(folder: Path) -> dict[Path, Any]:
    return {(folder / point["folder"]).resolve(): point["config"] for point in load_sweep(folder)}


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
