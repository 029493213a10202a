"""Hydra launchers that take all points of a multirun and run them together.

Here (`fused`), in jobs of SLURM (`fused_slurm`), or in tasks of Ray (`fused_ray`). Hydra imports
every module here at each start, so what is heavy is imported at the launch.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

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
        from gradlab import sweep
        from gradlab.config import ConfigError, check_component
        from gradlab.records import SWEEP
        from gradlab.sweep import ledger

        setup_globals()
        launcher: Any = OmegaConf.to_container(self._config.hydra.launcher)
        check_component(launcher, "hydra.launcher")
        folder, resume = Path(str(self._config.hydra.sweep.dir)), self._config.sweep.resume
        known = ledger.read(folder) if resume or initial_job_idx else []
        if resume and all(map(ledger.only_bookkeeping, job_overrides)):
            job_overrides = [x for given in job_overrides for x in ledger.repeated(given, known)]
        first = max([initial_job_idx, *(entry.number + 1 for entry in known)])
        composed = [self._compose(words, first + i) for i, words in enumerate(job_overrides)]
        asked = [self._entry(config) for config in composed]
        settings = sweep.joint_settings([entry.config for entry in asked])
        entries = ledger.enter(known, asked)
        if resume:
            ledger.check_same(known, entries)
        elif not known and (folder / SWEEP).exists():
            raise ConfigError(f"{str(folder)!r} holds a sweep: go on with it by sweep.resume.")
        points = {entry.identity: entry.point(folder.absolute()) for entry in entries}
        if settings["plan_only"]:
            sweep.show_plan(points.values(), settings)
            _leave_nothing(folder)
            return []
        with ledger.locked(folder):
            todo = ledger.clear(ledger.undone(points.values(), settings["retry"]))
            ledger.write(folder, known, entries)
            
            jobs = [self._job(config, entry) for config, entry in zip(composed, entries, strict=True)]
            statuses = sweep.run_sweep(list(points.values()), todo, settings, self._runner())
        failed = sum(status["state"] == "failed" for status in statuses)
        if failed:
            sys.exit(f"gradlab: {failed} of {len(points)} points failed; see above.")
