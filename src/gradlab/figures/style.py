"""Look and layout of every figure: theme, colours that colour-blind readers tell apart, notes.

Figures use only `matplotlib.figure.Figure`, without a display or state of pyplot.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from io import BytesIO
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple
from zlib import crc32

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, findfont, get_font

from gradlab.figures import units
from gradlab.figures.line_breaks import filled
from gradlab.figures.places import FORMATS, MARK
from gradlab.records.files import write_whole

FONT = "DejaVu Sans"  # ships with Matplotlib: the same figure on every machine
UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # in place of what no font shows
GREY = "0.4"
FITS = 4  # of a figure's height to its panels, at most
MISSING = 0.03  # inches of height that all rows of panels together may lack or have too much
NOTE_LETTERS = 16  # of a note in an inch
TITLE_LETTERS = 9  # of a title in an inch
PANEL_LETTERS = 12  # of a panel's title in an inch
TICK_LETTERS = 13  # of a tick's label in an inch
ZERO: dict[str, Any] = {"facecolor": "0.88", "edgecolor": "0.6", "hatch": "////", "linewidth": 0}
DIVERGED: dict[str, Any] = {
    "facecolor": "0.35",
    "edgecolor": "0.85",
    "hatch": "xxx",
    "linewidth": 0,
}
INFINITE: dict[str, Any] = {"facecolor": "1.0", "edgecolor": "0.35", "hatch": "...", "linewidth": 0}
BLANK: dict[str, Any] = {"facecolor": "1.0", "edgecolor": "0.6", "linewidth": 0.5}
LOST: dict[str, Any] = {"facecolor": "0.75", "edgecolor": "0.2", "hatch": "xxxx", "linewidth": 0}

# Okabe & Ito (2008) without its blue and vermilion, which resemble the two hues of the maps.
MODEL_COLOURS = {"rnn": "#009e73", "lstm": "#e69f00", "gru": "#cc79a7"}
OTHER_COLOURS = ("#56b4e9", "#7f7f7f", "#b8a800", "#8c564b", "#332288", "#66a61e")


class Style(NamedTuple):
    """Sizes for one use of a figure.

    Attributes:
        width: of a figure, inches, at most.
        column: width of a figure of one or two panels side by side, inches.
        text: size of the text, relative to that of a page.
    """

    width: float
    column: float
    text: float


STYLES = {
    "paper": Style(width=7.0, column=3.5, text=0.85),
    "notebook": Style(width=9.0, column=6.0, text=1.0),
    "talk": Style(width=13.0, column=9.0, text=1.7),
}
DEFAULT = "notebook"

THEME: dict[Any, Any] = {  # all of Matplotlib's settings, whatever a matplotlibrc or caller says
    **{key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"},
    **sns.axes_style("ticks"),
    "font.sans-serif": [FONT],
    "axes.linewidth": 0.8,
    "figure.dpi": 150,
    "figure.titleweight": "bold",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
}


class Drawn(NamedTuple):
    """A figure and the tidy table that it shows; a column `point` is the index of the runs.

    A notebook shows it as a picture.

    Example:
        >>> drawn = gradlab.figures.training(runs, metric=["eval/loss"])
        >>> list(drawn.table.columns)
        ['point', 'step', 'quantity', 'value', 'diverged']
        >>> axes = drawn.figure.axes
    """

    figure: Figure
    table: pd.DataFrame

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        with theme():
            self.figure.savefig(picture, format="png")
        return picture.getvalue()


_DRAWING = RLock()
_STYLE: ContextVar[str] = ContextVar("style", default=DEFAULT)


@contextmanager
def theme(style: str | None = None, unit: units.Unit | None = None) -> Iterator[None]:
    """Draw in a style and a unit, by default those of the surrounding theme.

    It is a context or a decorator. Only one thread draws at a time, because Matplotlib's settings
    are global.

    Args:
        style: "paper", "notebook" (the default outside any theme) or "talk".
        unit: of log norms, "decades" (the default outside any theme) or "nats".

    Raises:
        ValueError: one of them is another word.

    Example:
        >>> with gradlab.figures.theme("paper", unit="nats"):
        ...     drawn = gradlab.figures.decay(runs)
    """
    if style is not None and style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}; got {style!r}.")
    token = _STYLE.set(style or _STYLE.get())
    text: dict[Any, Any] = {**sns.plotting_context("paper", font_scale=current_style().text)}
    text |= {
        "axes.titlesize": 9 * current_style().text,
        "figure.titlesize": 12 * current_style().text,
    }
    try:
        with _DRAWING, matplotlib.rc_context(THEME | text), units.shown_in(unit):
            yield
    finally:
        _STYLE.reset(token)


def current_style() -> Style:
    """Return the current style."""
    return STYLES[_STYLE.get()]


@theme()
def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format of the path's suffix (png, pdf, svg, …); return the path.

    Args:
        figure: Matplotlib's, such as `Drawn.figure`.
        path: the file to write.

    Raises:
        ValueError: Matplotlib does not write the format of the suffix.
        RecordError: the file could not be written; what was there before is whole.

    Example:
        >>> drawn = gradlab.figures.training(runs, metric=["eval/loss"])
        >>> print(gradlab.figures.save(drawn.figure, "training.pdf"))
        training.pdf
    """
    path = Path(path)
    suffix = path.suffix.removeprefix(".")
    if suffix not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"a figure is not written as {path.name!r}: end it in .png, .svg or .pdf.")
    maker: dict[str, str | None] | None = {"Creator": MARK} if suffix in FORMATS else None
    if maker and suffix == "svg":
        maker["Date"] = None
    with matplotlib.rc_context(
        {"svg.hashsalt": MARK}
    ):  # as without a date: the same figure, the same bytes
        write_whole(path, lambda file: figure.savefig(file, format=suffix, metadata=maker))
    return path


