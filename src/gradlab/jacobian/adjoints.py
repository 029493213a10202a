"""Adjoints ∂L/∂s⁽ᵏ⁾ and ∂L⁽ᵗ⁾/∂s⁽ᵏ⁾: how strongly a loss depends on an earlier state.

One pass backward in k carries the adjoints of all t at once, as row vectors in order of their lag
t − k. Only vectors are multiplied, so all pairs cost O(T² n²). Each is kept at norm 1 with the log
of its scale beside it, so none over- or underflows.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from gradlab.jacobian.arguments import arrays, check_choice, first_line, is_plain, numbers
from gradlab.jacobian.carry import FlatState, Span, described, is_real
from gradlab.jacobian.closure import Closure, closure_convert
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.initial import first_sample
from gradlab.jacobian.lengths import (
    absent,
    is_over,
    padded_lengths,
    resting,
    without_padding,
)
from gradlab.jacobian.products import Scaled, concatenate, multiply, rescale
from gradlab.jacobian.steps import trajectory
from gradlab.jacobian.transforms import in_float64

Loss = Callable[[PyTree, PyTree], Float[Array, ""]]


def adjoint_log_norms(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    loss: Loss,
    targets: PyTree,
    *,
    wrt: str | None = None,
    each: bool = False,
    initial_carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | None = None,
) -> Float[Array, "*batch T+1"] | Float[Array, "*batch T+1 T+1"]:
    """Return log ‖∂L/∂s⁽ᵏ⁾‖ of the summed loss L = Σ_t L⁽ᵗ⁾, or log ‖∂L⁽ᵗ⁾/∂s⁽ᵏ⁾‖, in nats.

    The adjoint of the summed loss obeys ∂L/∂s⁽ᵏ⁾ = ∂L/∂s⁽ᵏ⁺¹⁾ J⁽ᵏ⁺¹⁾ + ∂L⁽ᵏ⁾/∂s⁽ᵏ⁾. Of a complex
    state z it is the derivative with respect to (Re z, Im z), whose norm is that of `jax.grad`.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features) or (batch, time, features).
        loss: L⁽ᵗ⁾ as a function loss(carry, target) of the carry s⁽ᵗ⁾ in the cell's own form; what
            turns the carry into an output belongs in it.
        targets: second argument of each step's loss: arrays (time, ...) or (batch, time, ...).
        wrt: None for the whole carry, else a part of it by name ("h", "c"; "layer0.h"). In a stack
            "h" is that of the top layer.
        each: return the adjoints of every L⁽ᵗ⁾ instead of those of their sum.
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch, or of every sample, with the batch's
            leading axis; by default the cell's own.
        lengths: the number of steps of each sample; inputs and targets that follow are padding,
            which may hold anything and has no loss. By default all steps.

    Returns:
        float32 (..., T + 1), [..., k]; with `each` (..., T + 1, T + 1), [..., t, k], −inf where
        k > t and in row t = 0, which has no loss. NaN where t or k is past a sample's end.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state, a Jacobian or the loss is not finite; the message says which.

    References:
        Arjovsky, Shah & Bengio 2016, Unitary evolution recurrent neural networks, figure 4: the
        norm of ∂L/∂h⁽ᵏ⁾ against k.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> targets = jnp.zeros((4, 20, 8))
        >>> gradlab.adjoint_log_norms(cell, x, loss, targets).shape  # [..., k], k from 0 to T
        (4, 21)
        >>> gradlab.adjoint_log_norms(cell, x, loss, targets, each=True).shape
        (4, 21, 21)
    """
    inputs = numbers("inputs", inputs)
    check_choice("each", each, (False, True))
    flat = flatten_cell(cell, inputs, initial_carry)
    targets = checked_targets(targets, inputs)
    lengths = padded_lengths(lengths, inputs)
    if lengths is not None:
        inputs, targets = without_padding((inputs, targets), lengths)
        flat = resting(flat, lengths, inputs)
    log_norms = in_float64(
        partial(_adjoints, wrt=flat.form.span(wrt, "wrt"), each=each),
        flat,
        loss_gradient(loss, flat, targets),
        inputs,
        targets,
    )
    check_finite(log_norms, flat, inputs)
    return log_norms if lengths is None else absent(log_norms, lengths)


@partial(jax.jit, static_argnames=("wrt", "each"))
def _adjoints(
    flat: FlatCell,
    gradient: Closure,
    inputs: Float[Array, "*batch T features"],
    targets: PyTree,
    *,
    wrt: Span,
    each: bool,
) -> Array:
    def one_sample(flat: FlatCell, inputs: Float[Array, "T features"], targets: PyTree) -> Array:
        states, direct = direct_gradients(flat, inputs, targets, gradient)
        sweep = _each_loss if each else _summed_loss
        return sweep(flat, states, inputs, direct, wrt).astype(jnp.float32)

    return flat.map_samples(one_sample, inputs, targets)


def checked_targets(targets: PyTree, inputs: Float[Array, "*batch T features"]) -> PyTree:
    """Return the targets as arrays.

    Raises:
        ValueError: one lacks the axes (time,) or (batch, time) of the inputs.
    """
    targets, axes = arrays("targets", targets), inputs.shape[:-1]
    for target in jax.tree.leaves(targets):
        if target.shape[: len(axes)] != axes:
            raise ValueError(
                f"targets must have a row for each step of the inputs, shapes {axes} and more; "
                f"got {target.shape}."
            )
    return targets


def loss_gradient(loss: Loss, flat: FlatCell, targets: PyTree) -> Closure:
    """Return ∂L⁽ᵗ⁾/∂s⁽ᵗ⁾ as a function of the state and the target, with the loss as it is now.

    Raises:
        ValueError: the loss is no function of a carry and a target, or returns no real number.
    """
    by_step = first_sample(targets) if flat.has_batch else targets
    target = jax.tree.map(lambda x: x[0], by_step)

    def gradient(state: FlatState, target: PyTree) -> Float[Array, "n"]:
        def loss_of(vector: Float[Array, "n"]) -> Float[Array, ""]:
            return _real_number(loss, flat.carry(state._replace(vector=vector)), target)

        return jnp.where(is_over(state), 0, jax.grad(loss_of)(state.vector))

    return closure_convert(gradient, flat.example, target)


def _real_number(loss: Loss, carry: PyTree, target: PyTree) -> Float[Array, ""]:
    """Return the loss of one step."""
    try:
        value = loss(carry, target)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        if not is_plain(error):
            raise
        raise ValueError(
            "loss must be a function loss(carry, target) of one step: on the carry "
            f"{described(carry)} and the target {described(target)} it raises {first_line(error)}"
        ) from error
    if not hasattr(value, "dtype") or value.shape != () or not is_real(value):
        raise ValueError(
            "loss(carry, target) must return one real number, the loss of that step; got "
            f"{described(value)}."
        )
    return value


def direct_gradients(
    flat: FlatCell, inputs: Float[Array, "T features"], targets: PyTree, gradient: Closure
) -> tuple[FlatState, Scaled]:
    """Return the states s⁽⁰⁾..s⁽ᵀ⁻¹⁾, and ∂L⁽ᵗ⁾/∂s⁽ᵗ⁾ for t = 1..T as T row vectors (1, n)."""
    states, last = trajectory(flat, inputs)
    reached = jax.tree.map(lambda x, end: jnp.concatenate([x[1:], end[None]]), states, last)
    rows = jax.vmap(gradient)(reached, targets).astype(jnp.float64)
    return states, rescale(rows[:, None])


def _summed_loss(
    flat: FlatCell,
    states: FlatState,
    inputs: Float[Array, "T features"],
    direct: Scaled,
    wrt: Span,
) -> Float[Array, "T+1"]:
    def back(later: Scaled, step: tuple[FlatState, Array, Scaled]) -> tuple[Scaled, Array]:
        state, x, gradient = step
        adjoint = _add(later, gradient)
        return through_step(flat, adjoint, state, x), row_log_norms(adjoint, wrt)

    zero = rescale(jnp.zeros((1, flat.form.size)))
    first, later = jax.lax.scan(back, zero, (states, inputs, direct), reverse=True)
    return jnp.concatenate([row_log_norms(first, wrt)[None], later])


def _each_loss(
    flat: FlatCell,
    states: FlatState,
    inputs: Float[Array, "T features"],
    direct: Scaled,
    wrt: Span,
) -> Float[Array, "T+1 T+1"]:
    def back(rows: Scaled, step: tuple[FlatState, Array, Scaled]) -> tuple[Scaled, Array]:
        state, x, gradient = step
        rows = shift_lags(rows, gradient)
        return through_step(flat, rows, state, x), row_log_norms(rows, wrt)

    zeros = rescale(jnp.zeros((inputs.shape[0] + 1, 1, flat.form.size)))
    rows, later = jax.lax.scan(back, zeros, (states, inputs, direct), reverse=True)
    no_loss = rescale(jnp.zeros((1, flat.form.size)))
    return by_pair(jnp.concatenate([row_log_norms(shift_lags(rows, no_loss), wrt)[None], later]))


def shift_lags(rows: Scaled, newest: Scaled) -> Scaled:
    """Move every row up by one lag, and put the newest at lag 0; the last one drops out."""
    newest = Scaled(newest.unit[None], newest.log_scale[None])
    return concatenate([newest, jax.tree.map(lambda x: x[:-1], rows)])


def through_step(flat: FlatCell, rows: Scaled, state: FlatState, x: Array) -> Scaled:
    """Multiply row vectors by the step Jacobian at a state."""
    jacobian = flat.jacobian(state, x).astype(rows.unit.dtype)
    stacked = multiply(rows.unit.reshape(-1, flat.form.size), jacobian)
    return rescale(stacked.reshape(rows.unit.shape), rows.log_scale)


def row_log_norms(rows: Scaled, span: Span) -> Float[Array, "*rows"]:
    """Return the log norm of the components `span` of each row vector."""
    return rescale(rows.unit[..., slice(*span)], rows.log_scale).log_scale


def by_pair(by_lag: Float[Array, "K lags"]) -> Float[Array, "lags K"]:
    """Rearrange values at [k, lag] to [t, k], −inf where k > t."""
    steps = jnp.arange(by_lag.shape[0])
    lag = steps[:, None] - steps[None, :]
    return jnp.where(lag >= 0, by_lag[steps[None, :], lag], -jnp.inf)


def _add(left: Scaled, right: Scaled) -> Scaled:
    scale = jax.lax.stop_gradient(jnp.maximum(left.log_scale, right.log_scale))
    scale = jnp.where(jnp.isfinite(scale), scale, 0)
    terms = [x.unit * jnp.exp(x.log_scale - scale) for x in (left, right)]
    return rescale(terms[0] + terms[1], scale)
