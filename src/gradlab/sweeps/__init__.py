"""Many points as one sweep: planned into groups, run together, shown while they run, reported."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from gradlab import records
from gradlab.components import ConfigError
from gradlab.config import Config, Sweep
from gradlab.point import Point, Status, point_of_job
from gradlab.point.failures import reason_of
from gradlab.printable import pasted, printable
from gradlab.records import leases, reseal_config, sweep_folder
from gradlab.sweeps import elsewhere, ledger, refusals
from gradlab.sweeps.edited import of_earlier_code
from gradlab.sweeps.groups import Group, program_of, run_built
from gradlab.sweeps.interrupts import stopping
from gradlab.sweeps.lanes import run_here
from gradlab.sweeps.objective import Objective, is_search, objective_of
from gradlab.sweeps.program_cache import keep_programs
from gradlab.sweeps.progress import ProgressDisplay, sentence_on
from gradlab.sweeps.screen import screen, show

Runner: TypeAlias = Callable[[Sequence[Group], ProgressDisplay, Sweep], dict[Path, Status]]


class Incomplete(SystemExit):
    """Some points of a sweep are not done: a command ends with the sentence, and status 1.

    Attributes:
        interrupted: whether the process was asked to stop.
    """

    def __init__(self, sentence: str, interrupted: bool = False) -> None:
        """Take the sentence, without the command's name before it."""
        super().__init__(f"gradlab: {sentence}")
        self.sentence, self.interrupted = sentence, interrupted


def run_sweep(
    points: Sequence[Point],
    groups: Sequence[Group],
    settings: Sweep,
    run: Runner | None = None,
    is_last: bool = True,
    goal: Objective | None = None,
) -> list[Status]:
    """Run points of one sweep, show the progress, and end with the table and the figure.

    Args:
        points: all points of the sweep.
        groups: the unfinished ones, by program.
        settings: the config's sweep section.
        run: runs the groups; None: in this process.
        is_last: whether the sweep ends with these points; else neither table nor figure follows.
        goal: what the points are searched for; None if they are not.

    Returns:
        The points' statuses, in their order.
    """
    if settings.keep_programs:
        keep_programs()
    console, to_run = screen(), {point.folder for group in groups for point in group.points}
    recorded = {point.folder: ledger.status_in(point.folder) for point in points}
    earlier = {folder: status for folder, status in recorded.items() if folder not in to_run}
    states = [status["state"] for status in earlier.values()]
    edited = of_earlier_code(points, recorded, to_run)
    for sentence in [*(_of_earlier(states, len(points)) if is_last else ()), *edited]:
        show(console, sentence)
    statuses: dict[Path, Status] = {}
    if groups:
        with ProgressDisplay(groups) as display:
            statuses = (run or run_here)(groups, display, settings)
    if is_last:
        _report(points, settings, goal)
    return [
        _as_recorded(p.folder, statuses.get(p.folder) or _of_others(earlier.get(p.folder)))
        for p in points
    ]


def _report(points: Sequence[Point], settings: Sweep, goal: Objective | None) -> None:
    try:
        from gradlab.sweeps.report import report  # its figures take a second to import

        report(points, settings.table, goal)
    except Exception as error:
        sentence = f"The closing report could not be made ({reason_of(error)}); see the records in "
        show(screen(), printable(f"{sentence}{sweep_folder(points[0].folder)}"))


def _as_recorded(folder: Path, status: Status) -> Status:
    """Return a point's status, "damaged" if its files are no longer those that it sealed."""
    try:
        records.load_verified(folder)
    except ValueError:
        return {"state": "damaged"}
    except OSError:  # it has written none, or none that can be read
        pass
    return status


def _of_others(status: Status | None) -> Status:
    """Return the status of a point that this sweep has not run; None: it was not begun."""
    if status is None:
        return {"state": "waiting"}
    return status if status["state"] in ledger.ENDED else {"state": "running"}  # elsewhere


def _of_earlier(states: Sequence[str], total: int) -> list[str]:
    """Return sentences on the points that are not to run.

    Args:
        states: theirs.
        total: number of points of the sweep.
    """
    ended, failed = sum(state in ledger.ENDED for state in states), states.count("failed")
    if not ended:
        return []
    rest = "; nothing is left to run" if ended == total else ""
    sentences = [f"{ended} of {total} points have ended already{rest}."]
    if failed:
        them = "it runs" if failed == 1 else "they run"
        sentences.append(f"{failed} of them failed: {them} again with sweep.retry=failed.")
    return sentences


def check_done(statuses: Sequence[Status], folder: Path, has_run: bool, is_search: bool) -> None:
    """Check that all points are done, or failed before and were left alone now.

    In a search, points may fail as long as one of the batch does not.

    Raises:
        Incomplete: they are not.
    """
    states = [status["state"] for status in statuses]
    unfinished = sum(state not in ledger.ENDED for state in states)
    again = pasted("sweep.resume", folder)
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


def show_best(goal: Objective, tried: Sequence[tuple[float, ledger.Entry]]) -> None:
    """Print the best point of a search so far.

    Args:
        goal: its objective.
        tried: each point's value, and the point.
    """
    values, entries = zip(*tried, strict=True)
    best = goal.best(values)
    if best == goal.worst:
        return
    names = refusals.describe([e.number for e in entries], [e.overrides for e in entries])
    where = names[values.index(best)]
    sentence = f"best     {goal.name} {best:.4g} of {len(values)} points: {where}"
    show(screen(), printable(sentence))


def run_alone(composed: DictConfig) -> float | None:
    """Run the one point of the present Hydra job: under a launcher that is not gradlab's.

    Returns:
        The value of `sweep.objective`, to a sweeper that searches; a point that fails has the
        worst, and does not end the search.

    Raises:
        ConfigError: its config is wrong, or it asks for a plan, which takes all points.
        HydraException: the point failed.
        SystemExit: it was interrupted.
    """
    point = point_of_job(composed)
    settings = point.config.sweep
    if settings.plan_only:
        raise ConfigError("--dry needs a launcher that sees all points: hydra/launcher=fused.")
    if settings.keep_programs:
        keep_programs()
    sweeper: Any = OmegaConf.to_container(HydraConfig.get().sweeper)
    goal = objective_of(sweeper, settings) if is_search(sweeper) else None
    ledger.check_links(point.folder, sweep_folder(point.folder))
    if not leases.holder(point.folder):
        reseal_config(point.folder, asdict(point.config))  # Hydra has written its own by now
    to_run = ledger.clear(elsewhere.claim([point], settings.retried))
    recorded = {point.folder: ledger.status_in(point.folder)}
    for sentence in of_earlier_code([point], recorded, {own.folder for own in to_run}):
        show(screen(), sentence)
    for pending in to_run:
        with stopping() as stop:
            (status,) = run_built(program_of(point.config, {}), [pending], stop=stop)
        elsewhere.release([pending])
        show(screen(), sentence_on(point, status))
        if status["state"] == "interrupted":
            sys.exit("gradlab: interrupted; the same command goes on from the checkpoint.")
        if (
            status["state"] == "failed" and not goal
        ):  # Hydra's launcher runs the others, then says so
            raise HydraException(f"point {point.folder.name} failed; see above.")
    return goal.of(ledger.status_in(point.folder)) if goal else None


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
