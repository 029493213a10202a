"""One figure of a whole sweep: how far the gradient reaches in each model, before and after."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from gradlab.figures import decay, heatmap, points, style
from gradlab.figures.labels import quantity_of

PANELS, GROUPS, LEVELS = 8, 3, 6  # maps side by side, groups of them, maps in a group at most
VIEW = 10.0  # nats up and down; what the curves do further out changes no horizon
HEIGHT, HEIGHTS = 6.8, (1, 1, 1.6)  # inches; of the rows: maps before, maps after, curves


@style.theme()
def overview_figure(runs: pd.DataFrame) -> Figure:
    """Maps before and after training, and under them the curves against lag with their horizons.

    A block a model (or what else varies), the gain (or what else varies) from left to right, at
    the longest length. Each map's edge has the colour of its curve. Maps are the first seed's,
    curves means over seeds.

    Args:
        runs: as of `gradlab.load_runs`, of any sweep.

    Raises:
        ValueError: no point has gradients.
    """
    runs = points.comparable(runs)
    grid = choose(points.drawable(runs))
    maps = heatmap.heatmap_table(grid.one_seed().runs)
    curves = decay.decay_table(grid.runs)
    groups, levels = len(grid.rows()), len(grid.columns())
    stacked = groups * levels > FEW
    width, height = (style.WIDTH, TALL) if stacked else (NARROW + ..., FLAT)
    figure, body = style.frame(style.WIDTH, HEIGHT, "How far does the gradient reach?")
    blocks, panels = _panels(body, len(grid.rows()), len(grid.columns()))
    draw_maps(blocks, grid, maps)
    draw_curves(panels, grid, curves)
    heatmap.colour_bar(body, blocks, maps, quantity_of(grid.runs))
    key = [*decay.line_key(grid.runs), *decay.mark_key(curves), *heatmap.zero_key(maps)]
    style.legend(body, key, rows=grid.runs["model.name"].nunique())
    return style.finish(figure, points.notes(runs, grid.runs))


def choose(runs: pd.DataFrame) -> points.Grid:
    """The points of the figure: a row of the grid is a block of it, all seeds in a cell."""
    axes = points.axes_of(runs)
    across = points.across_of(axes, runs)
    down = [axis for axis in axes if axis not in (across, "seed")]
    groups = min(GROUPS, len(points.levels_of(runs, down[0]))) if down else 1
    levels = min(LEVELS, PANELS // groups)
    runs = points.with_lines(runs, across)
    return points.arrange(runs, across, down, columns=levels, rows=groups)


def draw_maps(blocks: Sequence[heatmap.Panels], grid: points.Grid, table: pd.DataFrame) -> None:
    """Draw the maps: a block a row of the grid, in it a row before and a row after training."""
    limit = heatmap.colour_limit(table)
    for block, (label, row) in zip(blocks, grid.rows(), strict=True):
        for panels, moment in zip(block, heatmap.WHEN, strict=True):
            heatmap.draw_row(panels, grid.cells(row), table[table["when"] == moment], limit)
        for axes, column in zip(block[0], grid.columns(), strict=True):
            axes.set_title(f"{label}\n{column}".strip())
        for axes in block[-1]:
            axes.set_xlabel("k (steps)")
    for axes, moment in zip(blocks[0][:, 0], heatmap.WHEN, strict=True):
        axes.set_ylabel(f"{moment} training\nt (steps)")


def draw_curves(panels: Sequence[Axes], grid: points.Grid, table: pd.DataFrame) -> None:
    """Draw the curves: a panel a row of the grid, as much of them as tells the horizons apart."""
    for axes, (label, row) in zip(panels, grid.rows(), strict=True):
        decay.draw_curves(axes, row, table)
        axes.set(title=label, xlabel=decay.LAG_LABEL)
    finite = table.loc[np.isfinite(table["relative"]), "relative"]
    low, high = finite.clip(-VIEW, VIEW).min(), finite.clip(-VIEW, VIEW).max()
    pad = 0.05 * max(high - low, 1)
    panels[0].set(ylim=(min(low, -1) - pad, high + pad), ylabel=decay.LOG_NORM_LABEL)


def _panels(body: SubFigure, groups: int, levels: int) -> tuple[list[heatmap.Panels], list[Axes]]:
    widths = heatmap.block_widths(levels, groups)
    spaces = body.add_gridspec(3, len(widths), width_ratios=widths, height_ratios=HEIGHTS)
    blocks = [heatmap.panel_block(body, spaces, 2, levels, group) for group in range(groups)]
    panels: list[Axes] = []
    for group in range(groups):
        first = group * (levels + 1)
        shared = panels[0] if panels else None
        panels.append(body.add_subplot(spaces[2, first : first + levels], sharey=shared))
    return blocks, panels
