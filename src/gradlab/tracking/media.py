"""Jacobian maps as W&B shows them: a picture, a table for the chart, decay curves."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from gradlab import decay

if TYPE_CHECKING:
    import wandb

MAP = "jacobian_log_norm"
CELLS = "map_cells"  # the name of the table, after its prefix
MAP_SIDE = 33  # times 0, …, 64 or 0, …, 128, evenly: cells per side of the interactive map, at most
CURVE_POINTS = 100  # lags per decay curve, at most
CAPTION = "norms below 1 blue, above red; exactly zero grey"


def map_media(log_norms: ArrayLike | xr.DataArray, name: str = "jacobian") -> dict[str, Any]:
    """Return a picture, a table and decay curves of maps, to log to a W&B run.

    The picture, with axes in steps and a colour bar in decades, and the table show the first and
    the last measurement; the curves show all.

    Args:
        log_norms: [..., t, k] in nats, plain or xarray; its leading axes are samples, except an
            xarray's `step`, the updates at which it was measured.
        name: the prefix of the media's names.

    Returns:
        NAME/map (`wandb.Image`), NAME/map_cells (`wandb.Table`, see `map_table`) and
        NAME/decay_curves (a line plot of the mean log norm, in decades, against lag).

    Raises:
        ValueError: it is no map.

    Example:
        >>> media = gradlab.map_media(gradlab.jacobian_log_norms(cell, x, of="h", wrt="h"))
        >>> list(media)  # for run.log(media) of a W&B run
        ['jacobian/map', 'jacobian/map_cells', 'jacobian/decay_curves']
    """
    import wandb

    from gradlab.figures.labels import label_of
    from gradlab.figures.map_picture import map_picture
    from gradlab.figures.units import from_nats

    maps = _by_step(log_norms)
    ends, (lags, curves) = _ends(maps), decay_curves(maps)
    is_trained = "step" in getattr(log_norms, "dims", ())
    picture = map_picture(
        [*ends.to_numpy()],
        [f"after {step} updates" if is_trained else "" for step in ends["step"].to_numpy()],
        stride=int(maps["t"][1] - maps["t"][0]),
        label=label_of(log_norms),
    )
    return {
        f"{name}/map": wandb.Image(picture[..., :3], caption=CAPTION),
        f"{name}/{CELLS}": map_table(maps),
        f"{name}/decay_curves": wandb.plot.line_series(
            lags,
            [[x and from_nats(x, "decades") for x in curve] for curve in curves.values()],
            keys=[f"after {step} updates" if is_trained else "mean" for step in curves],
            title=f"Mean {getattr(log_norms, 'attrs', {}).get('long_name', 'log norm')} (decades)",
            xname="lag t − k (steps)",
        ),
    }


def map_table(log_norms: ArrayLike | xr.DataArray) -> "wandb.Table":
    """Return maps as a W&B table with columns step, t, k (steps) and log_norm (nats).

    Args:
        log_norms: as in `map_media`; of several measurements the first and the last.

    Returns:
        A row per pair, of at most 33 values of t and of k, the first and the last among them; pairs
        whose product is exactly zero, or was not measured, are left out.

    Raises:
        ValueError: it is no map.

    Example:
        >>> table = gradlab.map_table(gradlab.jacobian_log_norms(cell, x, of="h", wrt="h"))
        >>> table.columns, len(table.data)  # 21 · 22 / 2 pairs, for run.log({"map": table})
        (['step', 't', 'k', 'log_norm'], 231)
    """
    import wandb

    cells = map_cells(_ends(_by_step(log_norms)))
    rows = cells.to_numpy()
    table = wandb.Table([*cells], rows[:1], optional=False)
    table.data += rows[1:].tolist()  # of the same types, which W&B would find out for 60 µs a row
    return table


def _by_step(log_norms: ArrayLike | xr.DataArray) -> xr.DataArray:
    """Return maps as (step, sample, t, k); those without a training step get the step 0."""
    if isinstance(log_norms, xr.DataArray) and "step" in log_norms.dims:
        batch = log_norms if "sample" in log_norms.dims else log_norms.expand_dims("sample")
        return batch.transpose("step", "sample", "t", "k")
    maps, stride = decay.map_and_stride(log_norms)
    times = stride * np.arange(maps.shape[-1])
    samples = maps.reshape(1, -1, *maps.shape[-2:])
    dims = ("step", "sample", "t", "k")
    return xr.DataArray(samples, dims=dims, coords={"step": [0], "t": times, "k": times})


def _ends(maps: xr.DataArray) -> xr.DataArray:
    """Return the first and the last measurement, (step, t, k): means over the samples."""
    ends = maps.isel(step=sorted({0, maps.sizes["step"] - 1}))
    return ends.reduce(decay.mean_log_norm, "sample")


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

    Large maps are thinned to at most `MAP_SIDE` cells per side, the first and the last step among
    them. Pairs whose product is exactly zero are left out.
    """
    from gradlab.figures.map_images import evenly

    times = evenly(maps.sizes["t"], MAP_SIDE)
    log_norms = maps.to_numpy()[:, times[:, None], times]
    steps, t, k = (maps[dim].to_numpy() for dim in ("step", "t", "k"))
    grid = np.meshgrid(steps, t[times], k[times], indexing="ij")
    found = np.isfinite(log_norms)
    places = {name: axis[found] for name, axis in zip(("step", "t", "k"), grid, strict=True)}
    return pd.DataFrame(places | {"log_norm": log_norms[found]})
