"""The state that a measurement starts from: the cell's own, a shared one, or one a sample."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gradlab.jacobian.arguments import arrays
from gradlab.jacobian.carry import is_complex, is_inexact
from gradlab.jacobian.pure_step import PureStep


def initial_state(
    pure: PureStep, x: jax.ShapeDtypeStruct, batch: int | None, given: PyTree | None
) -> tuple[PyTree, bool]:
    """Return the initial carry, and whether it has a leading axis of samples.

    A carry fits one sample if a step returns it with the shapes that it had; a Flax cell's must
    have the shapes of the cell's own.

    Args:
        pure: the step.
        x: shape and type of one step's input.
        batch: the number of samples; None for inputs without a batch axis.
        given: the caller's initial carry; None for the cell's own.

    Raises:
        ValueError: it is missing, does not fit, or could be meant either way.
    """
    own = _own_carry(pure, x.shape[0])
    if given is None:
        if own is None:
            raise ValueError(
                "initial_carry is needed with a plain step function: pass the state s⁽⁰⁾ as its "
                "first argument takes it."
            )
        return own, False
    given = jax.tree.map(_with_own_type, arrays("initial_carry", given))
    leaves = jax.tree.leaves(given)
    has_axis = batch is not None and all(jnp.shape(leaf)[:1] == (batch,) for leaf in leaves)
    if own is not None:
        is_one_for_each = _is_one_for_each(given, own, has_axis)
        return jax.tree.map(_as_complex_as, given, own), is_one_for_each
    if not has_axis or not _fits(pure, first_sample(given), x):
        return given, False
    if _fits(pure, given, x):
        raise ValueError(
            f"initial_carry begins with an axis of {batch}, as the batch does, and the step takes "
            "it with and without that axis. Say which you mean with jax.vmap over the inputs, and "
            "over the initial states if each sample has one of its own: "
            "jax.vmap(lambda x: gradlab.jacobian_log_norms(step, x, initial_carry=s0))(inputs)."
        )
    return given, True


def first_sample(carry: PyTree) -> PyTree:
    """Return the carry of the first sample of a batch."""
    return jax.tree.map(lambda leaf: leaf[0], carry)


def _own_carry(pure: PureStep, features: int) -> PyTree | None:
    if pure.carry_of is None:
        return None
    try:
        own = jax.tree.map(jnp.asarray, pure.carry_of(pure.parameters, features))
        return jax.tree.map(_with_own_type, own)
    except NotImplementedError:
        return None


def _is_one_for_each(given: PyTree, own: PyTree, has_axis: bool) -> bool:
    """Return whether a Flax cell's carry has the batch's axis before the shapes of its own one."""
    if _shapes(given) == _shapes(own):
        return False
    if has_axis and _shapes(first_sample(given)) == _shapes(own):
        return True
    expected, got = (", ".join(map(str, _shapes(carry)[1])) for carry in (own, given))
    raise ValueError(
        f"initial_carry must be as the cell's own carry, of shapes {expected}, or have these after "
        f"the batch's axis; got {got}."
    )


def _with_own_type(leaf: Array) -> Array:
    """Return a number of plain Python's as one of its own type, which no step promotes."""
    return leaf.astype(leaf.dtype) if getattr(leaf, "weak_type", False) else leaf


def _as_complex_as(given: Array, own: Array) -> Array:
    """Return an array of a carry, as complex numbers where the cell's own has these."""
    is_promoted = is_complex(own) and is_inexact(given)
    return given.astype(jnp.promote_types(given.dtype, own.dtype)) if is_promoted else given


def _fits(pure: PureStep, carry: PyTree, x: jax.ShapeDtypeStruct) -> bool:
    def step(carry: PyTree, x: Any) -> PyTree:
        return pure.step(pure.parameters, pure.own, carry, x)[0]

    try:
        return _shapes(jax.eval_shape(step, carry, x)) == _shapes(carry)
    except (TypeError, ValueError, IndexError):
        return False


def _shapes(carry: PyTree) -> tuple[jax.tree_util.PyTreeDef, list[tuple[int, ...]]]:
    leaves, structure = jax.tree.flatten(carry)
    return structure, [leaf.shape for leaf in leaves]
