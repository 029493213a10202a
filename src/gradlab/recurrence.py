"""Running a recurrent cell over a sequence, with the gradient's way back in view."""

from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array, Float, PyTree

AdjointRule = Callable[[PyTree], PyTree]


def unroll(
    cell: nnx.RNNCellBase,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Float[Array, "time batch n"]]:
    """Run a cell over a batch of sequences from a carry.

    Args:
        cell: any Flax recurrent cell.
        carry: s⁽⁰⁾ of the batch.
        inputs: x⁽¹⁾ to x⁽ᵀ⁾, time first.
        on_adjoint: what becomes of the adjoint ∂L/∂s⁽ᵗ⁾ at every step on its way back, a function
            on something of the carry's form (clipping inside the backward pass, Graves 2013).

    Returns:
        The carry s⁽ᵀ⁾, and the cell's output at every step.
    """

    def step(carry: PyTree, x: Array) -> tuple[PyTree, Array]:
        carry = carry if on_adjoint is None else _watched(on_adjoint, carry)
        return cell(carry, x)

    return jax.lax.scan(step, carry, inputs)


def _watched(rule: AdjointRule, carry: PyTree) -> PyTree:
    """The carry unchanged; its adjoint as the rule makes it."""
    same = jax.custom_vjp(lambda carry: carry)
    same.defvjp(lambda carry: (carry, None), lambda _, adjoint: (rule(adjoint),))
    return same(carry)
