"""Groups of points as an array job of SLURM, through submitit."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab.config import ConfigError
from gradlab.point import Point, Status
from gradlab.sweep.progress import ProgressDisplay
from gradlab.sweep.remote import follow, pieces

LOGS = "slurm"  # in the sweep's folder: what submitit keeps
EVERY = 5.0  # seconds between questions to SLURM


class SlurmQueue:
    """Which jobs SLURM still has; asked of it once in a while for all jobs together."""

    def __init__(self, jobs: Sequence[Any]) -> None:
        """Watch submitit's jobs, which are of one array."""
        self._array = jobs[0].job_id.split("_")[0]
        self._asked, self._found = -EVERY, set[str]()

    def has(self, job: Any) -> bool:
        """Whether a job waits, runs or ends just now."""
        if time.monotonic() - self._asked > EVERY:
            command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={self._array}"]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            # A job that is gone is an error to squeue; a controller that is silent is no news.
            if answer.returncode == 0 or "Invalid job id" in answer.stderr:
                self._asked, self._found = time.monotonic(), set(answer.stdout.split())
        return job.job_id in self._found


@dataclass
class SlurmJob:
    """A job of the array."""

    job: Any  # submitit's
    queue: SlurmQueue

    def done(self) -> bool:
        """Whether SLURM is through with it."""
        return self.job.paths.result_pickle.exists() or not self.queue.has(self.job)

    def error(self) -> str:
        """Where it wrote what went wrong."""
        return f"its SLURM job {self.job.job_id} ended without it, see {self.job.paths.stderr}"

    def cancel(self) -> None:
        """Take it from the queue, or end it."""
        self.job.cancel()


def run_in_jobs(
    groups: Sequence[Sequence[Point]],
    display: ProgressDisplay,
    settings: Mapping[str, Any],
    *,
    points: int | None,
    cpus: int,
    resources: Mapping[str, Any],
) -> dict[Path, Status]:
    """Run all points in jobs and return their statuses by folder.

    A job that runs out of its time or of which SLURM takes the machine is queued again.

    Raises:
        ConfigError: there is no submitit, or no SLURM here.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            "hydra/launcher=fused_slurm needs submitit: pip install 'gradlab[slurm]'."
        ) from error
    logs = groups[0][0].folder.parent / LOGS
    try:
        executor = submitit.AutoExecutor(logs / "%j", cluster="slurm", slurm_max_num_timeout=100)
    except RuntimeError as error:
        raise ConfigError(
            "hydra/launcher=fused_slurm needs SLURM's commands (sbatch) on this machine."
        ) from error
    executor.update_parameters(
        name="gradlab", **{key: value for key, value in resources.items() if value is not None}
    )
    works = pieces(groups, points, settings, cpus)
    with executor.batch():
        jobs = [executor.submit(work) for work in works]
    queue = SlurmQueue(jobs)
    return follow(works, [SlurmJob(job, queue) for job in jobs], display)
