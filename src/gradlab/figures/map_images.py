"""How a map of log norms is drawn: its colours, its horizon, and the panels around it."""

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import SubFigure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from gradlab.figures import style
from gradlab.figures.labels import number_label

MOST_NATS = 5.0  # the colours end here at the latest: at a factor of 150
BAR_ROWS = 2  # of panels that the colour bar stands beside
GAP = 0.12  # between blocks, in widths of a panel
EDGE = 1.5  # points: of the triangle of a map
TITLE = 16  # letters in a line of a panel's title
HORIZON_LINE: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": ":"}
Panels = np.ndarray[Any, np.dtype[np.object_]]


def draw_row(
    panels: Sequence[Axes], cells: Sequence[pd.DataFrame], table: pd.DataFrame, limit: float
) -> None:
    """Draw the maps of some points at one moment side by side; a point without one says why.

    Args:
        panels: axes, one a cell.
        cells: the point of each panel, or none; rows of the runs as of `selection.with_lines`.
        table: as of `heatmap_table`, at one moment.
        limit: where the colours end, nats.
    """
    maps = dict(list(table.groupby("point")))
    for axes, cell in zip(panels, cells, strict=True):
        panel = next((maps[point] for point in cell.index if point in maps), None)
        if panel is None:
            _draw_none(axes, cell)
        else:
            draw_map(axes, panel, limit, cell["colour"].iloc[0])
    # Neighbours of the same length share the numbers on the left.
    for left, right in pairwise(panels):
        if np.array_equal(left.get_yticks(), right.get_yticks()):
            right.set_yticklabels([])


def block_widths(columns: int, blocks: int) -> list[float]:
    """Widths of the columns of a figure with blocks of panels, in panels, narrow gaps between."""
    return ([1.0] * columns + [GAP]) * (blocks - 1) + [1.0] * columns


def panel_block(body: SubFigure, spaces: GridSpec, rows: int, columns: int, block: int) -> Panels:
    """Add the panels of one block, from the top of the given spaces."""
    first = block * (columns + 1)
    panels = np.empty((rows, columns), dtype=object)
    for i, j in np.ndindex(rows, columns):
        panels[i, j] = body.add_subplot(spaces[i, first + j])
    return panels


def title_block(block: Panels, header: str, columns: Sequence[str]) -> None:
    """Write a header over a block of panels and a title over each of its columns."""
    titles = [textwrap.fill(column, TITLE) for column in columns]
    for axes, title in zip(block[0], titles, strict=True):
        axes.set_title(title)
    below = "\n" * max(len(title.splitlines()) for title in titles)
    block[0, 0].set_title(header + below, loc="left", weight="bold")


def label_rows(block: Panels, labels: Sequence[str], height: float) -> None:
    """Write what each row of a block shows beside it, above the name of its axis.

    Args:
        block: the panels.
        labels: one a row.
        height: of a row, inches: a longer line would run into the label of the next.
    """
    for axes, label in zip(block[:, 0], labels, strict=True):
        axes.set_ylabel(f"{style.wrapped(label, height)}\nt (steps)".lstrip())


def label_steps(block: Panels) -> None:
    """Name the lower axes of a block, where there is a map above."""
    for axes in block[-1]:
        axes.set_xlabel("k (steps)" if axes.images else "")


def draw_map(axes: Axes, panel: pd.DataFrame, limit: float, edge: str) -> None:
    """Draw one map and mark its horizon: a line parallel to the diagonal, that many steps below.

    Args:
        axes: where.
        panel: rows of `map_table` of one moment.
        limit: where the colours end, nats.
        edge: colour of the triangle's edges.
    """
    _, row = np.unique(panel["t"], return_inverse=True)
    _, column = np.unique(panel["k"], return_inverse=True)
    log_norms = np.full((row.max() + 1, column.max() + 1), np.nan)
    log_norms[row, column] = panel["log_norm"]
    last = panel["t"].max()
    half_cell = last / (len(log_norms) - 1) / 2
    low, high = -half_cell, last + half_cell
    axes.imshow(map_colours(log_norms, limit), extent=(low, high, high, low))
    axes.patch.set(**style.ZERO)
    for t, k in panel.loc[panel["unresolved"], ["t", "k"]].to_numpy():
        corner = (k - half_cell, t - half_cell)
        axes.add_patch(Rectangle(corner, 2 * half_cell, 2 * half_cell, **style.LOST))
    axes.plot((low, high), (low, high), color=edge, linewidth=EDGE)
    _mark_horizon(axes, panel["horizon"].iloc[0], last)
    axes.set(xlim=(low, high), xticks=(0, last), ylim=(high, low), yticks=(0, last))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=edge, linewidth=EDGE)


