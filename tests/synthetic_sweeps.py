"""Sweeps on disk whose maps are known, for the figures to read."""

from math import inf
from pathlib import Path

import numpy as np
import xarray as xr

from gradlab import records

SAMPLES = 3


def geometric(
    length: int = 8,
    rates: tuple[float, ...] = (-0.5, -0.1),
    *,
    reach: float = inf,
    start: float = 0.0,
    stride: int = 1,
) -> xr.Dataset:
    """Maps whose log norm is start + rate · lag, exactly zero beyond a lag, at steps 0, 100, ….

    The samples differ by amounts that cancel in their mean.
    """
    t = np.arange(0, length + 1, stride)
    lag = t[:, None] - t[None, :]
    spread = np.linspace(-1, 1, SAMPLES)[:, None, None] * (lag > 0)
    maps = np.stack([start + rate * lag + spread for rate in rates])
    maps = np.where((lag < 0) | (lag > reach), -np.inf, maps).astype(np.float32)
    attributes = {"units": "nats", "norm": "spectral", "of": "h", "wrt": "h"}
    return xr.Dataset(
        {"jacobian_log_norm": (("step", "sample", "t", "k"), maps, attributes)},
        coords={"step": 100 * np.arange(len(rates)), "t": t, "k": t},
    )


def write_point(
    folder: Path,
    gradients: xr.Dataset | None,
    *,
    state: str = "done",
    model: str = "rnn",
    gain: float | None = 1.0,
    length: int = 8,
    threshold: float = inf,
    seed: int = 0,
    **task: object,
) -> None:
    cells = {"rnn": "flax.nnx.SimpleCell", "lstm": "flax.nnx.OptimizedLSTMCell"}
    config = {
        "model": {"name": model, "cell": {"_target_": cells.get(model, f"their.{model}")}},
        "init": {"_target_": "gradlab.initialisers.gaussian", "gain": gain},
        "task": {"length": length, **task},
        "clip": {"threshold": threshold},
        "probe": {"jacobian": {"norm": "spectral", "of": "h", "wrt": "h"}},
        "wandb": {"tags": ["a", str(folder)]},
        "seed": seed,
    }
    summary = {"jacobian/decay_rate": -0.1 * seed, "verdict": state}
    records.save_config(folder, config)
    records.save_status(folder, {"state": state, "summary": summary})
    if gradients is not None:
        records.save_gradients(folder, gradients)
