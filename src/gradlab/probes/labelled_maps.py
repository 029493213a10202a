"""The engine's map with named axes, for whoever measures a cell without a run."""

from typing import Any

import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian import jacobian_log_norms
from gradlab.jacobian.flat_cell import StepFunction
from gradlab.jacobian.pairs import Norm
from gradlab.probes import labelled
from gradlab.probes.maps import DIMS, map_attributes


def jacobian_map(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    norm: Norm = "spectral",
    of: str | None = None,
    wrt: str | None = None,
    stride: int = 1,
    **options: Any,
) -> xr.DataArray:
    """Return log ‖∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾‖ for every pair (t, k), in nats, with named axes.

    `gradlab.jacobian_log_norms` has the definition; this is its array, labelled as a run's maps are
    by `gradlab.load_gradients`. `gradlab.summary`, `draw_map` and `draw_decay` take it, and count
    in steps whatever the stride.

    Args:
        cell, inputs, initial_carry, norm, of, wrt, stride: as in `jacobian_log_norms`.
        options: its other arguments: precision, memory_budget, certify, lengths, method, vectors,
            starts.

    Returns:
        float32, with dims (t, k), or (sample, t, k) for a batch; coordinates t and k in steps, and
        attributes long_name, units, norm, of and wrt. With method="sampled" a coordinate
        `standard_error` (nats) has the error of each entry; with certify=True `unresolved` and
        `precision_error` are those of the `Certificate`.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state or Jacobian is not finite; the message names its step.

    Example:
        >>> lstm = nnx.OptimizedLSTMCell(3, 16, rngs=nnx.Rngs(0))
        >>> log_norms = gradlab.jacobian_map(lstm, jnp.ones((50, 3)), of="h", wrt="h", stride=5)
        >>> dict(log_norms.sizes)
        {'t': 11, 'k': 11}
        >>> round(float(log_norms.sel(t=50, k=40)), 1)  # log ‖∂h⁽⁵⁰⁾/∂h⁽⁴⁰⁾‖
        -5.1
    """
    measured: Any = jacobian_log_norms(
        cell,
        inputs,
        initial_carry=initial_carry,
        norm=norm,
        of=of,
        wrt=wrt,
        stride=stride,
        **options,
    )
    errors: dict[str, Any] = {}
    if isinstance(measured, tuple):
        measured, other = measured
        is_sampled = options.get("method") == "sampled"
        names = ("unresolved", "precision_error")
        certified = {} if is_sampled else {name: getattr(other, name) for name in names}
        errors = {"standard_error": other} if is_sampled else certified
    log_norms = np.asarray(measured)
    dims = DIMS if log_norms.ndim == len(DIMS) else DIMS[1:]
    steps = stride * np.arange(log_norms.shape[-1])
    maps = labelled(log_norms, dims, {"t": steps, "k": steps}, **map_attributes(norm, of, wrt))
    return maps.assign_coords({name: (dims, np.asarray(error)) for name, error in errors.items()})
