"""The command line of the scripts in analysis/: read runs, draw, write the figure and its data.

A script is its docstring and one call: `draw_moments` for figures of what was measured before and
after training, `draw` for others. A script with options of its own makes a parser and calls `run`.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from matplotlib.figure import Figure

from gradlab import explain, load_runs, load_wandb
from gradlab.figures import lines, outcome, selection, style
from gradlab.figures.places import FORMATS, check_place
from gradlab.printable import escape_what_cannot_be_printed
from gradlab.records.files import write_whole

# Where a cell begins that a spreadsheet takes for a formula, whichever separator it splits at.
FORMULA = re.compile(r"(?<![^,;|\t\r\n])(?=[\s\"']*[=+\-@＝＋－＠])")
OWN = "# python "  # how a table of ours begins
MOMENTS = {"first": ("before",), "last": ("after",), "both": lines.WHEN}


class Parser(argparse.ArgumentParser):
    """A parser that reports a wrong argument in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}; --help says what it takes.\n")


def draw(docstring: str | None, figure: Callable[[pd.DataFrame], style.Drawn]) -> None:
    """Run a script whose figure takes nothing but runs.

    Args:
        docstring: the script's.
        figure: draws the runs.
    """
    run(runs_parser(docstring), lambda runs, _: figure(runs))


def draw_moments(
    docstring: str | None, figure: Callable[[pd.DataFrame, Sequence[str]], style.Drawn]
) -> None:
    """Run a script whose figure shows measurements before and after training; it takes --step.

    Args:
        docstring: the script's.
        figure: draws the runs, "before" and/or "after" training.
    """
    parser = runs_parser(docstring)
    parser.add_argument(
        "--step",
        choices=MOMENTS,
        default="both",
        help="measured at the first step (before training), the last, or both (%(default)s)",
    )
    run(parser, lambda runs, arguments: figure(runs, MOMENTS[arguments.step]))


def runs_parser(docstring: str | None) -> Parser:
    """Return a parser with the options of every figure of runs."""
    parser = figure_parser(docstring)
    add_source(parser)
    return parser


def figure_parser(docstring: str | None) -> Parser:
    """Return a parser with the options of every figure.

    Args:
        docstring: the script's; the part before its colon is shown by --help.
    """
    parser = Parser(description=summary_of(docstring))
    parser.add_argument("--out", type=Path, help="the file (default: SCRIPT.png beside the runs)")
    parser.add_argument("--format", choices=FORMATS, help="default: that of --out, else png")
    parser.add_argument("--style", choices=style.STYLES, default=style.DEFAULT)
    return parser


def summary_of(docstring: str | None) -> str:
    """Return the part of a script's docstring before its colon."""
    return (docstring or "").partition(":")[0]


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add --runs and --wandb, of which a user gives one."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--runs", metavar="FOLDER", type=Path, help="a sweep's folder")
    source.add_argument(
        "--wandb", metavar="SOURCE", help="ENTITY/PROJECT[/GROUP], or a folder of offline runs"
    )


def add_success(parser: argparse.ArgumentParser) -> None:
    """Add --success-error and --success-accuracy, the criteria of success."""
    parser.add_argument(
        "--success-error",
        type=float,
        default=outcome.MAX_ERROR,
        help="success is an eval/error_rate below (%(default)s), where it is logged",
    )
    parser.add_argument(
        "--success-accuracy",
        type=float,
        default=outcome.MIN_ACCURACY,
        help="else an eval/accuracy above (%(default)s)",
    )


def positive(text: str) -> float:
    """Parse a positive number, as the type of an argument."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be more than 0; got {text}")
    return number


def count(text: str) -> int:
    """Parse an integer of at least 2, as the type of an argument."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2; got {text}")
    return number


def run(
    parser: argparse.ArgumentParser,
    figure: Callable[[pd.DataFrame, argparse.Namespace], style.Drawn],
) -> None:
    """Parse the command line, read the runs, draw them, and write the figure and its data.

    Args:
        parser: from `runs_parser`, with the script's own options.
        figure: draws the runs with the parsed arguments.
    """
    arguments = parser.parse_args()
    with exit_on_user_error():
        runs = read_runs(arguments)
    write_figure(arguments, lambda: figure(runs, arguments), runs)


