"""Many points as one sweep: planned into groups, run together, shown while they run, reported."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

from omegaconf import DictConfig

from gradlab.components import ConfigError
from gradlab.config import Config, Sweep
from gradlab.point import Point, Status, point_of_job, run_point
from gradlab.records import reseal_config, sweep_folder
from gradlab.sweep import ledger
from gradlab.sweep.groups import Group
from gradlab.sweep.lanes import run_here
from gradlab.sweep.program_cache import keep_programs
from gradlab.sweep.progress import ProgressDisplay

Runner: TypeAlias = Callable[[Sequence[Group], ProgressDisplay, Sweep], dict[Path, Status]]


def run_sweep(
    points: Sequence[Point], groups: Sequence[Group], settings: Sweep, run: Runner = run_here
) -> list[Status]:
    """Run points of one sweep, show the progress, and end with the table and the figure.

    Args:
        points: all points of the sweep.
        groups: the unfinished ones, by program.
        settings: the config's sweep section.
        run: runs the groups; by default in this process.

    Returns:
        The points' statuses, in their order.
    """
    if settings.keep_programs:
        keep_programs()
    ended = len(points) - sum(len(group.points) for group in groups)
    if ended:
        rest = "" if groups else "; nothing is left to run"
        print(f"{ended} of {len(points)} points have ended already{rest}.")
    statuses: dict[Path, Status] = {}
    if groups:
        with ProgressDisplay(groups) as display:
            statuses = run(groups, display, settings)
    from gradlab.sweep.report import report  # its figures take a second to import

    report(points)
    return [statuses.get(point.folder) or ledger.status_of(point) for point in points]


def run_alone(composed: DictConfig) -> None:
    """Run the one point of the present Hydra job: under a launcher that is not gradlab's.

    Raises:
        ConfigError: its config is wrong, or it asks for a plan, which takes all points.
    """
    point = point_of_job(composed)
    settings = point.config.sweep
    if settings.plan_only:
        raise ConfigError("--dry needs a launcher that sees all points: hydra/launcher=fused.")
    if settings.keep_programs:
        keep_programs()
    ledger.check_links(point.folder, sweep_folder(point.folder))
    reseal_config(point.folder, asdict(point.config))  # Hydra has written its own by now
    for pending in ledger.clear(ledger.pending([point], settings.retried)):
        status = run_point(pending)
        outcome = status.get("reason") or status["summary"]["verdict"]
        print(f"point {point.folder.name} {status['state']}: {outcome}")


def joint_settings(configs: Sequence[Config]) -> Sweep:
    """Return the sweep section that all points share.

    To Hydra, `sweep.retry=failed,diverged` is a sweep over two values; here both hold.

    Raises:
        ConfigError: points differ in another key of it.
    """
    sections = [config.sweep for config in configs]
    for key in vars(sections[0]):
        given = [getattr(section, key) for section in sections]
        values = [value for i, value in enumerate(given) if value not in given[:i]]
        if len(values) > 1 and key != "retry":
            raise ConfigError(f"sweep.{key} must be the same for all points; got {values}.")
    retried = set[str]().union(*(section.retried for section in sections))
    states = [state for state in ("failed", "diverged") if state in retried]
    return replace(sections[0], retry=",".join(states) or "nothing")
