"""Many points as one sweep: planned into groups, run together, shown while they run, reported."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gradlab.config import ConfigError
from gradlab.point import Point, Status, point_of_job, run_point
from gradlab.sweep import ledger
from gradlab.sweep.groups import group_by_program
from gradlab.sweep.lanes import run_here
from gradlab.sweep.program_cache import keep_programs
from gradlab.sweep.progress import ProgressDisplay

Settings = Mapping[str, Any]
Runner = Callable[[Sequence[Sequence[Point]], ProgressDisplay, Settings], dict[Path, Status]]


def run_sweep(
    points: Sequence[Point], todo: Sequence[Point], settings: Settings, run: Runner = run_here
) -> list[Status]:
    """Run points of one sweep, show how far they are, and end with the table and the figure.

    Args:
        points: of the whole sweep.
        todo: those of them that have not ended.
        settings: the config's sweep section.
        run: where they run; here, unless told otherwise.

    Returns:
        The points' statuses, in their order.
    """
    if settings["keep_programs"]:
        keep_programs()
    if len(todo) < len(points):
        print(f"{len(points) - len(todo)} of {len(points)} points have ended already.")
    groups = group_by_program(todo)
    with ProgressDisplay(groups) as display:
        statuses = run(groups, display, settings) if groups else {}
    from gradlab.sweep.report import report  # its figures take a second to import

    report(points)
    return [statuses.get(point.folder) or ledger.status_of(point) for point in points]


def run_alone(composed: DictConfig) -> None:
    """Run the one point of the present Hydra job: under a launcher that is not gradlab's.

    Raises:
        ConfigError: its config is wrong, or it asks for a plan, which takes all points.
    """
    point = point_of_job(composed)
    settings = point.config["sweep"]
    if settings["plan_only"]:
        raise ConfigError("--dry needs a launcher that sees all points: hydra/launcher=fused.")
    if settings["keep_programs"]:
        keep_programs()
    for todo in ledger.clear(ledger.pending([point], settings["retry"].split(","))):
        status = run_point(todo)
        outcome = status.get("reason") or status["summary"]["verdict"]
        print(f"point {point.folder.name} {status['state']}: {outcome}")


def joint_settings(configs: Sequence[Mapping[str, Any]]) -> Settings:
    """The sweep section that all points share; `sweep.retry=failed,diverged` gives each a half.

    Raises:
        ConfigError: points differ in another key of it.
    """
    sections = [config["sweep"] for config in configs]
    for key in sections[0]:
        values = list(dict.fromkeys(section[key] for section in sections))
        if len(values) > 1 and key != "retry":
            raise ConfigError(f"sweep.{key} must be the same for all points; got {values}.")
    retry = {state for section in sections for state in section["retry"].split(",")}
    return {**sections[0], "retry": sorted(retry)}
