"""The largest singular values of products ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ of step Jacobians that are never formed.

Subspace iteration with P = ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾: a few orthonormal vectors Z go forward through the steps,
P Z = Q diag(eᵈ) N, and those of Q go backward, Pᵀ Q, which gives the next Z. They are made
orthonormal again at every step, as in singular.py, so that small values keep their digits. The
singular values of P Z rise from sweep to sweep to the largest ones of P, and never exceed them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradlab.jacobian.carry import FlatState, Span
from gradlab.jacobian.directions import Directions, stretch_along
from gradlab.jacobian.flat_cell import FlatCell
from gradlab.jacobian.graded import extend_graded, graded_log_values
from gradlab.jacobian.steps import random_frame

SWEEPS = 100  # back and forth, at most; from lag 10 or so on, a few are enough
ROUNDING = 8  # of the cell's ε: a rise by less is none


class Factors(NamedTuple):
    """The factors of the products ∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾ of one sample.

    Attributes:
        flat: the cell, of this sample.
        directions: its derivative along vectors, both ways.
        states: s⁽⁰⁾..s⁽ᵀ⁻¹⁾.
        inputs: (time, features).
        of, wrt: the rows and the columns.
    """

    flat: FlatCell
    directions: Directions
    states: FlatState
    inputs: Float[Array, "T features"]
    of: Span
    wrt: Span


class Largest(NamedTuple):
    """The logs of the largest singular values of products, in nats, from below.

    Attributes:
        log_values: descending; NaN where rounding left nothing.
        remaining: how far below their limits the sweeps ended: the larger of two estimates of the
            rises to come. Where a gap in the spectrum leads, they fall as a geometric series; where
            values lie close, what remains after j sweeps falls as 1/j.
    """

    log_values: Float[Array, "pairs count"]
    remaining: Float[Array, "pairs count"]


class _Sweep(NamedTuple):
    number: Array
    left: Float[Array, "rows block"]
    log_values: Float[Array, "count"]
    rise: Float[Array, "count"]
    remaining: Float[Array, "count"]


def largest_log_values(
    factors: Factors,
    pairs: Int[Array, "pairs 2"],
    *,
    count: int,
    block: int,
    tolerance: float,
) -> Largest:
    """Return the `count` largest singular values of ∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾ for pairs (t, k).

    Args:
        factors: of the products.
        pairs: (t, k) with k ≤ t.
        count: of the values.
        block: the number of vectors, from `count` to the smaller size of `of` and `wrt`; with more
            of them fewer sweeps are needed.
        tolerance: sweeps end where no value is further below its limit, in nats.
    """
    rounding = ROUNDING * float(jnp.finfo(factors.states.vector.dtype).eps)

    def one_pair(pair: Int[Array, "2"]) -> Largest:
        def sweep(last: _Sweep) -> _Sweep:
            right = _backward(factors, last.left, pair)
            left, values = _forward(factors, right, pair)
            log_values = values[:count]
            change = jnp.where(log_values == last.log_values, 0, log_values - last.log_values)
            rise = jnp.where(change > rounding, change, 0)  # of what was lost, NaN, there is none
            rate = jnp.where(jnp.isfinite(last.rise) & (last.rise > 0), rise / last.rise, 0)
            rate = jnp.minimum(rate, 0.99)
            number = last.number + 1
            remaining = rise * jnp.maximum(number, rate / (1 - rate))
            return _Sweep(number, left, log_values, rise, remaining)

        def goes_on(last: _Sweep) -> Bool[Array, ""]:
            return (last.number < SWEEPS) & jnp.any(last.remaining > tolerance)

        infinite = jnp.full(count, jnp.inf)
        left = random_frame(factors.of[1] - factors.of[0], block)
        start = _Sweep(jnp.array(0), left, -infinite, infinite, infinite)
        last = jax.lax.while_loop(goes_on, sweep, start)
        return Largest(last.log_values, last.remaining)

    return jax.lax.map(one_pair, pairs)


class _Product(NamedTuple):
    """Q diag(eᵈ) N, and which d rounding left."""

    q: Float[Array, "n block"]
    grade: Float[Array, "block"]
    unit: Float[Array, "block block"]
    resolved: Bool[Array, "block"]


def _forward(
    factors: Factors, right: Float[Array, "columns block"], pair: Int[Array, "2"]
) -> tuple[Float[Array, "rows block"], Float[Array, "block"]]:
    """Return an orthonormal basis of P Z, and the log singular values of P Z."""
    end, begin = pair
    block = right.shape[1]

    def extended(product: _Product, q: Array, triangle: Array, resolved: Array) -> _Product:
        signs = jnp.where(jnp.diagonal(triangle) < 0, -1, 1)  # grades are logs: they hold no sign
        grade, unit = extend_graded(triangle, product.grade, product.unit)
        return _Product(q * signs, grade, unit, product.resolved & resolved)

    def advance(i: Array, product: _Product) -> _Product:
        state, x = jax.tree.map(lambda leaf: leaf[i], (factors.states, factors.inputs))
        stretched = stretch_along(factors.flat, factors.directions, state, x, product.q)
        return extended(product, *stretched[:3])

    frame = _embedded(right, factors.wrt, factors.flat.form.size)
    start = _Product(frame, jnp.zeros(block), jnp.eye(block), jnp.full(block, True))
    whole = jax.lax.fori_loop(begin, end, advance, start)
    q, triangle = jnp.linalg.qr(whole.q[slice(*factors.of)])
    own, diagonal = factors.states.vector.dtype, jnp.abs(jnp.diagonal(triangle))
    resolved = (diagonal > jnp.finfo(own).eps) | (diagonal == 0)
    product = extended(whole, q, triangle, resolved)
    return product.q, graded_log_values(product.grade, product.unit, product.resolved, own)


def _backward(
    factors: Factors, left: Float[Array, "rows block"], pair: Int[Array, "2"]
) -> Float[Array, "columns block"]:
    """Return an orthonormal basis of Pᵀ Q."""
    end, begin = pair

    def back(i: Array, frame: Float[Array, "n block"]) -> Float[Array, "n block"]:
        at = end - 1 - (i - begin)
        state, x = jax.tree.map(lambda leaf: leaf[at], (factors.states, factors.inputs))
        rows = frame.T.astype(state.vector.dtype)
        pulled = factors.directions.pull(factors.flat, state, x, rows)
        return jnp.linalg.qr(pulled.T.astype(frame.dtype))[0]

    frame = _embedded(left, factors.of, factors.flat.form.size)
    frame = jax.lax.fori_loop(begin, end, back, frame)
    return jnp.linalg.qr(frame[slice(*factors.wrt)])[0]


def _embedded(part: Float[Array, "m block"], span: Span, n: int) -> Float[Array, "n block"]:
    """Return vectors of a part of the state as vectors of the whole, zero elsewhere."""
    return jnp.zeros((n, part.shape[1]), part.dtype).at[slice(*span)].set(part)
