"""The end of a sweep: its table and what that means, its figure, and where everything is."""

import shlex
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from math import inf
from pathlib import Path

import pandas as pd
from rich.table import Table

from gradlab import decay, sentences
from gradlab.figures import selection, style
from gradlab.figures.of_runs.overview import overview_figure
from gradlab.figures.places import MARK, check_place
from gradlab.figures.settings import CSV_MARK, by_setting, save_csv
from gradlab.identity import LATER
from gradlab.point import Point
from gradlab.printable import pasted, printable
from gradlab.records import OVERVIEW, SETTINGS, WANDB, load_gradients, load_status, sweep_folder
from gradlab.records.table import load_runs
from gradlab.sweeps.closing_table import (
    ClosingTable,
    closing_table,
    column,
    remark,
    states,
)
from gradlab.sweeps.legend import legend
from gradlab.sweeps.objective import Objective
from gradlab.sweeps.screen import screen, show
from gradlab.tracking.summary_run import log_settings

LISTED = 3  # points of which a line says more: what their curve does, why they failed
ADVISED = 2  # points whose advice is printed


def report(sweep: Sequence[Point], rows: str = "settings", goal: Objective | None = None) -> None:
    """Print and write the table, draw the overview, say where they are and what to type next.

    Args:
        sweep: its points.
        rows: of the table: settings or points.
        goal: of a search, whose overview is that of its best point.
    """
    folder = sweep_folder(sweep[0].folder)
    runs = selection.comparable(load_runs(folder, "all"))
    runs = runs.fillna({key: x for key, x in LATER.items() if x is not None})  # of earlier code
    console, place = screen(), printable(_short(folder))
    curves = turning_curves(runs)
    table = closing_table(runs, folder, rows, {point: word for point, (word, _) in curves.items()})
    fitted = table.fitted(console.width)
    show(console, fitted.content)
    show(console, "")
    show(console, _grid(legend(table, fitted.columns)))
    if hidden := [name for name in table.columns if name not in fitted.columns]:
        show(console, f"columns  {', '.join(hidden)}: on a wider screen, or by gradlab.load_runs")
    if table.averages:
        resume = pasted("sweep.resume", place)
        show(console, f"seeds    python -m gradlab {resume} sweep.table=points")
    for sentence in [*troubles(table), *courses(table, curves)]:
        show(console, sentence)
    for sentence in advice(table):
        show(console, f"advice   {sentence}")
    show(console, f"seconds  {seconds(runs)}")
    show(console, f"records  {place}")
    settings, config = by_setting(runs), sweep[0].config
    written = _keep(folder / SETTINGS, place, lambda path: save_csv(settings, path), CSV_MARK)
    show(console, f"table    {written}")
    if column(runs, "jacobian/decay_rate").notna().any():
        chosen = best_of(runs, goal) if goal else runs
        drawn = _keep(
            folder / OVERVIEW, place, lambda path: style.save(overview_figure(chosen).figure, path)
        )
        show(console, f"figure   {drawn}{' (the best point)' if len(chosen) < len(runs) else ''}")
    if config.wandb.mode != "disabled":
        if len(runs) > 1:  # of one point its own run says all
            log_settings(settings, folder, sweep[0].sweep, asdict(config))
        show(console, f"W&B      wandb leet {shlex.quote(f'{place}/{WANDB}')}")


def best_of(runs: pd.DataFrame, goal: Objective) -> pd.DataFrame:
    """Return the best point of a search, or all where none has a value."""
    values = [goal.of({"state": run["status"], "summary": run}) for _, run in runs.iterrows()]
    best = goal.best(values)
    return runs if best == goal.worst else runs.iloc[[values.index(best)]]


def _keep(path: Path, place: str, write: Callable[[Path], object], mark: str = MARK) -> str:
    """Write a file of the sweep's unless its place is taken; return where it is, or why it is not.

    Args:
        path: the file.
        place: how the sweep's folder is called.
        write: writes it.
        mark: text in a file that gradlab has made.
    """
    try:
        check_place(path, "move it, and resume the sweep", mark)
    except ValueError as error:
        return printable(error)
    write(path)
    return f"{place}/{path.name}"


