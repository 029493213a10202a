"""Small multiples of lines: a column of panels a model (or what else varies), a row a quantity.

Lines are means over seeds, with a band from the least to the greatest; dashed before training,
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

PANELS, LINES = 4, 6  # side by side, in a panel at most
DASHES: dict[str, Any] = {"before": (0, (4, 2)), "after": "-"}
BAND = 0.2  # opacity
FEW, TICKS = 6, 5  # values that are marked; along x at most
NORM_NOTE = "A factor of 10 is 2.303 nats."
WHEN = ("before", "after")


class Quantity(NamedTuple):
    """A row of panels: the column `y` of a table against its column `x`.

    If the table has a column "quantity", the rows of this `name` in it.
    """

    x: str
    xlabel: str
    y: str
    ylabel: str
    name: str = ""
    scale: Literal["linear", "log", "nats"] = "linear"  # of y; log norms are shown as norms
    doubling: bool = False  # whether x goes by powers of two
    level: float | None = None  # of a line drawn across
    band: bool = True  # over seeds

    def shown(self, y: Any) -> Any:
        """What is drawn at y: log axes are linear ones of logarithms, see `style.norm_axis`."""
        with np.errstate(divide="ignore"):
            return np.log(y) if self.scale == "log" else y


def measured(
    runs: pd.DataFrame, of: Callable[[xr.Dataset], pd.DataFrame], *needed: str
) -> pd.DataFrame:
    """One table of what every run measured before and after training.

    Args:
        runs: every run must have gradients.
        of: from what was measured at one step to a tidy table.
        needed: variables that every run must have.

    Returns:
        The tables below each other, with `point` (the index of the runs), `when` ("before",
        "after") and `step` (training step).

    Raises:
        ValueError: one of the needed variables was not measured.
    """
    parts = []
    for point, run in runs.iterrows():
        for when, found in selection.moments(run, *needed).items():
            place: dict[str, Any] = {"point": point, "when": when, "step": int(found["step"])}
            parts.append(of(found).assign(**place))
    table = pd.concat(parts, ignore_index=True)
    return table[[*place, *table.columns.drop(list(place))]]


def at_moments(table: pd.DataFrame, when: Sequence[str]) -> pd.DataFrame:
    """The rows of a table that were measured at some moments.

    Raises:
        ValueError: there are none.
    """
    kept = table[table["when"].isin(when)]
    if kept.empty:
        raise ValueError(f"no run was measured {' or '.join(when)} training.")
    return kept


def draw(
    runs: pd.DataFrame,
    make: Callable[[pd.DataFrame], pd.DataFrame],
    quantities: Callable[[pd.DataFrame], Sequence[Quantity]],
    when: Sequence[str] = WHEN,
    remarks: Callable[[pd.DataFrame], Sequence[str]] = lambda _: (),
) -> style.Drawn:
    """Choose points that have gradients, make their table, and draw it.

    Args:
        runs: as of `gradlab.load_runs`, of any sweep.
        make: the table of some runs, as of `measured`.
        quantities: from the table to the rows of the figure.
        when: the moments to draw.
        remarks: from the table to sentences that stand below the figure.

    Raises:
        ValueError: no point has gradients, or not those that the table needs.
    """
    usable = selection.with_gradients(runs)
    grid = selection.arrange_lines(usable, panels=PANELS, lines=LINES)
    table = at_moments(make(grid.runs), when)
    rows = quantities(table)
    figure, body, panels = small_multiples(grid, rows)
    draw_panels(panels, grid, table, rows)
    style.legend(body, [*line_key(grid.runs), *when_key(table)])
    below = [NORM_NOTE] if any(quantity.scale == "nats" for quantity in rows) else []
    below += [*remarks(table), *selection.notes(runs, usable, grid.runs)]
    return style.Drawn(style.finish(figure, below), table)


def draw_panels(
    panels: np.ndarray, grid: selection.Grid, table: pd.DataFrame, quantities: Sequence[Quantity]
) -> None:
    """Draw the lines of a table in the panels of `small_multiples`; an empty one says so."""
    for row, quantity in zip(panels, quantities, strict=True):
        for axes, (_, runs) in zip(row, grid.rows(), strict=True):
            drawn = of_quantity(table, quantity)
            if drawn["point"].isin(runs.index).any():
                draw_lines(axes, runs, drawn, quantity)
            else:
                place = {"ha": "center", "va": "center", "transform": axes.transAxes}
                axes.text(0.5, 0.5, "none", color=style.GREY, **place)


def of_quantity(table: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The rows of a table that a row of panels shows."""
    return table[table["quantity"] == quantity.name] if "quantity" in table else table


