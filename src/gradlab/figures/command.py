"""What the scripts of analysis/ share: where the runs come from, where the figure goes, its data.

A script is a parser and a function that draws; everything else is here.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pandas as pd
from matplotlib.figure import Figure

from gradlab import load_runs, load_wandb
from gradlab.figures import lines, outcome, selection, style

FORMATS = ("png", "svg", "pdf")
MOMENTS = {"first": ("before",), "last": ("after",), "both": lines.WHEN}


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2."""
        self.exit(2, f"{self.prog}: {message}; --help says what it takes.\n")


def parser(description: str | None) -> Parser:
    """A parser with the options of every figure of runs; the script adds its own."""
    options = figure_parser(description)
    add_source(options)
    return options


def figure_parser(description: str | None) -> Parser:
    """A parser with the options of every figure.

    Args:
        description: a script's docstring; what stands before its colon is used.
    """
    options = Parser(description=(description or "").partition(":")[0])
    options.add_argument("--out", type=Path, help="the file (default: SCRIPT.png beside the runs)")
    options.add_argument("--format", choices=FORMATS, help="default: that of --out, else png")
    options.add_argument("--style", choices=style.STYLES, default=style.DEFAULT)
    return options


def add_source(options: argparse.ArgumentParser) -> None:
    """Add --runs and --wandb, of which one is given."""
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--runs", metavar="FOLDER", type=Path, help="a sweep's folder")
    source.add_argument(
        "--wandb", metavar="SOURCE", help="ENTITY/PROJECT[/GROUP], or a folder of offline runs"
    )


def add_step(options: argparse.ArgumentParser) -> None:
    """Add --step: which of what was measured at several training steps is drawn."""
    options.add_argument(
        "--step",
        choices=MOMENTS,
        default="both",
        help="measured at the first step (before training), the last, or both (%(default)s)",
    )


def add_success(options: argparse.ArgumentParser) -> None:
    """Add what counts as success."""
    options.add_argument(
        "--success-error",
        type=float,
        default=outcome.ERROR,
        help="success is an eval/error_rate below (%(default)s), where it is logged",
    )
    options.add_argument(
        "--success-accuracy",
        type=float,
        default=outcome.ACCURACY,
        help="else an eval/accuracy above (%(default)s)",
    )


def source_of(arguments: argparse.Namespace) -> pd.DataFrame:
    """The runs that --runs or --wandb names, as of `gradlab.load_runs`."""
    return load_runs(arguments.runs) if arguments.runs else load_wandb(arguments.wandb)


def run(
    options: argparse.ArgumentParser,
    draw: Callable[[pd.DataFrame, argparse.Namespace], style.Drawn],
) -> None:
    """Read the arguments and the runs, draw, write the figure and its data, and say where."""
    given = options.parse_args()
    with one_sentence():
        runs = source_of(given)
        finish(given, lambda: draw(runs, given), runs)


def finish(
    given: argparse.Namespace, draw: Callable[[], style.Drawn], runs: pd.DataFrame | None = None
) -> None:
    """Draw, write the figure and its data, and say where."""
    with one_sentence():
        out = out_of(given)
        with style.theme(given.style):
            drawn = draw()
        table = drawn.table if runs is None else labelled(drawn.table, runs)
        print(write(drawn.figure, table, out))


def positive(text: str) -> float:
    """A positive number, as an argument's type."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be more than 0; got {text}")
    return number


def count(text: str) -> int:
    """A number of at least 2, as an argument's type."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2; got {text}")
    return number


@contextmanager
def one_sentence() -> Iterator[None]:
    """End the script with what a user did wrong, in one sentence instead of a traceback."""
    try:
        yield
    except (FileNotFoundError, ConnectionError, ValueError) as error:
        sys.exit(str(error))


def out_of(arguments: argparse.Namespace) -> Path:
    """The file that the arguments ask for.

    Raises:
        ValueError: they name two formats, or one that is none of FORMATS.
    """
    name = Path(sys.argv[0]).stem
    out = arguments.out or (getattr(arguments, "runs", None) or Path()) / name
    suffix = out.suffix.removeprefix(".") or arguments.format or FORMATS[0]
    if suffix not in FORMATS:
        raise ValueError(f"--out must end in .{', .'.join(FORMATS)}; got {str(out)!r}.")
    if arguments.format not in (None, suffix):
        raise ValueError(f"--out is a {suffix} and --format says {arguments.format}: give one.")
    return out.with_suffix(f".{suffix}")


def write(figure: Figure, table: pd.DataFrame, out: Path) -> Path:
    """Write a figure and, under the same name as CSV, the command and the data it shows.

    Read the data with `pandas.read_csv(path, comment="#")`.
    """
    style.save(figure, out)
    command = shlex.join(["python", *sys.argv])
    with out.with_suffix(".csv").open("w") as file:
        file.write(f"# {command}\n")
        table.to_csv(file, index=False, float_format="%.7g")
    return out


def labelled(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A table with what sets its points apart in place of their numbers, in an order of its own."""
    if "point" not in table:
        return table
    runs = selection.comparable(runs)
    axes = selection.axes_of(runs)
    values = table.drop(columns=["point", *table.columns.intersection(axes)])
    named = runs.loc[table["point"], axes].reset_index(drop=True)
    joined = pd.concat([named, values.reset_index(drop=True)], axis=1)
    return joined.sort_values(axes, kind="stable") if axes else joined
