"""Sweeps refused before their first point runs: shared folders, lost points, options that sweep."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gradlab import records
from gradlab.components import ConfigError
from gradlab.config import LONGEST_NAME, Train, Wandb, is_below, too_long
from gradlab.sweeps.ledger import Entry

# Names in a sweep's folder that are not a point's.
TAKEN = {
    records.SWEEP,
    records.LOCK,
    records.MULTIRUN,
    records.WANDB,
    records.OVERVIEW,
    records.SETTINGS,
    records.SLURM_LOGS,
}
# What Hydra reads once for a whole sweep, without the words that are swept over.
OF_THE_SWEEP = ("sweeper", "launcher", "sweep")
REMEDY = (
    "start the sweep without hydra.sweep.subdir (its points are numbered), or name in it what "
    "varies"
)


def check_run_id(points: Sequence[Wandb], others: int = 0) -> None:
    """Check that no two points are to be one W&B run.

    Args:
        points: the section wandb of each point.
        others: number of points that the command runs besides.

    Raises:
        ConfigError: several have a run's id, as all have under an agent of W&B's.
    """
    ids = [point.id for point in points if point.id and point.mode != "disabled"]
    if ids and (count := len(ids) + others) > 1:
        raise ConfigError(
            f"{count} points cannot be one W&B run, {ids[0]!r} (wandb.id, or WANDB_RUN_ID of an "
            "agent): give each key one value, or add wandb.id=null for a run of its own each."
        )


def check_curves(points: Sequence[Train], of_all: DictConfig) -> None:
    """Check that the points of a search that prunes have their values at the same updates.

    Args:
        points: the section train of each point.
        of_all: that of the search.

    Raises:
        ConfigError: one is trained or logged otherwise.
    """
    for key in ("steps", "log_every"):
        if any(getattr(point, key) != of_all[key] for point in points):
            raise ConfigError(
                "hydra.sweeper.pruner compares trials at the same updates, and "
                f"train.{key} differs between them: search no group that sets it, or leave "
                "hydra.sweeper.pruner out."
            )


def check_entries(sweep: str, entries: Sequence[Entry]) -> None:
    """Check that each point of a sweep's record has a folder of its own; see `check_folders`."""
    names = describe([e.number for e in entries], [e.overrides for e in entries])
    check_folders(sweep, names, [entry.folder for entry in entries])


def check_folders(sweep: str, points: Sequence[str], folders: Sequence[str]) -> None:
    """Check that each point has a folder of its own below the sweep's.

    Args:
        sweep: the sweep's folder, for the sentence.
        points: the points, as `describe` names them.
        folders: their folders below the sweep's.

    Raises:
        ConfigError: two points share a folder, one's lies in another's, or one is not the points'.
    """
    owners: dict[PurePath, str] = {}
    for point, folder in zip(points, folders, strict=True):
        path = PurePath(os.path.normcase(os.path.normpath(folder)))
        if not is_below(folder) or "${" in folder or path.parts[0] in TAKEN:
            raise ConfigError(
                f"hydra.sweep.subdir must be a folder of the point's own below {sweep!r}, none of "
                f"{', '.join(sorted(TAKEN))}; got {folder!r} for {point}: {REMEDY}."
            )
        if long := too_long(path):
            raise ConfigError(
                f"the folder of {point} has a name of {len(long)} characters, {long[:40]!r}…, and "
                f"a file system takes {LONGEST_NAME}: {REMEDY}."
            )
        if path in owners:
            raise ConfigError(
                f"{owners[path]} and {point} have one folder, {folder!r} in {sweep!r}: {REMEDY}, "
                "such as hydra.sweep.subdir='${model.name}/${seed}'."
            )
        owners[path] = point
    for path, point in owners.items():
        if above := next((folder for folder in path.parents if folder in owners), None):
            raise ConfigError(
                f"{point} has its folder {str(path)!r} inside that of {owners[above]}, "
                f"{str(above)!r}: {REMEDY}."
            )


def check_unused(sweep: Path, places: Iterable[str]) -> None:
    """Check that new points, and a new sweep's own files, replace nothing.

    Args:
        sweep: the sweep's folder.
        places: below it, of the points that no record of the sweep has, and of its own files.

    Raises:
        ConfigError: a place is taken, and is no empty folder.
    """
    for place in places:
        path = sweep / place
        if path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise ConfigError(
                f"{str(path)!r} holds something else, which a point would replace: choose another "
                "folder with hydra.sweep.dir=FOLDER, or empty it."
            )


