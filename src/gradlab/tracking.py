"""Weights & Biases: one run a point, offline unless asked otherwise.

A sweep keeps its runs together in its own wandb/ folder, so that `wandb leet` opens them all; each
point's folder has a link to its run. W&B is imported when a run is opened: that takes seconds.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.config import WandbMode

if TYPE_CHECKING:
    import wandb

FOLDER = "wandb"


class Tracker:
    """What a point tells W&B. Without a run (mode "disabled") it is told nothing."""

    def __init__(self, run: "wandb.Run | None") -> None:
        """Track into an open run."""
        self._run = run

    def log(self, row: Mapping[str, float]) -> None:
        """Log a row of metrics that has "train/step"; NaN (not measured) is left out."""
        if self._run:
            self._run.log({name: value for name, value in row.items() if not np.isnan(value)})

    def finish(self, summary: Mapping[str, Any], picture: Path, data: Path) -> None:
        """Write the summary, the Jacobian maps as a picture, and their data as an artifact."""
        if not self._run:
            return
        import wandb

        if picture.exists():
            self._run.log({"jacobian/map": wandb.Image(str(picture))})
        if data.exists():
            artifact = wandb.Artifact(f"gradients-{self._run.id}", type="gradients")
            artifact.add_file(str(data), policy="immutable")  # no second copy on disk
            self._run.log_artifact(artifact)
        self._run.summary.update(dict(summary))


@contextlib.contextmanager
def track(folder: Path, config: Mapping[str, Any], group: str, name: str) -> Iterator[Tracker]:
    """Open a point's run, and close it as failed if the block raises.

    Args:
        folder: the point's folder; the run lies in wandb/ beside it.
        config: the resolved config; its "wandb" section says where the run goes.
        group: the sweep.
        name: what the run is called in a list of runs.
    """
    settings = config["wandb"]
    mode = _possible_mode(settings["mode"])
    if mode == "disabled":
        yield Tracker(None)
        return
    import wandb

    run = wandb.init(
        dir=folder.parent,
        mode=mode,
        project=settings["project"],
        entity=settings["entity"],
        tags=settings["tags"],
        group=group,
        name=name,
        config=dict(config),
        reinit="create_new",  # points run side by side in one process
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
        ),
    )
    _link(folder / FOLDER, Path(run.settings.sync_dir))
    run.define_metric("train/step")
    run.define_metric("*", step_metric="train/step")
    try:
        yield Tracker(run)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def discard(folder: Path) -> None:
    """Remove a point's run that broke off: one that goes on is logged anew, its history whole."""
    link = folder / FOLDER
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()


@lru_cache
def _possible_mode(mode: WandbMode) -> WandbMode:
    """Offline instead of online where W&B cannot be reached, rather than to ask or to wait."""
    if mode != "online":
        return mode
    import wandb

    try:
        if wandb.login(prompt=False, verify=True):
            return mode
        reason = "nobody is logged in (wandb login)"
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
    print(
        f"gradlab: W&B runs are kept offline: {reason}. Send them later with "
        "wandb sync SWEEP/wandb/offline-run-*.",
        file=sys.stderr,
    )
    return "offline"


def _link(link: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # a system without links finds the run by its name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
