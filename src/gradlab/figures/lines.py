"""Figures of lines: panels by model or what else varies, one row of them per quantity.

Lines are means over seeds with a band (`bands`); dashed before training, solid after.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradlab.figures import bands, moments, selection, style, units
from gradlab.figures.choice import ANY, Choice
from gradlab.figures.layout import Grid, arrange_lines

PANELS, LINES = 4, 6  # columns of panels, lines in a panel, at most, unless asked for
DASHED: Any = (0, (4, 2))  # lines before training
BAND = 0.2  # opacity
WIDTH, WIDER = 1.3, 1.8  # points: of a line, and what it has more below one that coincides with it
SAME = 0.01  # of the span of a panel's lines: those that differ by less coincide
THIN: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.7}  # the line of a seed
MARKED = 6  # points of a line, at most, for them to be marked
TICKS = 5  # along x, at most
OVER_TIME = ("task.length",)  # a short sequence's panel beside a long one's would be empty
BESIDE = 0.8  # inches of a page: left of all panels
Y_LABEL = 1.3  # heights of a panel that a line of its y label may have, in letters of a title


class Quantity(NamedTuple):
    """A row of panels: the column `y` of a table against its column `x`.

    Attributes:
        x, xlabel: the column along x and the label of that axis.
        y, ylabel: the column along y and the label of that axis.
        name: if the table has a column "quantity", the rows with this value are drawn.
        scale: of y: "linear"; "log": of amounts, over powers of ten; "norm": of log norms, which
            are labelled with the norms or in nats; "rate": in nats per step, shown in the unit.
        doubling: whether x is on a log axis to base 2.
        baseline: where a horizontal line is drawn; None: nowhere.
        band: whether to draw the band over seeds.
    """

    x: str
    xlabel: str
    y: str
    ylabel: str
    name: str = ""
    scale: Literal["linear", "log", "norm", "rate"] = "linear"
    doubling: bool = False
    baseline: float | None = None
    band: bool = True

    def plotted(self, y: Any) -> Any:
        """Return y as it is plotted: a "log" axis is a linear one of logs (`units.power_axis`)."""
        if self.scale == "rate":
            return units.from_nats(y)
        with np.errstate(divide="ignore"):
            return np.log(y) if self.scale == "log" else y

    def label(self) -> str:
        """Return the label of the axis of y, with the unit of logs and rates."""
        if self.scale == "rate":
            return f"{self.ylabel} ({units.rate_unit()})"
        in_nats = self.scale == "norm" and units.current_unit() == "nats"
        return f"log {self.ylabel} (nats)" if in_nats else self.ylabel


def measured_table(
    runs: pd.DataFrame,
    tabulate: Callable[[xr.Dataset], pd.DataFrame],
    *needed: str,
    step: moments.Step = moments.DEFAULT,
) -> pd.DataFrame:
    """Return one table of what every run measured at some moments of its training.

    Args:
        runs: every run must have gradients.
        tabulate: returns the tidy table of the measurements at one training step.
        needed: variables that every run must have.
        step: the moments.

    Returns:
        All tables, one below the other, with the columns `point` (the index of the runs), `when`
        (the moment's name, as "after training") and `step` (updates before it) in front.

    Raises:
        ValueError: one of the needed variables was not measured, or nothing at these moments.
    """
    moments.check_step(step)
    tables = []
    for point, run in runs.iterrows():
        for when, measurements in moments.load_at(run, step, *needed).items():
            updates = int(measurements["step"])
            origin: dict[str, Any] = {"point": point, "when": when, "step": updates}
            tables.append(tabulate(measurements).assign(**origin))
    if not tables:
        raise ValueError(moments.none_at(runs, step))
    table = pd.concat(tables, ignore_index=True)
    table = moments.spread(table) if step == "all" else table
    return table[[*origin, *table.columns.drop(list(origin))]]


Tabulate = Callable[[pd.DataFrame, moments.Step], pd.DataFrame]


def draw_measured(
    runs: pd.DataFrame,
    tabulate: Tabulate,
    quantities: Callable[[pd.DataFrame], Sequence[Quantity]],
    choice: Choice = ANY,
    remarks: Callable[[pd.DataFrame], Sequence[str]] = lambda _: (),
) -> style.Drawn:
    """Choose points that have gradients, make their table, and draw it.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        tabulate: returns the table of the chosen runs at some moments, by `measured_table`.
        quantities: returns the rows of the figure, given the table.
        choice: what is asked for.
        remarks: returns the sentences to write below the figure, given the table.

    Raises:
        ValueError: no point has gradients, or one lacks a variable that the table needs.
    """
    usable = selection.with_gradients(runs)
    grid = arrange_lines(usable, choice, panels=PANELS, lines=LINES, apart=OVER_TIME)
    table = tabulate(grid.runs, choice.step)
    rows = quantities(table)
    figure, body, panels = small_multiples(grid, rows)
    notes = draw_panels(panels, grid, table, rows, choice.band)
    style.legend(body, legend_entries(grid.runs, table))
    notes += [*remarks(table), *selection.notes(runs, usable, grid.runs, choice.keys())]
    return style.Drawn(style.finish(figure, notes, panel_height(grid)), table)


def draw_panels(
    panels: np.ndarray,
    grid: Grid,
    table: pd.DataFrame,
    quantities: Sequence[Quantity],
    band: bands.Band,
) -> list[str]:
    """Draw the lines of a table in the panels of `small_multiples`; write "none" in an empty one.

    Args:
        panels: axes, [row of the grid × quantity, column of the grid].
        grid: the points.
        table: with the column `point` and those that the quantities name.
        quantities: one per row of panels.
        band: of lines over seeds.

    Returns:
        The sentences that say what lines and bands are.
    """
    seeds, coincide = set[int](), False
    by_row = panels.reshape(-1, len(quantities), panels.shape[1])
    for row, points in zip(by_row, grid.panels(), strict=True):
        for axes_row, quantity in zip(row, quantities, strict=True):
            for axes, runs in zip(axes_row, points, strict=True):
                rows = rows_of(table, quantity)
                if rows["point"].isin(runs.index).any():
                    lines = draw_lines(axes, runs, rows, quantity, band)
                    seeds |= lines.seeds if quantity.band else set()
                    coincide |= lines.coincide
                else:
                    write_none(axes)
    return [note for note in (bands.band_note(band, seeds), coinciding_note(coincide)) if note]


def write_none(axes: Axes) -> None:
    """Write "none" into an empty panel."""
    centred: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.5, "none", color=style.GREY, **centred)


def coinciding_note(coincide: bool) -> str:
    """Return the sentence that says how lines that coincide are told apart; "" if none do."""
    return "Where lines coincide, those below are wider." if coincide else ""


def rows_of(table: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """Return the rows of a table that belong to a quantity."""
    return table[table["quantity"] == quantity.name] if "quantity" in table else table


def panel_height(grid: Grid) -> float:
    """Return the height of a panel of lines, inches."""
    look, columns = style.current_style(), len(grid.groups())
    width = look.column if columns <= 2 else look.width
    return min(0.2 * look.width, 0.6 * width / columns)


def small_multiples(
    grid: Grid, quantities: Sequence[Quantity]
) -> tuple[Figure, SubFigure, np.ndarray]:
    """Return a figure, its body, and labelled axes, [row of the grid × quantity, column].

    The panels of a quantity share both axes, so that they can be compared.
    """
    labels, rows = [label for label, _ in grid.groups()], grid.row_labels()
    look = style.current_style()
    width = look.column if len(labels) <= 2 else look.width
    count = len(rows) * len(quantities)
    height = 1.1 * look.text + (panel_height(grid) + 0.4 * look.text) * count
    figure, body = style.new_figure(width, height)
    panels = body.subplots(count, len(labels), squeeze=False)
    by_x = {quantity.xlabel: panels[number, 0] for number, quantity in enumerate(quantities)}
    for number, quantity in enumerate(quantities):
        own = panels[number :: len(quantities)]
        for axes in own.ravel():
            _share(axes, by_x[quantity.xlabel], "x")
            _share(axes, own[0, 0], "y")
        for row in own:
            label_panels(row, quantity, panel_height(grid))
    _label_once(panels, [quantity.xlabel for quantity in quantities] * len(rows))
    for axes, label in zip(panels[0], labels, strict=True):
        axes.set_title(style.wrapped(label, (width - BESIDE * look.text) / len(labels)))
    for axes, label in zip(panels[:: len(quantities), -1], rows, strict=True):
        style.label_row(axes, style.wrapped(label, panel_height(grid)))
    return figure, body, panels


def _share(axes: Axes, other: Axes, axis: Literal["x", "y"]) -> None:
    if axes is not other:
        (axes.sharex if axis == "x" else axes.sharey)(other)


def _label_once(panels: np.ndarray, xlabels: Sequence[str]) -> None:
    """Leave out tick labels that the panel to the left has, and x labels that a row below has."""
    for axes in panels[:, 1:].ravel():
        axes.tick_params(labelleft=False)
    for row, label, below in zip(panels, xlabels, xlabels[1:], strict=False):
        if label == below:
            for axes in row:
                axes.set_xlabel("")
                axes.tick_params(labelbottom=False)


def label_panels(row: Sequence[Axes], quantity: Quantity, height: float) -> None:
    """Label the axes of a row of panels, `height` inches high, and set their scales and ticks."""
    for axes in row:
        axes.set(xlabel=quantity.xlabel)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(TICKS, integer=True))
        if quantity.baseline is not None:
            axes.axhline(quantity.baseline, color=style.GREY, linewidth=0.8)
        if quantity.doubling:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        if quantity.scale == "norm":
            units.norm_axis(axes.yaxis)
        elif quantity.scale == "log":
            units.power_axis(axes.yaxis)
    label = quantity.label()
    row[0].set_ylabel(label if "$" in label else style.wrapped(label, Y_LABEL * height))


class Curve(NamedTuple):
    """A line of a panel: its band over seeds, as it is plotted, and its looks."""

    when: str
    colour: str
    band: pd.DataFrame
    seeds: pd.DataFrame


class Lines(NamedTuple):
    """The lines of a panel: how many seeds they have, and whether two coincide."""

    curves: list[Curve]
    seeds: set[int]
    coincide: bool


def draw_lines(
    axes: Axes, runs: pd.DataFrame, table: pd.DataFrame, quantity: Quantity, band: bands.Band
) -> Lines:
    """Draw the lines of some points in one panel.

    Args:
        axes: the panel.
        runs: the points, from `layout.with_line_style`; those of one colour are a line.
        table: the rows of `quantity`, of these and possibly other points.
        quantity: names the columns.
        band: over seeds.
    """
    curves = curves_of(runs, table, quantity, band)
    widths = [WIDTH + WIDER * count for count in _coinciding(curves)]
    for curve, width in zip(curves, widths, strict=True):
        draw_curve(axes, curve, band if quantity.band else "none", width)
    seeds = {int(curve.band["seeds"].max()) for curve in curves}
    return Lines(curves, seeds, any(width > WIDTH for width in widths))


def curves_of(
    runs: pd.DataFrame, table: pd.DataFrame, quantity: Quantity, band: bands.Band
) -> list[Curve]:
    """Return the curves of some points: one per line and moment, those before training first."""
    rows = table[table["point"].isin(runs.index)].assign(when=table.get("when", ""))
    rows = rows.assign(colour=rows["point"].map(runs["colour"]))
    colours = moment_colours(table)
    curves = []
    for (colour, when), own in rows.groupby(["colour", "when"], sort=False):
        over_seeds = bands.over_seeds(own, quantity.x, quantity.y, band)
        seeds = bands.seeds_of(own, quantity.x, quantity.y)
        numbers = quantity.plotted(over_seeds[["mean", "low", "high"]])
        shown = over_seeds.assign(**numbers)
        curves.append(
            Curve(str(when), colours.get(str(when), str(colour)), shown, quantity.plotted(seeds))
        )
    return curves


def moment_colours(table: pd.DataFrame) -> dict[str, str]:
    """Return a colour for each of many moments of training; none if they are told by dashes."""
    if "when" not in table:
        return {}
    whens = table.sort_values("step")["when"].unique()
    if len(whens) <= 2:
        return {}
    return dict(zip(whens, style.sequence(len(whens)), strict=True))


def draw_curve(axes: Axes, curve: Curve, band: bands.Band, width: float = WIDTH) -> None:
    """Draw the line of a mean, with markers if it has few points, and its band or its seeds.

    Args:
        axes: the panel.
        curve: the line.
        band: over seeds; "none": the line alone.
        width: of the line, points.
    """
    table, colour = curve.band, curve.colour
    x, y = table[table.columns[0]], table["mean"].where(np.isfinite(table["mean"]))
    dashes = DASHED if curve.when == moments.BEFORE else "-"
    marker = "." if len(table) <= MARKED else ""
    axes.plot(x, y, color=colour, linestyle=dashes, linewidth=width, marker=marker)
    if band == "none" or table["seeds"].max() < 2:
        return
    if table["seeds"].max() < bands.FEW:
        seeds = curve.seeds.where(np.isfinite(curve.seeds))
        axes.plot(seeds.index, seeds, color=colour, linestyle=dashes, **THIN)
    elif np.isfinite(table["low"]).any():
        finite = table[np.isfinite(table["low"])]
        axes.fill_between(
            finite.iloc[:, 0], finite["low"], finite["high"], color=colour, alpha=BAND, linewidth=0
        )


def _coinciding(curves: Sequence[Curve]) -> list[int]:
    """Return for each curve how many later ones lie on it, over all that both have."""
    series = [curve.band.set_index(curve.band.columns[0])["mean"] for curve in curves]
    series = [values[np.isfinite(values)] for values in series]
    ends = [end for values in series if len(values) for end in (values.min(), values.max())]
    tolerance = SAME * (max(ends) - min(ends)) if ends else 0.0
    counts = []
    for number, values in enumerate(series):
        differences = [(values - other).abs().max() for other in series[number + 1 :]]
        counts.append(sum(bool(difference <= tolerance) for difference in differences))
    return counts


def legend_entries(runs: pd.DataFrame, table: pd.DataFrame) -> list[style.Entry]:
    """Return the legend entries of the lines of some points and of the moments of a table."""
    return [*line_entries(runs, table), *moment_entries(table)]


def line_entries(runs: pd.DataFrame, table: pd.DataFrame | None = None) -> list[style.Entry]:
    """Return the legend entries of the lines of some points, from `layout.with_line_style`.

    There are none if colours tell the moments of the table.
    """
    if table is not None and moment_colours(table):
        return []
    lines = runs[["line", "colour"]].drop_duplicates().groupby("line", sort=False)["colour"]
    return [
        tuple(Line2D([], [], color=colour, label=str(name)) for colour in colours)
        for name, colours in lines
    ]


def moment_entries(table: pd.DataFrame) -> list[style.Entry]:
    """Return the legend entries of the moments in a table: of dashes, or of many, colours."""
    colours = moment_colours(table)
    whens = table.sort_values("step")["when"].unique()
    return [
        Line2D(
            [],
            [],
            color=colours.get(when, style.GREY),
            linestyle=DASHED if when == moments.BEFORE else "-",
            label=when,
        )
        for when in whens
    ]
