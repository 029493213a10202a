"""One figure of a whole sweep: how far the gradient reaches in each model, before and after."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from gradlab.figures import decay, heatmap, lines, map_images, selection, style
from gradlab.figures.labels import quantity_of

PANELS, GROUPS, LEVELS = 9, 3, 6  # maps side by side, groups of them, maps in a group at most
VIEW = 10.0  # nats up and down; what the curves do further out changes no horizon
# Inches: beside and above the panels; a map, the space below it, both; the curves; a figure.
BESIDE, AROUND = 2.2, 1.5
LARGEST, BETWEEN, LOWEST, CURVES, NARROWEST = 1.75, 0.3, 1.2, 2.4, 6.0


@style.theme()
def overview_figure(runs: pd.DataFrame) -> style.Drawn:
    """Maps before and after training, and under them the curves against lag with their horizons.

    A block a model (or what else varies), the gain (or what else varies) from left to right, at
    the longest length. Each map's edge has the colour of its curve. Maps are the first seed's,
    curves means over seeds.

    Args:
        runs: as of `gradlab.load_runs`, of any sweep.

    Raises:
        ValueError: no point has gradients.
    """
    usable = selection.with_gradients(runs)
    grid = choose(usable)
    table = heatmap.heatmap_table(grid.one_seed().runs)
    curves = decay.decay_table(grid.runs)
    figure, body, blocks, panels = _figure(len(grid.rows()), len(grid.columns()))
    draw_maps(blocks, grid, table)
    draw_curves(panels, grid, curves)
    map_images.colour_bar(body, blocks, table, quantity_of(grid.runs))
    key = [*lines.line_key(grid.runs), *decay.mark_key(curves), *map_images.zero_key(table)]
    style.legend(body, key)
    notes = selection.notes(runs, usable, grid.runs)
    figure = style.finish(figure, [lines.NORM_NOTE, *notes, *_beyond(curves)])
    return style.Drawn(figure, curves)


def choose(runs: pd.DataFrame) -> selection.Grid:
    """The points of the figure: a row of the grid is a block of it, all seeds in a cell."""
    axes = [axis for axis in selection.varying_keys(runs) if axis != "seed"]
    others = [axis for axis in axes if axis != selection.across_key(axes, runs)]
    groups = min(GROUPS, len(selection.levels_of(runs, others[0]))) if others else 1
    return selection.arrange_lines(runs, panels=groups, lines=min(LEVELS, PANELS // groups))


def draw_maps(
    blocks: Sequence[map_images.Panels], grid: selection.Grid, table: pd.DataFrame
) -> None:
    """Draw the maps: a block a row of the grid, in it a row before and a row after training."""
    for block, (label, row) in zip(blocks, grid.rows(), strict=True):
        for panels, moment in zip(block, lines.WHEN, strict=True):
            measured = table[table["when"] == moment]
            map_images.draw_row(panels, grid.cells(row), measured, map_images.colour_limit(table))
        map_images.title_block(block, label, grid.columns())
        map_images.label_steps(block)
    map_images.label_rows(blocks[0], [f"{moment} training" for moment in lines.WHEN], LARGEST)


def draw_curves(panels: Sequence[Axes], grid: selection.Grid, table: pd.DataFrame) -> None:
    """Draw the curves: a panel a row of the grid, as much of them as tells the horizons apart."""
    lines.dress(panels, decay.PROFILE)
    for axes, (label, row) in zip(panels, grid.rows(), strict=True):
        decay.draw_curves(axes, row, table)
        axes.set_title(label)
    inside = _finite(table).clip(-VIEW, VIEW)
    low, high = min(decay.HORIZON, inside.min()), max(0.0, inside.max())
    pad = 0.05 * (high - low)
    panels[0].set_ylim(low - pad, high + pad)


def _beyond(curves: pd.DataFrame) -> list[str]:
    further = (_finite(curves).abs() > VIEW).any()
    return [f"Curves are cut off at {VIEW:g} nats."] if further else []


def _finite(curves: pd.DataFrame) -> pd.Series:
    finite: pd.Series = curves.loc[np.isfinite(curves["relative"]), "relative"]
    return finite


def _figure(
    groups: int, levels: int
) -> tuple[Figure, SubFigure, list[map_images.Panels], list[Axes]]:
    count = groups * levels
    width = float(np.clip(BESIDE + LARGEST * count, NARROWEST, style.present().width))
    height = max(min(LARGEST, (width - BESIDE) / count) + BETWEEN, LOWEST)
    rows = [height] * len(lines.WHEN) + [CURVES]
    figure, body = style.frame(width, AROUND + sum(rows), "How far does the gradient reach?")
    widths = map_images.block_widths(levels, groups)
    spaces = body.add_gridspec(len(rows), len(widths), width_ratios=widths, height_ratios=rows)
    blocks = [map_images.panel_block(body, spaces, len(rows) - 1, levels, i) for i in range(groups)]
    panels: list[Axes] = []
    for first in range(0, len(widths), levels + 1):
        shared = panels[0] if panels else None
        panels.append(body.add_subplot(spaces[-1, first : first + levels], sharey=shared))
    return figure, body, blocks, panels
