"""Heat maps of the Jacobians' log norms for every pair (t, k), before and after training."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from gradlab import decay
from gradlab.figures import lines, map_images, selection, style
from gradlab.figures.labels import quantity_of

PANELS_ACROSS, SETTINGS = 6, 6  # of a figure at most
CELLS = 256  # along an axis of a map at most; a panel has no room for more
MARGIN, NARROWEST = 2.2, 5.0  # inches: beside the panels, a figure
LARGEST = 1.9  # inches: a panel


def heatmap_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The maps of all points before and after training, tidy: one row a pair k ≤ t.

    Args:
        runs: every point must have gradients.

    Returns:
        `point` (the index of the runs), `when` ("before", "after" training), `step` (training
        step), and the columns of `map_table`.
    """
    return lines.measured(runs, map_table, "jacobian_log_norm")


def map_table(found: xr.Dataset) -> pd.DataFrame:
    """The map of one point at one training step, tidy: one row a pair k ≤ t.

    Returns:
        `t` and `k` (time steps), `log_norm` (nats, mean over samples; −inf: exactly zero in some
        sample), `unresolved` (whether a certificate says that rounding took it, in some sample) and
        `horizon` (steps; inf if the norm never falls to 1/e). Of a long sequence the table holds
        only CELLS values of t and k, evenly spread; the horizon is that of the whole map.
    """
    log_norms = found["jacobian_log_norm"]
    size = log_norms.sizes["t"]
    kept = map_images.evenly(size, CELLS)
    coarse = log_norms.isel(t=kept, k=kept)
    unresolved = found.get("jacobian_unresolved", xr.zeros_like(log_norms)).astype(bool)
    row, column = np.tril_indices(len(kept))
    pairs = {
        "t": coarse["t"].to_numpy()[row],
        "k": coarse["k"].to_numpy()[column],
        "log_norm": coarse.to_numpy().mean(axis=0, dtype=np.float64)[row, column],
        "unresolved": unresolved.any("sample").isel(t=kept, k=kept).to_numpy()[row, column],
    }
    return pd.DataFrame(pairs).assign(horizon=horizon_of(log_norms))


def horizon_of(log_norms: xr.DataArray) -> float:
    """The horizon of a point's maps (sample, t, k), in time steps."""
    stride = float(log_norms["t"][1] - log_norms["t"][0])
    return stride * decay.horizon(decay.lag_profile(log_norms.to_numpy()))


@style.theme()
def heatmap_figure(runs: pd.DataFrame, when: Sequence[str] = lines.WHEN) -> style.Drawn:
    """The maps of a sweep: a row a setting, the gain (or what else varies) from left to right.

    Args:
        runs: as of `gradlab.load_runs`, of any sweep.
        when: "before" and/or "after" training, side by side.

    Raises:
        ValueError: no point has gradients.
    """
    usable = selection.with_gradients(runs)
    axes = selection.varying_keys(usable)
    across = selection.across_key(axes, usable)
    columns = PANELS_ACROSS // len(when)
    coloured = selection.with_lines(usable, across)
    grid = selection.arrange(coloured, across, axes, columns=columns, rows=SETTINGS).one_seed()
    table = lines.at_moments(heatmap_table(grid.runs), when)
    if (grid.runs["status"] == "done").all():  # without training there is no "after"
        when = [moment for moment in when if (table["when"] == moment).any()]
    figure, body, blocks, size = _figure(len(grid.rows()), len(grid.columns()), len(when))
    for moment, block in zip(when, blocks, strict=True):
        measured = table[table["when"] == moment]
        for panels, (_, row) in zip(block, grid.rows(), strict=True):
            map_images.draw_row(panels, grid.cells(row), measured, map_images.colour_limit(table))
        map_images.label_steps(block)
        map_images.title_block(block, f"{moment} training", grid.columns())
    map_images.label_rows(blocks[0], [label for label, _ in grid.rows()], size)
    map_images.colour_bar(body, blocks, table, quantity_of(grid.runs))
    style.legend(body, map_images.map_key(table))
    notes = selection.notes(runs, usable, grid.runs)
    return style.Drawn(style.finish(figure, notes), table)


def _figure(
    rows: int, columns: int, blocks: int
) -> tuple[Figure, SubFigure, list[map_images.Panels], float]:
    size = min(LARGEST, (style.present().width - MARGIN) / (blocks * columns))
    width, height = MARGIN + size * blocks * columns, 1 + size * rows
    figure, body = style.frame(max(width, NARROWEST), height)
    widths = map_images.block_widths(columns, blocks)
    spaces = body.add_gridspec(rows, len(widths), width_ratios=widths)
    panels = [map_images.panel_block(body, spaces, rows, columns, block) for block in range(blocks)]
    return figure, body, panels, size
