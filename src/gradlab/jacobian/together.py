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
        definition: of every cell, from `nnx.split`.
        states: from the same; each array with a leading axis "cells".
        inputs: that drive every cell.
        norm, of, wrt, stride, lengths: as in `jacobian_log_norms`.
        memory_budget: bytes that the work arrays may take; cells that do not fit wait.

    Returns:
        float32; NaN or +inf within a sequence where a cell has a number that is not finite. None
        where the cells' states fall into independent parts, of which `jacobian_log_norms` measures
        one cell faster.

    Raises:
        ValueError: an argument is invalid, or the arrays of one cell do not fit.
    """
    cell = nnx.merge(definition, jax.tree.map(lambda x: x[0], states))
    flat = flatten_cell(cell, inputs)
    if falls_into_blocks(flat, inputs, flat.form.span(of, "of"), flat.form.span(wrt, "wrt")):
        return None
    cells, batch = len(jax.tree.leaves(states)[0]), len(inputs)
    if lengths is not None and (lengths == inputs.shape[1]).all():
        lengths = None
    items = cells * batch
    size = sum(bytes_of_sample(flat, inputs, stride, best_precision()))
    rounds = math.ceil(items / max(1, memory_budget // size))
    side = math.ceil(items / rounds)  # at once; the last one may be there several times
    part = {"norm": norm, "of": of, "wrt": wrt, "stride": stride, "memory_budget": memory_budget}
    maps = []
    for chosen in np.minimum(np.arange(rounds * side), items - 1).reshape(rounds, side):
        cell_of, sample_of = np.divmod(chosen, batch)
        mine = (
            jax.tree.map(lambda x, i=cell_of: x[i], states),
            inputs[sample_of],
            None if lengths is None else lengths[sample_of],
        )
        maps.append(_maps(definition, *mine, **part))
    joined = np.concatenate([np.asarray(x) for x in maps])[:items]
    return joined.reshape(cells, batch, *joined.shape[1:])


@partial(
    jax.jit, static_argnums=0, static_argnames=("norm", "of", "wrt", "stride", "memory_budget")
)
def _maps(
    definition: nnx.GraphDef,
    states: nnx.State,
    inputs: Float[Array, "items T features"],
    lengths: Int[Array, "items"] | None,
    **options: Any,
) -> Float[Array, "items t k"]:
    def measure(state: nnx.State, sample: Array, length: Array | None) -> Any:
        return jacobian_log_norms(nnx.merge(definition, state), sample, lengths=length, **options)

    return jax.vmap(measure)(states, inputs, lengths)
