"""What one measurement of the Jacobian map becomes: metrics by their W&B names, and a dataset."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

from gradlab import decay
from gradlab.config import Probe

Map = Float[np.ndarray, "sample t k"]


def map_metrics(log_norms: Map, stride: int = 1) -> dict[str, float]:
    """Decay rate (nats per step), horizon (steps) and the mean log norm at lags 1, 2, 4, …"""
    profile = decay.lag_profile(log_norms)
    metrics = {
        "jacobian/decay_rate": decay.decay_rate(profile) / stride,
        "jacobian/horizon": decay.horizon(profile) * stride,
    }
    for power in range((profile.size - 1).bit_length()):
        metrics[f"jacobian/log_norm/lag_{2**power * stride}"] = float(profile[2**power])
    return metrics


def map_dataset(maps: Mapping[int, Map], probe: Probe) -> xr.Dataset:
    """The maps measured at several training steps, labelled with units."""
    some_map = next(iter(maps.values()))
    times = np.arange(some_map.shape[-1]) * probe.stride
    quantity = f"∂{probe.of or 's'}⁽ᵗ⁾/∂{probe.wrt or 's'}⁽ᵏ⁾"
    variable = xr.DataArray(
        np.stack(list(maps.values())).astype(np.float32),
        dims=("step", "sample", "t", "k"),
        coords={"step": list(maps), "t": times, "k": times},
        attrs={
            "long_name": f"log {probe.norm} norm of {quantity}",
            "units": "nats",
            "norm": probe.norm,
            "of": probe.of or "whole carry",
            "wrt": probe.wrt or "whole carry",
        },
    )
    variable["step"].attrs = {"long_name": "training step", "units": "updates"}
    for time in ("t", "k"):
        variable[time].attrs = {"long_name": "time", "units": "steps"}
    return variable.to_dataset(name="jacobian_log_norm")
