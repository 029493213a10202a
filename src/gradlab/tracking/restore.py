"""Restoring points' folders from Weights & Biases: from offline logs or from a server.

A run contains all that a point's records are made of. So this module writes the records anew, and
every function that reads a sweep's folder works on the restored one. Offline logs have W&B's own
binary format, which its Python package cannot read; `wandb leet inspect` prints them as JSON.
"""

import atexit
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradlab import records
from gradlab.tracking.runs import ARTIFACT_TYPE, PATH_KEY, end_entries

NONFINITE = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
PATH_PARTS = 3  # NAME/DATE/NUMBER


class Run(NamedTuple):
    """The content of a W&B run; `history` are its logged rows."""

    config: Mapping[str, Any]
    history: Iterable[Mapping[str, Any]]
    summary: Mapping[str, Any]


def load_wandb(source: str | Path, folder: str | Path | None = None) -> pd.DataFrame:
    """Read the points of one or more sweeps from W&B, as `gradlab.load_runs` does from disk.

    Args:
        source: a folder with offline runs (`runs/NAME/DATE/wandb`, or one above it); or, on the
            server, "ENTITY/PROJECT" for all sweeps or "ENTITY/PROJECT/NAME/DATE" for one.
        folder: where to write the points' records; by default a temporary folder, which is
            deleted when Python exits.

    Returns:
        The table of `gradlab.load_runs`; `path` is a point's restored folder, which
        `gradlab.load_gradients` reads. W&B does not distinguish 2 from 2.0.

    Raises:
        FileNotFoundError: the source contains no point.
        ConnectionError: the server cannot be reached, or nobody is logged in.

    Example:
        >>> runs = gradlab.load_wandb("me/reach/quickstart/2026-01-31_12-00-00")
    """
    if folder is None:
        folder = tempfile.mkdtemp(prefix="gradlab-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    restore = _restore_logs if Path(source).is_dir() else _restore_online
    if not restore(source, Path(folder)):
        raise FileNotFoundError(f"no point that gradlab logged to W&B is in {str(source)!r}.")
    return records.load_runs(folder)


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


def _restore_logs(source: str | Path, folder: Path) -> int:
    """Restore every point whose transaction log lies below a folder; return their number."""
    with ThreadPoolExecutor() as pool:
        logs = sorted(Path(source).resolve().rglob("run-*.wandb"))
        return sum(pool.map(partial(_restore_log, folder=folder), logs))


def _restore_log(log: Path, folder: Path) -> bool:
    """Restore a point from its transaction log; return whether the log has one."""
    config: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    gradients = None
    for record in _inspect(log):
        match record["type"]:
            case "run" if config is None:
                config = record["run"]["config"]["update"]
            case "history":
                rows.append(record["history"]["item"])
            case "summary":
                summary |= record["summary"].get("update", {})
            case "artifact" if record["artifact"]["type"] == ARTIFACT_TYPE:
                contents = record["artifact"]["manifest"]["contents"]
                gradients = Path(contents[0]["local_path"])
    if config is None:
        return False
    point = _restore(Run(config, rows, summary), folder)
    if point and gradients:
        moved = log.parents[2] / gradients.parent.name / gradients.name  # if the sweep was moved
        for path in (gradients, moved):
            if path.is_file():
                shutil.copyfile(path, point / records.GRADIENTS)
                break
    return point is not None


def _inspect(log: Path) -> Iterator[dict[str, Any]]:
    """Return the records of a transaction log; if it was cut off, the complete ones."""
    from wandb.util import get_core_path

    # The program behind `wandb leet inspect --json LOG`; to call it directly saves a second.
    options = ("--json", "--no-observability", "--run-file", log, log.parents[1])
    command = [get_core_path(), "leet", "inspect", *map(str, options)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return map(json.loads, lines.splitlines())


def _restore_online(source: str | Path, folder: Path) -> int:
    """Restore every point of a project, or of one sweep in it; return their number."""
    entity, project, group = (*str(source).split("/", 2), "", "")[:3]
    if not project:
        raise FileNotFoundError(
            f"{str(source)!r} is no folder; give one, or ENTITY/PROJECT of a W&B server."
        )
    check_login()
    import wandb

    runs = wandb.Api().runs(f"{entity}/{project}", filters={"group": group} if group else None)
    return sum(_restore_from_server(run, folder) for run in runs)


def _restore_from_server(run: Any, folder: Path) -> bool:
    """Restore a point from a run of `wandb.Api`; return whether gradlab logged the run."""
    point = _restore(Run(run.config, run.scan_history(), run.summary_metrics), folder)
    if point:
        for artifact in run.logged_artifacts():
            if artifact.type == ARTIFACT_TYPE:
                artifact.download(root=str(point))
    return point is not None


def _restore(run: Run, folder: Path) -> Path | None:
    """Write the records of a run's point; return its folder, None if gradlab did not log the run.

    A run that was cut off has no status yet, so its point's is "running".
    """
    config = {key: _plain(value) for key, value in run.config.items() if not key.startswith("_")}
    path = Path(config.pop(PATH_KEY, ""))
    if len(path.parts) != PATH_PARTS or ".." in path.parts:
        return None
    point = folder / path
    rows = list(filter(None, map(_metrics_row, run.history)))
    records.save_config(point, config)
    records.save_metrics(point, pd.DataFrame(rows))
    status = {
        "state": run.summary.get("status", "running"),
        "reason": run.summary.get("reason", ""),
    }
    if "verdict" in run.summary:
        entries = end_entries(run.summary)
        numbers = {name: float(x) for name, x in entries.items() if isinstance(x, int | float)}
        status["summary"] = rows[-1] | entries | numbers
    records.save_status(point, status)
    return point


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