def map_colours(log_norms: Float[np.ndarray, "t k"], limit: float) -> Float[np.ndarray, "t k 4"]:
    """The colours (RGBA) of a map: white where it has no value, nothing where it is exactly zero.

    Through the nothing shows the hatched background of the axes.
    """
    colours = np.asarray(style.norm_colours()(Normalize(-limit, limit)(log_norms)))
    colours[np.isnan(log_norms)] = 1.0
    colours[np.isneginf(log_norms)] = 0.0
    return colours


def map_pixels(
    maps: Sequence[Float[np.ndarray, "t k"]], side: int = 256
) -> UInt8[np.ndarray, "height width 4"]:
    """Maps side by side as bare pixels (RGBA), where a figure would take too long.

    The colours end at ±MOST_NATS, so that pictures of several runs compare; what is exactly zero is
    grey.

    Args:
        maps: log norms, nats, of one size; only k ≤ t is shown.
        side: pixels along an axis of a map, about.
    """
    kept = evenly(len(maps[0]), side)
    lower, gap = np.tri(len(kept), dtype=bool), np.full((len(kept), 1), np.nan)
    panels = [np.where(lower, log_norms[np.ix_(kept, kept)], np.nan) for log_norms in maps]
    row = np.hstack([part for panel in panels for part in (gap, panel)][1:])
    colours = map_colours(row, MOST_NATS)
    colours[np.isneginf(row)] = to_rgba(style.GREY)
    scale = max(1, side // len(kept))
    pixels = colours.repeat(scale, axis=0).repeat(scale, axis=1)
    return np.asarray(255 * pixels).round().astype(np.uint8)


def evenly(size: int, most: int) -> Int[np.ndarray, "kept"]:
    """Which entries of an axis to keep, evenly spread, where it has more than so many."""
    return np.linspace(0, size - 1, min(size, most)).round().astype(int)


def colour_limit(table: pd.DataFrame) -> float:
    """Where the colours of some maps end, nats: at the largest |log norm|, from 1 to MOST_NATS."""
    largest = _finite(table).abs().max()  # NaN of none
    return float(np.clip(np.ceil(np.nan_to_num(largest)), 1, MOST_NATS))


def colour_bar(body: SubFigure, blocks: Sequence[Panels], table: pd.DataFrame, label: str) -> None:
    """Add the colour bar of some maps, with arrows where values go on beyond it."""
    limit, finite = colour_limit(table), _finite(table)
    below, above = bool((finite < -limit).any()), bool((finite > limit).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    body.colorbar(
        ScalarMappable(Normalize(-limit, limit), style.norm_colours()),
        ax=[axes for block in blocks for axes in block.ravel().tolist()],
        label=label,
        extend=extend.get((below, above), "neither"),
        ticks=np.linspace(-limit, limit, 5),
        anchor=(0.0, 1.0),
        panchor=False,
        shrink=min(0.95, BAR_ROWS / len(blocks[0])),
        aspect=15,
    )


def map_key(table: pd.DataFrame) -> list[style.Entry]:
    """Legend entries of what the maps of a table show beside their colours."""
    horizon = Line2D([], [], label="horizon: mean norm fallen to 1/e", **HORIZON_LINE)
    return [horizon, *zero_key(table)]


def zero_key(table: pd.DataFrame) -> list[style.Entry]:
    """The legend entries of the hatchings, if there are any."""
    zero = (np.isneginf(table["log_norm"]) & ~table["unresolved"]).any()
    lost = table["unresolved"].any()
    looks = {"exactly zero": style.ZERO} if zero else {}
    looks |= {"lost to rounding": style.LOST} if lost else {}
    return [Patch(label=label, **look) for label, look in looks.items()]


def _finite(table: pd.DataFrame) -> pd.Series:
    finite: pd.Series = table.loc[np.isfinite(table["log_norm"]), "log_norm"]
    return finite


def _mark_horizon(axes: Axes, horizon: float, last: float) -> None:
    if horizon < last:
        axes.plot((0, last - horizon), (horizon, last), **HORIZON_LINE)
    text = number_label(horizon) if horizon < last else f"> {last:.0f}"
    axes.text(1, 1, f"{text}\nsteps", ha="right", va="top", size="small", transform=axes.transAxes)


def _draw_none(axes: Axes, cell: pd.DataFrame) -> None:
    axes.set(xticks=(), yticks=(), aspect="equal")
    axes.spines[:].set_visible(False)
    text = "" if cell.empty else cell["status"].iloc[0]
    axes.text(0.5, 0.5, text, ha="center", va="center", color=style.GREY)
