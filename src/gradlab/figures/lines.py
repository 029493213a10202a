"""Figures of lines: panels by model or what else varies, one row of them per quantity.

Lines are means over seeds with a band (`bands`); dashed before training, solid after.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradlab.figures import bands, legends, moments, selection, style, units
from gradlab.figures.choice import ANY, Choice
from gradlab.figures.curves import Curve, Quantity, curves_of, draw_lines, legend_entries
from gradlab.figures.layout import Grid, arrange_lines
from gradlab.figures.line_notes import notes_on_lines

PANELS, LINES = 4, 6  # columns of panels, lines in a panel, at most, unless asked for
TICKS = 5  # along x, at most
OVER_TIME = ("task.length",)  # a short sequence's panel beside a long one's would be empty
BESIDE = 0.8  # inches of a page: left of all panels
Y_LABEL = 1.3  # heights of a panel that a line of its y label may have, in letters of a title


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
    variable: str,
    tabulate: Tabulate,
    quantities: Callable[[pd.DataFrame], Sequence[Quantity]],
    choice: Choice = ANY,
    remarks: Callable[[pd.DataFrame], Sequence[str]] = lambda _: (),
) -> style.Drawn:
    """Choose points that measured something, make their table, and draw it.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        variable: the name of what they measured.
        tabulate: returns the table of the chosen runs at some moments, by `measured_table`.
        quantities: returns the rows of the figure, given the table.
        choice: what is asked for.
        remarks: returns the sentences to write below the figure, given the table.

    Raises:
        ValueError: no point has measured it.
    """
    usable = selection.with_gradients(runs, variable)
    grid = arrange_lines(usable, choice, panels=PANELS, lines=LINES, apart=OVER_TIME)
    table = tabulate(grid.runs, choice.step)
    rows = quantities(table)
    figure, body, panels = small_multiples(grid, rows)
    notes = draw_panels(panels, grid, table, rows, choice.band)
    legends.legend(body, legend_entries(grid.runs, table))
    notes += [*remarks(table)]
    notes += selection.notes(runs, usable, grid.runs, choice.keys(), variable)
    return style.Drawn(style.finish(figure, notes, panel_height(grid)), table)


def draw_panels(
    panels: np.ndarray,
    grid: Grid,
    table: pd.DataFrame,
    quantities: Sequence[Quantity],
    band: bands.Band,
    mark: Callable[[Axes, Sequence[Curve]], None] = lambda axes, curves: None,
) -> list[str]:
    """Draw the lines of a table in the panels of `small_multiples`; write "none" in an empty one.

    Args:
        panels: axes, [row of the grid × quantity, column of the grid].
        grid: the points.
        table: with the column `point` and those that the quantities name.
        quantities: one per row of panels.
        band: of lines over seeds.
        mark: draws more of the curves of a panel.

    Returns:
        The sentences that say what lines and bands are.
    """
    drawn, coincide = list[Curve](), False
    by_row = panels.reshape(-1, len(quantities), panels.shape[1])
    for row, points in zip(by_row, grid.panels(), strict=True):
        for axes_row, quantity in zip(row, quantities, strict=True):
            for axes, runs in zip(axes_row, points, strict=True):
                curves = curves_of(runs, rows_of(table, quantity), quantity, band)
                if not curves:
                    write_none(axes)
                    continue
                coincide |= draw_lines(axes, curves, band)
                mark(axes, curves)
                drawn += [curve for curve in curves if not curve.seeds.empty]
    return notes_on_lines(grid.runs, table, quantities, drawn, band, coincide)


def write_none(axes: Axes) -> None:
    """Write "none" into an empty panel."""
    centred: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.5, "none", color=style.GREY, **centred)


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
        axes.xaxis.set_major_locator(MaxNLocator(TICKS, integer=True, min_n_ticks=1))
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
