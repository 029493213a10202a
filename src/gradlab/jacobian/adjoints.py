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
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import (
    FlatCell,
    Span,
    SplitCell,
    StepFunction,
    check_inputs,
    split_cell,
)
from gradlab.jacobian.products import Scaled, concatenate, multiply, rescale
from gradlab.jacobian.steps import trajectory

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
) -> Float[Array, "*batch T+1"] | Float[Array, "*batch T+1 T+1"]:
    """Return log ‖∂L/∂s⁽ᵏ⁾‖ of the summed loss L = Σ_t L⁽ᵗ⁾, or log ‖∂L⁽ᵗ⁾/∂s⁽ᵏ⁾‖, in nats.

    The adjoint of the summed loss obeys ∂L/∂s⁽ᵏ⁾ = ∂L/∂s⁽ᵏ⁺¹⁾ J⁽ᵏ⁺¹⁾ + ∂L⁽ᵏ⁾/∂s⁽ᵏ⁾.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features) or (batch, time, features).
        loss: L⁽ᵗ⁾ as a function loss(carry, target) of the carry s⁽ᵗ⁾ in the cell's own form; one
            with weights that change (a readout's) is a jax.tree_util.Partial(function, weights).
        targets: second argument of each step's loss: arrays (time, ...) or (batch, time, ...).
        wrt: None for the whole carry, else a part of it by name ("h", "c"; "layer0.h").
        each: return the adjoints of every L⁽ᵗ⁾ instead of those of their sum.
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch; by default the cell's own.

    Returns:
        float32 (..., T + 1), [..., k]; with `each` (..., T + 1, T + 1), [..., t, k], −inf where
        k > t and in row t = 0, which has no loss.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state, a Jacobian or the loss is not finite; the message says which.

    References:
        Arjovsky, Shah & Bengio 2016, Unitary evolution recurrent neural networks, figure 4: the
        norm of ∂L/∂h⁽ᵏ⁾ against k.

    Example:
        >>> cell = nnx.SimpleCell(3, 16, rngs=nnx.Rngs(0))
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> adjoint_log_norms(cell, jnp.ones((50, 3)), loss, jnp.zeros((50, 16))).shape  # (51,)
    """
    check_inputs(inputs)
    split = split_cell(cell, initial_carry)
    span = split.flatten(jnp.shape(inputs)[-1]).span(wrt, "wrt")
    with jax.enable_x64(True):
        data = (jnp.asarray(inputs), targets)
        log_norms = _adjoints(split, data, as_partial(loss), wrt=span, each=each)
    check_finite(log_norms, cell, inputs, initial_carry)
    return log_norms


@partial(jax.jit, static_argnames=("wrt", "each"))
def _adjoints(
    split: SplitCell,
    data: tuple[Float[Array, "*batch T features"], PyTree],
    loss: Partial,
    *,
    wrt: Span,
    each: bool,
) -> Array:
    flat = split.flatten(data[0].shape[-1])

    def one_sample(sample: tuple[Array, PyTree]) -> Array:
        states, direct = direct_gradients(flat, *sample, loss)
        sweep = _each_loss if each else _summed_loss
        return sweep(flat, states[:-1], sample[0], direct, wrt).astype(jnp.float32)

    return one_sample(data) if data[0].ndim == 2 else jax.lax.map(one_sample, data)


def as_partial(loss: Loss) -> Partial:
    """Return the loss as a pytree, so that new weights inside a Partial do not compile it again."""
    return loss if isinstance(loss, Partial) else Partial(loss)


def direct_gradients(
    flat: FlatCell, inputs: Float[Array, "T features"], targets: PyTree, loss: Loss
) -> tuple[Float[Array, "T+1 n"], Scaled]:
    """Return the states s⁽⁰⁾..s⁽ᵀ⁾, and ∂L⁽ᵗ⁾/∂s⁽ᵗ⁾ for t = 1..T as T row vectors (1, n)."""
    states = trajectory(flat, inputs)
    states = jnp.concatenate([states, flat.step(states[-1], inputs[-1])[None]])
    gradient = jax.vmap(jax.grad(lambda state, target: loss(flat.unravel(state), target)))
    rows = gradient(states[1:], targets).astype(jnp.float64)
    return states, rescale(rows[:, None])


def _summed_loss(
    flat: FlatCell,
    states: Float[Array, "T n"],
    inputs: Float[Array, "T features"],
    direct: Scaled,
    wrt: Span,
) -> Float[Array, "T+1"]:
    def back(later: Scaled, step: tuple[Array, Array, Scaled]) -> tuple[Scaled, Array]:
        state, x, gradient = step
        adjoint = _add(later, gradient)
        return through_step(flat, adjoint, state, x), row_log_norms(adjoint, wrt)

    zero = rescale(jnp.zeros((1, flat.initial.size)))
    first, later = jax.lax.scan(back, zero, (states, inputs, direct), reverse=True)
    return jnp.concatenate([row_log_norms(first, wrt)[None], later])


def _each_loss(
    flat: FlatCell,
    states: Float[Array, "T n"],
    inputs: Float[Array, "T features"],
    direct: Scaled,
    wrt: Span,
) -> Float[Array, "T+1 T+1"]:
    def back(rows: Scaled, step: tuple[Array, Array, Scaled]) -> tuple[Scaled, Array]:
        state, x, gradient = step
        rows = shift_lags(rows, gradient)
        return through_step(flat, rows, state, x), row_log_norms(rows, wrt)

    zeros = rescale(jnp.zeros((inputs.shape[0] + 1, 1, flat.initial.size)))
    rows, later = jax.lax.scan(back, zeros, (states, inputs, direct), reverse=True)
    no_loss = rescale(jnp.zeros((1, flat.initial.size)))
    return by_pair(jnp.concatenate([row_log_norms(shift_lags(rows, no_loss), wrt)[None], later]))


def shift_lags(rows: Scaled, newest: Scaled) -> Scaled:
    """Move every row up by one lag, and put the newest at lag 0; the last one drops out."""
    newest = Scaled(newest.unit[None], newest.log_scale[None])
    return concatenate([newest, jax.tree.map(lambda x: x[:-1], rows)])


def through_step(flat: FlatCell, rows: Scaled, state: Array, x: Array) -> Scaled:
    """Multiply row vectors by the step Jacobian at a state."""
    jacobian = jax.jacfwd(flat.step)(state, x).astype(rows.unit.dtype)
    stacked = multiply(rows.unit.reshape(-1, flat.initial.size), jacobian)
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
    scale = jnp.maximum(left.log_scale, right.log_scale)
    scale = jnp.where(jnp.isfinite(scale), scale, 0)
    terms = [x.unit * jnp.exp(x.log_scale - scale) for x in (left, right)]
    return rescale(terms[0] + terms[1], scale)
