"""Draw the lecture's figures for slides, as SVG in talk style.

    python docs/lecture/slides.py --out slides                       # all sections, English
    python docs/lecture/slides.py 06_vanishing --language es --out diapositivas

A figure is named by its section and its cell: `06_vanishing-gains.svg`.
"""

import argparse
import ast
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from notebooks import LANGUAGES, SOURCES, notebook_of

from gradlab import figures

LARGER = 1.45  # than in a notebook, for the larger text


def run(code: str, names: dict[str, Any]) -> Any:
    """Run a cell's code; return the value of its last line, as a notebook shows it."""
    tree = ast.parse(code)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "<cell>", "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


def figure_of(shown: Any) -> Figure | None:
    """Return the figure that a cell shows: its last line's, else the one that it has drawn."""
    match shown:
        case Figure():
            return shown
        case figures.Drawn():
            return shown.figure
        case figures.Slider():
            return shown.figure()
    return plt.gcf() if plt.get_fignums() else None


def figures_of(source: Path, language: str) -> Iterator[tuple[str, Figure]]:
    """Run a source; yield the figure of each cell that has a name."""
    jax.config.update("jax_enable_x64", False)  # as a notebook's kernel starts
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook_of(source, language).cells if cell.cell_type == "code"]
    for cell in cells[1:]:  # the first installs gradlab
        with redirect_stdout(StringIO()):  # what cells print is on no slide
            drawn = figure_of(run(cell.source, names))
        if drawn is not None and "name" in cell.metadata:
            yield cell.metadata["name"], drawn
        plt.close("all")


def main() -> None:
    """Write the figures of the sections that are asked for."""
    sections = {source.stem: source for source in sorted(SOURCES.glob("*.py"))}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--out", type=Path, default=Path("slides"), help="folder, made if missing")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(sections):
        parser.error(f"no section {sorted(unknown)[0]!r}: choose from {', '.join(sections)}.")
    mpl.use("agg")
    options.out.mkdir(parents=True, exist_ok=True)
    for section in options.sections or sections:
        with figures.theme("talk"):
            for name, figure in figures_of(sections[section], options.language):
                width, height = figure.get_size_inches() * LARGER
                figure.set_size_inches(width, height)
                print(figures.save(figure, options.out / f"{section}-{name}.svg"))


if __name__ == "__main__":
    main()