def small_multiples(
    grid: selection.Grid, quantities: Sequence[Quantity]
) -> tuple[Figure, SubFigure, np.ndarray]:
    """Labelled axes, [quantity, panel of the grid]."""
    labels = [label for label, _ in grid.rows()]
    look = style.present()
    width = look.column if len(labels) <= 2 else look.width
    height = min(0.2 * look.width, 0.75 * width / len(labels)) + 0.4 * look.text
    figure, body = style.frame(width, 1.1 * look.text + height * len(quantities))
    # Panels of one length compare; of several, the longest would flatten the others.
    one_length = len(set(grid.runs.get("task.length", ()))) <= 1
    along: Literal["all", "col", "row", "none"]
    if len({quantity.xlabel for quantity in quantities}) == 1:
        along = "all" if one_length else "col"
    else:
        along = "row" if one_length else "none"
    panels = body.subplots(
        len(quantities),
        len(labels),
        sharex=along,
        sharey="row" if one_length else "none",
        squeeze=False,
    )
    for row, quantity in zip(panels, quantities, strict=True):
        dress(row, quantity)
    for row, quantity, below in zip(panels, quantities, quantities[1:], strict=False):
        if quantity.xlabel == below.xlabel:
            for axes in row:
                axes.set_xlabel("")
    for axes, label in zip(panels[0], labels, strict=True):
        axes.set_title(style.wrapped(label, width / len(labels)))
    return figure, body, panels


def dress(row: Sequence[Axes], quantity: Quantity) -> None:
    """Label the axes of a row of panels, and set their scales."""
    for axes in row:
        axes.set(xlabel=quantity.xlabel)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(TICKS, integer=True))
        if quantity.level is not None:
            axes.axhline(quantity.level, color=style.GREY, linewidth=0.8)
        if quantity.doubling:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        if quantity.scale != "linear":
            style.norm_axis(axes.yaxis)
    row[0].set_ylabel(quantity.ylabel)


def draw_lines(axes: Axes, runs: pd.DataFrame, table: pd.DataFrame, quantity: Quantity) -> None:
    """Draw the lines of some points of a table, as of `selection.with_lines`."""
    moments = [m for m in WHEN if m in set(table.get("when", ()))] or [""]
    for colour, line in runs.groupby("colour", sort=False):
        mine = table[table["point"].isin(line.index)]
        for moment in moments:
            rows = mine[mine["when"] == moment] if moment else mine
            band = band_of(rows, quantity.x, quantity.y).set_index(quantity.x)
            drawn = quantity.shown(band).reset_index()
            draw_band(axes, drawn, str(colour), DASHES.get(moment, "-"), quantity.band)


def band_of(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Mean, least and greatest of the seeds at each x: columns x, `mean`, `low`, `high`."""
    each = table.groupby(["point", x])[y].mean()  # of what a point has several of
    over = each.groupby(x)
    band = pd.DataFrame({"mean": over.mean(), "low": over.min(), "high": over.max()})
    return band.reset_index()


def draw_band(
    axes: Axes, band: pd.DataFrame, colour: str, dashes: Any = "-", around: bool = True
) -> None:
    """Draw a line, with markers if it is short, and the band around it where seeds differ."""
    x, y = band.columns[0], band["mean"].where(np.isfinite(band["mean"]))
    marker = "." if len(band) <= FEW else ""
    axes.plot(band[x], y, color=colour, linestyle=dashes, linewidth=1.3, marker=marker)
    if around and (band["high"] > band["low"]).any():
        axes.fill_between(band[x], band["low"], band["high"], color=colour, alpha=BAND, linewidth=0)


def line_key(runs: pd.DataFrame) -> list[style.Entry]:
    """Return the legend entries of the lines of some points (`selection.with_lines`)."""
    lines = runs[["line", "colour"]].drop_duplicates().groupby("line", sort=False)["colour"]
    return [tuple(Line2D([], [], color=c, label=str(n)) for c in colours) for n, colours in lines]


def when_key(table: pd.DataFrame) -> list[style.Entry]:
    """Legend entries of the dashes of a table's moments."""
    return [
        Line2D([], [], color=style.GREY, linestyle=DASHES[when], label=f"{when} training")
        for when in WHEN
        if when in set(table["when"])
    ]
