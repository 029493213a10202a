"""Weights & Biases: one run a point, on disk unless asked otherwise.

A sweep keeps its runs together in its own wandb/ folder, so that `wandb leet` opens them all; each
point's folder has a link to its run. W&B is imported when a run is opened: that takes seconds.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from gradlab import records
from gradlab.tracking.media import MAP, map_media
from gradlab.tracking.uploads import uploads

if TYPE_CHECKING:
    import wandb

FOLDER = "wandb"
PATH = "path"  # config key: NAME/DATE/NUMBER, the point's folder below runs/
GRADIENTS = "gradients"  # type of the artifact with the maps
AT_END = ("success/", "time/", "verdict")  # what begins so is known when a point has ended


class Tracker:
    """What a point tells W&B. Without a run (mode "disabled") it is told nothing."""

    def __init__(self, run: "wandb.Run | None", folder: Path, config: Mapping[str, Any]) -> None:
        """Track a point's folder into an open run."""
        self._run = run
        self._file = (folder / records.GRADIENTS).absolute()
        self._config = config

    def log(self, row: Mapping[str, float]) -> None:
        """Log a row of metrics that has "train/step"; NaN (not measured) is left out."""
        if self._run:
            self._run.log({name: value for name, value in row.items() if not np.isnan(value)})

    def finish(self, status: Mapping[str, Any], gradients: xr.Dataset | None) -> None:
        """Log what the probes measured, and how the point ended.

        Args:
            status: what status.json keeps. Its summary's numbers, but for those that are known
                only now (`AT_END`), were logged as the last row.
            gradients: what gradients.nc holds; None: there is none.
        """
        if not self._run:
            return
        if gradients is not None:
            if MAP in gradients:
                self._run.log(map_media(gradients[MAP]))
            self._log_file(self._run, status)
        outcome = {"status": status["state"], "reason": status.get("reason", "")}
        summary = status.get("summary", {})
        self._run.summary.update(outcome | at_end(summary))

    def _log_file(self, run: "wandb.Run", status: Mapping[str, Any]) -> None:
        """Log gradients.nc as an artifact."""
        import wandb

        about = {"config": self._config, "versions": status.get("versions", {})}
        artifact = wandb.Artifact(
            f"{GRADIENTS}-{run.id}",
            type=GRADIENTS,
            metadata=json.loads(json.dumps(about), parse_constant=str),  # it takes no infinity
        )
        artifact.add_file(str(self._file), policy="immutable")  # no second copy on disk
        run.log_artifact(artifact)


@contextlib.contextmanager
def track(folder: Path, config: Mapping[str, Any], group: str, name: str) -> Iterator[Tracker]:
    """Open a point's run, and close it as failed if the block raises.

    A point that is run again or continued replaces its earlier run, under the same id, so it must
    log its earlier rows once more: W&B cannot resume a run offline.

    Args:
        folder: the point's folder; the run lies in wandb/ beside it.
        config: the resolved config; its "wandb" section says where the run goes.
        group: the sweep.
        name: what the run is called in a list of runs.
    """
    settings = config["wandb"]
    if settings["mode"] == "disabled":
        yield Tracker(None, folder, config)
        return
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B reports on itself, offline too
    import wandb

    run = wandb.init(
        dir=folder.parent,
        mode="offline",  # also where it goes online: see gradlab.tracking.uploads
        id=_remove_earlier(folder),
        project=settings["project"],
        entity=settings["entity"],
        tags=settings["tags"],
        job_type="point",
        group=group,
        name=name,
        config=dict(config) | {PATH: f"{group}/{folder.name}"},
        reinit="create_new",  # points run side by side in one process
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,  # most of what opening a run costs; status.json has versions
        ),
    )
    kept = Path(run.settings.sync_dir)
    _link(folder / FOLDER, kept)
    if settings["mode"] == "online":
        uploads().add(kept)
    run.define_metric("train/step", hidden=True)
    run.define_metric("*", step_metric="train/step")
    tracker = Tracker(run, folder, config)
    try:
        yield tracker
    except BaseException as error:
        run.summary.update({"status": "failed", "reason": f"{type(error).__name__}: {error}"})
        run.finish(exit_code=1)
        raise
    run.finish()


def at_end(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What of a point's summary stands in no row of metrics."""
    return {name: value for name, value in summary.items() if name.startswith(AT_END)}


def _remove_earlier(folder: Path) -> str | None:
    """Remove the run that an earlier attempt at a point left; its id, for the one that follows."""
    link = folder / FOLDER
    if not link.is_symlink():
        return None
    run = link.resolve()
    link.unlink()
    if run.parent != (folder.parent / FOLDER).resolve():
        return None
    shutil.rmtree(run, ignore_errors=True)
    return run.name.rpartition("-")[2]


def _link(link: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # a system without links finds the run by its name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
