"""Logging points to Weights & Biases: one run per point, written to disk.

All runs of a sweep lie in the sweep's wandb/ folder, so that `wandb leet` opens them together, and
each point's folder has a link to its run. `tracking.uploads` sends online runs to the server. W&B
takes seconds to import, so it is imported only where it is used.

The point's records are files of its run, which `wandb sync` looks for in the run's own folder. So
they are sent from wherever a sweep was moved to, unlike an artifact: the log of an offline run
names the absolute path of an artifact's file, and `wandb sync` passes over one that is not there.
"""

import contextlib
import glob
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from gradlab import records
from gradlab.tracking import environment
from gradlab.tracking.client import apart_from_agent, prepare_client, quiet_settings
from gradlab.tracking.media import CELLS, MAP, map_media
from gradlab.tracking.run_config import run_config
from gradlab.tracking.setting import Setting, outcome_table, run_name, setting_of
from gradlab.tracking.uploads import shared_uploader

if TYPE_CHECKING:
    import wandb

OUTCOMES = "outcomes"  # the table of a point's outcome, see `outcome_table`
TABLES = (OUTCOMES, f"jacobian/{CELLS}")
ARTIFACT_TYPE = "gradients"  # of the artifact that holds gradients.nc
END_PREFIXES = ("success/", "time/", "verdict")  # of summary entries known only at a point's end
RECORDS = "gradlab"  # folder among the run's files that holds the point's records
OUTCOME = "outcome.json"  # status.json's name there: a folder with the latter is a point's
RECORD_FILES = {
    "config.yaml": records.CONFIG,
    OUTCOME: Path(records.STATUS),
    "metrics.parquet": Path(records.METRICS),
    "gradients.nc": Path(records.GRADIENTS),
}
RUN_FOLDER = re.compile(r"offline-run-\d{8}_\d{6}-([0-9A-Za-z_-]{1,64})")
SAYING, TOLD = threading.Lock(), set[Path]()  # sweeps of which it is said that runs are missing


