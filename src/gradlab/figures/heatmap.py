"""Heat maps of the Jacobians' log norms for every pair (t, k), before and after training."""

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradlab import decay
from gradlab.figures import points, style
from gradlab.figures.labels import quantity_label, quantity_of, steps_label
from gradlab.records import load_gradients

PANELS_ACROSS, SETTINGS = 6, 6  # of a figure at most
CELLS = 256  # along an axis of a map at most; a panel has no room for more
MOST_NATS = 5.0  # the colours end here at the latest: at a factor of 150
WHEN = ("before", "after")
MARGIN, NARROWEST = 2.2, 5.0  # inches: beside the panels, a figure
BAR_ROWS = 2  # of panels that the colour bar stands beside
GAP = 0.12  # between blocks, in widths of a panel
HORIZON_LINE: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": ":"}
Panels = np.ndarray[Any, np.dtype[np.object_]]


def heatmap_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The maps of all points, tidy: `point` (the index of `runs`), and the columns of `map_table`.

    Args:
        runs: as of `gradlab.load_runs`; every point must have gradients.
    """
    maps = [map_table(load_gradients(path)).assign(point=i) for i, path in runs["path"].items()]
    return pd.concat(maps, ignore_index=True)


def map_table(gradients: xr.Dataset) -> pd.DataFrame:
    """The maps of one point, tidy: one row a pair k ≤ t.

    Returns:
        `when` ("before", "after" training), `step` (training step), `t` and `k` (time steps),
        `log_norm` (nats, mean over samples; −inf: exactly zero in some sample) and `horizon`
        (steps; inf if the norm never falls to 1/e). Of a long sequence the table holds only
        CELLS values of t and k, evenly spread; the horizon is that of the whole map.
    """
    parts = []
    for when, maps in points.before_and_after(gradients).items():
        size = maps.sizes["t"]
        kept = np.linspace(0, size - 1, min(size, CELLS)).round().astype(int)
        coarse = maps.isel(t=kept, k=kept)
        means = coarse.to_numpy().mean(axis=0, dtype=np.float64)
        row, column = np.tril_indices(len(kept))
        pairs = {
            "t": coarse["t"].to_numpy()[row],
            "k": coarse["k"].to_numpy()[column],
            "log_norm": means[row, column],
        }
        whole = {"when": when, "step": int(maps["step"]), "horizon": horizon_of(maps)}
        parts.append(pd.DataFrame(pairs | whole))
    return pd.concat(parts, ignore_index=True)


def horizon_of(maps: xr.DataArray) -> float:
    """The horizon of a point's maps (sample, t, k), in time steps."""
    stride = float(maps["t"][1] - maps["t"][0])
    return stride * decay.horizon(decay.lag_profile(maps.to_numpy()))


@style.theme()
def heatmap_figure(runs: pd.DataFrame, when: Sequence[str] = WHEN) -> Figure:
    """The maps of a sweep: a row a setting, the gain (or what else varies) from left to right.

    Args:
        runs: as of `gradlab.load_runs`, of any sweep.
        when: "before" and/or "after" training, side by side.

    Raises:
        ValueError: no point has gradients.
    """
    runs = points.comparable(runs)
    usable = points.drawable(runs)
    axes = points.axes_of(usable)
    across = points.across_of(axes, usable)
    columns = PANELS_ACROSS // len(when)
    coloured = points.with_lines(usable, across)
    grid = points.arrange(coloured, across, axes, columns=columns, rows=SETTINGS).one_seed()
    table = heatmap_table(grid.runs)
    figure, body, blocks = _figure(len(grid.rows()), len(grid.columns()), len(when))
    for moment, block in zip(when, blocks, strict=True):
        maps = table[table["when"] == moment]
        for panels, (_, row) in zip(block, grid.rows(), strict=True):
            draw_row(panels, grid.cells(row), maps, colour_limit(table))
        for axes, label in zip(block[0], grid.columns(), strict=True):
            axes.set_title(f"{moment} training\n{label}".rstrip())
        for axes in block[-1]:
            axes.set_xlabel("k (steps)")
    for axes, (label, _) in zip(blocks[0][:, 0], grid.rows(), strict=True):
        axes.set_ylabel(f"{textwrap.fill(label, 18)}\nt (steps)".lstrip())
    colour_bar(body, blocks, table, quantity_of(grid.runs))
    style.legend(body, map_key(table), rows=1)
    return style.finish(figure, points.notes(runs, grid.runs))


