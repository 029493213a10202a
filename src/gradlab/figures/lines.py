"""Figures of lines: one column of panels per model or what else varies, one row per quantity.

Lines are means over seeds with a band from the least to the greatest; dashed before training,
solid after.
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

from gradlab.figures import selection, style

PANELS, LINES = 4, 6  # panels side by side, lines in a panel, at most
DASHES: dict[str, Any] = {"before": (0, (4, 2)), "after": "-"}
BAND = 0.2  # opacity
MARKED = 6  # points of a line, at most, for them to be marked
TICKS = 5  # along x, at most
NORM_NOTE = "A factor of 10 is 2.303 nats."
WHEN = ("before", "after")  # training: the moments of measurement


class Quantity(NamedTuple):
    """A row of panels: the column `y` of a table against its column `x`.

    Attributes:
        x, xlabel: the column along x and the label of that axis.
        y, ylabel: the column along y and the label of that axis.
        name: if the table has a column "quantity", the rows with this value are drawn.
        scale: of y; "nats" labels log norms with the norms.
        doubling: whether x is on a log axis to base 2.
        baseline: where a horizontal line is drawn; None: nowhere.
        band: whether to draw the band over seeds.
    """

    x: str
    xlabel: str
    y: str
    ylabel: str
    name: str = ""
    scale: Literal["linear", "log", "nats"] = "linear"
    doubling: bool = False
    baseline: float | None = None
    band: bool = True

    def plotted(self, y: Any) -> Any:
        """Return y as it is plotted: a "log" axis is a linear one of logs (`style.norm_axis`)."""
        with np.errstate(divide="ignore"):
            return np.log(y) if self.scale == "log" else y


def measured_table(
    runs: pd.DataFrame, tabulate: Callable[[xr.Dataset], pd.DataFrame], *needed: str
) -> pd.DataFrame:
    """Return one table of what every run measured before and after training.

    Args:
        runs: every run must have gradients.
        tabulate: returns the tidy table of the measurements at one training step.
        needed: variables that every run must have.

    Returns:
        All tables, one below the other, with the columns `point` (the index of the runs), `when`
        ("before", "after") and `step` (training step) in front.

    Raises:
        ValueError: one of the needed variables was not measured.
    """
    tables = []
    for point, run in runs.iterrows():
        for when, measurements in selection.load_before_and_after(run, *needed).items():
            step = int(measurements["step"])
            origin: dict[str, Any] = {"point": point, "when": when, "step": step}
            tables.append(tabulate(measurements).assign(**origin))
    table = pd.concat(tables, ignore_index=True)
    return table[[*origin, *table.columns.drop(list(origin))]]


def at_moments(table: pd.DataFrame, when: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a table that were measured "before" and/or "after" training.

    Raises:
        ValueError: there are none.
    """
    rows = table[table["when"].isin(when)]
    if rows.empty:
        raise ValueError(f"no run was measured {' or '.join(when)} training.")
    return rows


def draw_measured(
    runs: pd.DataFrame,
    tabulate: Callable[[pd.DataFrame], pd.DataFrame],
    quantities: Callable[[pd.DataFrame], Sequence[Quantity]],
    when: Sequence[str] = WHEN,
    remarks: Callable[[pd.DataFrame], Sequence[str]] = lambda _: (),
) -> style.Drawn:
    """Choose points that have gradients, make their table, and draw it.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        tabulate: returns the table of the chosen runs, by `measured_table`.
        quantities: returns the rows of the figure, given the table.
        when: "before" and/or "after" training.
        remarks: returns the sentences to write below the figure, given the table.

    Raises:
        ValueError: no point has gradients, or one lacks a variable that the table needs.
    """
    usable = selection.with_gradients(runs)
    grid = selection.arrange_lines(usable, panels=PANELS, lines=LINES)
    table = at_moments(tabulate(grid.runs), when)
    rows = quantities(table)
    figure, body, panels = small_multiples(grid, rows)
    draw_panels(panels, grid, table, rows)
    style.legend(body, [*line_entries(grid.runs), *moment_entries(table)])
    notes = [NORM_NOTE] if any(quantity.scale == "nats" for quantity in rows) else []
    notes += [*remarks(table), *selection.notes(runs, usable, grid.runs)]
    return style.Drawn(style.finish(figure, notes), table)


def draw_panels(
    panels: np.ndarray, grid: selection.Grid, table: pd.DataFrame, quantities: Sequence[Quantity]
) -> None:
    """Draw the lines of a table in the panels of `small_multiples`; write "none" in an empty one.

    Args:
        panels: axes, [quantity, group of the grid].
        grid: the points.
        table: with the column `point` and those that the quantities name.
        quantities: one per row of panels.
    """
    for row, quantity in zip(panels, quantities, strict=True):
        for axes, (_, runs) in zip(row, grid.groups(), strict=True):
            rows = rows_of(table, quantity)
            if rows["point"].isin(runs.index).any():
                draw_lines(axes, runs, rows, quantity)
            else:
                centred = {"ha": "center", "va": "center", "transform": axes.transAxes}
                axes.text(0.5, 0.5, "none", color=style.GREY, **centred)


