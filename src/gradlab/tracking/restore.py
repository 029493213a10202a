"""Points read back from Weights & Biases, offline logs or a server, into folders as they were.

What `tracking` logged is enough to write each point's records anew; from there everything that
reads a sweep's folder reads W&B. Offline logs are read by W&B's own reader, `wandb leet inspect`:
the Python package has none, and the format is its own affair.
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
from gradlab.tracking.runs import GRADIENTS, PATH, at_end

NUMBERS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
PARTS = 3  # of a point's path: the sweep's name, its date, the point's number


class Run(NamedTuple):
    """What W&B keeps of a point."""

    config: Mapping[str, Any]
    history: Iterable[Mapping[str, Any]]
    summary: Mapping[str, Any]


def load_wandb(source: str | Path, folder: str | Path | None = None) -> pd.DataFrame:
    """Read the points of one or more sweeps from W&B, as `gradlab.load_runs` does from disk.

    Args:
        source: a folder with offline runs (`runs/NAME/DATE/wandb`, or one above it), or on the
            server "ENTITY/PROJECT" or, of one sweep, "ENTITY/PROJECT/NAME/DATE".
        folder: where the points' records are restored to; by default a temporary one, which is
            gone when Python ends.

    Returns:
        As of `gradlab.load_runs`; `path` is where `gradlab.load_gradients` and `load_metrics` find
        each point's maps and metrics. W&B keeps no difference between 2 and 2.0.

    Raises:
        FileNotFoundError: the source holds no point.
        ConnectionError: the server cannot be reached, or nobody is logged in.
    """
    if folder is None:
        folder = tempfile.mkdtemp(prefix="gradlab-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    restore = _restore_logs if Path(source).is_dir() else _restore_online
    if not restore(source, Path(folder)):
        raise FileNotFoundError(f"no point that gradlab logged to W&B is in {str(source)!r}.")
    return records.load_runs(folder)


def signed_in() -> None:
    """Make sure that W&B's server answers and knows the user, without asking for anything.

    Raises:
        ConnectionError: it does not; says why in one line.
    """
    import wandb

    try:
        if wandb.login(prompt=False, verify=True):
            return
    except Exception as error:
        raise ConnectionError(str(error).strip().splitlines()[0]) from error
    raise ConnectionError("nobody is logged in to W&B: type wandb login.")


def _restore_logs(source: str | Path, folder: Path) -> int:
    """Restore every point whose transaction log lies below a folder; returns how many."""
    with ThreadPoolExecutor() as pool:
        logs = sorted(Path(source).resolve().rglob("run-*.wandb"))
        return sum(pool.map(partial(_restore_log, folder=folder), logs))


def _restore_log(log: Path, folder: Path) -> bool:
    found: dict[str, list[dict[str, Any]]] = {"run": [], "history": [], "summary": []}
    gradients = None
    for record in _inspect(log):
        kind = record["type"]
        if kind in found:
            found[kind].append(record[kind])
        elif kind == "artifact" and record[kind]["type"] == GRADIENTS:
            gradients = Path(record[kind]["manifest"]["contents"][0]["local_path"])
    if not found["run"]:
        return False
    summary: dict[str, Any] = {}
    for part in found["summary"]:
        summary |= part.get("update", {})
    rows = [row["item"] for row in found["history"]]
    point = _restore(Run(found["run"][0]["config"]["update"], rows, summary), folder)
    if point and gradients:
        beside = log.parents[2] / gradients.parent.name / gradients.name  # of a sweep that moved
        for path in (gradients, beside):
            if path.is_file():
                shutil.copyfile(path, point / records.GRADIENTS)
                break
    return point is not None


def _inspect(log: Path) -> Iterator[dict[str, Any]]:
    """The records of a transaction log; of one that was cut off, those that are whole."""
    from wandb.util import get_core_path

    # What `wandb leet inspect --json LOG` calls, without the second that its imports take.
    options = ("--json", "--no-observability", "--run-file", log, log.parents[1])
    command = [get_core_path(), "leet", "inspect", *map(str, options)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return map(json.loads, lines.splitlines())


def _restore_online(source: str | Path, folder: Path) -> int:
    """Restore every point of a project, or of one sweep in it, from the server."""
    entity, project, group = (*str(source).split("/", 2), "", "")[:3]
    if not project:
        raise FileNotFoundError(
            f"{str(source)!r} is no folder; give one, or ENTITY/PROJECT of a W&B server."
        )
    signed_in()
    import wandb

    runs = wandb.Api().runs(f"{entity}/{project}", filters={"group": group} if group else None)
    return sum(_restore_from_server(run, folder) for run in runs)


def _restore_from_server(run: Any, folder: Path) -> bool:
    point = _restore(Run(run.config, run.scan_history(), run.summary_metrics), folder)
    if point:
        for artifact in run.logged_artifacts():
            if artifact.type == GRADIENTS:
                artifact.download(root=str(point))
    return point is not None


def _restore(run: Run, folder: Path) -> Path | None:
    """Write what a run tells into the folder of its point; None if gradlab did not log it."""
    config = {key: _plain(value) for key, value in run.config.items() if not key.startswith("_")}
    path = Path(config.pop(PATH, ""))
    if len(path.parts) != PARTS or ".." in path.parts:
        return None
    point = folder / path
    rows = list(filter(None, map(_numbers, run.history)))
    records.save_config(point, config)
    records.save_metrics(point, pd.DataFrame(rows))
    status = {
        "state": run.summary.get("status", "running"),
        "reason": run.summary.get("reason", ""),
    }
    if "verdict" in run.summary:
        ends = at_end(run.summary)
        numbers = {name: float(x) for name, x in ends.items() if isinstance(x, int | float)}
        status["summary"] = rows[-1] | ends | numbers
    records.save_status(point, status)
    return point


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """A row of metrics; nothing of a row that holds pictures and tables."""
    values = {name: _plain(value) for name, value in row.items() if not name.startswith("_")}
    if not all(isinstance(value, int | float) for value in values.values()):
        return {}
    step = {"train/step": int(values["train/step"])} if "train/step" in values else {}
    return {name: float(value) for name, value in values.items()} | step


def _plain(value: Any) -> Any:
    """JSON with its numbers that are not finite, which W&B keeps as text."""
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return NUMBERS.get(value, value) if isinstance(value, str) else value