def _grid(meanings: Mapping[str, str]) -> Table:
    """Return words with their meanings, each meaning in a column of its own."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for word, meaning in meanings.items():
        grid.add_row(word, meaning, style="dim")
    return grid


def turning_curves(runs: pd.DataFrame) -> dict[Hashable, tuple[str, sentences.Course]]:
    """Return the remark and the course of each point whose curve its verdict does not describe.

    Only maps of points whose metrics leave it open are read.

    Args:
        runs: from `selection.comparable`.

    Returns:
        By the points' labels in the runs.
    """
    curves = {}
    for label, run in runs[_may_turn(runs)].iterrows():
        try:
            maps = load_gradients(run["path"])["jacobian_log_norm"].isel(step=-1)
        except (OSError, ValueError, KeyError):  # its verdict stands without a remark
            continue
        profile = decay.lag_profile(maps)
        if (course := sentences.course(profile)) and (
            word := remark(profile.to_numpy(), run["verdict"])
        ):
            curves[label] = (word, course)
    return curves


def _may_turn(runs: pd.DataFrame) -> pd.Series:
    """Return whether a point's metrics fit the cases of `remark`."""
    state, horizon = states(runs), column(runs, "jacobian/horizon")
    prefix = "jacobian/log_norm/lag_"
    lags = [str(name) for name in runs if str(name).startswith(prefix)]
    far = (runs[lags].astype(float).abs() > decay.TENFOLD).any(axis="columns")
    return (
        ((state == "vanishing") & (horizon == inf))
        | ((state == "exploding") & (horizon < inf))
        | ((state == "stable") & far)
    )


def courses(
    table: ClosingTable, curves: Mapping[Hashable, tuple[str, sentences.Course]]
) -> list[str]:
    """Return a sentence on the curve of the first points that have a remark."""
    lines = [
        f"curve    {table.point(label)}: the mean norm {course}"
        for label, (_, course) in curves.items()
    ]
    return _first(lines, "curve    {} more: gradlab figure decay draws them")


def troubles(table: ClosingTable) -> list[str]:
    """Return a sentence on each reason for which points did not end as done, with its points.

    The first reason of every status comes before the second of any.
    """
    runs = table.runs[~table.runs["status"].isin(["done", "pruned"])]  # which is no trouble
    lines = dict[Hashable, list[str]]()
    for (status, reason), same in runs.groupby(["status", "reason"], sort=False, dropna=False):
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        why = f": {printable(reason)}" if isinstance(reason, str) and reason else ""
        line = f"{status:8} {table.point(same.index[0])}{more}{why}"
        lines.setdefault(status, []).append(line)
    in_turn = [line for turn in zip_longest(*lines.values()) for line in turn if line]
    left_out = "         {} more reasons in the points' status.json"
    return _first(in_turn, left_out, max(LISTED, len(lines)))


def advice(table: ClosingTable) -> list[str]:
    """Return the first advice of the first points that have some, and how many others have."""
    runs, lines = table.runs, list[str]()
    for label, path in runs.loc[runs["status"].isin(["done", "diverged"]), "path"].items():
        own = load_status(Path(path)).get("advice", [])
        lines += [f"{table.point(label)}: {printable(x)}" for x in own[:1]]
    return _first(lines, "{} more in the points' status.json", ADVISED)


def _first(lines: Sequence[str], more: str, count: int = LISTED) -> list[str]:
    rest = len(lines) - count
    return [*lines[:count], *([more.format(rest)] if rest > 0 else [])]


def seconds(runs: pd.DataFrame) -> str:
    """Return the points' wall time per activity, in one line."""
    spent = {
        name: runs.get(f"time/{name}_seconds", pd.Series(dtype=float)).sum()
        for name in ("train", "evaluate", "probe", "compile")
    }
    share = f" ({spent['probe'] / spent['train']:.0%} of training)" if spent["train"] else ""
    return (
        f"training {spent['train']:.1f}, evaluation {spent['evaluate']:.1f}, "
        f"probes {spent['probe']:.1f}{share}, compiling {spent['compile']:.1f}"
    )


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
