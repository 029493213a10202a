"""Heat maps of the Jacobians' log norms for every pair (t, k), before and after training."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from gradlab import decay
from gradlab.figures import maps, points, style
from gradlab.figures.labels import quantity_label, quantity_of
from gradlab.records import load_gradients

PANELS_ACROSS, SETTINGS = 6, 6  # of a figure at most
CELLS = 256  # along an axis of a map at most; a panel has no room for more
WHEN = ("before", "after")
MARGIN, NARROWEST = 2.2, 5.0  # inches: beside the panels, a figure


def heatmap_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The maps of all points, tidy: `point` (the index of `runs`), and the columns of `map_table`.

    Args:
        runs: as of `gradlab.load_runs`; every point must have gradients.
    """
    parts = [map_table(load_gradients(path)) for path in runs["path"]]
    for point, part in zip(runs.index, parts, strict=True):
        part["point"] = point
    return pd.concat(parts, ignore_index=True)


def map_table(gradients: xr.Dataset) -> pd.DataFrame:
    """The maps of one point, tidy: one row a pair k ≤ t.

    Returns:
        `when` ("before", "after" training), `step` (training step), `t` and `k` (time steps),
        `log_norm` (nats, mean over samples; −inf: exactly zero in some sample), `unresolved`
        (whether a certificate says that rounding took it, in some sample) and `horizon` (steps;
        inf if the norm never falls to 1/e). Of a long sequence the table holds only
        CELLS values of t and k, evenly spread; the horizon is that of the whole map.
    """
    parts = []
    for when, log_norms in points.before_and_after(gradients).items():
        size = log_norms.sizes["t"]
        kept = np.linspace(0, size - 1, min(size, CELLS)).round().astype(int)
        coarse = log_norms.isel(t=kept, k=kept)
        means = coarse.to_numpy().mean(axis=0, dtype=np.float64)
        row, column = np.tril_indices(len(kept))
        pairs = {
            "t": coarse["t"].to_numpy()[row],
            "k": coarse["k"].to_numpy()[column],
            "log_norm": means[row, column],
            "unresolved": _unresolved(gradients, log_norms)
            .isel(t=kept, k=kept)
            .to_numpy()[row, column],
        }
        whole = {"when": when, "step": int(log_norms["step"]), "horizon": horizon_of(log_norms)}
        parts.append(pd.DataFrame(pairs | whole))
    return pd.concat(parts, ignore_index=True)


def _unresolved(gradients: xr.Dataset, log_norms: xr.DataArray) -> xr.DataArray:
    if "jacobian_unresolved" not in gradients:
        return xr.zeros_like(log_norms.isel(sample=0), dtype=bool)
    flags: xr.DataArray = gradients["jacobian_unresolved"].sel(step=log_norms["step"])
    return flags.any("sample")


def horizon_of(log_norms: xr.DataArray) -> float:
    """The horizon of a point's maps (sample, t, k), in time steps."""
    stride = float(log_norms["t"][1] - log_norms["t"][0])
    return stride * decay.horizon(decay.lag_profile(log_norms.to_numpy()))


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
    table = heatmap_table(grid.runs).query("when in @when")
    figure, body, blocks = _figure(len(grid.rows()), len(grid.columns()), len(when))
    for moment, block in zip(when, blocks, strict=True):
        measured = table[table["when"] == moment]
        for panels, (_, row) in zip(block, grid.rows(), strict=True):
            maps.draw_row(panels, grid.cells(row), measured, maps.colour_limit(table))
        maps.label_steps(block)
        maps.title_block(block, f"{moment} training", grid.columns())
    maps.label_rows(blocks[0], [label for label, _ in grid.rows()])
    maps.colour_bar(body, blocks, table, quantity_of(grid.runs))
    style.legend(body, maps.map_key(table), rows=1)
    return style.finish(figure, points.notes(runs, grid.runs))


@style.theme()
def point_figure(gradients: xr.Dataset, title: str) -> Figure:
    """One point's maps before and after training, side by side.

    Args:
        gradients: as of `gradlab.load_gradients`.
        title: what the point is called.
    """
    table = map_table(gradients)
    moments = table["when"].unique()
    figure, body, blocks = _figure(1, 1, len(moments), largest=3.0, title=title)
    for block, moment in zip(blocks, moments, strict=True):
        panel = table[table["when"] == moment]
        maps.draw_map(block[0, 0], panel, maps.colour_limit(table))
        block[0, 0].set_title(f"{moment} training (step {panel['step'].iloc[0]})")
        maps.label_steps(block)
    maps.label_rows(blocks[0], [""])
    attributes = gradients["jacobian_log_norm"].attrs
    label = quantity_label(*(attributes.get(name) for name in ("norm", "of", "wrt")))
    maps.colour_bar(body, blocks, table, label)
    style.legend(body, maps.map_key(table), rows=1)
    return style.finish(figure, [])


def _figure(
    rows: int, columns: int, blocks: int, largest: float = 1.9, title: str = ""
) -> tuple[Figure, SubFigure, list[maps.Panels]]:
    size = min(largest, (style.WIDTH - MARGIN) / (blocks * columns))
    width, height = MARGIN + size * blocks * columns, 1 + size * rows
    figure, body = style.frame(max(width, NARROWEST), height, title)
    widths = maps.block_widths(columns, blocks)
    spaces = body.add_gridspec(rows, len(widths), width_ratios=widths)
    return figure, body, [maps.panel_block(body, spaces, rows, columns, b) for b in range(blocks)]
