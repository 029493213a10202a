"""The network that is measured, computing in float64: what its own precision is held against."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.carry import is_inexact
from gradlab.jacobian.flat_cell import FlatCell, flatten_cell
from gradlab.jacobian.lengths import counts_steps, resting


def in_double_precision(
    cell: nnx.RNNCellBase | Callable[..., Any],
    flat: FlatCell,
    inputs: Float[Array, "*batch T features"],
    *,
    jacobian: Callable[..., Any] | None = jax.jacrev,
) -> FlatCell:
    """Return the cell computing in float64.

    Weights that a plain function reads keep their own type, which float64 states promote.

    Args:
        cell, inputs: those of the measurement.
        flat: the cell in its own precision.
        jacobian: as in `flatten_cell`; by default in reverse mode, which the engine does not use.

    Raises:
        ValueError: the cell draws random numbers, which would be others in float64.
    """
    drawing = ("random_bits", "random_gamma", "threefry2x32")
    if any(name in str(flat.advance.program.jaxpr) for name in drawing):
        raise ValueError(
            "certify=True and parallel_evaluation run the same cell in float64, for which random "
            "numbers are drawn anew: neither takes a cell that draws any, such as one with dropout."
        )
    with jax.enable_x64(True):
        if isinstance(cell, nnx.Module):
            definition, state = nnx.split(cell)
            cell = nnx.merge(definition, as_float64(state))
            for _, module in nnx.iter_modules(cell):
                if (dtype := getattr(module, "dtype", None)) is not None:  # Flax computes in it
                    module.dtype = _double(dtype)  # type: ignore[attr-defined]
        carry = as_float64(flat.carry(flat.example))
        sample = as_float64(inputs.reshape(-1, *inputs.shape[-2:])[0])
        exact = flatten_cell(cell, sample, carry, jacobian=jacobian)
        return resting(exact, jnp.array(0), sample) if counts_steps(flat) else exact


def as_float64(tree: PyTree) -> PyTree:
    """Return a pytree with its numbers in double precision; integers and keys stay."""

    def cast(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        # With a type of its own, or JAX would promote a weakly typed counter to 64 bits.
        return jnp.asarray(leaf, _double(leaf.dtype) if is_inexact(leaf) else leaf.dtype)

    return jax.tree.map(cast, tree)


def _double(dtype: Any) -> Any:
    """Return the type of double precision, complex for a complex type."""
    return jnp.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.float64
