"""Hydra launchers that take all points of a multirun and run them together.

The points run here (`fused`), in jobs of SLURM (`fused_slurm`), or in tasks of Ray (`fused_ray`).
Hydra imports every module of this folder at each start, so heavy imports wait for the launch.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pydantic import Field

if TYPE_CHECKING:
    from gradlab.config import Sweep
    from gradlab.point import Judge, Point
    from gradlab.sweeps import Runner
    from gradlab.sweeps.estimate import Workers
    from gradlab.sweeps.groups import Group
    from gradlab.sweeps.ledger import Entry
    from gradlab.sweeps.request import Request


class FusedLauncher(Launcher):
    """Checks every point of a sweep before the first runs, then runs them as one sweep."""

    planned: int | None = None  # points of a search, if its sweeper says so
    judges: "Sequence[Callable[[], Judge]] | None" = None  # one a point, if its sweeper prunes them

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep Hydra's context and config; the task function runs one point and is not called."""
        self._context = hydra_context
        self._config = config
        self._tried: dict[str, tuple[float, Entry]] = {}  # values of a search, by identity

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Compose, check and run the points, or those that an earlier sweep has left undone.

        A sweeper that searches calls it for each batch, and gets the points' objectives.

        Raises:
            ConfigError: a point's config is wrong, the folder is another sweep's or in use, or the
                sweep to resume is not of these points; then no point has run.
            Incomplete: a point failed, and all others have run; or the sweep was interrupted. A
                search goes on as long as not all points of a batch fail.
        """
        from gradlab import sweeps
        from gradlab.components import check_component
        from gradlab.records import MULTIRUN, OVERVIEW, SETTINGS, WANDB
        from gradlab.sweeps import elsewhere, ledger, objective, refusals
        from gradlab.sweeps.groups import group_by_program
        from gradlab.sweeps.request import Request

        setup_globals()
        folder = Path(str(self._config.hydra.sweep.dir))
        launcher: Any = OmegaConf.to_container(self._config.hydra.launcher)
        check_component(launcher, "hydra.launcher")
        request = Request(self._context.config_loader, self._config, folder)
        resumes = self._config.sweep.resume or initial_job_idx  # a later batch adds to a first
        recorded = request.recorded() if resumes else []
        composed = request.compose(job_overrides, initial_job_idx, recorded)
        configs, requested = request.check(composed)
        settings = sweeps.joint_settings(configs)
        sweeper: Any = OmegaConf.to_container(self._config.hydra.sweeper)
        is_search = objective.is_search(sweeper)
        goal = objective.objective_of(sweeper, settings) if is_search else None
        others = max(initial_job_idx, (self.planned or 0) - len(configs))
        refusals.check_run_id([config.wandb for config in configs], others)
        repeats = refusals.check_repeats(requested)
        entries = request.match(recorded, requested, may_differ=is_search)
        all_entries = ledger.merge(recorded, entries)
        refusals.check_entries(str(folder), all_entries)
        known = {entry.folder for entry in recorded}
        new = [entry.folder for entry in entries if entry.folder not in known]
        own = [] if recorded else [OVERVIEW, SETTINGS, MULTIRUN, WANDB]
        refusals.check_unused(folder, [*new, *own])
        if repeats:
            print(repeats)
        if self.judges:
            refusals.check_curves([config.train for config in configs], self._config.train)
        points = {
            entry.identity: replace(entry.point(folder.absolute()), judge=judge)
            for entry, judge in zip(entries, self.judges or repeat(None, len(entries)), strict=True)
        }
        if settings.plan_only:
            self._show_plan(points.values(), request, settings)
            if goal and not self.planned:  # another's sweeper would wait for points' values
                sys.exit()
            return []
        # A launcher that cannot start says so before anything is written or deleted.
        to_run = ledger.pending(points.values(), settings.retried)
        runner = self._runner() if to_run else None
        with ledger.locked(folder):
            write_multirun(self._config, folder)
            pending = ledger.clear(elsewhere.claim(points.values(), settings.retried))
            ledger.write(folder, all_entries)
            starting = {point.folder for point in pending}
            jobs = [
                self._job(folder, config, entry, points[entry.identity].folder in starting)
                for config, entry in zip(composed, entries, strict=True)
            ]
            groups = group_by_program(pending, request.programs)
            tried = initial_job_idx + len(job_overrides)
            is_last = not goal or objective.ends_with(tried, self.planned, sweeper)
            asked = list(points.values())
            found = sweeps.run_sweep(asked, groups, settings, runner, is_last, goal)
        statuses = dict(zip(points, found, strict=True))
        sweeps.check_done(found, folder, bool(groups), is_search)
        for job, entry in zip(jobs, entries, strict=True):
            job.return_value, job.status = statuses[entry.identity], JobStatus.COMPLETED
            job.working_dir = str(points[entry.identity].folder)
            if goal:
                job.return_value = goal.of(ledger.status_in(points[entry.identity].folder))
                self._tried[entry.identity] = job.return_value, entry
        if goal:
            sweeps.show_best(goal, [*self._tried.values()])
        return jobs

    def _show_plan(self, points: Iterable["Point"], request: "Request", settings: "Sweep") -> None:
        """Print what would run, for how long and where."""
        from gradlab.sweeps import elsewhere, ledger
        from gradlab.sweeps.groups import group_by_program
        from gradlab.sweeps.plan import show_plan

        asked = list(points)
        pending = [point for point, _ in ledger.pending(asked, settings.retried)]
        running = elsewhere.running(pending)
        folders = {point.folder for point, _ in running}
        here = [point for point in pending if point.folder not in folders]
        groups = group_by_program(here, request.programs)
        more = [*elsewhere.sentences(running), *self._plan_lines(groups, request.folder)]
        ended = len(asked) - len(pending)
        show_plan(groups, ended, self._workers(settings), request.folder, more)

    def _workers(self, settings: "Sweep") -> "Workers":
        """Return the processes that the sweep's groups run in, for the estimate of their time."""
        from gradlab.sweeps.estimate import workers_here

        return workers_here(settings)

    def _plan_lines(self, groups: Sequence["Group"], folder: Path) -> Sequence[str]:
        """Return what a scheduler would be given to run the groups, for a plan."""
        return []

    def _runner(self) -> "Runner":
        """Return the function that runs the sweep's groups."""
        from gradlab.sweeps.lanes import run_here

        return run_here

    def _job(self, folder: Path, config: DictConfig, entry: "Entry", starting: bool) -> JobReturn:
        """Return a point's job as Hydra reports it; write its .hydra/ if the point begins."""
        from gradlab.records import HYDRA, STATUS
        from gradlab.sweeps.jobs import begin_job

        point = folder / entry.folder
        if not starting or ((point / STATUS).exists() and (point / HYDRA).exists()):
            return JobReturn(overrides=entry.overrides)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.job.id = str(entry.number)
            config.hydra.job.num = entry.number
            config.hydra.sweep.subdir = entry.folder
        return begin_job(self._context, config, point, entry)


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
        setup: list[str],
        python: str | None,
        options: dict[str, Any],
    ) -> None:
        """Take the resources of a job; see conf/hydra/launcher/fused_slurm.yaml."""
        self._points, self._cpus, self._gpus = points, cpus, gpus
        self._jobs_at_once, self._minutes, self._python = jobs_at_once, minutes, python
        self._resources = {
            "time": minutes,
            "cpus_per_task": cpus,
            "array_parallelism": jobs_at_once,
            "partition": partition,
            "gpus_per_node": gpus or None,
            "mem": f"{memory_gb * 1024:.0f}MB" if memory_gb else None,
            "setup": setup or None,
            "additional_parameters": options,
        }

    def _workers(self, settings: "Sweep") -> "Workers":
        from gradlab.sweeps.estimate import Workers

        vmapped = settings.lanes == "vmap" or (settings.lanes == "auto" and self._gpus > 0)
        lanes = self._gpus if vmapped and self._gpus else self._cpus
        at_once, each = self._jobs_at_once, "GPU" if self._gpus else "core"
        number = self._gpus or self._cpus
        place = f"in jobs of {number} {each}{'s'[: number > 1]} (up to {at_once} at once)"
        return Workers(lanes, vmapped, place, at_once, self._points, self._minutes)

    def _plan_lines(self, groups: Sequence["Group"], folder: Path) -> Sequence[str]:
        from gradlab.sweeps.remote import pieces
        from gradlab.sweeps.slurm import batch_file

        jobs = len(pieces(groups, self._points))
        if not jobs:
            return []
        lines = batch_file(folder, jobs, python=self._python, resources=self._resources)
        return ["", *lines, ""]

    def _runner(self) -> "Runner":
        from gradlab.sweeps.slurm import check_slurm, run_in_jobs

        check_slurm()
        return partial(
            run_in_jobs,
            points_per_job=self._points,
            cpus=self._cpus,
            python=self._python,
            resources=self._resources,
        )


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
        """Take the resources of a task; see conf/hydra/launcher/fused_ray.yaml."""
        self._points, self._cpus, self._gpus = points, cpus, gpus
        self._cluster = {"address": address, **options}

    def _workers(self, settings: "Sweep") -> "Workers":
        from gradlab.sweeps.estimate import Workers
        from gradlab.sweeps.lanes import cores

        vmapped = settings.lanes == "vmap" or (settings.lanes == "auto" and self._gpus > 0)
        tasks, place = 1, "in one task after the other"
        if self._cluster["address"] is None:
            tasks = max(1, int(self._cluster.get("num_cpus") or cores()) // self._cpus)
            place = f"in tasks of {self._cpus} core{'s'[: self._cpus > 1]} ({tasks} at once)"
        return Workers(self._cpus, vmapped, place, tasks, self._points)

    def _runner(self) -> "Runner":
        from gradlab.sweeps.ray import connect, run_in_tasks

        return partial(
            run_in_tasks,
            points_per_task=self._points,
            cpus=self._cpus,
            gpus=self._gpus,
            context=connect(self._cluster),
        )


def write_multirun(config: DictConfig, folder: Path) -> None:
    """Write Hydra's own config of a sweep into the sweep's folder, as Hydra's sweepers do."""
    from gradlab.records import MULTIRUN
    from gradlab.records.files import write_whole

    write_whole(folder / MULTIRUN, lambda path: OmegaConf.save(config, path))
