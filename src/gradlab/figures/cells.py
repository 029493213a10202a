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

from gradlab import decay
from gradlab.figures import bands, style, units
from gradlab.figures.labels import key_label, value_label
from gradlab.figures.layout import Grid
from gradlab.figures.lines import write_none
from gradlab.figures.selection import levels_of

# Inches at a text of size 1: beside panels; above and below them; of a cell's height; of a panel's.
BESIDE, AROUND = 1.0, 1.9
LOWEST, HIGHEST, TALLEST = 0.34, 0.6, 4.5
NUMBER_SIZE = "x-small"
LETTER, LINE = 0.68, 1.3  # width of a letter and height of a line, relative to the font's size
WIDE = 30.0  # greatest over least amount, beyond which colours are of its log
# Cells without a finite number, and their looks.
MARKS = {
    "diverged": style.DIVERGED,
    "exactly zero": style.ZERO,
    "infinite": style.INFINITE,
    "no value": style.BLANK,
}
# What a cell says of its seeds, and what is written below its number.
MEANINGS = {
    "success": ("successes of {}", ""),
    "horizon": ("median of {}", ", least–greatest"),
}
MEAN = ("mean of {}", " ± one standard deviation")


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
        """Return the labels of the levels."""
        return [style.literal(value_label(self.key, x)) if self.key else "" for x in self.levels]


class Scale(NamedTuple):
    """The colours of an outcome: its name, the label of the bar, colours and their limits."""

    value: str
    label: str
    colours: Colormap
    limits: Normalize

    @classmethod
    def of(cls, cells: pd.DataFrame, value: str, label: str) -> "Scale":
        """Return the colours of all cells of a figure."""
        numbers = shown(cells, value)[value]
        finite = numbers[np.isfinite(numbers)]
        limits: Normalize = Normalize(0, 1)
        if value == "decay_rate":
            most = max(float(finite.abs().max()), 1e-3) if len(finite) else 1.0
            return cls(value, label, style.norm_colours(), Normalize(-most, most))
        if value != "success" and len(finite):
            low, high = float(finite.min()), float(finite.max())
            is_wide = 0 < WIDE * low < high
            limits = LogNorm(low, high) if is_wide else Normalize(low, max(high, low + 1e-6))
        return cls(value, label, style.sequential_colours(), limits)