def literal(text: str) -> str:
    """Return text of a record as Matplotlib shows it: no formula, in one line, in glyphs it has."""
    shown = " ".join(text.split())
    shown = "".join(c if ord(c) in _glyphs() else UNKNOWN for c in shown)
    return shown.replace("$", r"\$")


@cache
def _glyphs() -> set[int]:
    """Return the characters that the font has, upright and bold, and that are no controls."""
    fonts = [get_font(findfont(FontProperties(family=FONT, weight=w))) for w in ("normal", "bold")]
    known = set.intersection(*(set(font.get_charmap()) for font in fonts))
    return {code for code in known if not unicodedata.category(chr(code)).startswith("C")}


def model_colours(runs: pd.DataFrame) -> dict[str, str]:
    """Return the colour of each model, the same in every figure that shows it.

    Flax's cells have fixed ones. Any other model's follows from its name, unless another model of
    the runs has that one already; where there are more models than colours, from darker ones.
    """
    colours = dict(MODEL_COLOURS)
    for name in sorted(set(runs["model.name"]) - set(MODEL_COLOURS), key=str):
        first = crc32(str(name).encode()) % len(OTHER_COLOURS)
        own = [*OTHER_COLOURS[first:], *OTHER_COLOURS[:first]]
        darker = (shades(colour, 2)[-1] for colour in own)
        free = (colour for colour in chain(own, darker) if colour not in colours.values())
        colours[name] = next(free, own[0])
    return colours


def shades(colour: str, count: int) -> list[str]:
    """Return `count` shades of a colour, light to dark, all dark enough on white."""
    if count == 1:
        return [colour]
    light, dark = sns.light_palette(colour, 10)[6], sns.dark_palette(colour, 10)[4]
    return list(sns.blend_palette([light, colour, dark], count).as_hex())


def sequence(count: int) -> list[str]:
    """Return `count` colours in an order, dark to light, all dark enough on white."""
    return list(sns.color_palette("viridis", as_cmap=False, n_colors=count + 1).as_hex())[:count]


def blues(count: int) -> list[str]:
    """Return `count` blues in an order, dark to light, all dark enough on white."""
    return list(sns.blend_palette(["#08306b", "#2171b5", "#74b3dd"], max(count, 2)).as_hex())[
        :count
    ]


