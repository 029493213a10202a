"""Adjoints ∂L/∂s⁽ᵏ⁾ and ∂L⁽ᵗ⁾/∂s⁽ᵏ⁾: how much of a loss reaches a state.

One sweep backward in k carries the adjoints of all t at once, sorted by lag, each at norm 1 with
the log of its scale beside it: only vectors are propagated, O(T² n²) for every pair.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.finite import refuse_not_finite
from gradlab.jacobian.flat_cell import (
    FlatCell,
    Span,
    StepFunction,
    check_inputs,
    flatten_cell,
    join_cell,
    split_cell,
)
from gradlab.jacobian.products import Scaled, join, multiply, rescale
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
    """Log norms of the adjoints ∂L/∂s⁽ᵏ⁾, of the summed loss or of each L⁽ᵗ⁾, in nats.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features) or (batch, time, features).
        loss: L⁽ᵗ⁾ as a function loss(carry, target) of the carry s⁽ᵗ⁾ in the cell's own form; one
            with weights that change (a readout's) is a jax.tree_util.Partial(function, weights).
        targets: what each step's loss is given: arrays that begin with (time,) or (batch, time).
        wrt: None for the whole carry, else a part of it by name ("h", "c"; "layer0.h").
        each: whether each L⁽ᵗ⁾ has adjoints of its own.
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch; by default the cell's own.

    Returns:
        float32; [..., k] of the summed loss Σ_t L⁽ᵗ⁾, or with `each` [..., t, k] of L⁽ᵗ⁾, −inf
        where k > t. There is no loss at t = 0.

    Raises:
        ValueError: an argument is not one of those above; the sentence says what is allowed.
        FloatingPointError: a number on the way is not finite; the sentence names its step.
    """
    check_inputs(inputs)
    flat = flatten_cell(cell, jnp.shape(inputs)[-1], initial_carry)
    definition, parameters = split_cell(cell)
    with jax.enable_x64(True):
        found = _adjoints(
            parameters,
            initial_carry,
            (jnp.asarray(inputs), targets),
            as_partial(loss),
            definition=definition,
            wrt=flat.span(wrt, "wrt"),
            each=each,
        )
    refuse_not_finite(found, cell, inputs, initial_carry)
    return found


@partial(jax.jit, static_argnames=("definition", "wrt", "each"))
def _adjoints(
    parameters: PyTree,
    initial_carry: PyTree | None,
    data: tuple[Float[Array, "*batch T features"], PyTree],
    loss: Partial,
    *,
    definition: nnx.GraphDef | StepFunction,
    wrt: Span,
    each: bool,
) -> Array:
    flat = flatten_cell(join_cell(definition, parameters), data[0].shape[-1], initial_carry)

    def one_sample(sample: tuple[Array, PyTree]) -> Array:
        states, direct = direct_gradients(flat, *sample, loss)
        sweep = _of_each if each else _of_sum
        return sweep(flat, states[:-1], sample[0], direct, wrt).astype(jnp.float32)

    return one_sample(data) if data[0].ndim == 2 else jax.lax.map(one_sample, data)


def as_partial(loss: Loss) -> Partial:
    """The loss as a pytree: new weights inside a Partial do not compile anything again."""
    return loss if isinstance(loss, Partial) else Partial(loss)


def direct_gradients(
    flat: FlatCell, inputs: Float[Array, "T features"], targets: PyTree, loss: Loss
) -> tuple[Float[Array, "T+1 n"], Scaled]:
    """The states s⁽⁰⁾..s⁽ᵀ⁾, and the direct ∂L⁽ᵗ⁾/∂s⁽ᵗ⁾ for t = 1..T as T rows (1, n)."""
    states = trajectory(flat, inputs)
    states = jnp.concatenate([states, flat.step(states[-1], inputs[-1])[None]])
    gradient = jax.vmap(jax.grad(lambda state, target: loss(flat.unravel(state), target)))
    rows = gradient(states[1:], targets).astype(jnp.float64)
    return states, rescale(rows[:, None])


def _of_sum(
    flat: FlatCell,
    states: Float[Array, "T n"],
    inputs: Float[Array, "T features"],
    direct: Scaled,
    wrt: Span,
) -> Float[Array, "T+1"]:
    def back(later: Scaled, step: tuple[Array, Array, Scaled]) -> tuple[Scaled, Array]:
        state, x, own = step
        whole = _add(later, own)
        return through_step(flat, whole, state, x), log_norms(whole, wrt)

    nothing = rescale(jnp.zeros((1, flat.initial.size)))
    first, seen = jax.lax.scan(back, nothing, (states, inputs, direct), reverse=True)
    return jnp.concatenate([log_norms(first, wrt)[None], seen])


def _of_each(
    flat: FlatCell,
    states: Float[Array, "T n"],
    inputs: Float[Array, "T features"],
    direct: Scaled,
    wrt: Span,
) -> Float[Array, "T+1 T+1"]:
    def back(rows: Scaled, step: tuple[Array, Array, Scaled]) -> tuple[Scaled, Array]:
        state, x, own = step
        rows = pushed(rows, own)
        return through_step(flat, rows, state, x), log_norms(rows, wrt)

    nothing = rescale(jnp.zeros((inputs.shape[0] + 1, 1, flat.initial.size)))
    rows, seen = jax.lax.scan(back, nothing, (states, inputs, direct), reverse=True)
    no_loss = rescale(jnp.zeros((1, flat.initial.size)))
    return by_pair(jnp.concatenate([log_norms(pushed(rows, no_loss), wrt)[None], seen]))


def pushed(rows: Scaled, own: Scaled) -> Scaled:
    """Rows by lag one step further back: each moves up by one lag, the step's own gets lag 0."""
    return join([Scaled(own.unit[None], own.log_scale[None]), jax.tree.map(lambda x: x[:-1], rows)])


def through_step(flat: FlatCell, rows: Scaled, state: Array, x: Array) -> Scaled:
    """Row vectors times the step Jacobian at a state."""
    jacobian = jax.jacfwd(flat.step)(state, x).astype(rows.unit.dtype)
    stacked = multiply(rows.unit.reshape(-1, flat.initial.size), jacobian)
    return rescale(stacked.reshape(rows.unit.shape), rows.log_scale)


def log_norms(rows: Scaled, span: Span) -> Float[Array, "*rows"]:
    """Log norms of some components of row vectors."""
    return rescale(rows.unit[..., slice(*span)], rows.log_scale).log_scale


def by_pair(by_lag: Float[Array, "K lags"]) -> Float[Array, "lags K"]:
    """From [k, lag] to [t, k], −inf where k > t."""
    steps = jnp.arange(by_lag.shape[0])
    lag = steps[:, None] - steps[None, :]
    return jnp.where(lag >= 0, by_lag[steps[None, :], lag], -jnp.inf)


def _add(one: Scaled, other: Scaled) -> Scaled:
    common = jnp.maximum(one.log_scale, other.log_scale)
    common = jnp.where(jnp.isfinite(common), common, 0)
    in_common = [x.unit * jnp.exp(x.log_scale - common) for x in (one, other)]
    return rescale(in_common[0] + in_common[1], common)
