"""Backpropagation through time (BPTT) as the explicit sum that textbooks write down.

    ∂L/∂W = Σ_t Σ_k ∂L⁽ᵗ⁾/∂s⁽ᵗ⁾ · ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ · ∂⁺s⁽ᵏ⁾/∂W

with ∂⁺ the immediate derivative (Werbos 1990; Pascanu et al. 2013, eq. 3–5).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from gradlab.jacobian.adjoints import (
    Loss,
    by_pair,
    checked_targets,
    direct_gradients,
    loss_gradient,
    shift_lags,
    through_step,
)
from gradlab.jacobian.arguments import arrays, numbers
from gradlab.jacobian.carry import FlatState, is_complex, is_inexact, real_vector
from gradlab.jacobian.closure import Closure, closure_convert, is_read
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import (
    FlatCell,
    check_inputs,
    check_linear,
    flatten_cell,
    split_weights,
)
from gradlab.jacobian.lengths import absent, padded_lengths, resting, without_padding
from gradlab.jacobian.products import Scaled, rescale
from gradlab.jacobian.pure_step import PureStep, check_kind, leaves_by_path, pure_step
from gradlab.jacobian.transforms import in_float64

ROWS = 32  # adjoints whose weight gradients are in memory at once

Weights = dict[str, Array]


class Backpropagation(NamedTuple):
    """The terms of backpropagation through time, for each weight array by its dotted path.

    Attributes:
        log_norms: [..., t, k] is the log norm of the term (t, k) in nats; −inf where k > t or
            k = 0, since no weight acts on the initial state; NaN past a sample's end.
        by_lag: [j] is the sum of all terms of lag t − k = j, over time and batch, in units of
            exp(log_scale). The gradient is their sum over j.
        log_scale: the common scale of by_lag.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> terms = gradlab.backpropagate(cell, x, loss, jnp.zeros((4, 20, 8)))
        >>> terms.by_lag["dense_h.kernel"].shape  # by lag, from 0 to T − 1
        (20, 8, 8)
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
    lengths: Int[Array, "*batch"] | None = None,
) -> dict[str, Float[Array, "*batch T+1 T+1"]]:
    """Return the log norm of each term (t, k) of backpropagation through time, in nats.

    The term is ∂L⁽ᵗ⁾/∂s⁽ᵗ⁾ · ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ · ∂⁺s⁽ᵏ⁾/∂W, with ∂⁺ the immediate derivative; its norm is
    taken over the whole weight array W, with respect to its real and imaginary parts if it is
    complex. These are the `log_norms` of `backpropagate`.

    Args:
        cell, inputs, loss, targets, initial_carry, parameters, lengths: as in `backpropagate`.

    Returns:
        [..., t, k] for each weight array by its dotted path ("dense_h.kernel"), float32; −inf where
        k > t or k = 0, NaN where t or k is past a sample's end.

    Raises:
        ValueError, FloatingPointError: as `backpropagate`.

    References:
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> terms = gradlab.contribution_log_norms(cell, x, loss, jnp.zeros((4, 20, 8)))
        >>> terms["dense_h.kernel"].shape  # [..., t, k]
        (4, 21, 21)
    """
    return backpropagate(
        cell,
        inputs,
        loss,
        targets,
        initial_carry=initial_carry,
        parameters=parameters,
        lengths=lengths,
    ).log_norms


