"""Groups of points as an array job of SLURM, through submitit."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab.components import ConfigError
from gradlab.config import Sweep
from gradlab.point import Status
from gradlab.printable import escaped, printable
from gradlab.records import SLURM_LOGS, sweep_folder
from gradlab.sweeps.groups import Group
from gradlab.sweeps.progress import ProgressDisplay
from gradlab.sweeps.remote import follow, import_scheduler, split_groups

POLL_SECONDS = 5.0  # between questions to SLURM


class SlurmQueue:
    """The jobs of an array that SLURM still has, asked for all together every few seconds."""

    def __init__(self, jobs: Sequence[Any]) -> None:
        """Follow submitit's jobs, all of one array."""
        self._array = jobs[0].job_id.split("_")[0]
        self._queried_at, self._queued = -POLL_SECONDS, set[str]()

    def has(self, job: Any) -> bool:
        """Return whether a job waits, runs or is ending."""
        if time.monotonic() - self._queried_at > POLL_SECONDS:
            command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={self._array}"]
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            # squeue reports an error for jobs that are gone. Without an answer the last list stays.
            if answer.returncode == 0 or "Invalid job id" in answer.stderr:
                self._queried_at, self._queued = time.monotonic(), set(answer.stdout.split())
        return job.job_id in self._queued


@dataclass
class SlurmJob:
    """A job of the array."""

    job: Any  # submitit's
    queue: SlurmQueue

    def done(self) -> bool:
        """Return whether SLURM has finished with it."""
        return self.job.paths.result_pickle.exists() or not self.queue.has(self.job)

    def error(self) -> str:
        """Return the file that its error is in."""
        return f"its SLURM job {self.job.job_id} ended without it, see {self.job.paths.stderr}"

    def cancel(self) -> None:
        """Take the job from the queue, or end it."""
        self.job.cancel()


def check_slurm() -> None:
    """Check that jobs can be given to SLURM.

    Raises:
        ConfigError: there is no submitit, or no SLURM that answers here.
    """
    import_scheduler("submitit", "submitit", extra="slurm")
    try:
        for command in (["sbatch", "--version"], ["squeue", "--me", "--noheader"]):
            subprocess.run(command, capture_output=True, check=True, text=True)
    except FileNotFoundError as error:
        raise ConfigError(
            "hydra/launcher=fused_slurm needs SLURM's commands (sbatch) on this machine."
        ) from error
    except subprocess.CalledProcessError as error:
        reason = printable((error.stderr.strip().splitlines() or ["it gives no reason"])[-1])
        raise ConfigError(
            f"hydra/launcher=fused_slurm: SLURM does not answer ({reason})."
        ) from error


def run_in_jobs(
    groups: Sequence[Group],
    display: ProgressDisplay,
    settings: Sweep,
    *,
    points_per_job: int | None,
    cpus: int,
    python: str | None,
    resources: Mapping[str, Any],
) -> dict[Path, Status]:
    """Run all points in jobs and return their statuses by folder.

    A job that runs out of time, or whose machine SLURM takes away, is queued again.

    Args:
        groups: programs and their points.
        display: shown every point that ends.
        settings: the config's sweep section.
        points_per_job: at most so many; None: all of a group.
        cpus: cores that a job's lanes use.
        python: the command that starts Python in a job; None: the interpreter that runs this.
        resources: parameters of submitit's executor; None values are left out.
    """
    from submitit.slurm.slurm import SlurmExecutor

    executor = _executor(SlurmExecutor, sweep_folder(groups[0].points[0].folder), python, resources)
    works = split_groups(groups, points_per_job, settings, cpus)
    with executor.batch():
        jobs = [executor.submit(work) for work in works]
    queue = SlurmQueue(jobs)
    return follow(works, [SlurmJob(job, queue) for job in jobs], display)


def batch_file(
    folder: Path, jobs: int, *, python: str | None, resources: Mapping[str, Any]
) -> list[str]:
    """Return the lines of the file that sbatch would be given; no SLURM is needed.

    Args:
        folder: the sweep's.
        jobs: the number of jobs; one alone is no array.
        python, resources: as in `run_in_jobs`.

    Raises:
        ConfigError: there is no submitit.
    """
    import_scheduler("submitit", "submitit", extra="slurm")
    from submitit.slurm.slurm import SlurmExecutor

    class Planned(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1  # without a look for srun

    executor = _executor(Planned, folder, python, resources)
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    text: str = executor._make_submission_file_text(executor._submitit_command_str, uid="")
    return [escaped(line, kept="\t") for line in text.splitlines()]


def _executor(
    kind: Callable[..., Any], folder: Path, python: str | None, resources: Mapping[str, Any]
) -> Any:
    """Return submitit's executor of a sweep's jobs."""
    interpreter = python or shlex.quote(sys.executable)
    executor = kind(
        folder.absolute() / SLURM_LOGS / "%j",
        max_num_timeout=100,
        python=f"{interpreter} -P",  # the working folder's modules come last
    )
    given = {key: value for key, value in resources.items() if value is not None}
    executor.update_parameters(job_name="gradlab", **given)
    return executor