class Tracker:
    """Logs one point to its W&B run; logs nothing if there is no run (mode "disabled").

    W&B never fails a point: if the run cannot be written, that is said once, and the point goes on
    without it.
    """

    def __init__(
        self,
        run: "wandb.Run | None",
        folder: Path,
        config: Mapping[str, Any],
        setting: Setting,
        earlier: Sequence[Path] = (),
    ) -> None:
        """Log the point in a folder, with its resolved config and its setting, to an open run.

        `earlier` has the run folders of earlier attempts, which go once this run is whole.
        """
        self._run = run
        self._setting = setting
        self._earlier = earlier
        self._folder = folder
        self._config = config
        self._logged = set[str]()  # names of metrics
        self.finished = False

    def log(self, row: Mapping[str, float]) -> None:
        """Log a row of metrics, which contains "train/step"; leave out NaN (not measured)."""
        measured = {name: value for name, value in row.items() if not np.isnan(value)}
        with self._writing() as run:
            if run:
                run.log(measured)
                self._logged |= set(measured)

    def finish(self, status: Mapping[str, Any], gradients: xr.Dataset | None) -> None:
        """Log the probes' measurements, the point's records and its outcome.

        Args:
            status: the content of status.json. The run's summary has the last logged value of each
                metric already, so the status and the entries of `end_entries` are added to it, and
                what the point's summary lacks is taken out: the horizon before training is no
                result of a network that diverged. The rows keep it.
            gradients: the content of gradients.nc, to be shown; None if the point has none.
        """
        with self._writing() as run:
            if not run:
                return
            summary = status.get("summary", {})
            maps = gradients[MAP] if gradients is not None and MAP in gradients else None
            media = {} if maps is None else map_media(maps)
            if self._setting.axes and status["state"] in ("done", "diverged"):
                media[OUTCOMES] = outcome_table(self._setting, summary, maps)
            # Tables go to the summary alone: of a row's, W&B draws the sizes as metrics.
            tables = {name: media.pop(name) for name in TABLES if name in media}
            if media:
                run.log(media)
            self._save_records(run, status)
            if gradients is not None:
                self._log_artifact(run, status)
            outcome = {"status": status["state"], "reason": status.get("reason", "")}
            self._limit_summary(run, summary)
            run.summary.update(outcome | end_entries(summary) | tables)
            self.finished = True

    def close(self, error: BaseException | None) -> None:
        """Close the run, as failed if there is an error."""
        with self._writing() as run:
            if run and error and not self.finished:
                reason = f"{type(error).__name__}: {error}"
                self._limit_summary(run, {})
                run.summary.update({"status": "failed", "reason": reason})
            if run:
                run.finish(exit_code=1 if error else None)
                for folder in () if error else self._earlier:
                    shutil.rmtree(folder, ignore_errors=True)

    def _limit_summary(self, run: "wandb.Run", summary: Mapping[str, Any]) -> None:
        for name in sorted(self._logged - {"train/step", *summary}):
            del run.summary[name]

    @contextlib.contextmanager
    def _writing(self) -> Iterator["wandb.Run | None"]:
        """Yield the run; an error in the block ends it, and the point goes on without."""
        try:
            yield self._run
        except Exception as error:
            run, self._run = self._run, None
            _say_missing(self._folder, error)
            with contextlib.suppress(Exception):
                if run:
                    run.finish(exit_code=1)

    def _save_records(self, run: "wandb.Run", status: Mapping[str, Any]) -> None:
        """Make the point's records files of the run; its status.json is not on disk yet."""
        folder = Path(run.dir) / RECORDS
        for name, path in RECORD_FILES.items():
            if name != OUTCOME and (self._folder / path).is_file():
                _link_or_copy(self._folder / path, folder / name)
        seals = records.settled(self._folder, status.get("files", {}))
        records.save_status(folder, {**status, "files": seals})  # last: with it they are whole
        (folder / records.STATUS).replace(folder / OUTCOME)
        base = Path(glob.escape(run.dir))  # W&B takes a pattern
        run.save(base / RECORDS / "*", base_path=base, policy="now")

    def _log_artifact(self, run: "wandb.Run", status: Mapping[str, Any]) -> None:
        """Log gradients.nc as an artifact, whose file is the run's own."""
        import wandb

        metadata = {"config": self._config, "versions": status.get("versions", {})}
        artifact = wandb.Artifact(
            f"{ARTIFACT_TYPE}-{run.id}",
            type=ARTIFACT_TYPE,
            metadata=json.loads(json.dumps(metadata), parse_constant=str),  # W&B refuses infinities
        )
        file = Path(run.dir) / RECORDS / records.GRADIENTS
        artifact.add_file(str(file), policy="immutable")  # no second copy on disk
        run.log_artifact(artifact)


@contextlib.contextmanager
def track(folder: Path, config: Mapping[str, Any], group: str, name: str) -> Iterator[Tracker]:
    """Open a point's run for the block, and mark it as failed if the block raises.

    W&B cannot resume a run offline. So a point that is run again or continued gets a new run under
    its old id, in place of the old one, and must log its earlier rows again. The run of a point
    that had ended is kept until the new one is whole.

    Args:
        folder: the point's folder; the run is written to wandb/ in its sweep's.
        config: the resolved config; its "wandb" section sets the mode, project, entity and tags,
            and what else is not to be as below.
        group: the sweep, as NAME/DATE.
        name: the point's overrides, which name the run if its sweep varies nothing.

    Yields:
        The tracker to log to.
    """
    run, earlier, setting = None, list[Path](), Setting("", name)
    if config["wandb"]["mode"] != "disabled":
        try:
            run_id, earlier = _earlier_runs(folder)
            for old in earlier:
                if not _has_ended(old):
                    shutil.rmtree(old, ignore_errors=True)
            setting = setting_of(folder, config, name)
            run = _open(folder, config, group, setting, run_id)
        except Exception as error:  # a full disk, a name that W&B refuses
            _say_missing(folder, error)
    kept = [old for old in earlier if run and old != Path(run.settings.sync_dir)]
    tracker = Tracker(run, folder, config, setting, kept)
    try:
        yield tracker
    except BaseException as error:
        # The run of an interrupted point is closed as failed too, although the point can go on: W&B
        # cannot resume a run offline, so the continued point gets a new run in its place.
        tracker.close(error)
        raise
    tracker.close(None)