def backpropagate(
    cell: nnx.RNNCellBase | Callable[..., Any],
    inputs: Float[Array, "*batch T features"],
    loss: Loss,
    targets: PyTree,
    *,
    initial_carry: PyTree | None = None,
    parameters: PyTree | None = None,
    lengths: Int[Array, "*batch"] | None = None,
) -> Backpropagation:
    """Return every term of backpropagation through time, and their sums by lag.

        ∂L/∂W = Σ_t Σ_k ∂L⁽ᵗ⁾/∂s⁽ᵗ⁾ · ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ · ∂⁺s⁽ᵏ⁾/∂W

    L is the loss summed over time and batch, ∂⁺ the immediate derivative, with s⁽ᵏ⁻¹⁾ held fixed.
    For complex weights ∂/∂W is ∂/∂Re W − i ∂/∂Im W, as `jax.grad` has it. A sample takes O(T² |W|)
    time and O(T |W|) memory, |W| the number of weights.

    Args:
        cell: any flax.nnx.RNNCellBase, or, with `parameters`, any function
            step(parameters, carry, x) -> (carry, y).
        inputs: (time, features) or (batch, time, features).
        loss: L⁽ᵗ⁾ as a function loss(carry, target) of the carry s⁽ᵗ⁾ in the cell's own form; what
            turns the carry into an output belongs in it.
        targets: second argument of each step's loss: arrays (time, ...) or (batch, time, ...).
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch, or of every sample, with the batch's
            leading axis; by default the cell's own.
        parameters: the weights of a plain step function.
        lengths: the number of steps of each sample; inputs and targets that follow are padding,
            which may hold anything, has no loss and adds to no sum. By default all steps.

    Returns:
        A `Backpropagation`, whose weight arrays are named by dotted path ("dense_h.kernel").

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state, a Jacobian or the loss is not finite; the message says which.

    References:
        Werbos 1990, Backpropagation through time: what it does and how to do it.
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> terms = gradlab.backpropagate(cell, x, loss, jnp.zeros((4, 20, 8)))
        >>> sorted(terms.by_lag), terms.log_norms["dense_h.kernel"].shape
        (['dense_h.kernel', 'dense_i.bias', 'dense_i.kernel'], (4, 21, 21))
        >>> gradient = terms.by_lag["dense_h.kernel"].sum(axis=0) * jnp.exp(terms.log_scale)
        >>> gradient.shape
        (8, 8)
    """
    inputs = numbers("inputs", inputs)
    parameters = arrays("parameters", parameters)
    check_inputs(inputs)
    check_kind(cell)
    if not isinstance(cell, nnx.Module) and not _has_weights(parameters):
        raise ValueError(
            "parameters is needed with a plain function: pass the weights, real or complex "
            "numbers, that step(parameters, carry, x) takes as its first argument."
        )
    pure = pure_step(cell, parameters)
    _check_weights(pure, inputs.shape[-1], initial_carry)
    flat = flatten_cell(cell, inputs, initial_carry, parameters)
    targets = checked_targets(targets, inputs)
    lengths = padded_lengths(lengths, inputs)
    if lengths is not None:
        inputs, targets = without_padding((inputs, targets), lengths)
        flat = resting(flat, lengths, inputs)
    gradient = loss_gradient(loss, flat, targets)
    terms = in_float64(_terms, flat, _weight_gradient(flat, inputs), gradient, inputs, targets)
    check_finite(terms.log_norms, flat, inputs)
    if lengths is None:
        return terms
    log_norms = {name: absent(norms, lengths) for name, norms in terms.log_norms.items()}
    return terms._replace(log_norms=log_norms)


def _has_weights(parameters: PyTree) -> bool:
    return any(map(is_inexact, jax.tree.leaves(parameters)))


def _check_weights(pure: PureStep, features: int, initial_carry: PyTree | None) -> None:
    """Check that no weight acts on the initial state."""
    arrays = leaves_by_path(pure.parameters)
    if initial_carry is not None or pure.carry_of is None:
        return
    carry_of = pure.carry_of
    reads = is_read(lambda weights: carry_of(weights, features), pure.parameters)
    if any(reads):
        names = ", ".join(name for name, read in zip(arrays, reads, strict=True) if read)
        raise ValueError(
            f"the cell's initial carry depends on its weights {names}, and s⁽⁰⁾ is held fixed "
            "here: pass it as initial_carry, and the terms of all other weights are measured."
        )


def _weight_gradient(flat: FlatCell, inputs: Float[Array, "*batch T features"]) -> Closure:
    """Return row · ∂⁺s⁽ᵏ⁾/∂W as a function of (parameters, s⁽ᵏ⁻¹⁾, x⁽ᵏ⁾, rows), for many rows."""
    state = flat.example
    x = jax.ShapeDtypeStruct(inputs.shape[-1:], inputs.dtype)
    count = min(ROWS, inputs.shape[-2])
    rows = jax.ShapeDtypeStruct((count, flat.form.size), state.vector.dtype)

    def gradient(parameters: PyTree, state: FlatState, x: Array, rows: Array) -> Weights:
        weights, rebuild = split_weights(parameters)

        def step(weights: Weights) -> Array:
            return replace(flat, parameters=rebuild(weights)).step(state, x).vector

        (terms,) = jax.vmap(jax.vjp(step, weights)[1])(rows)
        return terms

    if "custom_vjp_call" in str(flat.advance.program.jaxpr):  # its rule could be of any kind
        check_linear(
            lambda rows, weights, state, x: gradient(weights, state, x, rows),
            rows,
            flat.parameters,
            state,
            x,
        )
    return closure_convert(gradient, flat.parameters, state, x, rows)


