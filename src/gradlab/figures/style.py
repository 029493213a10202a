"""How every figure looks and is saved: theme, colours that colour-blind readers tell apart, notes.

Figures are built from `matplotlib.figure.Figure` alone, so no display and no pyplot state is
involved.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure

WIDTH = 9.0  # inches; every figure's, so that text is the same size beside other figures
GREY = "0.4"
LEGEND_LINE, LEGEND_LETTER = 0.55, 0.075  # inches: an entry without its text, a letter of it
LETTERS = 16  # of a footnote in an inch
TITLE_LETTERS = 9  # of a title in an inch
ZERO: dict[str, Any] = {"facecolor": "0.88", "edgecolor": "0.6", "hatch": "////", "linewidth": 0}
LOST: dict[str, Any] = {"facecolor": "0.75", "edgecolor": "0.2", "hatch": "xxxx", "linewidth": 0}

# Okabe & Ito (2008) without its blue and vermilion, which the map's two hues would be taken for.
MODEL_COLOURS = {"rnn": "#009e73", "lstm": "#e69f00", "gru": "#cc79a7"}
OTHER_COLOURS = ("#56b4e9", "#7f7f7f", "#b8a800", "#8c564b")

THEME: dict[Any, Any] = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("paper"),
    "font.sans-serif": ["DejaVu Sans"],  # ships with Matplotlib: the same figure on every machine
    "axes.linewidth": 0.8,
    "axes.titlesize": 9,
    "figure.dpi": 150,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}

_DRAWING = RLock()


@contextmanager
def theme() -> Iterator[None]:
    """Draw in the project's style, one thread at a time: Matplotlib's settings are global."""
    with _DRAWING, matplotlib.rc_context(THEME):
        yield


@theme()
def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format of the path's suffix (png, pdf, svg, …); return the path.

    Raises:
        ValueError: the suffix is no format that Matplotlib writes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def model_colours(runs: pd.DataFrame) -> dict[str, str]:
    """One colour a model, the same in every figure; other cells than Flax's take the next free."""
    others = sorted(set(runs["model.name"]) - set(MODEL_COLOURS))
    free = (OTHER_COLOURS[i % len(OTHER_COLOURS)] for i in range(len(others)))
    return MODEL_COLOURS | dict(zip(others, free, strict=True))


def shades(colour: str, count: int) -> list[str]:
    """Shades of one colour, light to dark, none too light to be read on white."""
    if count == 1:
        return [colour]
    light, dark = sns.light_palette(colour, 10)[6], sns.dark_palette(colour, 10)[4]
    return list(sns.blend_palette([light, colour, dark], count).as_hex())


def norm_colours() -> Colormap:
    """Log norms: blue below 0 nats (norm < 1), red above, a light grey at 0."""
    return sns.color_palette("vlag", as_cmap=True)


def frame(width: float, height: float, title: str = "") -> tuple[Figure, SubFigure]:
    """A figure with a title and room for a footnote, and the body to draw in; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(textwrap.fill(title, int(TITLE_LETTERS * width), break_long_words=True))
    return figure, figure.add_subfigure(figure.add_gridspec(1, 1)[0])


def legend(body: SubFigure, handles: Sequence[Artist], rows: int) -> None:
    """Write the legend above the panels, in so many rows, or in more where they would not fit."""
    letters = [len(str(handle.get_label())) for handle in handles]
    columns = -(-len(handles) // rows)
    while columns > 1 and _legend_width(letters, columns) > body.bbox.width / body.get_dpi():
        columns -= 1
    body.legend(handles=handles, loc="outside upper center", ncols=columns)


def _legend_width(letters: Sequence[int], columns: int) -> float:
    widest = [int(max(column)) for column in np.array_split(letters, columns)]
    return LEGEND_LINE * columns + LEGEND_LETTER * sum(widest)


def finish(figure: Figure, notes: Sequence[str]) -> Figure:
    """Write below the body what a reader must know of what is, and is not, in the figure."""
    text = textwrap.fill(" ".join(notes), width=int(LETTERS * figure.get_figwidth()))
    if text:
        figure.supxlabel(text, x=0.01, ha="left", fontsize="small", color=GREY)
    # The layout of square panels beside a colour bar settles at the second drawing only.
    figure.draw_without_rendering()
    return figure
