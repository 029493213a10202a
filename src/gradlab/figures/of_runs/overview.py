"""Figure of a whole sweep: maps of each model before and after training, and decay by lag."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from gradlab.figures import bands, legends, lines, map_images, moments, selection, style, units
from gradlab.figures.choice import Where, chosen
from gradlab.figures.curves import line_entries
from gradlab.figures.labels import shared_log_norm_label
from gradlab.figures.layout import Grid, arrange, with_line_style
from gradlab.figures.networks import left_out, with_networks
from gradlab.figures.of_runs import decay, heatmap

MAPS, BLOCKS, COLUMNS = 9, 3, 6  # maps side by side, blocks of them, maps in a block, at most
ENDS = (moments.BEFORE, moments.AFTER)
VIEW = 4 * units.DECADE  # nats: the curves are cut off here, far from any horizon
MAX_MAP = 1.6  # inches: side of a map
AROUND, CURVES, MIN_WIDTH = 2.0, 1.9, 6.0  # inches of a page: around rows, of curves, of the figure


@style.theme()
def overview_figure(
    runs: pd.DataFrame, *, where: Where | None = None, band: bands.Band = bands.DEFAULT
) -> style.Drawn:
    """Draw maps before and after training, and below them mean log norms against lag.

    There is one block of panels per model and in it one column per gain, or whatever else varies,
    all at the longest length; of networks whose settings vary together, one column per network. The
    edge of a map has the colour of its curve. Maps are those of the first seed; curves are means
    over seeds.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        where, band: as in `decay`.

    Raises:
        ValueError: no point has gradients, or what is asked for is not there.

    Example:
        >>> drawn = gradlab.figures.overview(runs, where={"model.name": "rnn"})
    """
    usable = selection.with_gradients(runs)
    points = chosen(usable, where)
    keys = [key for key in selection.varying_keys(points) if key != "seed"]
    grid = choose_points(points, keys)
    table = heatmap.heatmap_table(grid.one_seed().runs)
    curves = decay.decay_table(grid.runs)
    figure, body, blocks, panels, heights = _figure(len(grid.groups()), len(grid.level_labels()))
    draw_maps(blocks, grid, table, heights[0])
    lines_note = draw_curves(panels, grid, curves, band)
    map_images.colour_bar(body, blocks, table, shared_log_norm_label(grid.runs))
    hatchings = map_images.hatching_entries(table)
    legends.legend(body, [*line_entries(grid.runs), *decay.mark_entries(curves), *hatchings])
    notes = [*lines_note, *decay.zero_notes(curves)]
    notes += selection.notes(runs, usable, grid.runs, where or (), selection.MAPS)
    notes += [*left_out(points, keys, grid.runs), *_view_note(curves)]
    return style.Drawn(style.finish(figure, notes, heights), curves)


def choose_points(runs: pd.DataFrame, keys: Sequence[str]) -> Grid:
    """Return the points to draw, with all seeds: each group of the grid is a block of panels.

    Args:
        runs: those that are asked for.
        keys: that vary over them, the seed apart.
    """
    runs, keys = with_networks(runs, keys)
    level_key = selection.choose_level_key(keys, runs)
    others = [key for key in keys if key != level_key]
    blocks = min(BLOCKS, len(selection.levels_of(runs, others[0]))) if others else 1
    levels = min(COLUMNS, MAPS // blocks)
    return arrange(
        with_line_style(runs, level_key), level_key, others, levels=levels, groups=blocks
    )


def draw_maps(
    blocks: Sequence[map_images.Panels], grid: Grid, table: pd.DataFrame, side: float
) -> None:
    """Draw the maps: each group of the grid in a block, before above after training.

    Args:
        blocks: the panels of each block, [moment, level].
        grid: the points.
        table: from `heatmap_table`.
        side: of a panel, inches.
    """
    limit = map_images.colour_limit(table)
    cells = [cell for _, group in grid.groups() for cell in grid.cells(group)]
    for panels, moment in zip(np.hstack(blocks), ENDS, strict=True):
        map_images.draw_row(panels, cells, table[table["when"] == moment], limit)
    for block, (label, _) in zip(blocks, grid.groups(), strict=True):
        map_images.title_block(block, label, grid.level_labels(), side)
        map_images.label_bottom(block, side)
    map_images.label_rows(blocks[0], ENDS, side)


def draw_curves(
    panels: Sequence[Axes], grid: Grid, table: pd.DataFrame, band: bands.Band
) -> list[str]:
    """Draw the curves of each group of the grid in a panel, within VIEW of zero.

    Args:
        panels: axes, one per group.
        grid: the points.
        table: from `decay_table`.
        band: over seeds.

    Returns:
        The sentences that say what lines and bands are.
    """
    lines.label_panels(panels, decay.PROFILE, CURVES * style.current_style().text)
    grid_of_axes = np.array([panels])
    notes = lines.draw_panels(grid_of_axes, grid, table, [decay.PROFILE], band, decay.mark_curves)
    for axes, (label, _) in zip(panels, grid.groups(), strict=True):
        axes.tick_params(labelleft=axes is panels[0])
        axes.set_title(style.wrapped(label, style.current_style().width / len(panels)))
    shown = _finite(table).clip(-VIEW, VIEW)
    low, high = min(decay.HORIZON_LEVEL, shown.min()), max(0.0, shown.max())
    pad = 0.05 * (high - low)
    panels[0].set_ylim(low - pad, high + pad)
    return notes


def _view_note(curves: pd.DataFrame) -> list[str]:
    if not (_finite(curves).abs() > VIEW).any():
        return []
    view = f"{VIEW:.2g} nats" if units.current_unit() == "nats" else "a factor of 10⁴"
    return [f"Curves are cut off at {view}."]


def _finite(curves: pd.DataFrame) -> pd.Series:
    finite: pd.Series = curves.loc[np.isfinite(curves["relative"]), "relative"]
    return finite


def _figure(
    blocks: int, columns: int
) -> tuple[Figure, SubFigure, list[map_images.Panels], list[Axes], list[float]]:
    """Return a figure, its body, the map panels of each block, its panel of curves, and the height
    of each row of panels in inches."""
    text = style.current_style().text
    side = map_images.panel_side(blocks * columns, MAX_MAP)
    width = max(map_images.figure_width(blocks * columns, side), MIN_WIDTH * text)
    heights = [side] * len(ENDS) + [CURVES * text]
    title = "How far does the gradient reach?"
    figure, body = style.new_figure(width, AROUND * text + sum(heights), title)
    widths = map_images.block_widths(columns, blocks)
    cells = body.add_gridspec(len(heights), len(widths), width_ratios=widths, height_ratios=heights)
    map_panels = [
        map_images.panel_block(body, cells, len(heights) - 1, columns, block)
        for block in range(blocks)
    ]
    curve_panels: list[Axes] = []
    for first in range(0, len(widths), columns + 1):
        shared = curve_panels[0] if curve_panels else None
        curve_panels.append(body.add_subplot(cells[-1, first : first + columns], sharey=shared))
    return figure, body, map_panels, curve_panels, heights
