"""The maps of all samples: by parts of the state if there are any, else by NumPy or by JAX."""

import math
from functools import partial
from itertools import islice
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradlab.jacobian.arguments import check_memory
from gradlab.jacobian.arrays import are_known, own_threads
from gradlab.jacobian.blocks import block_log_norms
from gradlab.jacobian.carry import Span
from gradlab.jacobian.complex_norms import carry_log_norm_map, log_weight
from gradlab.jacobian.flat_cell import FlatCell
from gradlab.jacobian.pairs import Norm
from gradlab.jacobian.products import ResolvedLogNorms, Scaled
from gradlab.jacobian.steps import (
    jacobians_along,
    jacobians_at,
    products_of_strides,
    trajectory,
)
from gradlab.jacobian.transforms import in_float64

Precision = Literal["float64", "float32"]

# Arrays of the size of all step Jacobians, and of the map, that are in memory at once.
STATE_COPIES, MAP_COPIES = 12, 3
TOGETHER = 2**27  # bytes of the samples that a CPU measures in one call


def best_precision() -> Precision:
    """Return the precision that the device is fast in."""
    return "float64" if jax.default_backend() == "cpu" else "float32"


def no_derivative(norm: Norm) -> str:
    """Return why a norm cannot be differentiated; nothing if it can."""
    if norm != "spectral":
        return ""
    return "the spectral norm cannot be differentiated here: use norm='frobenius'."


def log_norm_maps(
    flat: FlatCell,
    inputs: Float[Array, "*batch T features"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
    precision: Precision,
    memory_budget: int,
) -> ResolvedLogNorms:
    """Return the maps of all samples, (..., T // stride + 1, T // stride + 1).

    Args:
        flat: the cell.
        inputs: (time, features) or (batch, time, features).
        norm, of, wrt, stride, precision, memory_budget: as in `jacobian_log_norms`.

    Raises:
        ValueError: the work arrays do not fit.
    """
    part: dict[str, Any] = {"norm": norm, "of": of, "wrt": wrt, "stride": stride}
    if (weight := log_weight(flat.form, norm, of, wrt)) is not None:
        in_parts = block_log_norms(flat, inputs, **part, memory_budget=memory_budget)
        if in_parts is not None:
            return ResolvedLogNorms(in_parts + weight, jnp.ones(in_parts.shape, bool))
    samples = _samples_at_once(flat, inputs, stride, precision, memory_budget)
    part |= {"precision": precision, "samples": samples}
    if are_known((flat, inputs)):
        return _of_known(flat, inputs, **part)
    reason = no_derivative(norm)
    return in_float64(partial(_of_traced, **part), flat, inputs, not_differentiable=reason)


def _of_known(
    flat: FlatCell,
    inputs: Float[Array, "*batch T features"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
    precision: Precision,
    samples: int,
) -> ResolvedLogNorms:
    """Return the maps where values are known: XLA, slow to compile, runs the user's step alone."""
    with jax.enable_x64(True), own_threads():
        sequences, maps = flat.each_sample(inputs), []
        while group := list(islice(sequences, samples)):
            jacobians = [np.asarray(jacobians_along(*sequence)) for sequence in group]
            products = [products_of_strides(x, stride, precision) for x in jacobians]
            stacked = Scaled(*map(np.stack, zip(*products, strict=True)))
            maps.append(carry_log_norm_map(flat.form, stacked, norm=norm, of=of, wrt=wrt))
        joined = map(np.concatenate, zip(*maps, strict=True))
        batch = inputs.shape[:-2]
        return ResolvedLogNorms(*(jnp.asarray(x.reshape(*batch, *x.shape[1:])) for x in joined))


@partial(jax.jit, static_argnames=("norm", "of", "wrt", "stride", "precision", "samples"))
def _of_traced(
    flat: FlatCell,
    inputs: Float[Array, "*batch T features"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
    precision: Precision,
    samples: int,
) -> ResolvedLogNorms:
    def one_sample(flat: FlatCell, sample: Float[Array, "T features"]) -> ResolvedLogNorms:
        jacobians = jacobians_at(flat, trajectory(flat, sample)[0], sample)
        products = products_of_strides(jacobians, stride, precision)
        return carry_log_norm_map(flat.form, products, norm=norm, of=of, wrt=wrt)

    maps: ResolvedLogNorms = flat.map_samples(one_sample, inputs, samples=samples)
    return maps


def bytes_of_sample(
    flat: FlatCell, inputs: Array, stride: int, precision: Precision
) -> tuple[int, int]:
    """Return the bytes that the work arrays of one sample's map take, and those of the map."""
    length, n, itemsize = inputs.shape[-2] // stride, flat.form.size, jnp.dtype(precision).itemsize
    # Step Jacobians, prefixes, suffixes and their Gram matrices, each twice while a level is built.
    needed = STATE_COPIES * length * n**2 * itemsize
    # The map, its parts while levels are joined, and whether each entry is resolved.
    needed += MAP_COPIES * (length + 1) ** 2 * itemsize
    return needed, 4 * (length + 1) ** 2


def _samples_at_once(
    flat: FlatCell, inputs: Array, stride: int, precision: Precision, memory_budget: int
) -> int:
    needed, of_map = bytes_of_sample(flat, inputs, stride, precision)
    needed_by_maps = of_map * math.prod(inputs.shape[:-2])
    check_memory(needed + needed_by_maps, memory_budget, inputs.shape[-2] // stride, flat.form.size)
    fitting = (memory_budget - needed_by_maps) // needed
    if jax.default_backend() == "cpu":  # which a few small samples, or a large one, keep busy
        fitting = min(fitting, max(1, TOGETHER // needed))
    return int(min(math.prod(inputs.shape[:-2]), fitting))
