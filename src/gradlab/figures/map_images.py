"""Images of log norms over (t, k): colours, horizon, panels in blocks, colour bar and legend."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import SubFigure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from gradlab.figures import legends, style, units
from gradlab.figures.labels import steps_label

MAX_LIMIT = 2 * units.DECADE  # nats, a factor of 100: the colours end here or earlier
WITHIN_A_DECADE = np.array([0.1, 0.2, 0.5, 1, 2, 5, 10])  # norms
MAX_NATS = 5.0  # nats: the same, where nats are shown
BAR_ROWS = 2  # height of the colour bar, in rows of panels
GAP = 0.12  # between blocks, in widths of a panel
TITLE_PAD, LINE = 6, 1.25  # points above a panel; height of a line of text, in its size
EDGE = 1.5  # points: width of the edges of a map's triangle
BESIDE, BETWEEN = 1.9, 0.15  # inches of a page: beside all panels, and between two
LABELLED = 0.75  # inches of a page: side of a panel that is as wide as its axis label
HORIZON_LINE: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": ":"}
Panels = np.ndarray[Any, np.dtype[np.object_]]


def draw_row(
    panels: Sequence[Axes], cells: Sequence[pd.DataFrame], table: pd.DataFrame, limit: float
) -> None:
    """Draw the maps of some points side by side; write a point's status if it has no map.

    Args:
        panels: axes, one per cell.
        cells: the points of each panel, from `selection.with_line_style`; the first with a map is
            drawn.
        table: from `heatmap_table`, at one moment.
        limit: where the colours end, nats.
    """
    maps = dict(list(table.groupby("point")))
    for axes, cell in zip(panels, cells, strict=True):
        rows = next((maps[point] for point in cell.index if point in maps), None)
        if rows is None:
            _draw_status(axes, cell)
        else:
            draw_map(axes, rows, limit, cell["colour"].iloc[0])
    # Neighbours of the same length share the tick labels of the left one.
    for left, right in pairwise(panels):
        if np.array_equal(left.get_yticks(), right.get_yticks()):
            right.set_yticklabels([])


def block_widths(columns: int, blocks: int) -> list[float]:
    """Return the widths of a figure's columns, in panels: blocks of columns with gaps between."""
    return ([1.0] * columns + [GAP]) * (blocks - 1) + [1.0] * columns


def panel_block(body: SubFigure, cells: GridSpec, rows: int, columns: int, block: int) -> Panels:
    """Add the panels of one block to a figure.

    Args:
        body: where to add them.
        cells: the grid of the figure, with columns from `block_widths`.
        rows: of the block, from the top of the grid.
        columns: of every block.
        block: the number of this block, from 0.

    Returns:
        The axes, [row, column].
    """
    first = block * (columns + 1)
    panels = np.empty((rows, columns), dtype=object)
    for i, j in np.ndindex(rows, columns):
        panels[i, j] = axes = body.add_subplot(cells[i, first + j])
        axes.set_anchor("W")  # so that labels on its left stay where the layout puts them
    return panels


def panel_side(panels: int, most: float) -> float:
    """Return the side in inches of panels that stand side by side in the current style.

    Args:
        panels: in a row.
        most: inches.
    """
    look = style.current_style()
    room = look.width - BESIDE * look.text
    return min(most * max(1.0, look.text), room / panels - BETWEEN * look.text)


def figure_width(panels: int, side: float) -> float:
    """Return the width in inches of a figure with so many panels in a row, and a colour bar."""
    return BESIDE * style.current_style().text + panels * (
        side + BETWEEN * style.current_style().text
    )


def title_block(block: Panels, header: str, columns: Sequence[str], side: float) -> None:
    """Write a header over a block of panels and a title over each of its columns.

    Args:
        block: the panels.
        header: of the block.
        columns: the title of each column.
        side: of a panel, inches.
    """
    titles = [style.wrapped(column, side) for column in columns]
    header = style.wrapped(header, side * len(columns))
    below = max(len(title.splitlines()) for title in titles)
    room = "\n" * (below - len(titles[0].splitlines()) + len(header.splitlines()))
    for axes, title in zip(block[0], [room + titles[0], *titles[1:]], strict=True):
        axes.set_title(title)
    # Not in the layout, which would move the columns apart; the first title has room for it.
    size = block[0, 0].title.get_size()
    above: Any = {"xytext": (0, TITLE_PAD + LINE * size * below), "textcoords": "offset points"}
    looks: Any = {"weight": "bold", "size": size, "in_layout": False}
    block[0, 0].annotate(header, (0, 1), xycoords="axes fraction", **above, **looks)