def shown(cells: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the numbers of cells in the unit that they are shown in."""
    numbers = cells[[value, "low", "high"]]
    return units.from_nats(numbers) if value == "decay_rate" else numbers


def cell_table(points: pd.DataFrame, keys: Sequence[str], value: str) -> pd.DataFrame:
    """Return the cells of points: one row per combination of levels of the keys.

    Args:
        points: the columns keys, `status` and one named by the outcome.
        keys: of the axes; none: all points are one cell.
        value: the outcome.

    Returns:
        The keys; a column named by the outcome: the rate of successes, the median of horizons, else
        the mean of what is neither NaN nor −inf; `low` and `high`: the 95 % interval of the rate
        (Clopper & Pearson 1934), the least and the greatest horizon, mean ± one standard deviation
        (NaN of a single point); `seeds`: how many points count, of `points`; `mark`: why there is
        no finite number (a key of MARKS), else "".
    """
    if not keys:
        return pd.DataFrame([_summary(points, value)])
    groups = points.groupby(list(keys), sort=False, dropna=False)
    rows = [
        {**dict(zip(keys, levels, strict=True)), **_summary(cell, value)} for levels, cell in groups
    ]
    return pd.DataFrame(rows, columns=[*keys, value, "low", "high", "seeds", "points", "mark"])


def new_panels(grid: Grid, x: Axis, y: Axis) -> tuple[Figure, SubFigure, np.ndarray, float]:
    """Return a figure, its body, labelled panels [row, column], and their height in inches."""
    labels, rows, look = (
        [label for label, _ in grid.groups()],
        grid.row_labels(),
        style.current_style(),
    )
    width = look.column if len(labels) <= 2 else look.width
    across = (width - BESIDE * look.text) / len(labels)
    cell = np.clip(across / len(x.levels), LOWEST * look.text, HIGHEST * look.text)
    height = float(np.clip(cell * len(y.levels), 0.6 * look.text, TALLEST * look.text))
    figure, body = style.new_figure(
        width, (height + 0.4 * look.text) * len(rows) + AROUND * look.text
    )
    panels = body.subplots(len(rows), len(labels), sharex=True, sharey=True, squeeze=False)
    for axes in panels.ravel():
        axes.set_xticks(range(len(x.levels)), style.sparse(x.ticks(), across))
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
    numbers = np.full((len(y.levels), len(x.levels)), np.nan)
    numbers[y.positions(cells), x.positions(cells)] = shown(cells, scale.value)[scale.value]
    axes.imshow(
        np.ma.masked_invalid(numbers),
        cmap=scale.colours,
        norm=scale.limits,
        origin="lower",
        aspect="auto",
    )
    marked = np.full(numbers.shape, "no value", dtype=object)
    marked[y.positions(cells), x.positions(cells)] = cells["mark"]
    for (row, column), mark in np.ndenumerate(marked):
        if mark:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **MARKS[mark]))


def draw_bar(body: SubFigure, panels: np.ndarray, scale: Scale) -> None:
    """Draw the colour bar below the panels."""
    mappable = ScalarMappable(scale.limits, scale.colours)
    body.colorbar(
        mappable,
        ax=panels.ravel().tolist(),
        location="bottom",
        label=scale.label,
        aspect=40,
        pad=0.02,
    )


def mark_entries(cells: pd.DataFrame, value: str) -> list[style.Entry]:
    """Return the legend entries of cells without a finite number."""
    labels = {"infinite": "never falls to 1/e"} if value == "horizon" else {}
    marked = set(cells["mark"])
    return [
        Patch(label=labels.get(mark, mark), **look)
        for mark, look in MARKS.items()
        if mark in marked
    ]


def write_numbers(
    panels: Sequence[Axes], cells: Sequence[pd.DataFrame], x: Axis, y: Axis, scale: Scale
) -> str:
    """Write numbers, and below them what they spread over seeds, into cells that have the room.

    Args:
        panels: laid out.
        cells: of each panel.
        x, y: their axes.
        scale: their colours.

    Returns:
        The sentence that says what a cell's number is; "" if none has several seeds.
    """
    texts = [
        [
            _text(cell, numbers, scale.value)
            for (_, cell), (_, numbers) in zip(
                own.iterrows(), shown(own, scale.value).iterrows(), strict=True
            )
        ]
        for own in cells
    ]
    number, spread = (
        max((len(text[i]) for own in texts for text in own), default=0) for i in (0, 1)
    )
    wide, high = _room(panels[0], x, y)
    has_spread = wide >= max(number, spread) and high >= 2
    if wide >= number and high >= 1:
        for axes, own, words in zip(panels, cells, texts, strict=True):
            values = shown(own, scale.value)[scale.value]
            for column, row, text, z in zip(
                x.positions(own), y.positions(own), words, values, strict=True
            ):
                _write(
                    axes,
                    (column, row),
                    "\n".join(filter(None, text if has_spread else text[:1])),
                    z,
                    scale,
                )
    return _meaning(pd.concat(cells), scale.value, has_spread)


def _summary(cell: pd.DataFrame, value: str) -> dict[str, Any]:
    """Return the number, spread, count and mark of the points of a cell."""
    known = cell[value].dropna().to_numpy(float)
    values = known[known > -np.inf]
    low = high = np.nan
    if value == "success":
        number = float(values.mean()) if len(values) else np.nan
        if len(values):
            low, high = bands.proportion_interval(int(values.sum()), len(values))
    elif value == "horizon":
        number = float(np.median(values)) if len(values) else np.nan
        if len(values) > 1:
            low, high = float(values.min()), float(values.max())
    else:
        number = float(decay.mean_log_norm(known)) if len(known) else np.nan
        if len(values) > 1:
            deviation = float(values.std(ddof=1))
            low, high = number - deviation, number + deviation
    mark = {np.inf: "infinite", -np.inf: "exactly zero"}.get(number, "")
    if np.isnan(number):
        mark = "diverged" if (cell["status"] == "diverged").any() else "no value"
    counts = {"seeds": len(values), "points": len(cell)}
    return {value: number, "low": low, "high": high, **counts, "mark": mark}


def _text(cell: pd.Series, numbers: pd.Series, value: str) -> tuple[str, str]:
    """Return the number of a cell and what is written below it."""
    number, low, high = numbers[value], numbers["low"], numbers["high"]
    if cell["mark"]:
        return ("–" if cell["mark"] == "no value" else "", "")
    if value == "success":
        return f"{round(number * cell['seeds'])}/{cell['seeds']}", ""
    if cell["seeds"] < cell["points"]:
        return short(number), f"{cell['seeds']} of {cell['points']}"
    if np.isnan(low):
        return short(number), ""
    if value == "horizon":
        return short(number), f"{short(low)}–{short(high)}"
    return with_deviation(number, high - number)


def short(number: float) -> str:
    """Write a number with two digits at least: "−0.12", "127", "∞"."""
    if np.isinf(number):
        return "∞"
    text = f"{number:.0f}" if 10 <= abs(number) < 1e5 else f"{number:.2g}"
    return text.replace("-", "−")


def with_deviation(number: float, deviation: float) -> tuple[str, str]:
    """Write a number as precisely as its deviation, one digit of that, or two from 1 to 2.

    Example:
        >>> with_deviation(-0.1234, 0.0312)
        ("−0.12", "±0.03")
    """
    largest = max(abs(number), deviation)
    if not deviation > 0 or not 1e-4 < largest < 1e5:
        return short(number), f"±{deviation:.1g}"
    power = int(np.floor(np.log10(deviation)))
    decimals = 1 - power if deviation < 2 * 10.0**power else -power
    decimals = max(0, min(decimals, 2 - int(np.floor(np.log10(largest)))))
    spread = f"{deviation:.{decimals}f}"
    text = f"{number:.{decimals}f}".replace("-", "−")
    return text, f"±{spread if float(spread) else f'{deviation:.1g}'}"


def _room(axes: Axes, x: Axis, y: Axis) -> tuple[float, float]:
    """Return how many letters, and how many lines, fit into a cell of a laid out panel."""
    points = FontProperties(size=NUMBER_SIZE).get_size_in_points()
    extent, size = axes.get_window_extent(), points / 72 * axes.figure.dpi
    wide = extent.width / len(x.levels) / (LETTER * size)
    return wide - 0.5, extent.height / len(y.levels) / (LINE * size)


def _write(axes: Axes, place: tuple[int, int], text: str, number: float, scale: Scale) -> None:
    colour = style.GREY
    if np.isfinite(number):
        dark = np.dot(scale.colours(scale.limits(number))[:3], (0.3, 0.6, 0.1)) < 0.5
        colour = "white" if dark else "black"
    axes.text(
        *place, text, ha="center", va="center", size=NUMBER_SIZE, color=colour, linespacing=1.1
    )


def _meaning(cells: pd.DataFrame, value: str, has_spread: bool) -> str:
    """Return the sentence that says what the numbers of cells are; "" if none has several seeds."""
    counts = cells.loc[cells["seeds"] > 0, "seeds"]
    if not counts.max() > 1:
        return ""
    least, most = counts.min(), counts.max()
    seeds = f"{least} to {most}" if least < most else f"{most}"
    number, spread = MEANINGS.get(value, MEAN)
    return f"Cells: {number.format(f'{seeds} seeds')}{spread if has_spread else ''}."
