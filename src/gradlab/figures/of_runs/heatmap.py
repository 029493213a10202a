"""Figure of maps: the log norms of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ for every pair (t, k), one panel per point."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from gradlab import decay
from gradlab.figures import legends, lines, map_images, moments, selection, style
from gradlab.figures.choice import Choice, Where, chosen
from gradlab.figures.labels import shared_log_norm_label
from gradlab.figures.layout import arrange_lines
from gradlab.figures.moments import Step

COLUMNS, ROWS = 6, 6  # of panels in a figure, at most
MAX_CELLS = 256  # along an axis of a map, at most; a panel has no room for more
MIN_WIDTH = 4.0  # inches of a page: of the figure
MAX_PANEL = 1.9  # inches: side of a panel
MAX_HEIGHT = 0.6  # of all rows of panels, in widths of a figure


def heatmap_table(runs: pd.DataFrame, step: Step = moments.DEFAULT) -> pd.DataFrame:
    """Tabulate the maps of all points at some moments of training: one row per pair k ≤ t.

    Args:
        runs: from `gradlab.load_runs`; every run must have gradients.
        step: the moments of training, as in `Choice`.

    Returns:
        `point` (the index of the runs), `when` (the moment: "before training", …), `step` (updates
        before it), and the columns of `map_table`.

    Example:
        >>> table = gradlab.figures.heatmap_table(runs, step="first")
        >>> len(table) == 4 * 21 * 22 / 2  # points, and pairs k ≤ t of 20 steps
        True
    """
    return lines.measured_table(runs, map_table, "jacobian_log_norm", step=step)


def map_table(measurements: xr.Dataset) -> pd.DataFrame:
    """Tabulate the map of one point at one training step: one row per pair k ≤ t.

    Args:
        measurements: from `gradlab.load_gradients`, at one training step.

    Returns:
        `t` and `k` (time steps), `log_norm` (nats, mean over the samples where the product is not
        exactly zero; −inf: it is in all of them; NaN: beyond the end of all sequences),
        `zero_share` (the share of the measured samples where it is), `unresolved` (whether the norm
        was lost to rounding in some sample) and `horizon` (time steps; inf if the norm never falls
        to 1/e). Of a long sequence the table holds MAX_CELLS evenly spread values of t and k; the
        horizon is always that of the whole map.
    """
    log_norms = measurements["jacobian_log_norm"]
    times = map_images.evenly(log_norms.sizes["t"], MAX_CELLS)
    coarse = log_norms.isel(t=times, k=times)
    unresolved = measurements.get("jacobian_unresolved", xr.zeros_like(log_norms)).astype(bool)
    row, column = np.tril_indices(len(times))
    samples = coarse.to_numpy().astype(np.float64)[:, row, column]
    measured = np.maximum((~np.isnan(samples)).sum(axis=0), 1)
    pairs = {
        "t": coarse["t"].to_numpy()[row],
        "k": coarse["k"].to_numpy()[column],
        "log_norm": decay.mean_log_norm(samples, axis=0),
        "zero_share": np.isneginf(samples).sum(axis=0) / measured,
        "unresolved": unresolved.any("sample").isel(t=times, k=times).to_numpy()[row, column],
    }
    return pd.DataFrame(pairs).assign(horizon=horizon_of(log_norms))


def horizon_of(log_norms: xr.DataArray) -> float:
    """Return the horizon of a point's maps (sample, t, k), in time steps."""
    stride = float(log_norms["t"][1] - log_norms["t"][0])
    return stride * decay.horizon(decay.lag_profile(log_norms.to_numpy()))


def zero_notes(table: pd.DataFrame) -> list[str]:
    """Return the sentence that says how many samples the means of a table leave out, if any."""
    partly = table.loc[table["zero_share"].between(0, 1, inclusive="neither"), "zero_share"]
    if partly.empty:
        return []
    return [
        "Colours are means over the samples whose product is not exactly zero: at "
        f"{len(partly) / len(table):.1%} of the pairs it is in some, at most {partly.max():.0%}."
    ]


@style.theme()
def heatmap_figure(
    runs: pd.DataFrame,
    *,
    where: Where | None = None,
    col: str | None = None,
    row: str | None = None,
    step: Step = moments.DEFAULT,
) -> style.Drawn:
    """Draw the maps of a sweep: one column per gain (or what else varies).

    The rows are the other settings that vary; of several seeds the first is drawn.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        where, step: as in `decay`; the moments stand side by side.
        col, row: the config keys by which columns and rows differ; None: chosen from what varies.

    Raises:
        ValueError: no point has gradients, or what is asked for is not there.

    Example:
        >>> drawn = gradlab.figures.heatmap(runs, where={"model.name": "rnn"}, step="first")
    """
    usable = selection.with_gradients(runs)
    if selection.varying_keys(chosen(usable, where)) == ["seed"]:
        col = col or "seed"
    # A column of maps is what a line is in other figures: the level of one key; a row is a group.
    choice = Choice(where, hue=col, col=row)
    columns = COLUMNS // {"ends": 2, "all": COLUMNS}.get(str(step), 1)
    grid = arrange_lines(usable, choice, panels=ROWS, lines=columns).one_seed()
    table = heatmap_table(grid.runs, step)
    whens = list(table.sort_values("step")["when"].unique())
    if step in ("last", "ends") and moments.AFTER not in whens:
        # Points that diverged are named there; runs of zero updates have no such moment.
        whens += [] if (grid.runs["status"] == "done").all() else [moments.AFTER]
    limit = map_images.colour_limit(table)
    figure, body, blocks, side = _figure(len(grid.groups()), len(grid.level_labels()), len(whens))
    for moment, block in zip(whens, blocks, strict=True):
        rows = table[table["when"] == moment]
        for panels, (_, group) in zip(block, grid.groups(), strict=True):
            map_images.draw_row(panels, grid.cells(group), rows, limit)
        map_images.label_bottom(block, side)
        map_images.title_block(block, moment, grid.level_labels(), side)
    map_images.label_rows(blocks[0], [label for label, _ in grid.groups()], side)
    map_images.colour_bar(body, blocks, table, shared_log_norm_label(grid.runs))
    legends.legend(body, map_images.map_entries(table))
    notes = zero_notes(table)
    notes += selection.notes(runs, usable, grid.runs, choice.keys(), selection.MAPS)
    return style.Drawn(style.finish(figure, notes, side), table)


def _figure(
    rows: int, columns: int, blocks: int
) -> tuple[Figure, SubFigure, list[map_images.Panels], float]:
    """Return a figure, its body, its blocks of panels and the side of a panel in inches."""
    look, across = style.current_style(), blocks * columns
    side = min(map_images.panel_side(across, MAX_PANEL), MAX_HEIGHT * look.width / rows)
    width = max(map_images.figure_width(across, side), MIN_WIDTH * look.text)
    figure, body = style.new_figure(width, look.text + side * rows)
    widths = map_images.block_widths(columns, blocks)
    cells = body.add_gridspec(rows, len(widths), width_ratios=widths)
    panels = [map_images.panel_block(body, cells, rows, columns, block) for block in range(blocks)]
    return figure, body, panels, side
