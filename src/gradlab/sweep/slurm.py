"""Groups of points as an array job of SLURM, through submitit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab.config import ConfigError
from gradlab.point import Point, Status
from gradlab.sweep.progress import Shown
from gradlab.sweep.remote import follow, pieces

LOGS = "slurm"  # in the sweep's folder: what submitit keeps


@dataclass
class Job:
    """A job of the array."""

    job: Any  # submitit's

    def over(self) -> bool:
        """Whether SLURM is through with it."""
        return self.job.done()

    def problem(self) -> str:
        """SLURM's word for how it ended, and where it wrote what."""
        job = self.job
        return f"its SLURM job {job.job_id} ended as {job.state}, see {job.paths.stderr}"

    def cancel(self) -> None:
        """Take it from the queue, or end it."""
        self.job.cancel()


def run_in_jobs(
    groups: Sequence[Sequence[Point]],
    shown: Shown,
    settings: Mapping[str, Any],
    *,
    points: int | None,
    cpus: int,
    wishes: Mapping[str, Any],
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
        name="gradlab", **{key: value for key, value in wishes.items() if value is not None}
    )
    works = pieces(groups, points, settings, cpus)
    with executor.batch():
        jobs = [executor.submit(work) for work in works]
    return follow(works, [Job(job) for job in jobs], shown)
