"""A study's results as one table: collected from its runs, and bundled with a manifest.

FOLDER/results/, where FOLDER is experiments/NAME or a reader's runs/NAME, holds SCALE.parquet and,
for each, SCALE.json: the command, settings, versions, device, seconds and date of the run, the
sha256 of the table and, if the table was later rearranged, how (`migrated`).
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.claims.expressions import ClaimError, NoRows, evaluate
from gradlab.claims.study import Scale, Study, function_of
from gradlab.records import NOT_CONFIG, TABLE, load_choices, load_metrics, load_status, load_table
from gradlab.records.files import write_whole
from gradlab.records.table import load_runs

RESULTS = "results"
PLACES = ("path", "sweep", "reason", "name")  # columns of where and when a run was; and wandb.…
MEASURED = ("done", "diverged")  # states of points that have their numbers
MANIFEST = {"finished", "seconds", "points", "device", "versions", "sha256"}
EXPERIMENT = "experiment"  # the config group of the studies themselves


def collect(
    runs_folder: Path, points: Mapping[str, str], rows: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Return the table of a run: of its measuring function, or with a row for each training.

    A training's row has the columns of `load_runs` with dots for slashes (`eval.loss`), the presets
    chosen for it (`network`, `method`), and a number for each of `points`: an expression over the
    columns of its metrics, one row per logged or measured step (NaN: not measured at that step). If
    no row satisfies the expression's condition, the number is inf: the loss never fell so low, or
    the run diverged before that step.

    Args:
        runs_folder: the folder of the run or sweep.
        points: names and expressions.
        rows: `_target_` and arguments of a function from the runs to a table with a column `point`,
            the index of the runs, like those of `gradlab.figures`. Its rows are then the results,
            each beside the columns of its training.
    """
    if (runs_folder / TABLE).is_file():
        return load_table(runs_folder)
    runs = load_runs(runs_folder, "all")
    histories = [_dotted(load_metrics(path)) for path in runs["path"]]
    for name, text in points.items():
        runs[name] = [_number(text, history) for history in histories]
    scalars = [
        column
        for column in map(str, runs)
        if not _is_place(column) and runs[column].map(np.isscalar).all()
    ]
    trainings = _dotted(runs[scalars].join(_presets(runs)))
    if not rows:
        return trainings
    table = function_of(rows, "DataFrame")(runs)
    return table.join(trainings, on="point").drop(columns="point")


def _presets(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the choices from config groups without a section of their own, such as conf/network.

    Other groups (init, clip, …) are told apart by the columns of their section.
    """
    choices = pd.DataFrame([load_choices(path) for path in runs["path"]], index=runs.index)
    sections = {column.partition(".")[0] for column in map(str, runs)}
    return choices.drop(columns=[*sections & set(choices), EXPERIMENT], errors="ignore")


def _number(text: str, history: pd.DataFrame) -> float:
    try:
        return float(evaluate(text, history))
    except NoRows:
        return np.inf


def bundle(study: Study, scale: Scale, runs_folder: Path, folder: Path) -> None:
    """Save a run's table and its manifest among the results of a folder.

    Args:
        study: the study.
        scale: the scale of the run.
        runs_folder: the folder of the run or sweep.
        folder: the study's (`Study.folder`), or the reader's (`Study.runs`).

    Raises:
        ClaimError: a point of the run has not ended, or its records are damaged.
    """
    runs = load_runs(runs_folder, "all")
    for _, run in runs[~runs["status"].isin(MEASURED)].iterrows():
        raise ClaimError(
            f"{run['path']} is {run['status']}, so the study cannot be judged: go on with --resume."
        )
    path, table = _path(folder, scale), collect(runs_folder, study.points, study.rows)
    for name in table:  # an option that is a word of one cell and a number of another
        if pd.api.types.infer_dtype(table[name], skipna=True).startswith("mixed"):
            table[name] = table[name].map(str, na_action="ignore")
    write_whole(path, lambda file: table.to_parquet(file, index=False, compression="zstd"))
    facts = {**_origin(runs_folder), "rows": len(table), "sha256": _sha256(path)}
    text = json.dumps(facts, indent=2) + "\n"
    write_whole(path.with_suffix(".json"), lambda file: file.write_text(text, encoding="utf-8"))


def scales_of(study: Study, folder: Path) -> list[Scale]:
    """Return the scales that have results in a folder, the largest last."""
    return [scale for scale in study.scales() if _path(folder, scale).is_file()]


def load_results(study: Study, scale: Scale, folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read a table among the results of a folder, and its manifest.

    Raises:
        ClaimError: there is no such table, its manifest is damaged, or its sha256 is another.
    """
    path = _path(folder, scale)
    if not path.is_file():
        raise ClaimError(
            f"{study.name} has no results at scale {scale}: leave --figures-only out to run it."
        )
    try:
        manifest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        is_whole = set(manifest) >= MANIFEST and isinstance(manifest["versions"], dict)
    except (ValueError, TypeError):
        is_whole = False
    if not is_whole:
        raise ClaimError(f"{path.with_suffix('.json')} is damaged: run the study again.")
    if manifest["sha256"] != _sha256(path):
        raise ClaimError(f"{path} is not the table of its manifest (sha256): run the study again.")
    return pd.read_parquet(path), manifest


def _origin(runs_folder: Path) -> dict[str, Any]:
    """Return date, seconds, device, versions and settings of a run's points."""
    runs = load_runs(runs_folder, "all")
    statuses = [load_status(path) for path in runs["path"]]
    keys = [key for key in map(str, runs) if "/" not in key]
    keys = [key for key in keys if not _is_place(key) and key not in NOT_CONFIG]
    if "measure._target_" in keys:
        keys = [key for key in keys if key.startswith("measure.")]
    shared = {key: runs[key].iloc[0] for key in keys if len(set(runs[key].map(str))) == 1}
    return {
        "finished": max(status["finished"] for status in statuses),
        "seconds": round(_seconds(statuses), 1),
        "points": len(runs),
        "device": statuses[0]["device"],
        "versions": statuses[0]["versions"],
        "settings": json.loads(pd.Series(shared).to_json()),
    }


def _seconds(statuses: list[dict[str, Any]]) -> float:
    """Return for how long any of the points ran: those of a sweep train side by side."""
    ends = [datetime.fromisoformat(status["finished"]).timestamp() for status in statuses]
    spans = [(end - status["seconds"], end) for end, status in zip(ends, statuses, strict=True)]
    seconds, covered = 0.0, -np.inf
    for start, end in sorted(spans):
        seconds += max(0.0, end - max(start, covered))
        covered = max(covered, end)
    return seconds


def _is_place(column: str) -> bool:
    return column in PLACES or column.startswith("wandb.")


def _path(folder: Path, scale: Scale) -> Path:
    return folder / RESULTS / f"{scale}.parquet"


def _dotted(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns=lambda name: name.replace("/", "."))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
