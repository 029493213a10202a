"""Backpropagation through time as the explicit sum that lectures write down.

    ∂L/∂W = Σ_t Σ_k ∂L⁽ᵗ⁾/∂s⁽ᵗ⁾ · ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ · ∂⁺s⁽ᵏ⁾/∂W

with ∂⁺ the immediate derivative (Werbos 1990; Pascanu et al. 2013, eq. 3–5).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.adjoints import (
    Loss,
    as_partial,
    by_pair,
    direct_gradients,
    pushed,
    through_step,
)
from gradlab.jacobian.finite import refuse_not_finite
from gradlab.jacobian.flat_cell import (
    check_inputs,
    flatten_cell,
    join_cell,
    split_cell,
    split_weights,
)
from gradlab.jacobian.products import Scaled, rescale

ROWS = 32  # adjoints whose weight gradients are held at once

Weights = dict[str, Array]


class Backpropagation(NamedTuple):
    """The terms of backpropagation through time, per weight array.

    `log_norms[name][..., t, k]` is the log norm of one term in nats, −inf where k > t or k = 0 (no
    weight acts on the initial state). `by_lag[name][j]` is the sum, over time and batch, of all
    terms of lag j, in units of exp(log_scale): summed over j they are the gradient.
    """

    log_norms: dict[str, Float[Array, "*batch T+1 T+1"]]
    by_lag: dict[str, Float[Array, "T *weight"]]
    log_scale: Float[Array, ""]


class _Sums(NamedTuple):
    by_lag: dict[str, Float[Array, "lags *weight"]]
    log_scale: Float[Array, ""]


def contribution_log_norms(
    cell: nnx.RNNCellBase | Callable[..., Any],
    inputs: Float[Array, "*batch T features"],
    loss: Loss,
    targets: PyTree,
    *,
    initial_carry: PyTree | None = None,
    parameters: PyTree | None = None,
) -> dict[str, Float[Array, "*batch T+1 T+1"]]:
    """Log norms of the terms (t, k) of backpropagation through time; see `backpropagate`."""
    return backpropagate(
        cell, inputs, loss, targets, initial_carry=initial_carry, parameters=parameters
    ).log_norms


def backpropagate(
    cell: nnx.RNNCellBase | Callable[..., Any],
    inputs: Float[Array, "*batch T features"],
    loss: Loss,
    targets: PyTree,
    *,
    initial_carry: PyTree | None = None,
    parameters: PyTree | None = None,
) -> Backpropagation:
    """Every term of backpropagation through time, of the loss summed over time and batch.

    Args:
        cell: any flax.nnx.RNNCellBase, or, with `parameters`, any function
            step(parameters, carry, x) -> (carry, y).
        inputs: (time, features) or (batch, time, features).
        loss: L⁽ᵗ⁾ as a function loss(carry, target) of the carry s⁽ᵗ⁾ in the cell's own form; one
            with weights that change (a readout's) is a jax.tree_util.Partial(function, weights).
        targets: what each step's loss is given: arrays that begin with (time,) or (batch, time).
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch; by default the cell's own.
        parameters: the weights of a plain step function.

    Returns:
        Weight arrays go by their dotted path ("dense_h.kernel"). Time is O(T² |W|) a sample, memory
        O(T |W|).

    Raises:
        ValueError: an argument is not one of those above; the sentence says what is allowed.
        FloatingPointError: a number on the way is not finite; the sentence names its step.
    """
    check_inputs(inputs)
    definition, arrays = split_cell(cell, parameters)
    if not jax.tree.leaves(arrays):
        raise ValueError(
            "parameters is needed with a plain function: pass the weights that "
            "step(parameters, carry, x) takes as its first argument."
        )
    with jax.enable_x64(True):
        data = (jnp.asarray(inputs), targets)
        found = _terms(arrays, initial_carry, data, as_partial(loss), definition=definition)
    refuse_not_finite(found.log_norms, join_cell(definition, arrays), inputs, initial_carry)
    return found


@partial(jax.jit, static_argnames=("definition",))
def _terms(
    parameters: PyTree,
    initial_carry: PyTree | None,
    data: tuple[Float[Array, "*batch T features"], PyTree],
    loss: Partial,
    *,
    definition: nnx.GraphDef | Callable[..., Any],
) -> Backpropagation:
    length, features = data[0].shape[-2:]
    weights, rebuild = split_weights(parameters)
    flat = flatten_cell(join_cell(definition, parameters), features, initial_carry)

    def step(weights: Weights, state: Array, x: Array) -> Array:
        cell = join_cell(definition, rebuild(weights))
        return flatten_cell(cell, features, initial_carry).step(state, x)

    def one_sample(sums: _Sums, sample: tuple[Array, PyTree]) -> tuple[_Sums, Weights]:
        inputs, targets = sample
        states, direct = direct_gradients(flat, inputs, targets, loss)

        def back(
            later: tuple[Scaled, _Sums], at: tuple[Array, Array, Scaled]
        ) -> tuple[tuple[Scaled, _Sums], Weights]:
            state, x, own = at
            rows = pushed(later[0], own)
            sums, seen = _add_terms(lambda w: step(w, state, x), weights, rows, later[1])
            return (through_step(flat, rows, state, x), sums), seen

        nothing = rescale(jnp.zeros((_padded(length), 1, flat.initial.size)))
        begin = (nothing, sums)
        (_, sums), seen = jax.lax.scan(back, begin, (states[:-1], inputs, direct), reverse=True)
        return sums, {name: _with_step_zero(x, length) for name, x in seen.items()}

    empty = {name: jnp.zeros((_padded(length), *w.shape)) for name, w in weights.items()}
    scan = one_sample if data[0].ndim == 2 else partial(jax.lax.scan, one_sample)
    sums, log_norms = scan(_Sums(empty, jnp.array(-jnp.inf)), data)
    by_lag = {name: x[:length].astype(weights[name].dtype) for name, x in sums.by_lag.items()}
    kind = jnp.result_type(*by_lag.values())
    return Backpropagation(log_norms, by_lag, sums.log_scale.astype(kind))


def _add_terms(
    step: Callable[[Weights], Array], weights: Weights, rows: Scaled, sums: _Sums
) -> tuple[_Sums, Weights]:
    """The terms of one k and every lag: added to the sums by lag, and their log norms."""
    value, pullback = jax.vjp(step, weights)
    highest = jnp.maximum(sums.log_scale, jnp.max(rows.log_scale))
    unit = jnp.where(jnp.isfinite(highest), highest, 0)  # no loss yet: everything is zero
    by_lag = {name: x * jnp.exp(sums.log_scale - unit) for name, x in sums.by_lag.items()}
    norms = {name: jnp.full(rows.log_scale.size, -jnp.inf) for name in weights}
    size = min(ROWS, rows.log_scale.size)

    def add(index: Array, state: tuple[Weights, Weights]) -> tuple[Weights, Weights]:
        begin = index * size
        some = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, begin, size), rows)
        (terms,) = jax.vmap(pullback)(some.unit[:, 0].astype(value.dtype))
        by_lag, norms = dict(state[0]), dict(state[1])
        for name, term in terms.items():
            term = term.astype(jnp.float64)
            scaled = term * jnp.exp(some.log_scale - unit).reshape(-1, *[1] * (term.ndim - 1))
            old = jax.lax.dynamic_slice_in_dim(by_lag[name], begin, size)
            by_lag[name] = jax.lax.dynamic_update_slice_in_dim(by_lag[name], old + scaled, begin, 0)
            logs = rescale(term.reshape(size, 1, -1), some.log_scale).log_scale
            norms[name] = jax.lax.dynamic_update_slice_in_dim(norms[name], logs, begin, 0)
        return by_lag, norms

    # Lags beyond the sequence's end hold nothing: their chunks are not visited.
    filled = jnp.max(jnp.where(jnp.isfinite(rows.log_scale), jnp.arange(rows.log_scale.size), -1))
    by_lag, norms = jax.lax.fori_loop(0, filled // size + 1, add, (by_lag, norms))
    return _Sums(by_lag, highest), norms


def _padded(length: int) -> int:
    size = min(ROWS, length)
    return -(-length // size) * size


def _with_step_zero(by_lag: Float[Array, "T lags"], length: int) -> Float[Array, "T+1 T+1"]:
    table = jnp.full((length + 1, length + 1), -jnp.inf).at[1:, :-1].set(by_lag[:, :length])
    return by_pair(table).astype(jnp.float32)
