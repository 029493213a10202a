"""Panels of cells: an outcome as colour over the levels of two config keys, numbers written in."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from gradlab.figures import cell_numbers, legends, style
from gradlab.figures.labels import key_label, value_label
from gradlab.figures.layout import Grid
from gradlab.figures.lines import write_none
from gradlab.figures.selection import levels_of

# Inches at a text of size 1: beside panels; above and below them; of a cell's height; of a panel's.
BESIDE, AROUND = 1.0, 1.9
LOWEST, HIGHEST, TALLEST = 0.34, 0.6, 4.5
NUMBER_SIZE = "x-small"
TICK, TICKS = 18, 5  # letters of a tick's label, ticks of the colour bar, at most
LETTER, LINE = 0.68, 1.3  # width of a letter and height of a line, relative to the font's size
WIDE = 30.0  # greatest over least amount, beyond which colours are of its log
LEAST = 0.02  # of an amount: smaller differences do not span the colours
# Cells without a finite number, and their looks.
MARKS = {
    "diverged": style.DIVERGED,
    "exactly zero": style.ZERO,
    "infinite": style.INFINITE,
    "no value": style.BLANK,
}


class Axis(NamedTuple):
    """A config key along an axis and its levels; None: there is one level, without a name."""

    key: str | None
    levels: list[Any]

    @classmethod
    def of(cls, runs: pd.DataFrame, key: str | None) -> "Axis":
        """Return the axis of a key with all levels that runs have."""
        return cls(key, levels_of(runs, key) if key else [None])

    def positions(self, cells: pd.DataFrame) -> np.ndarray:
        """Return where each cell lies along the axis."""
        if self.key is None:
            return np.zeros(len(cells), int)
        return pd.Index(self.levels).get_indexer(pd.Index(cells[self.key]))

    def label(self) -> str:
        """Return the label of the axis."""
        name = style.literal(key_label(self.key)) if self.key else ""
        return f"{name} (steps)" if self.key == "task.length" else name

    def ticks(self) -> list[str]:
        """Return the labels of the levels, long ones cut short."""
        labels = [value_label(self.key, level) if self.key else "" for level in self.levels]
        cut = (text if len(text) <= TICK else f"{text[: TICK - 1]}…" for text in labels)
        return [style.literal(text) for text in cut]


class Scale(NamedTuple):
    """The colours of an outcome: its name, the label of the bar, colours and their limits."""

    value: str
    label: str
    colours: Colormap
    limits: Normalize

    @classmethod
    def of(cls, cells: pd.DataFrame, value: str, label: str) -> "Scale":
        """Return the colours of all cells of a figure."""
        numbers = cell_numbers.shown(cells, value)[value]
        finite = numbers[np.isfinite(numbers)]
        limits: Normalize = Normalize(0, 1)
        if value == "decay_rate":
            most = float(finite.abs().max()) if finite.any() else 1.0
            return cls(value, label, style.norm_colours(), Normalize(-most, most))
        if value != "success" and len(finite):
            low, high = float(finite.min()), float(finite.max())
            is_wide = 0 < WIDE * low < high
            limits = (
                LogNorm(low, high)
                if is_wide
                else Normalize(low, max(high, low + LEAST * abs(low) + 1e-9))
            )
        return cls(value, label, style.sequential_colours(), limits)

    def text_colour(self, number: float) -> str:
        """Return the colour of text on that of a number."""
        if not np.isfinite(number):
            return style.GREY
        red, green, blue, _ = self.colours(self.limits(number))
        return "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else "black"


def new_panels(grid: Grid, x: Axis, y: Axis) -> tuple[Figure, SubFigure, np.ndarray, float]:
    """Return a figure, its body, labelled panels [row, column], and their height in inches."""
    labels, rows = [label for label, _ in grid.groups()], grid.row_labels()
    look = style.current_style()
    width = look.column if len(labels) <= 2 else look.width
    across = (width - BESIDE * look.text) / len(labels)
    cell = np.clip(across / len(x.levels), LOWEST * look.text, HIGHEST * look.text)
    height = float(np.clip(cell * len(y.levels), 0.6 * look.text, TALLEST * look.text))
    whole = (height + 0.4 * look.text) * len(rows) + AROUND * look.text
    figure, body = style.new_figure(width, whole)
    fitting = style.sparse(x.ticks(), across)
    names = x.ticks() if any(isinstance(level, str) for level in x.levels) else fitting
    panels = body.subplots(len(rows), len(labels), sharex=True, sharey=True, squeeze=False)
    for axes in panels.ravel():
        axes.set_xticks(range(len(x.levels)), names)
        if names == x.ticks() != fitting:
            axes.tick_params(axis="x", rotation=90)
        axes.set_yticks(range(len(y.levels)), y.ticks())
        for name, axis in (("x", x), ("y", y)):
            if axis.key is None:
                axes.tick_params(axis=name, length=0)
        axes.set_xlim(-0.5, len(x.levels) - 0.5)
        axes.set_ylim(-0.5, len(y.levels) - 0.5)
    for axes, label in zip(panels[0], labels, strict=True):
        axes.set_title(style.wrapped(label, across))
    for axes, label in zip(panels[:, -1], rows, strict=True):
        style.label_row(axes, style.wrapped(label, height))
    for axes in panels[-1]:
        axes.set_xlabel(x.label())
    for axes in panels[:, 0]:
        axes.set_ylabel(style.wrapped(y.label(), height))
    return figure, body, panels, height


def draw(axes: Axes, cells: pd.DataFrame, x: Axis, y: Axis, scale: Scale) -> None:
    """Draw the cells of a panel as colours and hatches; write "none" if there are none."""
    if cells.empty:
        write_none(axes)
        return
    places, shape = (y.positions(cells), x.positions(cells)), (len(y.levels), len(x.levels))
    numbers, marked = np.full(shape, np.nan), np.full(shape, "no value", dtype=object)
    numbers[places] = cell_numbers.shown(cells, scale.value)[scale.value]
    marked[places] = cells["mark"]
    colours: dict[str, Any] = {"cmap": scale.colours, "norm": scale.limits}
    axes.imshow(np.ma.masked_invalid(numbers), origin="lower", aspect="auto", **colours)
    for (row, column), mark in np.ndenumerate(marked):
        if mark:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **MARKS[mark]))


def draw_bar(figure: Figure, body: SubFigure, panels: np.ndarray, scale: Scale) -> None:
    """Draw the colour bar below the panels, and lay the figure out, so that its label fits it."""
    below: dict[str, Any] = {"location": "bottom", "aspect": 40, "pad": 0.02}
    if not isinstance(scale.limits, LogNorm):
        below["ticks"] = MaxNLocator(TICKS)
    mappable = ScalarMappable(scale.limits, scale.colours)
    bar = body.colorbar(mappable, ax=panels.ravel().tolist(), label=scale.label, **below)
    figure.draw_without_rendering()
    width = bar.ax.bbox.width / body.get_dpi()
    bar.set_label(style.wrapped(scale.label, width))


def mark_entries(cells: pd.DataFrame, value: str) -> list[legends.Entry]:
    """Return the legend entries of cells without a finite number."""
    labels = {}
    if value == "horizon":
        is_median = cell_numbers.partly_infinite(cells).any()
        never = "half of the seeds or more never fall" if is_median else "never falls"
        labels = {"infinite": f"{never} to 1/e"}
    marked = set(cells["mark"])
    return [
        Patch(label=labels.get(mark, mark), **look)
        for mark, look in MARKS.items()
        if mark in marked
    ]


def write_numbers(
    panels: Sequence[Axes], cells: Sequence[pd.DataFrame], x: Axis, y: Axis, scale: Scale
) -> str:
    """Write the numbers, and their spread over seeds below them, into cells that have the room.

    Args:
        panels: laid out.
        cells: of each panel.
        x, y: their axes.
        scale: their colours.

    Returns:
        The sentence that says what a cell's number is; "" if none has several points.
    """
    texts = [cell_numbers.texts(own, scale.value) for own in cells]
    numbers, spreads = ([text[i].split("\n") for own in texts for text in own] for i in (0, 1))
    number, below = (
        max((len(line) for lines in written for line in lines), default=0)
        for written in (numbers, spreads)
    )
    wide, high = _room(panels[0], x, y)
    has_spread = wide >= max(number, below) and high > max(map(len, spreads), default=0)
    if wide >= number and high >= 1:
        for axes, own, words in zip(panels, cells, texts, strict=True):
            values = cell_numbers.shown(own, scale.value)[scale.value]
            places = zip(x.positions(own), y.positions(own), values, words, strict=True)
            for column, row, value, text in places:
                written = "\n".join(filter(None, text if has_spread else text[:1]))
                if written:
                    _write(axes, (column, row), written, scale.text_colour(value))
    return cell_numbers.meaning(pd.concat(cells), scale.value, has_spread)


def _room(axes: Axes, x: Axis, y: Axis) -> tuple[float, float]:
    """Return how many letters, and how many lines, fit into a cell of a laid out panel."""
    points = FontProperties(size=NUMBER_SIZE).get_size_in_points()
    extent, size = axes.get_window_extent(), points / 72 * axes.figure.dpi
    wide = extent.width / len(x.levels) / (LETTER * size)
    return wide - 0.5, extent.height / len(y.levels) / (LINE * size)


def _write(axes: Axes, place: tuple[int, int], text: str, colour: str) -> None:
    looks: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.1}
    if colour == style.GREY:  # on a hatching
        looks["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.text(*place, text, size=NUMBER_SIZE, color=colour, **looks)
