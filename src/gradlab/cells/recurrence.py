"""Running a recurrent cell over sequences, with a fast backward pass.

The only work that a step of the recurrence has to wait for is one product, h W_h. For cells in
affine form (`gradlab.cells.affine`) everything else stands outside the loop over time: x W_x before
it and, on the way back, the gradient of both matrices and of their biases after it, as one product
over all steps. JAX's own transpose of a scan would form and add that gradient at every step. The
weights of a rule are vectors: their gradient is formed at every step and added up after the loop.
Any other cell is run by `step_by_step`, a plain scan over the cell's own steps.

Both take a rule that changes the adjoint at every step of the backward pass.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from gradlab.cells.affine import AffineForm, Blocks, Weights, affine_form
from gradlab.cells.base import inherits

AdjointRule = Callable[[PyTree], PyTree]


@singledispatch
def unroll(
    cell: nnx.RNNCellBase,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Float[Array, "time batch n"]]:
    """Run a cell over a batch of sequences.

    Cells in affine form can be differentiated in reverse mode only, to any order.

    Args:
        cell: any Flax recurrent cell.
        carry: s⁽⁰⁾ of the batch.
        inputs: x⁽¹⁾ to x⁽ᵀ⁾, time first.
        on_adjoint: replaces the adjoint ∂L/∂s⁽ᵗ⁾ at every step of the backward pass by a function
            of it, such as a clipped one (Graves 2013); it has the carry's structure. A rule that
            depends on traced numbers must be a jax.tree_util.Partial(function, numbers).

    Returns:
        The carry s⁽ᵀ⁾, and the cell's output at every step.
    """
    form = affine_form(cell)
    if form is None or not _is_plain_batch(form, carry, inputs):
        return step_by_step(cell, carry, inputs, on_adjoint)
    return _affine_unroll(form, carry, inputs, as_partial(on_adjoint))


def step_by_step(
    cell: nnx.RNNCellBase,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Float[Array, "time batch n"]]:
    """Run any cell as `unroll` does, by a scan over its own steps."""
    rule = as_partial(on_adjoint)

    def step(carry: PyTree, x: Array) -> tuple[PyTree, Array]:
        return cell(carry if rule is None else _with_adjoint_rule(rule, carry), x)

    return jax.lax.scan(step, carry, inputs)


def unroll_input_first(
    cell: Any,
    cell_class: type[nnx.RNNCellBase],
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Float[Array, "time batch n"]]:
    """Run a cell of a class whose step is advance(carry, dense_i(x)), with all dense_i(x) at once.

    With a step or a kind of layer of its own, or a rule for its adjoints, it runs by its steps.
    """
    is_known = inherits(cell, cell_class, "__call__") and type(cell.dense_i) is nnx.Linear
    if on_adjoint is not None or not is_known:
        return step_by_step(cell, carry, inputs, on_adjoint)

    # Made anew here: JAX keeps what it traced of a function that it has seen, weights included.
    def advance(carry: PyTree, from_x: Array) -> tuple[PyTree, Array]:
        return cell.advance(carry, from_x)

    return jax.lax.scan(advance, carry, cell.dense_i(inputs))


def as_partial(rule: AdjointRule | None) -> Partial | None:
    """Return a rule as a pytree: a custom_vjp may not close over traced numbers."""
    return rule if isinstance(rule, Partial | None) else Partial(rule)


@jax.custom_vjp
def _with_adjoint_rule(rule: Partial, carry: PyTree) -> PyTree:
    """Return the carry unchanged; in the backward pass, apply the rule to its adjoint."""
    del rule
    return carry


_with_adjoint_rule.defvjp(
    lambda rule, carry: (carry, rule), lambda rule, adjoint: (None, rule(adjoint))
)


def _is_plain_batch(form: AffineForm, carry: PyTree, inputs: Array) -> bool:
    """Return whether this is one batch of sequences and no array is promoted or broadcast."""
    states, n = jax.tree.leaves(carry), form.recurrent_kernel.shape[0]
    return (
        inputs.ndim == 3
        and all(jnp.shape(state) == (inputs.shape[1], n) for state in states)
        and len({array.dtype for array in jax.tree.leaves((form.weights, inputs, states))}) == 1
    )


def _affine_unroll(
    form: AffineForm, carry: PyTree, inputs: Array, on_adjoint: Partial | None
) -> tuple[PyTree, Array]:
    n, columns = form.recurrent_kernel.shape
    k, separate, rule = columns // n, form.separate, form.rule

    def split(x: Array) -> Blocks:
        return tuple(jnp.split(x, x.shape[-1] // n, axis=-1))

    def forward(
        on_adjoint: Partial | None, weights: Weights, carry: PyTree, inputs: Array
    ) -> tuple[tuple[PyTree, Array], PyTree]:
        input_kernel, bias, recurrent_kernel, recurrent_bias, of_rule = weights

        def step(carry: PyTree, from_x: Blocks) -> tuple[PyTree, tuple[PyTree, Blocks]]:
            from_h = split(_plus(_hidden(carry) @ recurrent_kernel, recurrent_bias))
            sums = tuple(x + h for x, h in zip(from_x[separate:], from_h, strict=False))
            blocks = from_x[:separate] + sums + from_h[k - separate :]
            return rule(blocks, carry, *of_rule), (carry, blocks)

        # Each block is an array of its own: XLA's loops over slices of slices are slow on a CPU.
        biases = [None] * k if bias is None else split(bias)
        from_x = tuple(
            _plus(inputs @ w, b) for w, b in zip(split(input_kernel), biases, strict=True)
        )
        last, (carries, blocks) = jax.lax.scan(step, carry, from_x)
        outputs = jnp.concatenate([_hidden(carries)[1:], _hidden(last)[None]])
        return (last, outputs), (on_adjoint, weights, inputs, carries, blocks)

    def backward(
        residuals: PyTree, adjoints: tuple[PyTree, Array]
    ) -> tuple[None, Weights, PyTree, Array]:
        on_adjoint, weights, inputs, carries, blocks = residuals
        input_kernel, bias, recurrent_kernel, recurrent_bias, of_rule = weights

        def step(adjoint: PyTree, values: PyTree) -> tuple[PyTree, tuple[Array, list[Array]]]:
            output_adjoint, blocks, carry = values
            _, rule_vjp = jax.vjp(rule, blocks, carry, *of_rule)
            block_adjoints, carry_adjoint, *rule_adjoints = rule_vjp(
                _add_to_hidden(adjoint, output_adjoint)
            )
            delta = jnp.concatenate(block_adjoints, axis=-1)
            from_blocks = delta[:, separate * n :] @ recurrent_kernel.T
            adjoint = _add_to_hidden(carry_adjoint, from_blocks)
            adjoint = adjoint if on_adjoint is None else on_adjoint(adjoint)
            return adjoint, (delta, rule_adjoints)

        last_adjoint, output_adjoints = adjoints
        first_adjoint, (deltas, rule_adjoints) = jax.lax.scan(
            step, last_adjoint, (output_adjoints, blocks, carries), reverse=True
        )
        ones = jnp.ones((*inputs.shape[:-1], 1), inputs.dtype)
        sources = jnp.concatenate([inputs, ones, _hidden(carries)], axis=-1)
        gradient = jnp.einsum("tbi,tbj->ij", sources, deltas)
        x_rows, one_row, h_rows = jnp.split(gradient, [inputs.shape[-1], inputs.shape[-1] + 1])
        # The first k blocks come from x, the last k from h (see AffineForm).
        of_weights = (
            x_rows[:, :columns],
            None if bias is None else one_row[0, :columns],
            h_rows[:, separate * n :],
            None if recurrent_bias is None else one_row[0, separate * n :],
            tuple(jnp.sum(x, axis=0) for x in rule_adjoints),
        )
        return None, of_weights, first_adjoint, deltas[..., :columns] @ input_kernel.T

    run = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    run.defvjp(forward, backward)
    return run(on_adjoint, form.weights, carry, inputs)


def _plus(values: Array, bias: Array | None) -> Array:
    return values if bias is None else values + bias


def _hidden(carry: PyTree) -> Array:
    """Return the h of a carry that is h or (c, h)."""
    return jax.tree.leaves(carry)[-1]


def _add_to_hidden(carry: PyTree, change: Array) -> PyTree:
    leaves, structure = jax.tree.flatten(carry)
    return jax.tree.unflatten(structure, [*leaves[:-1], leaves[-1] + change])