@style.theme()
def point_figure(gradients: xr.Dataset, title: str) -> Figure:
    """One point's maps before and after training, side by side.

    Args:
        gradients: as of `gradlab.load_gradients`.
        title: what the point is called.
    """
    table = map_table(gradients)
    moments = dict(list(table.groupby("when", sort=False)))
    figure, body, blocks = _figure(1, 1, len(moments), largest=3.0, title=title)
    for block, (moment, panel) in zip(blocks, moments.items(), strict=True):
        axes = block[0, 0]
        draw_map(axes, panel, colour_limit(table))
        axes.set_title(f"{moment} training (step {panel['step'].iloc[0]})")
        axes.set_xlabel("k (steps)")
    blocks[0][0, 0].set_ylabel("t (steps)")
    attributes = gradients["jacobian_log_norm"].attrs
    label = quantity_label(*(attributes.get(name) for name in ("norm", "of", "wrt")))
    colour_bar(body, blocks, table, label)
    style.legend(body, map_key(table), rows=1)
    return style.finish(figure, [])


def draw_row(
    panels: Sequence[Axes], cells: Sequence[pd.DataFrame], table: pd.DataFrame, limit: float
) -> None:
    """Draw the maps of some points at one moment side by side; a point without one says why.

    Args:
        panels: axes, one a cell.
        cells: the point of each panel, or none; rows of the runs as of `points.with_lines`.
        table: as of `heatmap_table`, at one moment.
        limit: where the colours end, nats.
    """
    maps = dict(list(table.groupby("point")))
    for axes, cell in zip(panels, cells, strict=True):
        panel = next((maps[point] for point in cell.index if point in maps), None)
        if panel is None:
            _draw_none(axes, cell)
        else:
            draw_map(axes, panel, limit, edge=cell["colour"].iloc[0], width=1.5)
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


def draw_map(
    axes: Axes, panel: pd.DataFrame, limit: float, edge: str = style.GREY, width: float = 0.7
) -> None:
    """Draw one map and mark its horizon: a line parallel to the diagonal, that many steps below.

    Args:
        axes: where.
        panel: rows of `map_table` of one moment.
        limit: where the colours end, nats.
        edge: colour of the triangle's edges.
        width: width of the triangle's edges, points.
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
    axes.plot((low, high), (low, high), color=edge, linewidth=width)
    _mark_horizon(axes, panel["horizon"].iloc[0], last)
    axes.set(xticks=(0, last), yticks=(0, last), xlim=(low, high), ylim=(high, low))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=edge, linewidth=width)


def map_colours(log_norms: Float[np.ndarray, "t k"], limit: float) -> Float[np.ndarray, "t k 4"]:
    """The colours (RGBA) of a map: white where it has no value, nothing where it is exactly zero.

    Through the nothing shows the hatched background of the axes.
    """
    colours = style.norm_colours()(Normalize(-limit, limit)(log_norms))
    colours[np.isnan(log_norms)] = 1.0
    colours[np.isneginf(log_norms)] = 0.0
    return colours


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
        ax=[axes for block in blocks for axes in block.flat],
        label=label,
        extend=extend.get((below, above), "neither"),
        ticks=np.linspace(-limit, limit, 5),
        anchor=(0.0, 1.0),
        panchor=False,
        shrink=min(0.95, BAR_ROWS / len(blocks[0])),
        aspect=15,
    )


def map_key(table: pd.DataFrame) -> list[Artist]:
    """Legend entries of what the maps of a table show beside their colours."""
    horizon = Line2D([], [], label="horizon: mean norm fallen to 1/e", **HORIZON_LINE)
    return [horizon, *zero_key(table)]


def zero_key(table: pd.DataFrame) -> list[Artist]:
    """The legend entry of the hatching, if there is any."""
    zero = np.isneginf(table["log_norm"]).any()
    return [Patch(label="exactly zero", **style.ZERO)] if zero else []


def _finite(table: pd.DataFrame) -> pd.Series:
    return table.loc[np.isfinite(table["log_norm"]), "log_norm"]


def _figure(
    rows: int, columns: int, blocks: int, largest: float = 1.9, title: str = ""
) -> tuple[Figure, SubFigure, list[Panels]]:
    size = min(largest, (style.WIDTH - MARGIN) / (blocks * columns))
    width, height = MARGIN + size * blocks * columns, 1 + size * rows
    figure, body = style.frame(max(width, NARROWEST), height, title)
    widths = block_widths(columns, blocks)
    spaces = body.add_gridspec(rows, len(widths), width_ratios=widths)
    return figure, body, [panel_block(body, spaces, rows, columns, b) for b in range(blocks)]


def _mark_horizon(axes: Axes, horizon: float, last: float) -> None:
    if horizon < last:
        axes.plot((0, last - horizon), (horizon, last), **HORIZON_LINE)
    text = steps_label(horizon) if horizon < last else f"> {last:.0f} steps"
    axes.text(1, 1, text, ha="right", va="top", size="small", transform=axes.transAxes)


def _draw_none(axes: Axes, cell: pd.DataFrame) -> None:
    axes.set(xticks=(), yticks=(), aspect="equal")
    axes.spines[:].set_visible(False)
    text = "" if cell.empty else cell["status"].iloc[0]
    axes.text(0.5, 0.5, text, ha="center", va="center", color=style.GREY)