def rows_of(table: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """Return the rows of a table that belong to a quantity."""
    return table[table["quantity"] == quantity.name] if "quantity" in table else table


def small_multiples(
    grid: selection.Grid, quantities: Sequence[Quantity]
) -> tuple[Figure, SubFigure, np.ndarray]:
    """Return a figure, its body, and in it labelled axes, [quantity, group of the grid]."""
    labels = [label for label, _ in grid.groups()]
    look = style.current_style()
    width = look.column if len(labels) <= 2 else look.width
    height = min(0.2 * look.width, 0.75 * width / len(labels)) + 0.4 * look.text
    figure, body = style.new_figure(width, 1.1 * look.text + height * len(quantities))
    # Panels share scales if all sequences are equally long; else the longest would flatten the
    # curves of the others.
    one_length = len(set(grid.runs.get("task.length", ()))) <= 1
    share_x: Literal["all", "col", "row", "none"]
    if len({quantity.xlabel for quantity in quantities}) == 1:
        share_x = "all" if one_length else "col"
    else:
        share_x = "row" if one_length else "none"
    panels = body.subplots(
        len(quantities),
        len(labels),
        sharex=share_x,
        sharey="row" if one_length else "none",
        squeeze=False,
    )
    for row, quantity in zip(panels, quantities, strict=True):
        label_panels(row, quantity)
    for row, quantity, below in zip(panels, quantities, quantities[1:], strict=False):
        if quantity.xlabel == below.xlabel:
            for axes in row:
                axes.set_xlabel("")
    for axes, label in zip(panels[0], labels, strict=True):
        axes.set_title(style.wrapped(label, width / len(labels)))
    return figure, body, panels


def label_panels(row: Sequence[Axes], quantity: Quantity) -> None:
    """Label the axes of a row of panels, and set their scales and ticks."""
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
        if quantity.scale != "linear":
            style.norm_axis(axes.yaxis)
    row[0].set_ylabel(quantity.ylabel)


def draw_lines(axes: Axes, runs: pd.DataFrame, table: pd.DataFrame, quantity: Quantity) -> None:
    """Draw the lines of some points in one panel.

    Args:
        axes: the panel.
        runs: the points, from `selection.with_line_style`.
        table: the rows of `quantity`, of these and possibly other points.
        quantity: names the columns.
    """
    moments = [when for when in WHEN if when in set(table.get("when", ()))] or [""]
    for colour, line in runs.groupby("colour", sort=False):
        line_rows = table[table["point"].isin(line.index)]
        for when in moments:
            rows = line_rows[line_rows["when"] == when] if when else line_rows
            band = band_over_seeds(rows, quantity.x, quantity.y).set_index(quantity.x)
            plotted = quantity.plotted(band).reset_index()
            draw_band(axes, plotted, str(colour), DASHES.get(when, "-"), quantity.band)


def band_over_seeds(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return the mean, least and greatest y over points at each x: x, `mean`, `low`, `high`.

    Points where y is −inf, the log of an exact zero, are left out, unless all are. The mean of log
    norms is that of the decay rate, and of successes (0 or 1) their rate.
    (`gradlab.studies.drawing.band` has medians: of losses, which may lie decades apart.)
    """
    zero = table[y] == -np.inf
    nonzero = table.assign(**{y: table[y].mask(zero)})
    points = nonzero.groupby(["point", x])[y].mean()  # a point may have several values at one x
    seeds = points.groupby(x)
    band = pd.DataFrame({"mean": seeds.mean(), "low": seeds.min(), "high": seeds.max()})
    band[band.isna().all(axis=1) & band.index.isin(table.loc[zero, x])] = -np.inf
    return band.reset_index()


def draw_band(
    axes: Axes, band: pd.DataFrame, colour: str, dashes: Any = "-", fill: bool = True
) -> None:
    """Draw the line of a mean, with markers if it has few points, and its band over seeds.

    Args:
        axes: the panel.
        band: from `band_over_seeds`.
        colour: of both.
        dashes: Matplotlib's line style.
        fill: whether to draw the band.
    """
    x, y = band.columns[0], band["mean"].where(np.isfinite(band["mean"]))
    marker = "." if len(band) <= MARKED else ""
    axes.plot(band[x], y, color=colour, linestyle=dashes, linewidth=1.3, marker=marker)
    if fill and (band["high"] > band["low"]).any():
        axes.fill_between(band[x], band["low"], band["high"], color=colour, alpha=BAND, linewidth=0)


def line_entries(runs: pd.DataFrame) -> list[style.Entry]:
    """Return the legend entries of the lines of some points, from `selection.with_line_style`."""
    lines = runs[["line", "colour"]].drop_duplicates().groupby("line", sort=False)["colour"]
    return [
        tuple(Line2D([], [], color=colour, label=str(name)) for colour in colours)
        for name, colours in lines
    ]


def moment_entries(table: pd.DataFrame) -> list[style.Entry]:
    """Return the legend entries of dashed and solid lines, for the moments in a table."""
    return [
        Line2D([], [], color=style.GREY, linestyle=DASHES[when], label=f"{when} training")
        for when in WHEN
        if when in set(table["when"])
    ]
