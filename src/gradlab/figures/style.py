"""How every figure looks and is saved: theme, colours that colour-blind readers tell apart, notes.

Figures are built from `matplotlib.figure.Figure` alone, so no display and no pyplot state is
involved.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator

GREY = "0.4"
LEGEND_LINE, LEGEND_LETTER = 0.55, 0.075  # inches: an entry without its text, a letter of it
LETTERS = 16  # of a footnote in an inch
TITLE_LETTERS = 9  # of a title in an inch
PANEL_LETTERS = 12  # of a panel's title in an inch
MOST_TICKS = 5
DECADE = np.log(10)  # nats
ZERO: dict[str, Any] = {"facecolor": "0.88", "edgecolor": "0.6", "hatch": "////", "linewidth": 0}
LOST: dict[str, Any] = {"facecolor": "0.75", "edgecolor": "0.2", "hatch": "xxxx", "linewidth": 0}

# Okabe & Ito (2008) without its blue and vermilion, which the map's two hues would be taken for.
MODEL_COLOURS = {"rnn": "#009e73", "lstm": "#e69f00", "gru": "#cc79a7"}
OTHER_COLOURS = ("#56b4e9", "#7f7f7f", "#b8a800", "#8c564b")


class Style(NamedTuple):
    """Where a figure is going to be seen: its greatest width in inches, the size of its text."""

    width: float
    column: float  # the width of a figure of one or two panels side by side
    text: float  # in sizes of the text on a page


STYLES = {
    "paper": Style(width=7.0, column=3.5, text=0.85),
    "notebook": Style(width=9.0, column=6.0, text=1.0),
    "talk": Style(width=13.0, column=9.0, text=1.7),
}
DEFAULT = "notebook"

_ONE_TWO_FIVE = np.outer(10.0 ** np.arange(4), (1, 2, 5)).ravel()

THEME: dict[Any, Any] = {
    **sns.axes_style("ticks"),
    "font.sans-serif": ["DejaVu Sans"],  # ships with Matplotlib: the same figure on every machine
    "axes.linewidth": 0.8,
    "figure.dpi": 150,
    "figure.titleweight": "bold",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}

Entry = Artist | tuple[Artist, ...]  # of a legend: one mark, or several side by side


class Drawn(NamedTuple):
    """A figure, and the tidy table of what it shows; `point` is the index of the sweep's runs."""

    figure: Figure
    table: pd.DataFrame


_DRAWING = RLock()
_STYLE: ContextVar[str] = ContextVar("style", default=DEFAULT)


@contextmanager
def theme(style: str | None = None) -> Iterator[None]:
    """Draw in one of STYLES (the one around if none is named), one thread at a time.

    Matplotlib's settings are global.
    """
    token = _STYLE.set(style or _STYLE.get())
    text: dict[Any, Any] = {**sns.plotting_context("paper", font_scale=present().text)}
    text |= {"axes.titlesize": 9 * present().text, "figure.titlesize": 12 * present().text}
    try:
        with _DRAWING, matplotlib.rc_context(THEME | text):
            yield
    finally:
        _STYLE.reset(token)


def present() -> Style:
    """The style that is drawn in."""
    return STYLES[_STYLE.get()]


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


def amounts() -> Colormap:
    """Amounts, from dark (little) to light (much), even in grey."""
    return sns.color_palette("cividis", as_cmap=True)


def frame(width: float, height: float, title: str = "") -> tuple[Figure, SubFigure]:
    """A figure with a title and room for a footnote, and the body to draw in; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    letters = int(TITLE_LETTERS * width / present().text)
    figure.suptitle(textwrap.fill(title, letters, break_long_words=True))
    return figure, figure.add_subfigure(figure.add_gridspec(1, 1)[0])


def wrapped(text: str, width: float) -> str:
    """A title broken into lines that fit in so many inches, if it can be between its parts."""
    letters, tied = max(8, int(PANEL_LETTERS * width / present().text)), "\N{NO-BREAK SPACE}"
    parts = [x if len(x) > letters else x.replace(" ", tied) for x in text.split(", ")]
    return textwrap.fill(", ".join(parts), letters).replace(tied, " ")


def legend(body: SubFigure, entries: Sequence[Entry]) -> None:
    """Write the legend above the panels, in one row if it fits."""
    names = [str((e[0] if isinstance(e, tuple) else e).get_label()) for e in entries]
    letters, columns = [len(name) for name in names], len(entries)
    room = body.bbox.width / body.get_dpi() / present().text
    while columns > 1 and _legend_width(letters, columns) > room:
        columns -= 1
    marks: Any = list(entries)  # its annotations know no tuples
    several = {tuple: HandlerTuple(ndivide=None, pad=0)}
    body.legend(marks, names, handler_map=several, loc="outside upper center", ncols=columns)


def _legend_width(letters: Sequence[int], columns: int) -> float:
    widest = [int(max(column)) for column in np.array_split(letters, columns)]
    return LEGEND_LINE * columns + LEGEND_LETTER * sum(widest)


def norm_axis(axis: Axis) -> None:
    """Label an axis of log norms, in nats, with the norms: powers of ten, or what is between."""
    axis.set_major_locator(_NormLocator())
    axis.set_major_formatter(FuncFormatter(lambda nats, _: _norm_label(nats)))


class _NormLocator(Locator):
    """Ticks at round norms of an axis in nats."""

    def __call__(self) -> Any:
        return self.tick_values(*self.axis.get_view_interval())  # type: ignore[union-attr]

    def tick_values(self, vmin: float, vmax: float) -> Any:
        first = np.floor(vmin / DECADE)
        if vmax - vmin > 2 * DECADE:
            every = np.ceil((vmax - vmin) / DECADE / MOST_TICKS)
            return DECADE * every * np.arange(np.floor(first / every), vmax / DECADE / every + 1)
        low, high = np.exp(vmin - first * DECADE), np.exp(vmax - first * DECADE)
        evenly = MaxNLocator(MOST_TICKS, steps=[1, 2, 5, 10])
        round_ones = np.asarray(evenly.tick_values(low, high) if high < 5 * low else _ONE_TWO_FIVE)
        return np.log(round_ones[round_ones > 0]) + first * DECADE


def _norm_label(nats: float) -> str:
    exponent = int(np.floor(nats / DECADE + 1e-9))
    mantissa = float(np.exp(nats - exponent * DECADE))
    if -3 < exponent < 3 and not np.isclose(mantissa, 1):
        return f"{np.exp(nats):.3g}"
    power = f"10^{{{exponent}}}" if exponent else "1"
    return f"${power}$" if np.isclose(mantissa, 1) else rf"${mantissa:.3g}\cdot{power}$"


def finish(figure: Figure, notes: Sequence[str]) -> Figure:
    """Write below the body what a reader must know of what is, and is not, in the figure."""
    letters = int(LETTERS * figure.get_figwidth() / present().text)
    text = textwrap.fill(" ".join(notes), width=letters)
    if text:
        figure.supxlabel(text, x=0.01, ha="left", fontsize="small", color=GREY)
    # The layout of square panels beside a colour bar settles at the second drawing only.
    figure.draw_without_rendering()
    return figure