def label_rows(block: Panels, labels: Sequence[str], height: float) -> None:
    """Label the t axes of a block, and left of them, apart, the setting of each row.

    Args:
        block: the panels.
        labels: one per row.
        height: of a row, inches; longer labels are wrapped, so that they do not overlap.
    """
    for axes, label in zip(block[:, 0], labels, strict=True):
        axes.set_ylabel("t (steps)")
        style.label_row(axes, style.wrapped(label, height), left=True)


def label_bottom(block: Panels, side: float) -> None:
    """Label the k axes below a block, if panels are narrow that of one map.

    Args:
        block: the panels.
        side: of a panel, inches.
    """
    maps = [axes for axes in block[-1] if axes.images]
    wide = side >= LABELLED * style.current_style().text
    for axes in maps if wide else maps[(len(maps) - 1) // 2 :][:1]:
        axes.set_xlabel("k (steps)")


def draw_map(axes: Axes, table: pd.DataFrame, limit: float, edge: str) -> None:
    """Draw one map with its horizon: a line parallel to the diagonal, that many steps below it.

    Args:
        axes: the panel.
        table: from `map_table`.
        limit: where the colours end, nats.
        edge: colour of the triangle's edges.
    """
    _, row = np.unique(table["t"], return_inverse=True)
    _, column = np.unique(table["k"], return_inverse=True)
    log_norms = np.full((row.max() + 1, column.max() + 1), np.nan)
    log_norms[row, column] = table["log_norm"]
    last = table["t"].max()
    half_cell = last / (len(log_norms) - 1) / 2
    low, high = -half_cell, last + half_cell
    axes.imshow(map_colours(log_norms, limit), extent=(low, high, high, low), origin="upper")
    axes.patch.set(**style.ZERO)
    for t, k in table.loc[table["unresolved"], ["t", "k"]].to_numpy():
        corner = (k - half_cell, t - half_cell)
        axes.add_patch(Rectangle(corner, 2 * half_cell, 2 * half_cell, **style.LOST))
    axes.plot((low, high), (low, high), color=edge, linewidth=EDGE)
    _mark_horizon(axes, table, last)
    axes.set(xlim=(low, high), xticks=(0, last), ylim=(high, low), yticks=(0, last))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=edge, linewidth=EDGE)


def map_colours(log_norms: Float[np.ndarray, "t k"], limit: float) -> Float[np.ndarray, "t k 4"]:
    """Return the colours of a map, RGBA: white where it is NaN, transparent where exactly zero.

    The hatched background of the axes shows through the transparent cells.

    Args:
        log_norms: nats.
        limit: where the colours end, nats.
    """
    colours = np.asarray(style.norm_colours()(Normalize(-limit, limit)(log_norms)))
    colours[np.isnan(log_norms)] = 1.0
    colours[np.isneginf(log_norms)] = 0.0
    return colours