def norm_colours() -> Colormap:
    """Return the colours of log norms: blue below 0 nats (norm < 1), red above, light grey at 0."""
    return sns.color_palette("vlag", as_cmap=True)


def sequential_colours() -> Colormap:
    """Return the colours of amounts: dark (little) to light (much), in greyscale too."""
    return sns.color_palette("cividis", as_cmap=True)


def new_figure(width: float, height: float, title: str = "") -> tuple[Figure, SubFigure]:
    """Return a figure with a title, and in it the body to draw in; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    letters = int(TITLE_LETTERS * width / current_style().text)
    figure.suptitle(filled(literal(title), letters))
    return figure, figure.add_subfigure(figure.add_gridspec(1, 1)[0])


def wrapped(text: str, width: float) -> str:
    """Break a panel's title into lines of `width` inches, between its comma-separated parts.

    A part that is longer than a line is broken between its words.
    """
    letters, no_break = (
        max(8, int(PANEL_LETTERS * width / current_style().text)),
        "\N{NO-BREAK SPACE}",
    )
    parts = [
        part if len(part) > letters else part.replace(" ", no_break)
        for part in literal(text).split(", ")
    ]
    return filled(", ".join(parts), letters).replace(no_break, " ")


def sparse(labels: Sequence[str], width: float) -> list[str]:
    """Return the labels of ticks along `width` inches, "" for those that there is no room for.

    The last one stays, and every nth before it.
    """
    room = TICK_LETTERS * width / current_style().text / max(1, len(labels))  # letters of a tick
    longest = max(map(len, labels), default=0) + 1
    every = max(1, int(np.ceil(longest / max(room, 1e-6))))
    last = len(labels) - 1
    return [label if (last - i) % every == 0 else "" for i, label in enumerate(labels)]


def label_row(axes: Axes, text: str, *, left: bool = False) -> None:
    """Write the setting of a row of panels beside its last panel, or left of its first one's label.

    Args:
        axes: the panel.
        text: from `wrapped`.
        left: of the label of its y axis, which is there already.
    """
    if not text:
        return
    where: Any = axes.yaxis.label if left else "axes fraction"
    looks: dict[str, Any] = {"va": "center", "weight": "bold", "textcoords": "offset points"}
    looks |= {"multialignment": "center"}
    looks |= {"rotation": 90, "ha": "right"} if left else {"rotation": -90, "ha": "left"}
    axes.annotate(text, (0 if left else 1, 0.5), (-6 if left else 6, 0), xycoords=where, **looks)


def finish(figure: Figure, notes: Sequence[str], heights: float | Sequence[float] = 0.0) -> Figure:
    """Write notes below the body, lay the figure out, and return it.

    Args:
        figure: from `new_figure`, with everything drawn.
        notes: sentences, such as what the figure leaves out.
        heights: of every panel, or those of each row of panels, inches: the figure is made as high
            as they and its legend, titles and notes need; 0: its height stays.
    """
    letters = int(NOTE_LETTERS * figure.get_figwidth() / current_style().text)
    text = filled(literal(" ".join(notes)), letters)
    if text:
        figure.supxlabel(text, x=0.01, ha="left", fontsize="small", color=GREY)
    # The layout of square panels beside a colour bar needs two drawings; this is the first.
    figure.draw_without_rendering()
    for _ in range(FITS if heights else 0):
        missing = _missing_heights(figure, heights)
        if abs(missing) <= MISSING:
            break
        figure.set_figheight(figure.get_figheight() + missing)
        figure.draw_without_rendering()
    return figure


def _missing_heights(figure: Figure, wanted: float | Sequence[float]) -> float:
    """Return the inches that all rows of panels together lack of their heights."""
    rows: dict[int, float] = {}
    for axes in figure.axes:
        if (place := axes.get_subplotspec()) is not None:
            row = place.rowspan.start
            # Before a square panel is fitted into its room, which may be too narrow for more.
            room = axes.get_position(original=True).height * axes.figure.bbox.height / figure.dpi
            missing = (wanted if isinstance(wanted, float) else wanted[row]) - room
            rows[row] = max(missing, rows.get(row, missing))
    return sum(rows.values())
