"""All singular values of chosen products ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾, however small.

The singular values of a product of many steps span hundreds of orders of magnitude; the product
itself, in float64, keeps those within 1e-16 of the largest. Two passes of QR factorisations keep
the others (Geist, Parlitz & Lauterborn 1990; Stewart 1997). A backward pass ends in a frame Z that
approximates the right singular vectors. A forward pass from there gives P = Q · diag(eᵈ) N · Zᵀ,
with grades d and N unit upper triangular of moderate size. QR iterations on the graded factor
diag(eᵈ) N then converge to its singular values.
"""

import reprlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradlab.jacobian.arguments import whole_number
from gradlab.jacobian.carry import Span
from gradlab.jacobian.complex_norms import own_jacobian
from gradlab.jacobian.directions import Directions, directions_of, sizes_along
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.graded import are_trusted, extend_graded, graded_log_values
from gradlab.jacobian.products import extend, multiply, rescale, safe_log
from gradlab.jacobian.steps import (
    jacobians_along,
    one_sequence,
    random_frame,
    stretch,
    trajectory,
)
from gradlab.jacobian.subspace import Factors, largest_log_values
from gradlab.jacobian.transforms import in_float64

OVERSAMPLING = 8  # vectors beyond twice the count, with which the largest values are found
TOLERANCE, UNSETTLED = 3e-4, 1e-3  # nats below its limit: where sweeps end, and what is not shown


def log_singular_values(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "T features"],
    pairs: Sequence[tuple[int, int]],
    *,
    initial_carry: PyTree | None = None,
    of: str | None = None,
    wrt: str | None = None,
    count: int | None = None,
) -> Float[Array, "pairs count"]:
    """Return log σᵢ of ∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾ for chosen pairs (t, k), descending, in nats.

    Values above 1e-6 of the largest (1e-8 where the cell computes in float64) are exact to
    rounding. Smaller ones of a whole carry are within 1e-3 nats where neighbouring values lie 5 %
    apart. NaN are smaller ones of a block, and those of which a step leaves no more than the
    rounding errors of the cell's own precision, in float32 1e-7 of its terms (saturated units, or
    those that a ReLU switches off); −inf is an exact zero.

    A `count` far below the size of the carry takes no step Jacobians, and memory for a few vectors
    only. The values then approach their limits from below, to 1e-3 nats or a few rounding errors
    of the cell's own precision; those that do not, in 100 sweeps over the steps, are NaN.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features), of one sample.
        pairs: (t, k) with 0 ≤ k ≤ t ≤ T.
        initial_carry: s⁽⁰⁾; by default the cell's own.
        of, wrt: None for the whole carry, else a part of it by name ("h", "c"; "layer0.h"). In a
            stack "h" is that of the top layer.
        count: number of values, from the largest down; by default all, as many as the smaller of
            `of` and `wrt` has numbers.

    Returns:
        float32 (pairs, count). A holomorphic step of complex numbers, as in `lyapunov_spectrum`,
        has one value for each of them; any other step those of the real-linear map, in which a
        complex number is two.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state or Jacobian is not finite; the message names its step.

    References:
        Geist, Parlitz & Lauterborn 1990 and Stewart 1997: products of matrices by repeated QR.

    Example:
        >>> log_values = gradlab.log_singular_values(cell, x[0], [(20, 15), (20, 0)])
        >>> log_values.shape
        (2, 8)
        >>> spread = log_values[:, 0] - log_values[:, -1]  # ln σ₁/σₙ grows with the lag
        >>> bool(spread[1] > spread[0])
        True
        >>> gradlab.log_singular_values(cell, x[0], [(20, 0)], count=1).shape
        (1, 1)
    """
    inputs = one_sequence(inputs)
    chosen = _checked_pairs(pairs, inputs.shape[0])
    flat = flatten_cell(cell, inputs, initial_carry)
    rows, columns = flat.form.span(of, "of"), flat.form.span(wrt, "wrt")
    most = min(rows[1] - rows[0], columns[1] - columns[0]) // (2 if flat.is_holomorphic else 1)
    block = 0
    if count is not None:
        count = whole_number("count", count, 1, most, "the smaller size of of and wrt")
        block = _few_vectors(count, most, flat.form.size)
    log_values, largest = in_float64(
        partial(_log_singular_values, of=rows, wrt=columns, count=count or most, block=block),
        flat,
        directions_of(flat, inputs, backward=True) if block else None,
        inputs,
        chosen,
        not_differentiable="singular values of all sizes cannot be differentiated here: use "
        "lyapunov_exponents, or jacobian_log_norms with norm='frobenius'.",
    )
    check_finite(largest, flat, inputs)
    return log_values


def _checked_pairs(pairs: Any, length: int) -> Int[np.ndarray, "pairs 2"]:
    """Return the pairs (t, k) as an array."""
    try:
        chosen = np.asarray(list(pairs))
    except (TypeError, ValueError):  # no sequence, or one of pairs of unequal length
        chosen = np.empty(0, object)
    if chosen.ndim == 2 and chosen.shape[1] == 2 and np.issubdtype(chosen.dtype, np.integer):
        t, k = chosen.T
        chosen_wrongly = [*map(tuple, chosen[~((k >= 0) & (k <= t) & (t <= length))].tolist())]
        if not chosen_wrongly:
            return chosen
    else:
        chosen_wrongly = pairs
    given = "none" if np.size(chosen) == 0 and not chosen_wrongly else reprlib.repr(chosen_wrongly)
    raise ValueError(
        f"pairs must be (t, k) with 0 ≤ k ≤ t ≤ {length}, whole numbers, as [(20, 10), (20, 0)]; "
        f"got {given}."
    )


