"""Hydra launchers that take all points of a multirun and run them together.

The points run here (`fused`), in jobs of SLURM (`fused_slurm`), or in tasks of Ray (`fused_ray`).
Hydra imports every module of this folder at each start, so heavy imports wait for the launch.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import cycle, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pydantic import Field

if TYPE_CHECKING:
    from gradlab.config import Config, Sweep
    from gradlab.point import Status
    from gradlab.point.recorder import Judge
    from gradlab.sweeps import Runner
    from gradlab.sweeps.estimate import Workers
    from gradlab.sweeps.groups import Built, Group
    from gradlab.sweeps.ledger import Entry
    from gradlab.sweeps.objective import Objective


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
        self._found: dict[str, tuple[float, Entry]] = {}  # values of a search, by identity

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
        from gradlab.sweeps import elsewhere, ledger, refusals
        from gradlab.sweeps.groups import group_by_program
        from gradlab.sweeps.objective import is_search, objective_of

        setup_globals()
        folder = Path(str(self._config.hydra.sweep.dir))
        launcher: Any = OmegaConf.to_container(self._config.hydra.launcher)
        check_component(launcher, "hydra.launcher")
        resumes = self._config.sweep.resume or initial_job_idx  # a later batch adds to the first
        recorded = self._recorded(folder) if resumes else []
        composed = self._compose(folder, job_overrides, initial_job_idx, recorded)
        programs: dict[str, Built] = {}
        configs, requested = zip(*(self._check(x, programs) for x in composed), strict=True)
        settings = sweeps.joint_settings(configs)
        sweeper: Any = OmegaConf.to_container(self._config.hydra.sweeper)
        goal = objective_of(sweeper, settings) if is_search(sweeper) else None
        others = max(initial_job_idx, (self.planned or 0) - len(configs))
        refusals.check_run_id([config.wandb for config in configs], others)
        repeats = refusals.check_repeats(requested)
        entries = self._match(folder, recorded, requested, may_differ=goal is not None)
        all_entries = ledger.merge(recorded, entries)
        refusals.check_entries(str(folder), all_entries)
        known = {entry.folder for entry in recorded}
        new = [entry.folder for entry in entries if entry.folder not in known]
        own = [] if recorded else [OVERVIEW, SETTINGS, MULTIRUN, WANDB]
        refusals.check_unused(folder, [*new, *own])
        if repeats:
            print(repeats)
        points = {
            entry.identity: replace(entry.point(folder.absolute()), judge=judge)
            for entry, judge in zip(entries, self.judges or repeat(None, len(entries)), strict=True)
        }
        if settings.plan_only:
            from gradlab.sweeps.plan import show_plan

            pending = [point for point, _ in ledger.pending(points.values(), settings.retried)]
            running = elsewhere.running(pending)
            folders = {point.folder for point, _ in running}
            here = [point for point in pending if point.folder not in folders]
            ended = len(points) - len(pending)
            groups = group_by_program(here, programs)
            more = [*elsewhere.sentences(running), *self._plan_lines(groups, folder)]
            show_plan(groups, ended, self._workers(settings), folder, more)
            if goal and not self.planned:  # another's sweeper would wait for the points' values
                sys.exit()
            return []
        # A launcher that cannot start says so before anything is written or deleted.
        runner = self._runner() if ledger.pending(points.values(), settings.retried) else None
        with ledger.locked(folder):
            write_multirun(self._config, folder)
            pending = ledger.clear(elsewhere.claim(points.values(), settings.retried))
            ledger.write(folder, all_entries)
            starting = {point.folder for point in pending}
            jobs = [
                self._job(folder, config, entry, points[entry.identity].folder in starting)
                for config, entry in zip(composed, entries, strict=True)
            ]
            groups = group_by_program(pending, programs)
            is_last = not goal or self._ends_with(initial_job_idx + len(job_overrides))
            statuses = sweeps.run_sweep(list(points.values()), groups, settings, runner, is_last)
        by_identity = dict(zip(points, statuses, strict=True))
        _check_done(statuses, folder, bool(groups), is_search=goal is not None)
        for job, entry in zip(jobs, entries, strict=True):
            status = by_identity[entry.identity]
            job.return_value, job.status = status, JobStatus.COMPLETED
            job.working_dir = str(points[entry.identity].folder)
            if goal:
                job.return_value = goal.of(ledger.status_in(points[entry.identity].folder))
                self._found[entry.identity] = job.return_value, entry
        if goal:
            self._show_best(goal)
        return jobs

    def _ends_with(self, tried: int) -> bool:
        """Return whether a search ends after so many points; true of sweepers that do not say."""
        planned = self.planned or self._config.hydra.sweeper.get("n_trials")
        return planned is None or tried >= planned

    def _show_best(self, goal: "Objective") -> None:
        """Print the best point of a search so far."""
        from gradlab.printable import printable
        from gradlab.sweeps import refusals
        from gradlab.sweeps.screen import screen, show

        values, entries = zip(*self._found.values(), strict=True)
        best = (max if goal.maximised else min)(values)
        if best == goal.worst:
            return
        names = refusals.describe([e.number for e in entries], [e.overrides for e in entries])
        where = names[values.index(best)]
        sentence = f"best     {goal.name} {best:.4g} of {len(values)} points: {where}"
        show(screen(), printable(sentence))

    def _recorded(self, folder: Path) -> list["Entry"]:
        """Return the points of the sweep's record; what their own folders lack is composed."""
        from gradlab.sweeps import ledger

        entries = ledger.read(folder)
        if all(entry.config for entry in entries):
            return entries
        composed = self._compose_recorded(folder, entries)
        programs: dict[str, Built] = {}
        checked = [self._check(config, programs)[1] for config in composed]
        ledger.check_unchanged(entries, checked)
        return [
            replace(entry, identity=now.identity, config=now.config)
            for entry, now in zip(entries, checked, strict=True)
        ]

    def _compose(
        self,
        folder: Path,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,
        recorded: Sequence["Entry"],
    ) -> list[DictConfig]:
        """Compose the points of the command or, where it only resumes, the recorded ones."""
        from gradlab.sweeps import ledger, refusals
        from gradlab.sweeps.composer import Composer

        first = max([initial_job_idx, *(entry.number + 1 for entry in recorded)])
        if self._config.sweep.resume and all(map(ledger.only_bookkeeping, job_overrides)):
            return self._compose_recorded(folder, recorded, job_overrides)
        compose = Composer(self._context.config_loader, self._config)
        composed = [compose(overrides, first + i) for i, overrides in enumerate(job_overrides)]
        refusals.check_options(self._config, job_overrides, composed)
        return composed

    def _compose_recorded(
        self, folder: Path, recorded: Sequence["Entry"], added: Sequence[Sequence[str]] = ((),)
    ) -> list[DictConfig]:
        """Compose the points of a record that may be anybody's.

        Args:
            folder: the sweep's.
            recorded: the points.
            added: overrides of the command, each for all points.

        Raises:
            ConfigError: they would do more than set the keys of a point, or call what is foreign.
        """
        from gradlab.sweeps import ledger, trust
        from gradlab.sweeps.composer import Composer

        loader, typed = self._context.config_loader, list(self._config.hydra.overrides.task)
        options = loader.get_group_options
        trust.check_words((entry.overrides for entry in recorded), folder, options)
        compose = Composer(loader, self._config)
        words = [x for given in added for x in ledger.repeat_overrides(given, recorded)]
        composed = [compose(overrides, number) for number, overrides in enumerate(words)]
        for config, entry in zip(composed, cycle(recorded), strict=False):
            ledger.keep_data_path(config, entry)
        known = trust.known_targets(loader, typed)
        trust.check_targets(composed, known, self._config.sweep.trust, folder)
        if not {"wandb=online", "wandb.mode=online"} & {word.lstrip("+") for word in typed}:
            trust.keep_offline(composed, self._config.wandb)
        return composed

    def _check(
        self, composed: DictConfig, programs: dict[str, "Built"]
    ) -> tuple["Config", "Entry"]:
        """Check a point, and that its parts fit together.

        Args:
            composed: the point's config, with Hydra's.
            programs: those of the points before it; its own is added.

        Returns:
            The checked config, and the point as the sweep's record keeps it.
        """
        from gradlab.components import ConfigError
        from gradlab.config import check, identity
        from gradlab.sweeps.groups import program_of
        from gradlab.sweeps.ledger import Entry

        HydraConfig.instance().cfg = composed  # interpolations look into it; set_config copies
        config = check(composed)
        if config.measure is not None:
            raise ConfigError("measure is computed directly: leave --multirun and sweeps out.")
        program_of(config, programs)
        overrides = [x for x in composed.hydra.overrides.task if not x.startswith("sweep.")]
        number, subdir = composed.hydra.job.num, str(composed.hydra.sweep.subdir)
        return config, Entry(number, subdir, overrides, identity(config), asdict(config))

    def _match(
        self,
        folder: Path,
        recorded: Sequence["Entry"],
        requested: Sequence["Entry"],
        may_differ: bool,
    ) -> list["Entry"]:
        """Return each point's recorded entry, or its new one, if the folder may hold them."""
        from gradlab.components import ConfigError
        from gradlab.records import SWEEP
        from gradlab.sweeps import ledger

        entries = ledger.match(recorded, requested)
        if self._config.sweep.resume:
            if not may_differ:
                ledger.check_same(recorded, entries)
        elif not recorded and (folder / SWEEP).exists():
            raise ConfigError(f"{str(folder)!r} holds a sweep: go on with it by sweep.resume.")
        return entries

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


