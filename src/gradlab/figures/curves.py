"""The curves of a panel: means over seeds with a band, dashed before training, solid after."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import bands, legends, moments, style, units

DASHED: Any = (0, (4, 2))  # lines before training
BAND = 0.2  # opacity
WIDTH, WIDER = 1.3, 1.8  # points: of a line, and what it has more below one that coincides with it
SAME = 0.01  # of the span of a panel's lines: those that differ by less coincide
THIN: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.7}  # the line of a seed
DOT = 12  # size of a mean at a single x, beside the smaller dots of its seeds
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
        by_setting: whether x is a setting, so that each run has one x, and not a place in runs.
    """

    x: str
    xlabel: str
    y: str
    ylabel: str
    name: str = ""
    scale: Literal["linear", "log", "norm", "rate"] = "linear"
    doubling: bool = False
    baseline: float | None = None
    by_setting: bool = False

    def plotted(self, y: Any) -> Any:
        """Return y as it is plotted: a "log" axis is a linear one of logs (`units.power_axis`)."""
        if self.scale == "rate":
            return units.from_nats(y)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(y) if self.scale == "log" else y

    def label(self) -> str:
        """Return the label of the axis of y, with the unit of logs and rates."""
        if self.scale == "rate":
            return f"{self.ylabel} ({units.rate_unit()})"
        in_nats = self.scale == "norm" and units.current_unit() == "nats"
        return f"log {self.ylabel} (nats)" if in_nats else self.ylabel


class Curve(NamedTuple):
    """A line of a panel as it is plotted, and its looks.

    Attributes:
        when: its moment of training; "" if there are none.
        colour: of all its marks.
        band: from `bands.over_seeds`.
        seeds: from `bands.seeds_of`.
    """

    when: str
    colour: str
    band: pd.DataFrame
    seeds: pd.DataFrame

    def means(self) -> pd.Series:
        """Return the mean by x; NaN where it is not drawn."""
        means = self.band.set_index(self.band.columns[0])["mean"]
        return means.where(np.isfinite(means))

    def partial(self) -> Bool[np.ndarray, "x"]:
        """Return at which x only some seeds have a value, so that there is no mean."""
        some = np.isfinite(self.seeds.to_numpy(float)).any(axis=1)
        return some & np.isnan(self.means().to_numpy(float))

    def marks(self) -> bands.Marks:
        """Name what is drawn of the mean, its band, and a seed: dots where there is a single x."""
        single = self.means().count() == 1, np.isfinite(self.seeds).sum().max() == 1
        mean, spread = ("dots", "bars") if single[0] else ("lines", "bands")
        return bands.Marks(mean, spread, "a small dot" if single[1] else "a thin line")


def curves_of(
    runs: pd.DataFrame, table: pd.DataFrame, quantity: Quantity, band: bands.Band
) -> list[Curve]:
    """Return the curves of some points: one per line and moment, those before training first."""
    rows = table[table["point"].isin(runs.index)].assign(when=table.get("when", ""))
    rows = rows.dropna(subset=quantity.y) if quantity.by_setting else rows  # runs that count
    # Of very many models two have one colour.
    rows = rows.assign(**{key: rows["point"].map(runs[key]) for key in ("line", "colour")})
    colours = moment_colours(table)
    curves = []
    for (_, colour, when), own in rows.groupby(["line", "colour", "when"], sort=False):
        look = colours.get(str(when), str(colour))
        curves.append(curve_of(own, quantity, band, look, str(when)))
    return curves


def curve_of(
    rows: pd.DataFrame, quantity: Quantity, band: bands.Band, colour: str, when: str = ""
) -> Curve:
    """Return the curve of the rows of one line at one moment."""
    x, y = quantity.x, quantity.y
    parts = [own for _, own in rows.groupby(x)] if quantity.by_setting else [rows]
    over_seeds = pd.concat([bands.over_seeds(own, x, y, band) for own in parts], ignore_index=True)
    seeds = bands.seeds_of(rows, x, y)
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