def _few_vectors(count: int, most: int, n: int) -> int:
    """Return the number of vectors that find `count` singular values; 0 if they are too many.

    Step Jacobians take no more than n vectors, and need no sweeps.
    """
    block = min(most, 2 * count + OVERSAMPLING)
    return block if 2 * block <= n else 0


@partial(jax.jit, static_argnames=("of", "wrt", "count", "block"))
def _log_singular_values(
    flat: FlatCell,
    directions: Directions | None,
    inputs: Float[Array, "T features"],
    pairs: Int[Array, "pairs 2"],
    *,
    of: Span,
    wrt: Span,
    count: int,
    block: int,
) -> tuple[Float[Array, "pairs count"], Float[Array, "T"]]:
    """Return the log singular values, and the log of each step Jacobian's size.

    Args:
        flat, inputs, pairs, of, wrt, count: those of the measurement.
        directions: the derivative along vectors; None to take the step Jacobians themselves.
        block: the number of vectors.
    """
    if directions is not None:
        states, _ = trajectory(flat, inputs)
        factors = Factors(flat, directions, states, inputs, of, wrt)
        log_values, remaining = largest_log_values(
            factors, pairs, count=count, block=block, tolerance=TOLERANCE
        )
        log_values = jnp.where(remaining < UNSETTLED, log_values, jnp.nan)
        sizes = safe_log(sizes_along(flat, directions, states, inputs))
        return log_values.astype(jnp.float32), sizes.astype(jnp.float32)
    jacobians = jacobians_along(flat, inputs)
    own = own_jacobian(flat, jacobians)
    n = own.shape[-1]
    frame = random_frame(n, n).astype(jnp.promote_types(own.dtype, jnp.float64))

    def one_pair(pair: Int[Array, "2"]) -> Float[Array, "m"]:
        end, begin = pair
        if of == wrt == (0, flat.form.size):
            return _values_of_whole(own, frame, begin, end)
        # Each value of a complex matrix is there twice in its real-linear map.
        return _values_of_block(jacobians, of, wrt, begin, end)[:: 2 if flat.is_holomorphic else 1]

    log_values = jax.lax.map(one_pair, pairs).astype(jnp.float32)[:, :count]
    largest = safe_log(jnp.max(jnp.abs(jacobians), axis=(1, 2))).astype(jnp.float32)
    return log_values, largest


def _values_of_whole(
    jacobians: Float[Array, "T n n"], frame: Float[Array, "n n"], begin: Array, end: Array
) -> Float[Array, "n"]:
    z = _right_frame(jacobians, frame, begin, end)
    grade, unit, resolved = _forward(jacobians, z, begin, end)
    return graded_log_values(grade, unit, resolved, jacobians.dtype)


def _values_of_block(
    jacobians: Float[Array, "T n n"], of: Span, wrt: Span, begin: Array, end: Array
) -> Float[Array, "m"]:
    """Return the log singular values of a block, from its columns' product with each step."""
    start = rescale(jnp.eye(jacobians.shape[-1])[:, slice(*wrt)])
    columns = jax.lax.fori_loop(
        begin, end, lambda i, columns: extend(columns, jacobians[i].astype(jnp.float64)), start
    )
    block = rescale(columns.unit[slice(*of)], columns.log_scale)
    values = jnp.linalg.svd(block.unit, compute_uv=False)
    smaller = jnp.where(values[0] == 0, -jnp.inf, jnp.nan)
    trusted = are_trusted(values, jacobians.dtype)
    return jnp.where(trusted, jnp.log(values) + block.log_scale, smaller)


def _right_frame(
    jacobians: Array, frame: Float[Array, "n n"], begin: Array, end: Array
) -> Float[Array, "n n"]:
    """Return an orthogonal frame that approximates the right singular vectors of the product."""

    def back(i: Array, frame: Array) -> Array:
        adjoint = jacobians[end - 1 - i].astype(frame.dtype).conj().T
        return jnp.linalg.qr(multiply(adjoint, frame))[0]

    return jax.lax.fori_loop(0, end - begin, back, frame)


def _forward(
    jacobians: Array, frame: Array, begin: Array, end: Array
) -> tuple[Float[Array, "n"], Float[Array, "n n"], Bool[Array, "n"]]:
    """Return (d, N) with J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾ frame = Q diag(eᵈ) N, and which d rounding left."""
    n = frame.shape[0]

    def advance(
        i: Array, state: tuple[Array, Array, Array, Array]
    ) -> tuple[Array, Array, Array, Array]:
        q, grade, unit, resolved = state
        q, triangle, left = stretch(jacobians[i], q)
        signs = jnp.sign(jnp.diagonal(triangle))  # or phases: grades are logs, which hold none
        q = q * jnp.where(signs == 0, 1, signs)
        return q, *extend_graded(triangle, grade, unit), resolved & left

    start = (frame, jnp.zeros(n), jnp.eye(n, dtype=frame.dtype), jnp.full(n, True))
    _, grade, unit, resolved = jax.lax.fori_loop(begin, end, advance, start)
    return grade, unit, resolved
