"""Hydra launchers that take all points of a multirun and run them together.

Here (`fused`), in jobs of SLURM (`fused_slurm`), or in tasks of Ray (`fused_ray`). Hydra imports
every module here at each start, so what is heavy is imported at the launch.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pydantic import Field

if TYPE_CHECKING:
    from gradlab.sweep import Runner
    from gradlab.sweep.ledger import Entry


class FusedLauncher(Launcher):
    """Checks every point of a sweep before the first runs, then runs them as one sweep."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands over; the task function runs a single point and is not called."""
        self._context = hydra_context
        self._config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Compose, check and run the points, or those that an earlier sweep has left undone.

        Raises:
            ConfigError: a point's config is wrong, the folder is another sweep's or in use, or the
                sweep to take up is not of these points; then none has run.
            SystemExit: a point failed; all others have run.
        """
        from gradlab.config import ConfigError

        folder = Path(str(self._config.hydra.sweep.dir))
        try:
            return self._launch(folder, job_overrides, initial_job_idx)
        except ConfigError:
            _leave_nothing(folder)
            raise

    def _launch(
        self, folder: Path, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from gradlab import sweep
        from gradlab.config import ConfigError, check_component
        from gradlab.records import SWEEP
        from gradlab.sweep import ledger
        from gradlab.sweep.composer import Composer

        setup_globals()
        launcher: Any = OmegaConf.to_container(self._config.hydra.launcher)
        check_component(launcher, "hydra.launcher")
        resume = self._config.sweep.resume
        known = ledger.read(folder) if resume or initial_job_idx else []
        if resume and all(map(ledger.only_bookkeeping, job_overrides)):
            job_overrides = [x for given in job_overrides for x in ledger.repeated(given, known)]
        first = max([initial_job_idx, *(entry.number + 1 for entry in known)])
        compose = Composer(self._context.config_loader, self._config)
        composed = [compose(words, first + i) for i, words in enumerate(job_overrides)]
        asked = [self._entry(config) for config in composed]
        settings = sweep.joint_settings([entry.config for entry in asked])
        entries = ledger.enter(known, asked)
        if resume:
            ledger.check_same(known, entries)
        elif not known and (folder / SWEEP).exists():
            raise ConfigError(f"{str(folder)!r} holds a sweep: go on with it by sweep.resume.")
        points = {entry.identity: entry.point(folder.absolute()) for entry in entries}
        if settings["plan_only"]:
            from gradlab.sweep.groups import group_by_program
            from gradlab.sweep.plan import show_plan

            pending = ledger.pending(points.values(), settings["retry"])
            groups = group_by_program(point for point, _ in pending)
            show_plan(groups, len(points) - len(pending))
            _leave_nothing(folder)
            return []
        with ledger.locked(folder):
            todo = ledger.clear(ledger.pending(points.values(), settings["retry"]))
            ledger.write(folder, known, entries)
            begun = {point.folder for point in todo}
            jobs = [
                self._job(config, entry, points[entry.identity].folder in begun)
                for config, entry in zip(composed, entries, strict=True)
            ]
            statuses = sweep.run_sweep(list(points.values()), todo, settings, self._runner())
        failed = sum(status["state"] == "failed" for status in statuses)
        left = sum(status["state"] not in ledger.ENDED for status in statuses)
        if left:
            sys.exit(
                f"gradlab: interrupted, {left} of {len(points)} points are not done: go on from "
                f"their checkpoints with sweep.resume={folder}"
            )
        if failed:
            sys.exit(f"gradlab: {failed} of {len(points)} points failed; see above.")
        by_identity = dict(zip(points, statuses, strict=True))
        for job, entry in zip(jobs, entries, strict=True):
            job.return_value, job.status = by_identity[entry.identity], JobStatus.COMPLETED
        return jobs

    def _runner(self) -> "Runner":
        """What runs the groups of the sweep."""
        from gradlab.sweep.lanes import run_here

        return run_here

    def _entry(self, config: DictConfig) -> "Entry":
        """What the sweep's record keeps of a point; its parts are checked against each other."""
        from gradlab.config import ConfigError, check, identity
        from gradlab.sweep.ledger import Entry
        from gradlab.training.program import program_for

        HydraConfig.instance().set_config(config)  # hydra.sweep.subdir may look into it
        checked = check(config)
        if checked["measure"] is not None:
            raise ConfigError("measure is computed directly: leave --multirun and sweeps out.")
        program_for(checked)
        words = [word for word in config.hydra.overrides.task if not word.startswith("sweep.")]
        number, subdir = config.hydra.job.num, str(config.hydra.sweep.subdir)
        return Entry(number, subdir, words, identity(checked), checked)

    def _job(self, config: DictConfig, entry: "Entry", begins: bool) -> JobReturn:
        """What Hydra wants to know of a point; its .hydra/ is written if the point is to run."""
        if not begins:
            return JobReturn(overrides=entry.overrides)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.job.id = str(entry.number)
            config.hydra.job.num = entry.number
            config.hydra.sweep.subdir = entry.folder
        return run_job(
            hydra_context=self._context,
            task_function=lambda _: None,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


class ProductSweeper(BasicSweeper):
    """Hydra's own sweeper, which can leave combinations out.

    It leaves out its trial of every point too where a launcher checks them anyway.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        skip: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Sweep over `params`, less the points that have a value of each key of one of `skip`."""
        super().__init__(max_batch_size, params)
        self._skip = [
            {key: str(values).split(",") for key, values in point.items()} for point in skip or []
        ]

    def split_arguments(  # type: ignore[override]  # Hydra's is static
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The points, in batches.

        Raises:
            ConfigError: all are left out.
        """
        from gradlab.config import ConfigError

        batches = super().split_arguments(overrides, max_batch_size)
        kept = [[point for point in batch if not self._skipped(point)] for batch in batches]
        if not any(kept):
            raise ConfigError("hydra.sweeper.skip leaves out every point of this sweep.")
        return [batch for batch in kept if batch]

    def _skipped(self, point: Sequence[str]) -> bool:
        values = dict(word.split("=", 1) for word in point)
        return any(all(values.get(k) in some for k, some in x.items()) for x in self._skip)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every point once ahead of the launch."""
        if not isinstance(self.launcher, FusedLauncher):
            super().validate_batch_is_legal(batch)


class FusedSlurmLauncher(FusedLauncher):
    """Runs groups of points in jobs of SLURM."""

    def __init__(
        self,
        *,
        points: Annotated[int | None, Field(ge=1)],
        partition: str | None,
        gpus: Annotated[int, Field(ge=0)],
        cpus: Annotated[int, Field(ge=1)],
        memory_gb: Annotated[float | None, Field(gt=0)],
        minutes: Annotated[int, Field(ge=1)],
        jobs_at_once: Annotated[int, Field(ge=1)],
        options: dict[str, Any],
    ) -> None:
        """Keep what a job asks for; see conf/hydra/launcher/fused_slurm.yaml."""
        self._points, self._cpus = points, cpus
        self._resources = {
            "timeout_min": minutes,
            "cpus_per_task": cpus,
            "slurm_array_parallelism": jobs_at_once,
            "slurm_partition": partition,
            "slurm_gpus_per_node": gpus or None,
            "mem_gb": memory_gb,
            "slurm_additional_parameters": options,
        }

    def _runner(self) -> "Runner":
        from gradlab.sweep.slurm import run_in_jobs

        return partial(run_in_jobs, points=self._points, cpus=self._cpus, resources=self._resources)


class FusedRayLauncher(FusedLauncher):
    """Runs groups of points in tasks of Ray."""

    def __init__(
        self,
        *,
        points: Annotated[int | None, Field(ge=1)],
        address: str | None,
        gpus: Annotated[float, Field(ge=0)],
        cpus: Annotated[int, Field(ge=1)],
        options: dict[str, Any],
    ) -> None:
        """Keep what a task asks for; see conf/hydra/launcher/fused_ray.yaml."""
        self._points, self._cpus, self._gpus = points, cpus, gpus
        self._cluster = {"address": address, **options}

    def _runner(self) -> "Runner":
        from gradlab.sweep.ray import run_in_tasks

        return partial(
            run_in_tasks,
            points=self._points,
            cpus=self._cpus,
            gpus=self._gpus,
            cluster=self._cluster,
        )


def _leave_nothing(folder: Path) -> None:
    """Remove what Hydra made of a sweep's folder before it came to the launcher."""
    with suppress(OSError):  # a folder that holds something else stays
        if [path.name for path in folder.iterdir()] == ["multirun.yaml"]:
            (folder / "multirun.yaml").unlink()
        for empty in (folder, *folder.parents):
            empty.rmdir()
