"""Running a recurrent cell over a sequence, with the gradient's way back in view.

The recurrence proper is one product a step, h W. What does not wait for h stands outside the loop:
the inputs' part before it, and after it the gradient of all weights, one product over every step.
JAX's transpose of a scan would form and add that gradient anew at each step.
"""

from collections.abc import Callable
from functools import singledispatch

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from gradlab.cells.affine import Affine, Blocks, affine

AdjointRule = Callable[[PyTree], PyTree]
Weights = tuple[Array, Array, Array]


@singledispatch
def unroll(
    cell: nnx.RNNCellBase,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Float[Array, "time batch n"]]:
    """Run a cell over a batch of sequences from a carry.

    Cells that `gradlab.cells.affine` knows are differentiated in reverse mode only, to any order.

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
    known = affine(cell)
    if known is None or not _of_one_kind(known, carry, inputs):
        return step_by_step(cell, carry, inputs, on_adjoint)
    return _affine_unroll(known, carry, inputs, _as_pytree(on_adjoint))


def step_by_step(
    cell: nnx.RNNCellBase,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Float[Array, "time batch n"]]:
    """The same for any cell: a scan over its own steps."""
    rule = _as_pytree(on_adjoint)

    def step(carry: PyTree, x: Array) -> tuple[PyTree, Array]:
        return cell(carry if rule is None else _watched(rule, carry), x)

    return jax.lax.scan(step, carry, inputs)


def _as_pytree(rule: AdjointRule | None) -> Partial | None:
    """A rule whose numbers are arguments of a custom_vjp, which may not close over traced ones."""
    return rule if isinstance(rule, Partial | None) else Partial(rule)


@jax.custom_vjp
def _watched(rule: Partial, carry: PyTree) -> PyTree:
    """The carry unchanged; its adjoint as the rule makes it."""
    del rule
    return carry


_watched.defvjp(lambda rule, carry: (carry, rule), lambda rule, adjoint: (None, rule(adjoint)))


def _of_one_kind(known: Affine, carry: PyTree, inputs: Array) -> bool:
    """Whether this is one batch of sequences, and no number would be promoted on the way."""
    arrays = [known.driven, known.bias, known.recurrent, inputs, *jax.tree.leaves(carry)]
    return inputs.ndim == 3 and len({x.dtype for x in arrays}) == 1


def _affine_unroll(
    cell: Affine, carry: PyTree, inputs: Array, on_adjoint: Partial | None
) -> tuple[PyTree, Array]:
    n, columns = cell.recurrent.shape
    k, apart, rule = columns // n, cell.apart, cell.rule

    def split(x: Array) -> Blocks:
        return tuple(jnp.split(x, x.shape[-1] // n, axis=-1))

    def forward(
        on_adjoint: Partial | None, weights: Weights, carry: PyTree, inputs: Array
    ) -> tuple[tuple[PyTree, Array], PyTree]:
        driven, bias, recurrent = weights

        def step(carry: PyTree, drive: Blocks) -> tuple[PyTree, tuple[PyTree, Blocks]]:
            from_h = split(_hidden(carry) @ recurrent)
            both = tuple(x + h for x, h in zip(drive[apart:], from_h, strict=False))
            blocks = drive[:apart] + both + from_h[k - apart :]
            return rule(blocks, carry), (carry, blocks)

        # Each block is an array of its own: XLA's loops over slices of slices are slow on a CPU.
        drive = tuple(inputs @ w + b for w, b in zip(split(driven), split(bias), strict=True))
        last, (carries, blocks) = jax.lax.scan(step, carry, drive)
        outputs = jnp.concatenate([_hidden(carries)[1:], _hidden(last)[None]])
        return (last, outputs), (on_adjoint, weights, inputs, carries, blocks)

    def backward(
        kept: PyTree, adjoints: tuple[PyTree, Array]
    ) -> tuple[None, Weights, PyTree, Array]:
        on_adjoint, (driven, _, recurrent), inputs, carries, blocks = kept

        def step(adjoint: PyTree, at: PyTree) -> tuple[PyTree, Array]:
            of_output, blocks, carry = at
            _, pull = jax.vjp(rule, blocks, carry)
            of_blocks, of_carry = pull(_add_to_hidden(adjoint, of_output))
            delta = jnp.concatenate(of_blocks, axis=-1)
            adjoint = _add_to_hidden(of_carry, delta[:, apart * n :] @ recurrent.T)
            return (adjoint if on_adjoint is None else on_adjoint(adjoint)), delta

        last, outputs = adjoints
        first, delta = jax.lax.scan(step, last, (outputs, blocks, carries), reverse=True)
        ones = jnp.ones((*inputs.shape[:-1], 1), inputs.dtype)
        sources = jnp.concatenate([inputs, ones, _hidden(carries)], axis=-1)
        gradient = jnp.einsum("tbi,tbj->ij", sources, delta)
        of_x, of_one, of_h = jnp.split(gradient, [inputs.shape[-1], inputs.shape[-1] + 1])
        weights = (of_x[:, :columns], of_one[0, :columns], of_h[:, apart * n :])
        return None, weights, first, delta[..., :columns] @ driven.T

    run = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    run.defvjp(forward, backward)
    return run(on_adjoint, (cell.driven, cell.bias, cell.recurrent), carry, inputs)


def _hidden(carry: PyTree) -> Array:
    """The h of a carry, which is h or (c, h)."""
    return jax.tree.leaves(carry)[-1]


def _add_to_hidden(carry: PyTree, change: Array) -> PyTree:
    leaves, structure = jax.tree.flatten(carry)
    return jax.tree.unflatten(structure, [*leaves[:-1], leaves[-1] + change])
