"""Probes: measurements of a network before, during and after training.

To write one, add a function to any importable file,

    def my_probe(probed: ProbeInput, *, name: str, lag: int = 10) -> Measurement:
        value = ...  # from probed.cell, probed.inputs, probed.loss, ...
        return Measurement({f"{name}/value": value}, {})

and a file conf/probe/mine.yaml that names it:

    mine:
      _target_: my_package.my_probe
      lag: 10

Then `probe=[spectral,mine]` runs it, and `probe.mine.lag=20` sets its argument. A probe is called
with a `ProbeInput` and the name of its section ("mine"), with which the names of its metrics and
arrays begin. Arrays are made by `labelled`, with "sample" as the first dimension. What lies beyond
a sequence's end is not measured: NaN in an array, and left out of every metric.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree, Shaped

from gradlab.components import build
from gradlab.config import PROBE_SETTINGS
from gradlab.jacobian.adjoints import Loss

# How the names begin that a row of metrics and a summary have for themselves.
OF_THE_ROW = ("train/", "eval/", "diverged/", "success/", "time/", "floss/")

SharedMaps = Callable[..., Float[np.ndarray, "batch t k"] | None]


class ProbeInput(NamedTuple):
    """A recurrent cell, the sequences that drive it, and the loss of each step.

    Attributes:
        cell: the network's cell.
        inputs: the held-out sequences that are probed.
        lengths: the steps of each sequence; the inputs after them are padding.
        loss: loss(carry, target), one step's part of the mean loss; over all steps of the batch
            these parts add up to the mean loss.
        targets: second argument of the loss: arrays (batch, T, ...).
        stride: maps are kept at every stride-th step.
        grad_norm: returns the norm of the gradient of the mean loss with respect to all weights,
            those of the readout included.
        threshold: of clipping by global norm; inf for none.
        shared_maps: shared_maps(norm=, of=, wrt=) returns the maps of this cell and these inputs,
            measured together with those of other points; None where the cell is to be measured by
            itself. A probe that replaces the cell, inputs or stride replaces it by None.

    Example:
        >>> from gradlab.probes import Measurement
        >>> def state(probed, *, name):
        ...     _, states = nnx.RNN(probed.cell, return_carry=True)(probed.inputs)
        ...     return Measurement({f"{name}/largest": float(abs(states).max())}, {})
        >>> watcher = gradlab.watch(x, probes=state, folder="runs/state")
        >>> measured = watcher(0, cell)
        >>> watcher.finish()
        >>> gradlab.load_metrics("runs/state")["state/largest"].item() < 1  # of tanh
        True
    """

    cell: nnx.RNNCellBase
    inputs: Float[Array, "batch T features"]
    lengths: Int[np.ndarray, "batch"]
    loss: Loss
    targets: PyTree
    stride: int
    grad_norm: Callable[[], float]
    threshold: float
    shared_maps: SharedMaps | None = None

    def times(self) -> np.ndarray:
        """Return the time steps at which maps are kept, from 0."""
        return np.arange(0, self.inputs.shape[1] + 1, self.stride)

    def within(self, values: Any, *times: np.ndarray) -> Shaped[np.ndarray, "batch *rest"]:
        """Return values with NaN at the times that lie beyond a sequence's end.

        Args:
            values: (batch, ..., *times), real.
            times: the steps along each of the last axes.
        """
        values = np.asarray(values)
        for axis, steps in enumerate(times, values.ndim - len(times)):
            shape = [len(values)] + [1] * (values.ndim - 1)
            shape[axis] = len(steps)
            inside = (steps <= self.lengths[:, None]).reshape(shape)
            values = np.where(inside, values, np.nan).astype(values.dtype)
        return values


class Measurement(NamedTuple):
    """Results of probes: metrics by their W&B names, and labelled arrays, "sample" first.

    Example:
        >>> from gradlab.probes import Measurement
        >>> Measurement({"state/largest": 0.9}, {})
        Measurement(metrics={'state/largest': 0.9}, arrays={})
    """

    metrics: dict[str, float]
    arrays: dict[str, xr.DataArray]


def run_probes(probe: Mapping[str, Any], probed: ProbeInput) -> Measurement:
    """Run all probes of a checked config.

    Args:
        probe: the config's section `probe`: a component for each probe, and settings. Instead of a
            component it may have a function that is called as a probe.
        probed: first argument of each probe.

    Returns:
        The metrics and arrays of all of them.

    Raises:
        TypeError: a probe returns something else.
        ValueError: a name is that of another probe's result, or begins like those of a row.
    """
    metrics: dict[str, float] = {}
    arrays: dict[str, xr.DataArray] = {}
    owners: dict[str, str] = {}
    for name, component in sorted(probe.items()):  # one order of columns, however it was typed
        if name not in PROBE_SETTINGS:
            if callable(component):
                measurement = _checked(component(probed, name=name), f"the probe {name}")
            else:
                measurement = _checked(build(component, probed, name=name), component["_target_"])
            _check_names(measurement, name, owners)
            metrics |= measurement.metrics
            arrays |= measurement.arrays
    return Measurement(metrics, arrays)


def _checked(measured: Any, target: str) -> Measurement:
    """Return what a probe has returned, each metric as a float.

    Raises:
        TypeError: it is no Measurement of numbers and labelled arrays.
    """
    is_one = isinstance(measured, Measurement)
    if not (is_one and all(isinstance(part, Mapping) for part in measured)):
        raise TypeError(
            f"{target} must return a gradlab.probes.Measurement of two dicts; it returned "
            f"{measured!r:.80}."
        )
    metrics, arrays = dict(measured.metrics), dict(measured.arrays)
    for name, value in metrics.items():
        try:
            metrics[name] = float(value)  # NumPy's and JAX's scalars too
        except (TypeError, ValueError) as error:
            raise TypeError(f"{target} must return numbers; {name} is {value!r:.80}.") from error
    for name, array in arrays.items():
        if not isinstance(array, xr.DataArray):
            kind = type(array).__name__
            raise TypeError(f"{target} must return labelled arrays (xarray); {name} is a {kind}.")
    return Measurement(metrics, arrays)


def _check_names(measurement: Measurement, probe: str, owners: dict[str, str]) -> None:
    """Check that a probe's names are its own, and add them to `owners`: the probe of each name.

    Raises:
        ValueError: one is taken.
    """
    for result in dict.fromkeys([*measurement.metrics, *measurement.arrays]):
        owner = owners.setdefault(result, probe)
        is_of_the_row = result.startswith(OF_THE_ROW)
        if is_of_the_row or owner != probe:
            taken = "training itself" if is_of_the_row else f"the probe {owner}"
            raise ValueError(
                f"the probe {probe} returns {result!r}, which is a name of {taken}: let its names "
                f"begin with its own, as in '{probe}/value'."
            )


def join_steps(measurements: Mapping[int, Measurement]) -> xr.Dataset:
    """Return the arrays measured at several training steps, with "step" as the first dim."""
    datasets = [xr.Dataset(measurement.arrays) for measurement in measurements.values()]
    joined = xr.concat(datasets, dim="step", combine_attrs="override", join="outer")
    joined = joined.assign_coords(step=list(measurements))
    joined["step"].attrs = {"long_name": "training step", "units": "updates"}
    return joined


def split_steps(joined: xr.Dataset) -> dict[int, Measurement]:
    """Return the measurements that `join_steps` joined, by training step, without metrics."""
    return {
        int(step): Measurement({}, dict(joined.sel(step=step, drop=True).data_vars))  # type: ignore[arg-type]
        for step in joined["step"]
    }


def labelled(
    values: Any, dims: tuple[str, ...], coordinates: Mapping[str, Any], **attributes: str
) -> xr.DataArray:
    """Return a measured array with its coordinates.

    Args:
        values: stored as float32, booleans as int8.
        dims: names of the dimensions.
        coordinates: values along a dimension, by its name; times are in steps.
        attributes: "long_name" and "units", which figures show, and any others.
    """
    values = np.asarray(values)
    dtype = np.int8 if values.dtype == bool else np.float32  # NetCDF has no booleans
    array = xr.DataArray(values.astype(dtype), dims=dims, coords=coordinates, attrs=attributes)
    for time in {"t", "k", "lag", "window"} & set(coordinates):
        array[time].attrs = {"long_name": time if time != "t" else "time", "units": "steps"}
    return array