@jax.jit
def _terms(
    flat: FlatCell,
    weight_gradient: Closure,
    loss_gradient: Closure,
    inputs: Float[Array, "*batch T features"],
    targets: PyTree,
) -> Backpropagation:
    length = inputs.shape[-2]
    weights, _ = split_weights(flat.parameters)

    def one_sample(
        flat: FlatCell, sums: _Sums, inputs: Float[Array, "T features"], targets: PyTree
    ) -> tuple[_Sums, Weights]:
        states, direct = direct_gradients(flat, inputs, targets, loss_gradient)

        def back(
            later: tuple[Scaled, _Sums], step_data: tuple[FlatState, Array, Scaled]
        ) -> tuple[tuple[Scaled, _Sums], Weights]:
            state, x, gradient = step_data
            rows = shift_lags(later[0], gradient)

            def terms(rows: Float[Array, "rows n"]) -> Weights:
                rows = rows.astype(state.vector.dtype)
                return weight_gradient(flat.parameters, state, x, rows)

            sums, log_norms = _add_terms(terms, rows, later[1])
            return (through_step(flat, rows, state, x), sums), log_norms

        zeros = rescale(jnp.zeros((_padded(length), 1, flat.form.size)))
        start = (zeros, sums)
        (_, sums), by_lag = jax.lax.scan(back, start, (states, inputs, direct), reverse=True)
        return sums, {name: _with_step_zero(x, length) for name, x in by_lag.items()}

    sums = _Sums(
        {
            name: jnp.zeros(
                (_padded(length), *w.shape), jnp.complex128 if is_complex(w) else jnp.float64
            )
            for name, w in weights.items()
        },
        jnp.array(-jnp.inf),
    )
    if flat.has_batch:
        sums, log_norms = jax.lax.scan(
            lambda sums, sample: one_sample(
                replace(flat, has_batch=False, initial=sample[0]), sums, *sample[1:]
            ),
            sums,
            (flat.initial, inputs, targets),
        )
    else:
        sums, log_norms = one_sample(flat, sums, inputs, targets)
    by_lag = {name: x[:length].astype(weights[name].dtype) for name, x in sums.by_lag.items()}
    dtype = jnp.result_type(*(x.real for x in by_lag.values()))
    return Backpropagation(log_norms, by_lag, sums.log_scale.astype(dtype))


def _add_terms(
    terms_of: Callable[[Float[Array, "rows n"]], Weights], rows: Scaled, sums: _Sums
) -> tuple[_Sums, Weights]:
    """Add the terms of one k and every lag to the sums by lag.

    Args:
        terms_of: the terms of `ROWS` adjoints, by the name of the weights.
        rows: the adjoints ∂L⁽ᵗ⁾/∂s⁽ᵏ⁾ by lag t − k.
        sums: the sums so far.

    Returns:
        The new sums, and the log norms of these terms by lag.
    """
    highest = jax.lax.stop_gradient(jnp.maximum(sums.log_scale, jnp.max(rows.log_scale)))
    scale = jnp.where(jnp.isfinite(highest), highest, 0)  # −inf: no loss yet, all is zero
    by_lag = {name: x * jnp.exp(sums.log_scale - scale) for name, x in sums.by_lag.items()}
    norms = {name: jnp.full(rows.log_scale.size, -jnp.inf) for name in by_lag}
    size = min(ROWS, rows.log_scale.size)
    # Rows of lags beyond the sequence's end are zero: their chunks are skipped. One that is not
    # finite is kept, so that the measurement is refused.
    is_zero = jnp.isneginf(rows.log_scale)
    filled = jnp.max(jnp.where(is_zero, -1, jnp.arange(rows.log_scale.size)))

    def add(index: Array, state: tuple[Weights, Weights]) -> tuple[Weights, Weights]:
        begin = index * size
        chunk = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, begin, size), rows)
        by_lag, norms = dict(state[0]), dict(state[1])
        for name, term in terms_of(chunk.unit[:, 0]).items():
            term = term.astype(by_lag[name].dtype)
            scaled = term * jnp.exp(chunk.log_scale - scale).reshape(-1, *[1] * (term.ndim - 1))
            old = jax.lax.dynamic_slice_in_dim(by_lag[name], begin, size)
            by_lag[name] = jax.lax.dynamic_update_slice_in_dim(by_lag[name], old + scaled, begin, 0)
            parts = jax.vmap(real_vector)(term)
            logs = rescale(parts[:, None], chunk.log_scale).log_scale
            norms[name] = jax.lax.dynamic_update_slice_in_dim(norms[name], logs, begin, 0)
        return by_lag, norms

    def add_filled(
        state: tuple[Weights, Weights], index: Array
    ) -> tuple[tuple[Weights, Weights], None]:
        return jax.lax.cond(index * size <= filled, add, lambda _, s: s, index, state), None

    chunks = jnp.arange(rows.log_scale.size // size, dtype=jnp.int32)
    (by_lag, norms), _ = jax.lax.scan(add_filled, (by_lag, norms), chunks)
    return _Sums(by_lag, highest), norms


def _padded(length: int) -> int:
    """Return the number of lags, rounded up to whole chunks."""
    size = min(ROWS, length)
    return -(-length // size) * size


def _with_step_zero(by_lag: Float[Array, "T lags"], length: int) -> Float[Array, "T+1 T+1"]:
    """Rearrange log norms at [k − 1, lag] to [t, k], −inf where k = 0."""
    table = jnp.full((length + 1, length + 1), -jnp.inf).at[1:, :-1].set(by_lag[:, :length])
    return by_pair(table).astype(jnp.float32)