def draw_lines(axes: Axes, curves: Sequence[Curve], band: bands.Band) -> bool:
    """Draw the curves of a panel; return whether two coincide, and so differ in width."""
    widths = [WIDTH + WIDER * count for count in _coinciding(curves)]
    for curve, width in zip(curves, widths, strict=True):
        draw_curve(axes, curve, band, width)
    return any(width > WIDTH for width in widths)


def draw_curve(axes: Axes, curve: Curve, band: bands.Band, width: float = WIDTH) -> None:
    """Draw the line of a mean, with markers if it has few points, and its band or its seeds.

    Where only some seeds have a value, each of them is a thin line.

    Args:
        axes: the panel.
        curve: the line.
        band: over seeds; "none": the line alone.
        width: of the line, points of a page.
    """
    partial, count = curve.partial(), curve.band["seeds"]
    joined = ~partial | np.asarray(np.isneginf(curve.seeds).any(axis=1))  # else others logged there
    means = curve.means()[joined]
    dashes = DASHED if curve.when == moments.BEFORE else "-"
    marker = "." if len(curve.band) <= MARKED else ""
    size: dict[str, Any] = {"linewidth": width * style.current_style().text, "marker": marker}
    size |= {"markersize": DOT} if len(curve.band) == 1 else {}
    axes.plot(means.index, means, color=curve.colour, linestyle=dashes, **size)
    single = np.convolve(partial, (1, 1, 1))[1:-1] > 0  # from where the mean ends
    if band != "none":
        single |= np.asarray((count > 1) & (count < bands.FEW))
        _draw_band(axes, curve.band[joined], curve.colour)
    seeds = curve.seeds.where(np.isfinite(curve.seeds))[single].dropna(axis="columns", how="all")
    if not seeds.empty:
        look = THIN | {"marker": "." if seeds.count().max() == 1 else "", "linestyle": dashes}
        axes.plot(seeds.index, seeds, color=curve.colour, **look)


def _draw_band(axes: Axes, table: pd.DataFrame, colour: str) -> None:
    """Draw a band, if there is one: an area, or at a single x a bar."""
    has_band = np.isfinite(table["high"]) & (table["seeds"] >= bands.FEW)
    x, high = table[table.columns[0]], table["high"].where(has_band)
    drawn = table.loc[has_band, ["low", "mean"]]
    low = table["low"].where(np.isfinite(table["low"]), drawn[np.isfinite(drawn)].min(axis=None))
    if has_band.sum() == 1:
        axes.vlines(x[has_band], low[has_band], high[has_band], color=colour, linewidth=WIDTH)
    elif has_band.any():
        axes.fill_between(x, low, high, color=colour, alpha=BAND, linewidth=0)


def _coinciding(curves: Sequence[Curve]) -> list[int]:
    """Return for each curve how many later ones lie on it from end to end."""
    series = [curve.means().dropna() for curve in curves]
    ends = [end for values in series if len(values) for end in (values.min(), values.max())]
    tolerance = SAME * (max(ends) - min(ends)) if ends else 0.0
    return [
        sum(_covers(other, values, tolerance) for other in series[number + 1 :])
        for number, values in enumerate(series)
    ]


def _covers(other: pd.Series, values: pd.Series, tolerance: float) -> bool:
    x, other_x = values.index, other.index
    if len(x) < 2 or not len(other_x) or other_x.min() > x.min() or other_x.max() < x.max():
        return False
    return bool((values - other).abs().max() <= tolerance)


def legend_entries(runs: pd.DataFrame, table: pd.DataFrame) -> list[legends.Entry]:
    """Return the legend entries of the lines of some points and of the moments of a table."""
    return [*line_entries(runs, table), *moment_entries(table)]


def line_entries(runs: pd.DataFrame, table: pd.DataFrame | None = None) -> list[legends.Entry]:
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


def moment_entries(table: pd.DataFrame) -> list[legends.Entry]:
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
