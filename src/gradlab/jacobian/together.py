"""Maps of several cells that differ in their weights alone, in one program.

A map is a chain of small products. An accelerator takes about as long for the chain of one cell as
for those of a hundred, side by side.
"""

import math
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gradlab.jacobian import jacobian_log_norms
from gradlab.jacobian.blocks import falls_into_blocks
from gradlab.jacobian.flat_cell import flatten_cell
from gradlab.jacobian.maps import best_precision, bytes_of_sample
from gradlab.jacobian.pairs import Norm


def log_norms_together(
    definition: nnx.GraphDef,
    states: nnx.State,
    inputs: Float[Array, "batch T features"],
    *,
    norm: Norm = "spectral",
    of: str | None = None,
    wrt: str | None = None,
    stride: int = 1,
    lengths: Int[np.ndarray, "batch"] | None = None,
    memory_budget: int = 2**33,
) -> Float[np.ndarray, "cells batch T//stride+1 T//stride+1"] | None:
    """Return the maps of `jacobian_log_norms` of several cells.

    Args:
        definition: what `nnx.split` returns of any of the cells.
        states: their states, from the same, each array with a leading axis "cells".
        inputs: sequences that drive every cell.
        norm, of, wrt, stride, lengths: as in `jacobian_log_norms`.
        memory_budget: bytes that the work arrays may take; cells that do not fit wait.

    Returns:
        float32; NaN or +inf within a sequence where a cell has a number that is not finite. None
        where each cell is to be measured by itself: the states fall into independent parts, for
        which `jacobian_log_norms` has a faster way, or the arrays of one map do not fit.

    Raises:
        ValueError: an argument is invalid.
    """
    cell = nnx.merge(definition, jax.tree.map(lambda x: x[0], states))  # any would do
    flat = flatten_cell(cell, inputs)
    if falls_into_blocks(flat, inputs, flat.form.span(of, "of"), flat.form.span(wrt, "wrt")):
        return None
    cells, batch = len(jax.tree.leaves(states)[0]), len(inputs)
    if lengths is not None and (lengths == inputs.shape[1]).all():
        lengths = None
    size = sum(bytes_of_sample(flat, inputs, stride, best_precision()))
    if size > memory_budget:
        return None
    items = cells * batch
    rounds = math.ceil(items / (memory_budget // size))
    side = math.ceil(items / rounds)  # at once; the last one may be there several times
    part = {"norm": norm, "of": of, "wrt": wrt, "stride": stride, "memory_budget": memory_budget}
    maps = []
    for chosen in np.minimum(np.arange(rounds * side), items - 1).reshape(rounds, side):
        cell_and_sample = np.divmod(chosen, batch)
        maps.append(
            np.asarray(_maps(definition, states, inputs, lengths, *cell_and_sample, **part))
        )
    joined = np.concatenate(maps)[:items]
    return joined.reshape(cells, batch, *joined.shape[1:])


@partial(
    jax.jit, static_argnums=0, static_argnames=("norm", "of", "wrt", "stride", "memory_budget")
)
def _maps(
    definition: nnx.GraphDef,
    states: nnx.State,
    inputs: Float[Array, "batch T features"],
    lengths: Int[Array, "batch"] | None,
    cell_of: Int[Array, "items"],
    sample_of: Int[Array, "items"],
    **options: Any,
) -> Float[Array, "items t k"]:
    def measure(cell: Int[Array, ""], sample: Int[Array, ""]) -> Any:
        return jacobian_log_norms(
            nnx.merge(definition, jax.tree.map(lambda x: x[cell], states)),
            inputs[sample],
            lengths=None if lengths is None else lengths[sample],
            **options,
        )

    return jax.vmap(measure)(cell_of, sample_of)
