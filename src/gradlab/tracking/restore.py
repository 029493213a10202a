"""Restoring points' folders from Weights & Biases: from offline logs or from a server.

A run's files hold the point's records. The records of a run without them, which was cut off or is
of an earlier version, are made anew from its config, rows and summary. So every function that reads
a sweep's folder works on the restored one. Offline logs have W&B's own binary format, which its
Python package cannot read; `wandb leet inspect` prints them as JSON.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd

from gradlab import records
from gradlab.records.table import load_runs
from gradlab.tracking.runs import (
    ARTIFACT_TYPE,
    PATH_KEY,
    RECORD_FILES,
    RECORDS,
    SWEEP_KEY,
    end_entries,
)

NONFINITE = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
PATH_PARTS = 3  # NAME/DATE/POINT, at least
BOOKKEEPING = ("name", "wandb", "sweep")  # sections of a config that change no number


class Run(NamedTuple):
    """The content of a W&B run; `history` are its logged rows."""

    run_id: str
    started: str  # time, in ISO 8601
    config: Mapping[str, Any]
    history: Iterable[Mapping[str, Any]]
    summary: Mapping[str, Any]


class Restored(NamedTuple):
    """A run's point, in a folder of its own."""

    folder: Path
    run_id: str
    started: str
    sweep_id: str  # "" if its sweep has none
    path: PurePosixPath  # NAME/DATE/NUMBER
    content: str  # its config less bookkeeping