def _open(
    folder: Path, config: Mapping[str, Any], group: str, setting: Setting, run_id: str | None
) -> "wandb.Run":
    """Open a point's run, under the id of its earlier ones, or None: a new one; see `track`.

    Raises:
        OSError: its place cannot be written, or leads out of the sweep.
    """
    prepare_client()
    _say_unheard()
    import wandb

    settings = config["wandb"]
    sweep = records.sweep_folder(folder.absolute())
    check_writable(sweep)
    path = f"{group}/{folder.absolute().relative_to(sweep).as_posix()}"
    agents_sweep = environment.sweep_id(os.environ, settings.get("id"))
    chosen = environment.parameters(os.environ) if agents_sweep else {}
    with apart_from_agent():
        run = wandb.init(
            dir=sweep,
            mode="offline",  # online runs too: gradlab.tracking.uploads sends them
            id=settings.get("id") or run_id,
            project=settings["project"],
            entity=settings["entity"],
            tags=settings["tags"],
            job_type="point",
            group=settings.get("group") or group,
            name=run_name(settings.get("name"), setting, folder),
            notes=settings.get("notes"),
            config=run_config(config, path, records.sweep_id_of(sweep), setting.text, chosen),
            reinit="create_new",  # several runs are open at once in one process
            settings=quiet_settings(agents_sweep),
        )
    run_folder = Path(run.settings.sync_dir)
    # W&B's link to a log of its own in the home folder: the only one that leads out of a sweep.
    (run_folder / "logs" / "debug-core.log").unlink(missing_ok=True)
    _link(folder / records.WANDB, run_folder)
    if settings["mode"] == "online":
        shared_uploader().add(run_folder)
    run.define_metric("train/step", hidden=True)
    run.define_metric("*", step_metric="train/step")
    return run


@cache
def _say_unheard() -> None:
    """Say, once, which of the user's variables for W&B is not used."""
    if sentence := environment.unheard(os.environ, Path.cwd()):
        print(f"gradlab: {sentence}", file=sys.stderr)


def check_writable(sweep: Path) -> None:
    """Check that runs can be written below a sweep's folder; W&B would go to /tmp instead.

    Raises:
        OSError: they cannot, or its wandb/ is a link that leads elsewhere.
    """
    place = sweep / records.WANDB
    if place.resolve() != sweep.resolve() / records.WANDB:
        raise OSError(f"{place} is a link that leads elsewhere")
    place.mkdir(parents=True, exist_ok=True)
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"{place} may not be written")


def _say_missing(folder: Path, error: Exception) -> None:
    """Say, once for a sweep, that W&B runs are missing."""
    sweep = records.sweep_folder(folder.absolute())
    with SAYING:
        if sweep in TOLD:
            return
        TOLD.add(sweep)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    print(
        f"gradlab: W&B runs are missing or not whole: {reason}. The points go on without them.",
        file=sys.stderr,
    )


def end_entries(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary entries that no logged row of metrics contains, and those that are NaN.

    A NaN at the end, such as a diverged loss, would else be hidden by an earlier finite value. W&B
    keeps it as null.
    """
    return {
        name: value
        for name, value in summary.items()
        if name.startswith(END_PREFIXES) or (isinstance(value, float) and np.isnan(value))
    }


def _earlier_runs(folder: Path) -> tuple[str | None, list[Path]]:
    """Return the id of the runs of earlier attempts at a point, and their folders."""
    place = records.sweep_folder(folder.absolute()).resolve() / records.WANDB
    last = (folder / records.WANDB).resolve()
    if last.parent != place or not (run_id := _id(last)):
        return None, []
    return run_id, [x for x in place.glob(f"offline-run-*-{run_id}") if _id(x) == run_id]


def _id(run_folder: Path) -> str | None:
    found = RUN_FOLDER.fullmatch(run_folder.name)
    return found[1] if found and not run_folder.is_symlink() else None


def _has_ended(run_folder: Path) -> bool:
    """Return whether a run has the records of a point that had ended."""
    try:
        outcome = json.loads((run_folder / "files" / RECORDS / OUTCOME).read_bytes())
        return outcome["state"] in ("done", "diverged", "pruned")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _link(link: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # some systems have no links
        if link.is_symlink():  # to the run of an earlier attempt
            link.unlink()
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name (a hard link, which takes no room), or else copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
