"""Points in the runs of a project on W&B's server."""

import re
import shutil
from pathlib import Path
from typing import Any

from gradlab import records
from gradlab.tracking.client import prepare_client
from gradlab.tracking.points import Restored, Run, restore_or_say, restore_run
from gradlab.tracking.run_config import PATH_KEY, is_point
from gradlab.tracking.runs import ARTIFACT_TYPE, RECORD_FILES, RECORDS

WHOLE = ("finished", "failed")  # states of runs that were not cut off


def check_login() -> None:
    """Check, without prompting, that W&B's server answers and that the user is logged in.

    Raises:
        ConnectionError: the server does not answer or nobody is logged in; one line says why.
    """
    prepare_client()
    import wandb

    try:
        if wandb.login(prompt=False, verify=True):
            return
    except Exception as error:
        raise ConnectionError(str(error).strip().splitlines()[0]) from error
    raise ConnectionError("nobody is logged in to W&B: type wandb login.")


def restore_project(source: str | Path, staging: Path) -> list[Restored]:
    """Restore every point of a project, or of one sweep in it, each in a folder of its own.

    Args:
        source: ENTITY/PROJECT, or ENTITY/PROJECT/NAME/DATE.
        staging: where to make the points' folders.

    Raises:
        FileNotFoundError: the source names no project of the server.
        ConnectionError: the server cannot be reached, or nobody is logged in.
    """
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
        runs = list(wandb.Api().runs(project, filters=_of_sweep(group) if group else None))
    except (ValueError, wandb.Error) as error:
        raise FileNotFoundError(
            f"{source!r} is no folder here, and W&B has no project {project!r}: {error}"
        ) from error
    restored = (_restore_from_server(run, staging / str(i)) for i, run in enumerate(runs))
    return list(filter(None, restored))


def _of_sweep(sweep: str) -> dict[str, Any]:
    """Return W&B's filter for the runs of a sweep, whose group may be another by wandb.group."""
    below = {f"config.{PATH_KEY}": {"$regex": f"^{re.escape(sweep)}/"}}
    return {"$or": [{"group": sweep}, below]}


def _restore_from_server(run: Any, folder: Path) -> Restored | None:
    """Restore a point from a run of `wandb.Api`, if gradlab logged it."""

    def restore() -> Restored | None:
        if not is_point(run.config):
            return None
        _download(run, folder)
        whole = run.state in WHOLE
        rows, summary, maps = run.scan_history(), run.summary_metrics, _download_maps(run, folder)
        content = Run(run.id, run.created_at, whole, run.config, rows, summary, maps)
        return restore_run(content, folder, f"run {run.id}")

    return restore_or_say(f"run {run.id}", restore)


def _download(run: Any, folder: Path) -> None:
    """Put the records that are files of a run into its point's folder."""
    names = {f"{RECORDS}/{name}": path for name, path in RECORD_FILES.items()}
    for file in run.files([*names]):
        if file.name in names:  # the server may answer with others
            file.download(root=str(folder), replace=True)
            (folder / names[file.name]).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.name).replace(folder / names[file.name])
    shutil.rmtree(folder / RECORDS, ignore_errors=True)


def _download_maps(run: Any, folder: Path) -> Path | None:
    """Download the maps of a run of an earlier version, whose files have no records."""
    place = folder / ARTIFACT_TYPE
    for artifact in () if (folder / records.STATUS).exists() else run.logged_artifacts():
        if artifact.type == ARTIFACT_TYPE:
            entry = artifact.manifest.entries.get(records.GRADIENTS)
            if entry is not None and entry.ref is None:  # a reference may name a file of this disk
                artifact.get_entry(records.GRADIENTS).download(root=str(place))
    return place / records.GRADIENTS if (place / records.GRADIENTS).is_file() else None
