"""`gradlab figure NAME`, and the scripts in analysis/: read runs, draw, write figure and data.

What there is to draw stands in `catalogue`.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn, get_args

import pandas as pd
from matplotlib.figure import Figure

from gradlab import load_runs, load_wandb
from gradlab.components import CallError, call, locate, why_not
from gradlab.explain.errors import sentence
from gradlab.figures import selection, style, units
from gradlab.figures.catalogue import FIGURES, Entry, entry_of, overview
from gradlab.figures.places import FORMATS, check_place
from gradlab.printable import escape_what_cannot_be_printed
from gradlab.records.files import write_whole

# Where a cell begins that a spreadsheet takes for a formula, whichever separator it splits at.
FORMULA = re.compile(r"(?<![^,;|\t\r\n])(?=[\s\"']*[=+\-@＝＋－＠])")
OWN = "# python "  # how a table of ours begins


class Parser(argparse.ArgumentParser):
    """A parser that reports a wrong argument in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}; --help says what it takes.\n")


def main(words: Sequence[str]) -> None:
    """Run `gradlab figure`: list the figures, or draw one.

    Args:
        words: those after "figure".
    """
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return
    draw(words[0], words[1:], ["python", "-m", "gradlab", "figure", *words])


def script(name: str) -> None:
    """Run a script of analysis/, which draws one figure."""
    draw(name, sys.argv[1:], ["python", *sys.argv], Path(sys.argv[0]).name)


def draw(name: str, words: Sequence[str], typed: Sequence[str], program: str = "") -> None:
    """Parse a figure's options, read the runs, draw them, write the result and print its path.

    Args:
        name: of the figure, or the dotted path of a function of somebody's own.
        words: its options, as they were typed.
        typed: the whole command, which is written into the table.
        program: what sentences about wrong options begin with; "": "gradlab figure NAME".
    """
    with exit_on_user_error():
        entry = entry_of(name)
        parser, own = figure_parser(entry, program or f"gradlab figure {name}")
        arguments = parser.parse_args(words)
        path = output_path(arguments, name.rpartition(".")[2], entry.formats)
        function = _function(entry.function)
        runs = read_runs(arguments) if entry.has_runs else None
    options = {option: getattr(arguments, option) for option in own}
    given = () if runs is None else (runs,)
    with (
        _errors_of(name),
        style.theme(getattr(arguments, "style", None), getattr(arguments, "unit", None)),
    ):
        try:
            drawn = call(function, *given, **options)
        except CallError as error:
            sys.exit(f"{name} must be a function of the runs alone, {name}(runs): {error}.")
    with exit_on_user_error():
        print(_write(drawn, runs, path, typed, entry))


def figure_parser(entry: Entry, program: str) -> tuple[Parser, list[str]]:
    """Return the parser of a figure, and the names of the options that its function takes."""
    needs = f" The runs must be of {entry.needs}." if entry.needs else ""
    about = f"{entry.summary}.{needs}"
    parser = Parser(prog=program, description=about, allow_abbrev=False)  # --step is no --steps
    beside = " beside the runs" if entry.has_runs else ""
    default = f"the file (default: NAME.{entry.formats[0]}{beside})"
    parser.add_argument("--out", type=Path, help=default)
    if entry.formats == FORMATS:
        parser.add_argument("--format", choices=FORMATS, help="default: that of --out, else png")
        parser.add_argument("--style", choices=style.STYLES, default=style.DEFAULT)
    if entry.has_runs:
        parser.add_argument(
            "--unit",
            choices=get_args(units.Unit),
            default=units.DEFAULT,
            help="of log norms and rates: powers of ten, or natural logs (%(default)s)",
        )
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--runs", metavar="FOLDER", type=Path, help="a sweep's folder")
        source.add_argument(
            "--wandb", metavar="SOURCE", help="ENTITY/PROJECT[/GROUP], or a folder of offline runs"
        )
    own = [parser.add_argument(flag, **settings).dest for flag, settings in entry.options]
    return parser, own


def read_runs(arguments: argparse.Namespace) -> pd.DataFrame:
    """Read the runs that --runs or --wandb names, with all columns."""
    if arguments.runs:
        return load_runs(arguments.runs, "all")
    return load_wandb(arguments.wandb, columns="all")


