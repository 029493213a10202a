"""The end of a sweep: a table of its points, its figure, and where everything is."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from gradlab.figures import labels, selection, style
from gradlab.figures.of_runs.overview import overview_figure
from gradlab.figures.places import check_place
from gradlab.point import Point
from gradlab.printable import printable
from gradlab.records import OVERVIEW, WANDB, load_status, sweep_folder
from gradlab.records.layout import UNREADABLE
from gradlab.records.table import load_runs
from gradlab.sweeps.screen import screen, show

COLOURS = {
    "vanishing": "blue",
    "stable": "green",
    "exploding": "red",
    "diverged": "magenta",
    "unmeasured": "white",
}
ADVISED = 2  # points whose advice is printed


def report(sweep: Sequence[Point]) -> None:
    """Print the table, draw the overview figure, say where they are and what to type next."""
    folder = sweep_folder(sweep[0].folder)
    runs = load_runs(folder, "all")
    console, place = screen(), printable(_short(folder))
    show(console, points_table(selection.comparable(runs), folder))
    for sentence in advice(runs, folder):
        show(console, f"advice   {sentence}")
    show(console, f"seconds  {seconds(runs)}")
    show(console, f"records  {place}")
    if runs.get("jacobian/decay_rate", pd.Series(dtype=float)).notna().any():
        show(console, f"figure   {_draw(runs, folder / OVERVIEW, place)}")
    if sweep[0].config.wandb.mode != "disabled":
        show(console, f"W&B      wandb leet {shlex.quote(f'{place}/{WANDB}')}")


def _draw(runs: pd.DataFrame, path: Path, place: str) -> str:
    """Draw the sweep's figure unless its place is taken; return where it is, or why it is not."""
    try:
        check_place(path, remedy="move it, and resume the sweep")
    except ValueError as error:
        return printable(error)
    style.save(overview_figure(runs).figure, path)
    return f"{place}/{path.name}"


def points_table(runs: pd.DataFrame, folder: Path) -> Table:
    """Return one row per point of a sweep's folder: varying keys, verdict, reach, success."""
    readable = runs[~runs["status"].isin(UNREADABLE)]  # the others may lack a config
    keys = selection.varying_keys(readable if len(readable) else runs)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("point", justify="right")
    for key in keys:
        table.add_column(printable(labels.key_label(key)))
    table.add_column("verdict")
    for heading in ("decay rate\nnats/step", "horizon\nsteps", "loss ÷\nbaseline", "accuracy"):
        table.add_column(heading, justify="right")
    for _, run in runs.iterrows():
        levels = (printable(labels.value_label(key, run[key])) for key in keys)
        point = Path(run["path"]).relative_to(folder).as_posix()
        table.add_row(printable(point), *levels, *_results(run))
    return table


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


def advice(runs: pd.DataFrame, folder: Path) -> list[str]:
    """Return the first advice of the first points that have some, and how many others have."""
    sentences = []
    for path in map(Path, runs.loc[runs["status"].isin(["done", "diverged"]), "path"]):
        own = load_status(path).get("advice", [])
        sentences += [printable(f"{path.relative_to(folder)}: {x}") for x in own[:1]]
    more = len(sentences) - ADVISED
    others = [f"{more} more in the points' status.json"] if more > 0 else []
    return sentences[:ADVISED] + others


def _results(run: pd.Series) -> list[str | Text]:
    if run["status"] not in ("done", "diverged"):
        return [Text.assemble((run["status"], "red"), " ", printable(run["reason"]))]
    verdict = printable(run["verdict"])
    baseline = run.get("eval/baseline") or float("nan")  # 0: all answers are the same
    learned = run.get("eval/loss", float("nan")) / baseline
    return [
        Text(verdict, COLOURS.get(verdict, "")),
        _number(run.get("jacobian/decay_rate"), "+.3f"),
        _number(run.get("jacobian/horizon"), ".1f"),
        _number(learned, ".2f"),
        _number(run.get("eval/accuracy"), ".1%"),
    ]


def _number(value: Any, form: str) -> str:
    return "–" if value is None or pd.isna(value) else format(value, form)


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
