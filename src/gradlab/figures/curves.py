"""The curves of a panel: means over seeds with a band, dashed before training, solid after."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import bands, moments, style, units

DASHED: Any = (0, (4, 2))  # lines before training
BAND = 0.2  # opacity
WIDTH, WIDER = 1.3, 1.8  # points: of a line, and what it has more below one that coincides with it
SAME = 0.01  # of the span of a panel's lines: those that differ by less coincide
THIN: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.7}  # the line of a seed
MARKED = 6  # points of a line, at most, for them to be marked


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


class Curve(NamedTuple):
    """A line of a panel: its band over seeds, as it is plotted, and its looks."""

    when: str
    colour: str
    band: pd.DataFrame
    seeds: pd.DataFrame


class Lines(NamedTuple):
    """The lines of a panel: how many seeds they have, and whether two coincide."""

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
    return Lines(seeds, any(width > WIDTH for width in widths))


def curves_of(
    runs: pd.DataFrame, table: pd.DataFrame, quantity: Quantity, band: bands.Band
) -> list[Curve]:
    """Return the curves of some points: one per line and moment, those before training first."""
    rows = table[table["point"].isin(runs.index)].assign(when=table.get("when", ""))
    rows = rows.assign(colour=rows["point"].map(runs["colour"]))
    colours = moment_colours(table)
    curves = []
    for (colour, when), own in rows.groupby(["colour", "when"], sort=False):
        look = colours.get(str(when), str(colour))
        curves.append(curve_of(own, quantity, band, look, str(when)))
    return curves


def curve_of(
    rows: pd.DataFrame, quantity: Quantity, band: bands.Band, colour: str, when: str = ""
) -> Curve:
    """Return the curve of the rows of one line at one moment."""
    over_seeds = bands.over_seeds(rows, quantity.x, quantity.y, band)
    seeds = bands.seeds_of(rows, quantity.x, quantity.y)
    shown = over_seeds.assign(**quantity.plotted(over_seeds[["mean", "low", "high"]]))
    return Curve(when, colour, shown, quantity.plotted(seeds))


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
        width: of the line, points of a page.
    """
    table, colour = curve.band, curve.colour
    x, y = table[table.columns[0]], table["mean"].where(np.isfinite(table["mean"]))
    dashes = DASHED if curve.when == moments.BEFORE else "-"
    marker = "." if len(table) <= MARKED else ""
    size: dict[str, Any] = {"linewidth": width * style.current_style().text, "marker": marker}
    axes.plot(x, y, color=colour, linestyle=dashes, **size)
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