def map_pixels(
    maps: Sequence[Float[np.ndarray, "t k"]], side: int = 256
) -> UInt8[np.ndarray, "height width 4"]:
    """Return maps side by side as pixels (RGBA), which is much faster than a figure.

    The colours end at ±MAX_LIMIT, so that the pixels of several runs compare. Norms that are
    exactly zero are grey.

    Args:
        maps: log norms, nats, all of one size; only k ≤ t is shown.
        side: pixels along an axis of a map, about.
    """
    times = evenly(len(maps[0]), side)
    lower, gap = np.tri(len(times), dtype=bool), np.full((len(times), 1), np.nan)
    panels = [np.where(lower, log_norms[np.ix_(times, times)], np.nan) for log_norms in maps]
    row = np.hstack([part for panel in panels for part in (gap, panel)][1:])
    colours = map_colours(row, MAX_LIMIT)
    colours[np.isneginf(row)] = to_rgba(style.GREY)
    scale = max(1, side // len(times))
    pixels = np.asarray(255 * colours).round().astype(np.uint8)
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def evenly(size: int, most: int) -> Int[np.ndarray, "indices"]:
    """Return at most `most` indices into `size` entries, evenly spread, both ends included."""
    return np.linspace(0, size - 1, min(size, most)).round().astype(int)


def colour_limit(table: pd.DataFrame) -> float:
    """Return where the colours end, nats: the largest |log norm|, rounded up, to MAX_LIMIT."""
    return colour_limit_of(_finite(table).to_numpy())


def colour_limit_of(log_norms: Float[np.ndarray, "pairs"]) -> float:
    """Return the `colour_limit` of finite log norms."""
    most = units.from_nats(np.abs(log_norms).max(initial=0))
    limit = max(1.0, float(np.ceil(most - 1e-9))) * units.NATS_IN[units.current_unit()]
    return min(limit, MAX_LIMIT if units.current_unit() == "decades" else MAX_NATS)


def extend_of(log_norms: Float[np.ndarray, "..."], limit: float) -> str:
    """Return at which ends of a colour bar finite log norms exceed its limit, nats."""
    below, above = bool((log_norms < -limit).any()), bool((log_norms > limit).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    return extend.get((below, above), "neither")


def colour_bar(body: SubFigure, blocks: Sequence[Panels], table: pd.DataFrame, label: str) -> None:
    """Add the colour bar of some maps, with an arrow at an end that values exceed.

    Args:
        body: where to add it.
        blocks: the panels that it stands beside.
        table: from `heatmap_table`.
        label: of the bar.
    """
    limit = colour_limit(table)
    bar = body.colorbar(
        ScalarMappable(Normalize(-limit, limit), style.norm_colours()),
        ax=[axes for block in blocks for axes in block.ravel().tolist()],
        label=label,
        extend=extend_of(_finite(table).to_numpy(), limit),
        anchor=(0.0, 1.0),
        panchor=False,
        shrink=min(0.95, BAR_ROWS / len(blocks[0])),
        aspect=15,
    )
    norm_ticks(bar, limit)


def norm_ticks(bar: Colorbar, limit: float) -> None:
    """Label a colour bar of log norms, whose colours end at ±limit nats, in the unit."""
    if units.current_unit() == "nats":
        bar.set_ticks(np.linspace(-limit, limit, 5).tolist())
        return
    decades = round(limit / units.DECADE)
    norms = 10.0 ** np.arange(-decades, decades + 1) if decades > 1 else WITHIN_A_DECADE
    bar.set_ticks(
        np.log(norms).tolist(), labels=[units.norm_text(x, decades == 1) for x in np.log(norms)]
    )


def map_entries(table: pd.DataFrame) -> list[legends.Entry]:
    """Return the legend entries of the maps of a table: horizon and hatchings."""
    horizon = Line2D([], [], label="horizon: mean norm fallen to 1/e", **HORIZON_LINE)
    return [horizon, *hatching_entries(table)]


def hatching_entries(table: pd.DataFrame) -> list[legends.Entry]:
    """Return the legend entries of the hatchings that the maps of a table have."""
    zero = (np.isneginf(table["log_norm"]) & ~table["unresolved"]).any()
    lost = table["unresolved"].any()
    hatchings = {"exactly zero": style.ZERO} if zero else {}
    hatchings |= {"lost to rounding": style.LOST} if lost else {}
    return [Patch(label=label, **hatching) for label, hatching in hatchings.items()]


def _finite(table: pd.DataFrame) -> pd.Series:
    finite: pd.Series = table.loc[np.isfinite(table["log_norm"]), "log_norm"]
    return finite


def _mark_horizon(axes: Axes, table: pd.DataFrame, last: float) -> None:
    horizon = table["horizon"].iloc[0]
    lags = (table["t"] - table["k"])[np.isfinite(table["log_norm"])]
    if horizon < last:
        axes.plot((0, last - horizon), (horizon, last), **HORIZON_LINE)
    text = steps_label(horizon) if horizon < last else f"> {lags.max():.0f}"
    text = f"{text}\nsteps" if len(lags) else "exactly\nzero"
    axes.text(1, 1, text, ha="right", va="top", size="small", transform=axes.transAxes)


def _draw_status(axes: Axes, cell: pd.DataFrame) -> None:
    axes.set(xticks=(), yticks=(), aspect="equal")
    axes.spines[:].set_visible(False)
    text = "" if cell.empty else style.literal(str(cell["status"].iloc[0]))
    axes.text(0.5, 0.5, text, ha="center", va="center", color=style.GREY)