def load_wandb(source: str | Path, folder: str | Path | None = None) -> pd.DataFrame:
    """Read the points of one or more sweeps from W&B, as `gradlab.load_runs` does from disk.

    Each point is one row, however many copies of its run there are. Of several runs of one point,
    it is the one that started last.

    Args:
        source: a folder with offline runs (`runs/NAME/DATE/wandb`, or one above it); or, on the
            server, "ENTITY/PROJECT" for all sweeps or "ENTITY/PROJECT/NAME/DATE" for one.
        folder: where to write the points' records; by default a temporary folder, which is
            deleted when Python exits.

    Returns:
        The table of `gradlab.load_runs`; `path` is a point's restored folder, which
        `gradlab.load_gradients` reads. For runs that were cut off, or of an earlier version, W&B
        does not distinguish 2 from 2.0.

    Raises:
        FileNotFoundError: the source does not exist or contains no point.
        ConnectionError: the server cannot be reached, or nobody is logged in.

    Example:
        >>> runs = gradlab.load_wandb("me/reach/quickstart/2026-01-31_12-00-00")
    """
    if folder is None:
        folder = tempfile.mkdtemp(prefix="gradlab-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    restore = _restore_logs if Path(source).is_dir() else _restore_online
    with tempfile.TemporaryDirectory(prefix="gradlab-") as staging:
        points = restore(source, Path(staging))
        if not points:
            raise FileNotFoundError(f"no point that gradlab logged to W&B is in {str(source)!r}.")
        for point, place in places(points).items():
            shutil.copytree(point.folder, Path(folder) / place, dirs_exist_ok=True)
    return load_runs(folder)


def places(points: Iterable[Restored]) -> dict[Restored, PurePosixPath]:
    """Return where each point's folder goes; runs that a later one replaces are left out.

    A sweep is recognised by its id, which its folder's name gets. Different points that claim one
    place (of sweeps without an id, or of a sweep that was copied and continued twice) keep apart:
    the later ones are put in a sweep of their own, named by their run.
    """
    in_order = sorted(points, key=lambda point: (point.started, len(list(point.folder.iterdir()))))
    runs = {(point.sweep_id, point.run_id): point for point in in_order}
    kept = [point for point in in_order if runs[point.sweep_id, point.run_id] is point]
    latest = {(point.sweep_id, point.path, point.content): point for point in kept}
    taken: dict[PurePosixPath, Restored] = {}
    for point in latest.values():
        name, date, *rest = point.path.parts
        sweep = f"{date}-{point.sweep_id}" if point.sweep_id else date
        place = PurePosixPath(name, sweep, *rest)
        if place in taken:
            place = PurePosixPath(name, f"{sweep}-{point.run_id}", *rest)
        taken[place] = point
    return {point: place for place, point in taken.items()}


def check_login() -> None:
    """Check, without prompting, that W&B's server answers and that the user is logged in.

    Raises:
        ConnectionError: the server does not answer or nobody is logged in; one line says why.
    """
    import wandb

    try:
        if wandb.login(prompt=False, verify=True):
            return
    except Exception as error:
        raise ConnectionError(str(error).strip().splitlines()[0]) from error
    raise ConnectionError("nobody is logged in to W&B: type wandb login.")


def _restore_logs(source: str | Path, staging: Path) -> list[Restored]:
    """Restore every point whose transaction log lies below a folder."""
    logs = sorted(_logs(Path(source)))
    with ThreadPoolExecutor() as pool:
        folders = (staging / str(number) for number in count())
        return list(filter(None, pool.map(_restore_log, logs, folders)))


def _logs(source: Path) -> Iterator[Path]:
    """Find the transaction logs below a folder, each once, in linked folders too."""
    seen: set[Path] = set()
    for name, folders, files in os.walk(source, followlinks=True):
        folder = Path(name).resolve()
        if folder in seen:
            folders.clear()
            continue
        seen.add(folder)
        yield from (folder / file for file in files if Path(file).match("run-*.wandb"))


def _restore_log(log: Path, folder: Path) -> Restored | None:
    """Restore a point from its transaction log, if that has one."""
    header: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    gradients = None
    for record in _inspect(log):
        match record["type"]:
            case "run" if header is None:
                header = record["run"]
            case "history":
                rows.append(record["history"]["item"])
            case "summary":
                summary |= record["summary"].get("update", {})
            case "artifact" if record["artifact"]["type"] == ARTIFACT_TYPE:
                contents = record["artifact"]["manifest"]["contents"]
                gradients = Path(contents[0]["local_path"])
    if header is None:
        print(f"gradlab: {log} has no run that can be read; it is left out.", file=sys.stderr)
        return None
    files = log.parent / "files" / RECORDS
    for name, path in RECORD_FILES.items():
        _copy_first([files / name], folder / path)
    if gradients:  # a run of an earlier version; its sweep may have been moved
        moved = log.parents[2] / gradients.parent.name / gradients.name
        _copy_first([gradients, moved], folder / records.GRADIENTS)
    config = header["config"]["update"]
    return _restore(Run(header["run_id"], header["start_time"], config, rows, summary), folder)


def _copy_first(sources: Iterable[Path], target: Path) -> None:
    """Copy the first of some files that exists, unless the target does."""
    source = next(filter(Path.is_file, sources), None)
    if source and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _inspect(log: Path) -> Iterator[dict[str, Any]]:
    """Return the records of a transaction log; if it was cut off, the complete ones."""
    from wandb.util import get_core_path

    # The program behind `wandb leet inspect --json LOG`; to call it directly saves a second.
    options = ("--json", "--no-observability", "--run-file", log, log.parents[1])
    command = [get_core_path(), "leet", "inspect", *map(str, options)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return map(json.loads, lines.splitlines())


def _restore_online(source: str | Path, staging: Path) -> list[Restored]:
    """Restore every point of a project, or of one sweep in it."""
    parts = str(source).split("/")
    if isinstance(source, Path) or len(parts) not in (2, 4) or not all(parts):
        raise FileNotFoundError(
            f"{str(source)!r} is no folder; give one, or ENTITY/PROJECT or "
            "ENTITY/PROJECT/NAME/DATE of a W&B server."
        )
    project, group = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        check_login()
    except ConnectionError as error:
        raise ConnectionError(f"{source!r} is no folder here, and W&B says: {error}") from error
    import wandb

    try:
        runs = list(wandb.Api().runs(project, filters={"group": group} if group else None))
    except (ValueError, wandb.Error) as error:
        raise FileNotFoundError(
            f"{source!r} is no folder here, and W&B has no project {project!r}: {error}"
        ) from error
    restored = (_restore_from_server(run, staging / str(i)) for i, run in enumerate(runs))
    return list(filter(None, restored))


def _restore_from_server(run: Any, folder: Path) -> Restored | None:
    """Restore a point from a run of `wandb.Api`, if gradlab logged it."""
    if not _is_point(run.config):
        return None
    for file in run.files([f"{RECORDS}/{name}" for name in RECORD_FILES]):
        file.download(root=str(folder), replace=True)
    for name, path in RECORD_FILES.items():
        _copy_first([folder / RECORDS / name], folder / path)
    shutil.rmtree(folder / RECORDS, ignore_errors=True)
    if not (folder / records.GRADIENTS).exists():  # a run of an earlier version
        for artifact in run.logged_artifacts():
            if artifact.type == ARTIFACT_TYPE:
                artifact.download(root=str(folder))
    content = Run(run.id, run.created_at, run.config, run.scan_history(), run.summary_metrics)
    return _restore(content, folder)


def _is_point(config: Mapping[str, Any]) -> bool:
    """Return whether a run's config is a point's, and names a place below a folder."""
    path = PurePosixPath(str(config.get(PATH_KEY, "")))
    inside = not path.is_absolute() and ".." not in path.parts
    return inside and len(path.parts) >= PATH_PARTS and isinstance(config.get("wandb"), Mapping)


def _restore(run: Run, folder: Path) -> Restored | None:
    """Write the records of a run's point that its folder lacks; None if it has no point.

    A run that was cut off has no status yet, so its point's is "running".
    """
    if not _is_point(run.config):
        return None
    config = {key: _plain(value) for key, value in run.config.items() if not key.startswith("_")}
    path, sweep_id = PurePosixPath(config.pop(PATH_KEY)), str(config.pop(SWEEP_KEY, ""))
    if not (
        folder / records.STATUS
    ).exists():  # of a run that was cut off, or of an earlier version
        rows = pd.DataFrame(filter(None, map(_metrics_row, run.history)))
        status = _status(_plain(run.summary), rows)
        records.save_config(folder, config, status)
        records.save_metrics(folder, rows, status)
        if (folder / records.GRADIENTS).exists():
            records.seal_file(folder, status, records.GRADIENTS, folder / records.GRADIENTS)
    decisive = {key: value for key, value in config.items() if key not in BOOKKEEPING}
    content = json.dumps(decisive, sort_keys=True)
    return Restored(folder, run.run_id, run.started, sweep_id, path, content)


def _status(summary: Mapping[str, Any], metrics: pd.DataFrame) -> dict[str, Any]:
    """Make a point's status from its run's summary and rows."""
    status = {"state": summary.get("status", "running"), "reason": summary.get("reason", "")}
    if "verdict" not in summary:
        return status
    last = metrics.iloc[-1].dropna().to_dict() | {"train/step": int(metrics["train/step"].iloc[-1])}
    entries = end_entries(summary)
    numbers = {name: float(x) for name, x in entries.items() if isinstance(x, int | float)}
    return status | {"summary": last | entries | numbers}


def _metrics_row(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a logged row without W&B's own columns; {} if it contains pictures or tables."""
    values = {name: _plain(value) for name, value in row.items() if not name.startswith("_")}
    if not all(isinstance(value, int | float) for value in values.values()):
        return {}
    step = {"train/step": int(values["train/step"])} if "train/step" in values else {}
    return {name: float(value) for name, value in values.items()} | step


def _plain(value: Any) -> Any:
    """Return a JSON value with floats for the non-finite numbers that W&B stores as strings."""
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return NONFINITE.get(value, value) if isinstance(value, str) else value
