"""Probes: what is measured on a network before, during and after training, by conf/probe/.

A probe is a function (given, *, name, …) -> Measurement. To add one: a function in a file here,
and a YAML in conf/probe/ that gives it a name: `probe=[spectral,mine]`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.config import PROBE_SETTINGS, build
from gradlab.jacobian.adjoints import Loss


class ProbeInput(NamedTuple):
    """What a probe looks at: a recurrent cell, sequences that drive it, and the loss of each step.

    `loss(carry, target)` is one step's part of the mean loss; the parts of a batch add up to it.
    `grad_norm()` is the norm of its gradient with respect to all weights, the readout's too, and
    `threshold` that of a clip by global norm (inf: none).
    """

    cell: nnx.RNNCellBase
    inputs: Float[Array, "batch T features"]
    loss: Loss
    targets: PyTree
    stride: int
    grad_norm: Callable[[], float]
    threshold: float

    def times(self) -> np.ndarray:
        """The steps of time that maps are kept at, from 0."""
        return np.arange(0, self.inputs.shape[1] + 1, self.stride)


class Measurement(NamedTuple):
    """Metrics by their W&B names, and arrays with named dims, of which the first is "sample"."""

    metrics: dict[str, float]
    arrays: dict[str, xr.DataArray]


def measure(probe: Mapping[str, Any], given: ProbeInput) -> Measurement:
    """Run every probe that a checked config's section switches on."""
    metrics: dict[str, float] = {}
    arrays: dict[str, xr.DataArray] = {}
    for name, component in probe.items():
        if name not in PROBE_SETTINGS:
            found: Measurement = build(component, given, name=name)
            metrics |= found.metrics
            arrays |= found.arrays
    return Measurement(metrics, arrays)


def dataset(measurements: Mapping[int, Measurement]) -> xr.Dataset:
    """The arrays measured at several training steps, with "step" as the first dim."""
    each = [xr.Dataset(found.arrays) for found in measurements.values()]
    joined = xr.concat(each, dim="step", combine_attrs="override", join="outer")
    joined = joined.assign_coords(step=list(measurements))
    joined["step"].attrs = {"long_name": "training step", "units": "updates"}
    return joined


def measurements(joined: xr.Dataset) -> dict[int, Measurement]:
    """What `dataset` joined, by training step, without the metrics."""
    return {
        int(step): Measurement({}, dict(joined.sel(step=step, drop=True).data_vars))  # type: ignore[arg-type]
        for step in joined["step"]
    }


def labelled(
    values: Any, dims: tuple[str, ...], coordinates: Mapping[str, Any], **attributes: str
) -> xr.DataArray:
    """A measured array (float32, or flags) with its coordinates and units."""
    values = np.asarray(values)
    kind = np.int8 if values.dtype == bool else np.float32  # NetCDF has no booleans
    array = xr.DataArray(values.astype(kind), dims=dims, coords=coordinates, attrs=attributes)
    for time in {"t", "k", "lag", "window"} & set(coordinates):
        array[time].attrs = {"long_name": time if time != "t" else "time", "units": "steps"}
    return array