def read_runs(arguments: argparse.Namespace) -> pd.DataFrame:
    """Read the runs that --runs or --wandb names, with all columns."""
    if arguments.runs:
        return load_runs(arguments.runs, "all")
    return load_wandb(arguments.wandb, columns="all")


def write_figure(
    arguments: argparse.Namespace,
    figure: Callable[[], style.Drawn],
    runs: pd.DataFrame | None = None,
) -> None:
    """Draw in the style of --style, write the figure and its data, and print the figure's path.

    Args:
        arguments: parsed by a `figure_parser`.
        figure: draws.
        runs: the runs whose index the table's `point` is, if it has that column.
    """
    with exit_on_user_error():
        path = output_path(arguments)
        with style.theme(arguments.style):
            drawn = figure()
        table = drawn.table if runs is None else name_points(drawn.table, runs)
        print(write(drawn.figure, table, path))


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the script with an error's own sentence instead of a traceback, if a user caused it."""
    escape_what_cannot_be_printed()
    try:
        yield
    except (OSError, ValueError) as error:
        sys.exit(explain.sentence(error))


def output_path(arguments: argparse.Namespace) -> Path:
    """Return the path of the figure, from --out and --format, else beside the runs.

    Raises:
        ValueError: the two name different formats, or --out one that is not in FORMATS; or, without
            --out, the place is taken.
    """
    script = Path(sys.argv[0]).stem
    path = arguments.out or (getattr(arguments, "runs", None) or Path()) / script
    suffix = path.suffix.removeprefix(".") or arguments.format or FORMATS[0]
    if suffix not in FORMATS:
        raise ValueError(f"--out must end in .{', .'.join(FORMATS)}; got {str(path)!r}.")
    if arguments.format not in (None, suffix):
        raise ValueError(f"--out is a {suffix} and --format says {arguments.format}: give one.")
    path = path.with_suffix(f".{suffix}")
    if arguments.out is None:
        check_place(path)
    return path


def write(figure: Figure, table: pd.DataFrame, path: Path) -> Path:
    """Write a figure and, beside it as CSV, the command that drew it and the data it shows.

    Read the data with `pandas.read_csv(path, skiprows=1)`. Text that a spreadsheet would take for a
    formula, be it after a separator, has an apostrophe before it.

    Raises:
        ValueError: a file has the table's name that no script here has written.
    """
    data = path.with_suffix(".csv")
    if data.is_file() and not data.is_symlink() and not _is_own(data):
        raise ValueError(
            f"{str(data)!r}, where the figure's data goes, is a file of someone's own: move it, or "
            "give another --out."
        )
    style.save(figure, path)
    text = f"# {command_line(sys.argv)}\n" + as_text(table).to_csv(
        index=False, float_format="%.7g", lineterminator="\n"
    )

    def write_data(unfinished: Path) -> None:
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)

    write_whole(data, write_data)
    return path


def _is_own(data: Path) -> bool:
    """Return whether a table begins as those that `write` writes."""
    with data.open("rb") as file:
        return file.readline().lstrip(b'"').startswith(OWN.encode())


def command_line(arguments: Sequence[str]) -> str:
    """Return the command that runs a script, in one line, and no cell of which is a formula."""
    line = shlex.join(["python", *arguments])
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return FORMULA.sub("''", line)  # to a shell, two quotes are nothing


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text, column names included, no spreadsheet takes for a formula."""
    texts = table.select_dtypes(exclude="number").columns
    return table.assign(**{name: table[name].map(_as_text) for name in texts}).rename(
        columns=_as_text
    )


def _as_text(value: Any) -> Any:
    if pd.api.types.is_scalar(value) and not isinstance(value, str):
        return value
    text = str(value)
    with suppress(ValueError):
        float(text)  # a number is no formula
        return text
    return FORMULA.sub("'", text).replace("\r", "\\r")  # which would begin a row of its own


def name_points(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Replace the column `point` by the config values that vary, and sort by them."""
    if "point" not in table:
        return table
    runs = selection.readable(runs)
    keys = selection.varying_keys(runs)
    values = table.drop(columns=["point", *table.columns.intersection(keys)])
    config = runs.loc[table["point"], keys].reset_index(drop=True)
    named = pd.concat([config, values.reset_index(drop=True)], axis=1)
    return named.sort_values(keys, kind="stable") if keys else named