def describe(numbers: Iterable[int], overrides: Sequence[Sequence[str]]) -> list[str]:
    """Return how sentences name points: by number and by what varies, "point 3 (seed=2)"."""
    shared = set(overrides[0]).intersection(*overrides)
    names = []
    for number, words in zip(numbers, overrides, strict=True):
        own = " ".join(word for word in words if word not in shared)
        names.append(f"point {number} ({own})" if own else f"point {number}")
    return names


def check_repeats(requested: Sequence[Entry]) -> str:
    """Check that no two points are one by all that determines numbers, and differ in the rest.

    Points that are the same in everything run once. (`sweep.retry=failed,diverged` gives each point
    twice, and is meant so.)

    Returns:
        A sentence that says which points are given twice; "" if none is.

    Raises:
        ConfigError: two points differ in bookkeeping only (name, wandb, …): one would be lost.
    """
    first: dict[tuple[str, str], Entry] = {}
    repeated: list[tuple[Entry, Entry]] = []
    for entry in requested:
        before = first.setdefault((entry.identity, entry.config["sweep"]["retry"]), entry)
        if before is entry:
            continue
        repeated.append((before, entry))
        old, new = (records.flatten(dict(one.config)) for one in (before, entry))
        if differing := [key for key in new if new[key] != old.get(key)]:
            raise ConfigError(
                f"points {before.number} and {entry.number} differ in {', '.join(differing)} only, "
                f"on which no number depends, so one of them would be lost: give {differing[0]} "
                "one value."
            )
    if not repeated:
        return ""
    before, entry = repeated[0]
    others = f", and {len(repeated) - 1} more pairs" if len(repeated) > 1 else ""
    return f"points {before.number} and {entry.number} are the same{others}: each runs once."


def check_options(
    master: DictConfig, points: Sequence[Sequence[str]], composed: Sequence[DictConfig]
) -> None:
    """Check that no option which the points sweep over brings a sweep of its own.

    The combinations that an experiment asks for would be left out where experiments are swept over.

    Args:
        master: the sweep's config.
        points: the points' overrides.
        composed: their configs.

    Raises:
        ConfigError: an option does; the sentence has a command for each.
    """
    for section in OF_THE_SWEEP:
        own = _unresolved(master, section)
        lost = [x if (x := _unresolved(config, section)) != own else {} for config in composed]
        if not any(lost):
            continue
        key, options = _swept_options(points, lost)
        params = next(filter(None, lost)).get("params") or {}
        listed = f" ({', '.join(params)})" if params else ""
        others = {word.partition("=")[0] for words in points for word in words}
        rest = " …" if others - {key, "sweep.plan_only"} else ""
        commands = " and ".join(f"python -m gradlab {shlex.quote(x)}{rest}" for x in options)
        raise ConfigError(
            f"{key} is swept over, which leaves out the hydra.{section} of {options[0]}{listed}: "
            f"type a command for each, {commands}."
        )


def _swept_options(
    points: Sequence[Sequence[str]], lost: Sequence[Mapping[str, Any]]
) -> tuple[str, list[str]]:
    """Return the key whose options decide what is lost, and its words, those that lose first.

    Args:
        points: the points' overrides.
        lost: for each point, the section of its options' that is left out; {}: none is.
    """
    words = dict.fromkeys(word for overrides in points for word in overrides)
    options: dict[str, list[str]] = {}
    for word in sorted(words, key=lambda word: not word.startswith("+")):  # experiments are added
        options.setdefault(word.partition("=")[0], []).append(word)
    losses = {
        word: [x for overrides, x in zip(points, lost, strict=True) if word in overrides]
        for word in words
    }
    swept = [key for key, given in options.items() if len(given) > 1] or list(options)
    decisive = (
        key
        for key in swept
        if all(x == losses[word][0] for word in options[key] for x in losses[word])
    )
    key = next(decisive, swept[0])
    return key, sorted(options[key], key=lambda word: not any(losses[word]))


def _unresolved(config: DictConfig, section: str) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(config.hydra[section], resolve=False)
    return {key: value for key, value in values.items() if key != "subdir"}  # each point's own
