"""Sequences of different lengths in one batch: what follows a sequence's end is not measured.

After its last step a sample's state rests: every further step returns it as it is, whatever the
input, and its step Jacobian is the identity. So nothing that follows the end can move or overflow
what is measured up to there, and the entries beyond are set to NaN afterwards.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from gradlab.jacobian.arguments import numbers
from gradlab.jacobian.carry import FlatState
from gradlab.jacobian.closure import closure_convert
from gradlab.jacobian.flat_cell import FlatCell


def checked_lengths(
    lengths: Any, inputs: Float[Array, "*batch T features"]
) -> Int[Array, "*batch"]:
    """Return the number of steps of each sample as an array.

    Raises:
        ValueError: they are not one whole number from 1 to T for each sample.
    """
    lengths = numbers("lengths", lengths)
    *batch, steps, _ = inputs.shape
    is_known = not isinstance(lengths, jax.core.Tracer)
    fits = lengths.shape == tuple(batch) and jnp.issubdtype(lengths.dtype, jnp.integer)
    if not fits or (is_known and not ((lengths >= 1) & (lengths <= steps)).all()):
        raise ValueError(
            f"lengths must be one whole number from 1 to {steps} for each sample, of shape "
            f"{tuple(batch)}; got {lengths}."
        )
    return lengths


def padded_lengths(
    lengths: Any | None, inputs: Float[Array, "*batch T features"]
) -> Int[Array, "*batch"] | None:
    """Return the checked lengths of samples, None if none is known to be shorter than the others.

    (A cell that may rest takes twice the time to compile.)

    Raises:
        ValueError: as in `checked_lengths`.
    """
    if lengths is None:
        return None
    checked = checked_lengths(lengths, inputs)
    is_known = not isinstance(checked, jax.core.Tracer)
    return None if is_known and (checked == inputs.shape[-2]).all() else checked


def without_padding(tree: PyTree, lengths: Int[Array, "*batch"]) -> PyTree:
    """Return arrays (*batch, T, ...) in which each sample's last real row stands after its end."""

    def one_sample(rows: Shaped[Array, "T ..."], length: Int[Array, ""]) -> Shaped[Array, "T ..."]:
        return rows[jnp.minimum(jnp.arange(rows.shape[0]), length - 1)]

    take = jax.vmap(one_sample) if lengths.ndim else one_sample
    return jax.tree.map(lambda rows: take(rows, lengths), tree)


def resting(
    flat: FlatCell, lengths: Int[Array, "*batch"], inputs: Float[Array, "*batch T features"]
) -> FlatCell:
    """Return a cell whose state rests once a sample's steps are over.

    The number of steps that are left is held beside the state, and negative past the end.

    Args:
        flat: the cell.
        lengths: the number of steps of each sample.
        inputs: of all samples.
    """
    # The sum makes what jax.vmap passes on, 64-bit NumPy numbers maybe, 32-bit ones of JAX's.
    left = jnp.asarray(lengths, jnp.int32) + jnp.int32(0)
    resting = replace(flat, initial=flat.initial._replace(held=(*flat.initial.held, left)))

    def advance(parameters: PyTree, state: FlatState, x: Array) -> FlatState:
        *held, left = state.held
        before = FlatState(state.vector, tuple(held))
        after: FlatState = jax.lax.cond(
            left > 0, lambda: flat.advance(parameters, before, x), lambda: before
        )
        return FlatState(after.vector, (*after.held, left - 1))

    def differentiate(parameters: PyTree, state: FlatState, x: Array) -> Float[Array, "n n"]:
        *held, left = state.held
        before = FlatState(state.vector, tuple(held))
        identity = jnp.eye(flat.form.size, dtype=state.vector.dtype)
        return jax.lax.cond(
            left > 0, lambda: flat.differentiate(parameters, before, x), lambda: identity
        )

    x = jax.ShapeDtypeStruct(inputs.shape[-1:], inputs.dtype)
    arguments = (flat.parameters, resting.example, x)
    return replace(
        resting,
        advance=closure_convert(advance, *arguments),
        differentiate=closure_convert(differentiate, *arguments),
    )


def counts_steps(flat: FlatCell) -> bool:
    """Return whether a cell's state rests at some time: whether it is one of `resting`."""
    return len(flat.initial.held) == 3


def rests(state: FlatState) -> Bool[Array, "*steps"]:
    """Return whether the step from a state on is past the end of its sequence."""
    _, _, *left = state.held
    return left[0] <= 0 if left else jnp.zeros(state.vector.shape[:-1], bool)


def is_over(state: FlatState) -> Bool[Array, "*steps"]:
    """Return whether a state comes after the one that the last step of its sequence led to."""
    _, _, *left = state.held
    return left[0] < 0 if left else jnp.zeros(state.vector.shape[:-1], bool)


def absent(
    values: Float[Array, "*batch times"] | Float[Array, "*batch times times"],
    lengths: Int[Array, "*batch"],
    stride: int = 1,
) -> Float[Array, "..."]:
    """Return values with NaN where one of their times is past the end of its sequence.

    Args:
        values: (*batch, k) or (*batch, t, k), from step 0 on.
        lengths: the number of steps of each sample.
        stride: between two times.
    """
    times = values.ndim - lengths.ndim
    past = stride * jnp.arange(values.shape[-1]) > lengths[..., None]
    if times == 2:
        past = past[..., :, None] | past[..., None, :]
    return jnp.where(past, jnp.nan, values)
