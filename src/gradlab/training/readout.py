"""The part of a cell's carry that the network's readout reads: the cell's output."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree

from gradlab.jacobian.closure import equal_results


def output_in_carry(cell: nnx.RNNCellBase, features: int) -> int | None:
    """Return the leaf of a cell's new carry that is its output; None if none is.

    Args:
        cell: the network's cell; its arrays may be abstract.
        features: size of its input.
    """
    definition, variables = nnx.split(cell)

    def step(variables: nnx.State, inputs: Array) -> tuple[PyTree, Array]:
        own = nnx.merge(definition, variables)
        return own(own.initialize_carry(inputs.shape, nnx.Rngs(0)), inputs)

    *carry, output = equal_results(step, variables, jax.ShapeDtypeStruct((features,), jnp.float32))
    matches = [leaf for leaf, number in enumerate(carry) if number == output]
    return matches[-1] if matches else None
