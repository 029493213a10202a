"""Interactive page of a sweep: the maps of every run over training, and their decay.

The page is explorer.html with the data inside. It needs no server, no network and no library.
"""

import base64
import json
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from gradlab import decay
from gradlab.figures import moments, selection, style
from gradlab.figures.labels import point_label
from gradlab.figures.map_images import MAX_LIMIT, evenly

PAGE_CELLS, PAGE_STEPS = 64, 12  # cells along an axis of a map, training steps of a run, at most
CODES = 65534  # of finite values in a map
PLACEHOLDER = "/*DATA*/"  # of the data in explorer.html


def explorer_data(
    runs: pd.DataFrame, cells: int = PAGE_CELLS, steps: int = PAGE_STEPS
) -> dict[str, Any]:
    """Return the data that the page shows, ready for JSON.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        cells: along an axis of a map, at most; of a longer sequence, evenly spread steps are kept.
        steps: training steps of each run, at most; evenly spread ones are kept.

    Returns:
        `colours` (256 RGB triples from low to high, base64), `limit` (nats, where the colours end)
        and a list `runs`. A run has `name`, `status`, `quantity` (the label of its values), `t`
        (the time steps kept) and a list `maps`. A map has `step` (of training), `horizon` (time
        steps; null if it is never reached), `curve` (the mean log norm by lag, nats; null: exactly
        zero or not measured) and `values` (log norms for k ≤ t, from `pack`).

    Raises:
        ValueError: no run has gradients.
    """
    usable = selection.with_gradients(runs)
    keys = selection.varying_keys(usable)
    if selection.pools_sweeps(usable):
        keys = ["sweep", *keys]
    ramp = np.asarray(style.norm_colours()(np.linspace(0, 1, 256)))[:, :3]
    return {
        "colours": _base64((ramp * 255).round().astype(np.uint8)),
        "limit": MAX_LIMIT,
        "runs": [_run(run, point_label(run, keys), cells, steps) for _, run in usable.iterrows()],
    }


def explorer(runs: pd.DataFrame, cells: int = PAGE_CELLS, steps: int = PAGE_STEPS) -> str:
    """Return the page of a sweep as HTML; see `explorer_data`."""
    return explorer_page(explorer_data(runs, cells, steps))


def explorer_page(data: dict[str, Any]) -> str:
    """Return the page as HTML.

    Args:
        data: from `explorer_data`.
    """
    template = files("gradlab.figures").joinpath("explorer.html").read_text(encoding="utf-8")
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c")  # "</script>" or "<!--" in a name would end the data
    return template.replace(PLACEHOLDER, text)


def pack(values: Float[np.ndarray, "pairs"]) -> dict[str, Any]:
    """Return numbers as 16-bit codes: 0 is −inf, and 1, 2, … are `low`, `low + step`, ….

    Where there are NaN (not measured), `missing` is their code; else it is null.
    """
    finite, missing = np.isfinite(values), np.isnan(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    step = (high - low) / (CODES - missing.any()) or 1.0
    codes = np.zeros(values.shape, "<u2")
    codes[finite] = 1 + np.round((values[finite] - low) / step)
    codes[missing] = CODES + 1
    code = CODES + 1 if missing.any() else None
    return {"low": float(low), "step": float(step), "codes": _base64(codes), "missing": code}


def _run(run: pd.Series, name: str, cells: int, steps: int) -> dict[str, Any]:
    maps = moments.load_measured(run, "jacobian_log_norm")["jacobian_log_norm"]
    times = evenly(maps.sizes["t"], cells)
    maps = maps.isel(step=evenly(maps.sizes["step"], steps))
    return {
        "name": name,
        "status": str(run["status"]),
        "quantity": str(maps.attrs.get("long_name", "log norm")),
        "t": maps["t"].to_numpy()[times].tolist(),
        "maps": [_map(maps.isel(step=i), times) for i in range(maps.sizes["step"])],
    }


def _map(log_norms: xr.DataArray, times: np.ndarray) -> dict[str, Any]:
    samples = log_norms.to_numpy().astype(float)
    profile = decay.lag_profile(samples)
    stride = float(log_norms["t"][1] - log_norms["t"][0])
    horizon = stride * decay.horizon(profile)
    row, column = np.tril_indices(len(times))
    return {
        "step": int(log_norms["step"]),
        "horizon": horizon if np.isfinite(horizon) else None,
        "curve": [round(float(x), 4) if np.isfinite(x) else None for x in profile[times]],
        "values": pack(decay.mean_log_norm(samples[:, times[row], times[column]], axis=0)),
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