def _function(path: str) -> Callable[..., Any]:
    """Return the function that draws, by its dotted path; it may be in the working folder.

    Raises:
        ValueError: there is none.
    """
    try:
        function = locate(path)
    except (Exception, SystemExit) as error:  # a module may end the process when it is imported
        raise ValueError(f"{path} cannot be imported: {why_not(path, error)}.") from error
    if not callable(function):
        raise ValueError(f"{path} must be a function that draws runs; it is {function!r:.60}.")
    return function


def _errors_of(name: str) -> AbstractContextManager[None]:
    """Return how errors of drawing are told: ours in a sentence, of somebody's own code as is."""
    return exit_on_user_error() if name in FIGURES else nullcontext()


def _write(
    drawn: Any, runs: pd.DataFrame | None, path: Path, typed: Sequence[str], entry: Entry
) -> Path:
    """Write a page, or a figure and its table where it has one; return the path.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(drawn, str):
        write_whole(path, lambda unfinished: unfinished.write_text(drawn, encoding="utf-8"))
        return path
    if isinstance(drawn, Figure):
        return style.save(drawn, path)
    if not isinstance(drawn, style.Drawn):
        raise ValueError(
            f"{entry.function} must return a matplotlib Figure, or gradlab.figures.style.Drawn "
            f"with its table; it returned a {type(drawn).__name__}."
        )
    table = drawn.table if runs is None else name_points(drawn.table, runs)
    return write(drawn.figure, table, path, typed, entry.nats)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the script with an error's own sentence instead of a traceback, if a user caused it."""
    escape_what_cannot_be_printed()
    try:
        yield
    except (OSError, ValueError) as error:
        sys.exit(sentence(error))


def output_path(arguments: argparse.Namespace, name: str, formats: Sequence[str]) -> Path:
    """Return the path of a figure, from --out and --format, else NAME beside the runs.

    Args:
        arguments: parsed by a `figure_parser`.
        name: the file's, where there is no --out.
        formats: the suffixes that it may have, the default first.

    Raises:
        ValueError: the two name different formats, or --out one that is not in `formats`; or,
            without --out, the place is taken.
    """
    asked = getattr(arguments, "format", None)
    path = arguments.out or (getattr(arguments, "runs", None) or Path()) / name
    suffix = path.suffix.removeprefix(".") or asked or formats[0]
    if suffix not in formats:
        raise ValueError(f"--out must end in .{', .'.join(formats)}; got {str(path)!r}.")
    if asked not in (None, suffix):
        raise ValueError(f"--out is a {suffix} and --format says {asked}: give one.")
    path = path.with_suffix(f".{suffix}")
    if arguments.out is None:
        check_place(path)
    return path


def write(
    figure: Figure,
    table: pd.DataFrame,
    path: Path,
    typed: Sequence[str],
    nats: Sequence[str] = (),
) -> Path:
    """Write a figure and, beside it as CSV, the command that drew it and the data it shows.

    Read the data with `pandas.read_csv(path, skiprows=1)`. Text that a spreadsheet would take for a
    formula, be it after a separator, has an apostrophe before it. The first line names the columns
    in nats, in a comment of its own behind the command.

    Args:
        figure: the picture.
        table: the data.
        path: of the picture.
        typed: the command, in words.
        nats: as in `catalogue.Entry`.

    Raises:
        ValueError: a file has the table's name that gradlab has not written.
    """
    data = path.with_name(f"{path.name}.csv")  # f.png and f.svg keep one each
    if data.is_file() and not data.is_symlink() and not _is_own(data):
        raise ValueError(
            f"{str(data)!r}, where the figure's data goes, is a file of someone's own: move it, or "
            "give another --out."
        )
    style.save(figure, path)
    in_nats = f"  # in nats: {', '.join(nats)}" if set(nats[:1]) & set(table) else ""
    text = f"# {command_line(typed)}{in_nats}\n" + as_text(table).to_csv(
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


def command_line(typed: Sequence[str]) -> str:
    """Return a command in one line, no cell of which is a formula."""
    line = shlex.join(typed)
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
