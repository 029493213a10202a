"""Groups of points as tasks of Ray, on this machine or a cluster."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradlab.components import ConfigError
from gradlab.config import Sweep
from gradlab.point import Status
from gradlab.printable import printable
from gradlab.sweeps.groups import Group
from gradlab.sweeps.progress import ProgressDisplay
from gradlab.sweeps.remote import Work, follow, import_scheduler, split_groups

if TYPE_CHECKING:
    from ray._private.worker import BaseContext


@dataclass
class RayTask:
    """A task that was handed to Ray."""

    reference: Any

    def done(self) -> bool:
        """Return whether it has returned or failed."""
        import ray

        return bool(ray.wait([self.reference], timeout=0)[0])

    def error(self) -> str:
        """Return the error it ended in."""
        import ray

        try:
            ray.get(self.reference)
        except Exception as error:
            last = (str(error).splitlines() or [""])[-1]
            return printable(f"its Ray task ended in {type(error).__name__}: {last}")
        return "its Ray task left it out"

    def cancel(self) -> None:
        """Interrupt the task."""
        import ray

        ray.cancel(self.reference)


def connect(cluster: Mapping[str, Any]) -> "BaseContext":
    """Connect to a cluster of Ray, or start one here.

    Args:
        cluster: arguments of ray.init besides gradlab's.

    Raises:
        ConfigError: there is no Ray, or no cluster at the address.
    """
    ray = import_scheduler("ray", "Ray", extra="ray")
    # Tasks look for all modules where Ray is started: not in the working folder.
    with warnings.catch_warnings(), chdir(Path(__file__).parents[2]):
        # Ray forks before JAX has done anything here that a fork could break.
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        try:
            context: BaseContext = ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
                **cluster,
            )
        except ConnectionError as error:
            reason = printable((str(error).splitlines() or [""])[0])
            raise ConfigError(
                f"hydra/launcher=fused_ray: no cluster answers ({reason})."
            ) from error
    return context


def run_in_tasks(
    groups: Sequence[Group],
    display: ProgressDisplay,
    settings: Sweep,
    *,
    points_per_task: int | None,
    cpus: int,
    gpus: float,
    context: "BaseContext",
) -> dict[Path, Status]:
    """Run all points in tasks and return their statuses by folder.

    Args:
        groups: programs and their points.
        display: shown every point that ends.
        settings: the config's sweep section.
        points_per_task: at most so many; None: all of a group.
        cpus, gpus: requested for a task.
        context: the connection to the cluster, which is closed at the end.
    """
    import ray

    with context:
        works = split_groups(groups, points_per_task, settings, cpus)
        run = ray.remote(num_cpus=cpus, num_gpus=gpus)(Work.__call__)
        return follow(works, [RayTask(run.remote(work)) for work in works], display)
