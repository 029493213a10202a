"""Running a recurrent cell over a sequence, with the gradient's way back in view."""

from collections.abc import Callable

import jax
from flax import nnx
from jax.tree_util import Partial
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
            on something of the carry's form (clipping inside the backward pass, Graves 2013). One
            with traced numbers is a jax.tree_util.Partial(function, numbers).

    Returns:
        The carry s⁽ᵀ⁾, and the cell's output at every step.
    """

    rule = on_adjoint if isinstance(on_adjoint, Partial | None) else Partial(on_adjoint)

    def step(carry: PyTree, x: Array) -> tuple[PyTree, Array]:
        return cell(carry if rule is None else _watched(rule, carry), x)

    return jax.lax.scan(step, carry, inputs)


@jax.custom_vjp
def _watched(rule: Partial, carry: PyTree) -> PyTree:
    """The carry unchanged; its adjoint as the rule makes it."""
    del rule
    return carry


_watched.defvjp(lambda rule, carry: (carry, rule), lambda rule, adjoint: (None, rule(adjoint)))
