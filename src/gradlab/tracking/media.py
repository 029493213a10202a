"""A point's Jacobian maps as W&B shows them: a picture, a table for the chart, decay curves."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import decay

MAP = "jacobian_log_norm"
MAP_SIDE = 32  # cells per side of the interactive map, at most
CURVE_POINTS = 100  # lags per decay curve, at most
CAPTION = "t down, k across; before | after training; norms below 1 blue, above red, 0 grey"


def map_media(maps: xr.DataArray) -> dict[str, Any]:
    """Return the media to log for maps (step, sample, t, k), by their W&B names.

    The picture and the table show the first and the last measurement; the curves show all.
    """
    import wandb

    from gradlab.figures.map_images import map_pixels

    ends = maps.isel(step=sorted({0, maps.sizes["step"] - 1}))
    ends = ends.reduce(decay.mean_log_norm, "sample")
    cells = map_cells(ends)
    lags, curves = decay_curves(maps)
    return {
        "jacobian/map": wandb.Image(map_pixels([*ends.to_numpy()]), caption=CAPTION),
        "jacobian/map_cells": wandb.Table([*cells], cells.to_numpy(), optional=False),
        "jacobian/decay_curves": wandb.plot.line_series(
            lags,
            list(curves.values()),
            keys=[f"after {step} updates" for step in curves],
            title="Mean log norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ (nats)",
            xname="lag t − k (steps)",
        ),
    }


def decay_curves(maps: xr.DataArray) -> tuple[list[int], dict[int, list[float | None]]]:
    """Average the log norms of maps (step, sample, t, k) over all pairs (t, k) of equal lag.

    Returns:
        The lags, in time steps, and for each training step the mean log norms at these lags, in
        nats; None where every product is exactly zero or none was measured.
    """
    stride = int(maps["t"][1] - maps["t"][0])
    indices = np.unique(np.linspace(0, maps.sizes["t"] - 1, CURVE_POINTS).astype(int))
    curves = {}
    for step, log_norms in zip(maps["step"].to_numpy(), maps.to_numpy(), strict=True):
        profile = decay.lag_profile(log_norms)[indices]
        curves[int(step)] = [float(x) if np.isfinite(x) else None for x in profile]
    return [int(lag) for lag in indices * stride], curves


def map_cells(maps: xr.DataArray) -> pd.DataFrame:
    """Return maps (step, t, k) as a table with columns step, t, k and log_norm (nats).

    Large maps are thinned to at most `MAP_SIDE` cells per side. Pairs whose product is exactly zero
    are left out.
    """
    every = slice(None, None, -(-maps.sizes["t"] // MAP_SIDE))
    thinned = maps.isel(t=every, k=every)
    cells = thinned.rename("log_norm").to_dataframe().reset_index()
    return cells[np.isfinite(cells["log_norm"])]
