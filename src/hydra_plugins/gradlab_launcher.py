"""Hydra launcher that takes all points of a multirun and runs them together on this machine.

Hydra imports every module here at each start, so what is heavy is imported at the launch.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


@dataclass
class FusedLauncherConfig:
    """`hydra/launcher=fused`."""

    _target_: str = "hydra_plugins.gradlab_launcher.FusedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="fused", node=FusedLauncherConfig)


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
        """Compose, check and run the points.

        Raises:
            ConfigError: a point's config is wrong; then none has run.
            SystemExit: a point failed; all others have run.
        """
        from gradlab.config import check
        from gradlab.point import point_of_job
        from gradlab.sweep import run_sweep
        from gradlab.training import program_for

        setup_globals()
        composed = [
            self._compose(overrides, initial_job_idx + i)
            for i, overrides in enumerate(job_overrides)
        ]
        for config in composed:
            program_for(check(config))
        # Hydra makes each point's folder and .hydra/ as for any job; the "job" only plans.
        jobs = [self._job(config, point_of_job) for config in composed]
        statuses = run_sweep([job.return_value for job in jobs])
        failed = sum(status["state"] == "failed" for status in statuses)
        interrupted = sum(status["state"] == "interrupted" for status in statuses)
        if interrupted:
            sys.exit(
                f"gradlab: interrupted, {interrupted} of {len(jobs)} points are not done; their "
                "checkpoints are kept, and a run in the same folder goes on from them."
            )
        if failed:
            sys.exit(f"gradlab: {failed} of {len(jobs)} points failed; see above.")
        for job, status in zip(jobs, statuses, strict=True):
            job.return_value = status
        return jobs

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config

    def _job(self, config: DictConfig, plan: TaskFunction) -> JobReturn:
        return run_job(
            hydra_context=self._context,
            task_function=plan,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