def _check_done(statuses: Sequence["Status"], folder: Path, has_run: bool, is_search: bool) -> None:
    """Raise Incomplete unless all points are done, or failed before and were left alone now.

    In a search, points may fail as long as one of the batch does not.
    """
    from gradlab.printable import pasted
    from gradlab.sweeps import Incomplete
    from gradlab.sweeps.ledger import ENDED

    states = [status["state"] for status in statuses]
    unfinished, again = sum(state not in ENDED for state in states), pasted("sweep.resume", folder)
    if unfinished and unfinished == states.count("running"):
        raise Incomplete(f"{unfinished} of {len(states)} points run elsewhere; see above.")
    if damaged := states.count("damaged"):
        raise Incomplete(
            f"{damaged} of {len(states)} points have damaged records: run them again with {again}"
        )
    if unfinished:
        remedy = (
            f"repeat the command with {again}: its search goes on from there"
            if is_search
            else f"go on from their checkpoints with {again}"
        )
        raise Incomplete(
            f"interrupted, {unfinished} of {len(states)} points are not done: {remedy}",
            interrupted=True,
        )
    failed = states.count("failed")
    if failed and has_run and not (is_search and failed < len(states)):
        raise Incomplete(f"{failed} of {len(states)} points failed; see above.")


def write_multirun(config: DictConfig, folder: Path) -> None:
    """Write Hydra's own config of a sweep into the sweep's folder, as Hydra's sweepers do."""
    from gradlab.records import MULTIRUN
    from gradlab.records.files import write_whole

    write_whole(folder / MULTIRUN, lambda path: OmegaConf.save(config, path))
