"""Pictures, tables and curves that W&B shows of a point's maps."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import decay

MAP = "jacobian_log_norm"
CELLS = 32  # a side of the interactive map
LAGS = 100  # points of a decay curve
CAPTION = "t down, k across; before | after training; norms below 1 blue, above red, 0 grey"


def map_media(maps: xr.DataArray) -> dict[str, Any]:
    """What W&B shows of maps (step, sample, t, k): picture, table and curves."""
    import wandb

    from gradlab.figures.map_images import map_pixels

    ends = maps.isel(step=sorted({0, maps.sizes["step"] - 1})).mean("sample")
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
    """Mean log norm against lag for each training step; None where the product is exactly zero.

    Returns:
        The lags, in steps, and by training step the values at them, in nats.
    """
    stride = int(maps["t"][1] - maps["t"][0])
    chosen = np.unique(np.linspace(0, maps.sizes["t"] - 1, LAGS).astype(int))
    curves = {}
    for step, log_norms in zip(maps["step"].to_numpy(), maps.to_numpy(), strict=True):
        profile = decay.lag_profile(log_norms)[chosen]
        curves[int(step)] = [float(x) if np.isfinite(x) else None for x in profile]
    return [int(lag) for lag in chosen * stride], curves


def map_cells(maps: xr.DataArray) -> pd.DataFrame:
    """Maps (step, t, k), in nats, thinned to a picture's size as a table: step, t, k, log_norm.

    Pairs whose product is exactly zero are left out.
    """
    every = -(-maps.sizes["t"] // CELLS)
    thinned = maps.isel(t=slice(None, None, every), k=slice(None, None, every))
    cells = thinned.rename("log_norm").to_dataframe().reset_index()
    return cells[np.isfinite(cells["log_norm"])]
