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

from gradlab.jacobian.carry import Span
from gradlab.jacobian.complex_norms import own_jacobian
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.products import extend, multiply, rescale, safe_log
from gradlab.jacobian.steps import jacobians_along, one_sequence, random_frame, stretch
from gradlab.jacobian.transforms import in_float64

ITERATIONS = 60  # QR on the graded factor: values 5 % apart converge to 1e-3 nats
TRUSTED = 1e-8  # relative to the largest: above it, singular values in float64 are LAPACK's


def log_singular_values(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "T features"],
    pairs: Sequence[tuple[int, int]],
    *,
    initial_carry: PyTree | None = None,
    of: str | None = None,
    wrt: str | None = None,
) -> Float[Array, "pairs m"]:
    """Return log σᵢ of ∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾ for chosen pairs (t, k), descending, in nats.

    Values above 1e-6 of the largest (1e-8 where the cell computes in float64) are exact to
    rounding. Smaller ones of a whole carry are within 1e-3 nats where neighbouring values lie 5 %
    apart. NaN are smaller ones of a block, and those of which a step leaves no more than the
    rounding errors of the cell's own precision, in float32 1e-7 of its terms (saturated units, or
    those that a ReLU switches off); −inf is an exact zero.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features), of one sample.
        pairs: (t, k) with 0 ≤ k ≤ t ≤ T.
        initial_carry: s⁽⁰⁾; by default the cell's own.
        of, wrt: None for the whole carry, else a part of it by name ("h", "c"; "layer0.h"). In a
            stack "h" is that of the top layer.

    Returns:
        float32 (pairs, m), with m the smaller of the sizes of `of` and `wrt`. A holomorphic step of
        complex numbers, as in `lyapunov_spectrum`, has one value for each of them; any other step
        those of the real-linear map, in which a complex number is two.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state or Jacobian is not finite; the message names its step.

    References:
        Geist, Parlitz & Lauterborn 1990 and Stewart 1997: products of matrices by repeated QR.

    Example:
        >>> cell = nnx.SimpleCell(3, 16, rngs=nnx.Rngs(0))
        >>> log_values = log_singular_values(cell, jnp.ones((50, 3)), [(50, 40), (50, 0)])
        >>> spread = log_values[:, 0] - log_values[:, -1]
    """
    inputs = one_sequence(inputs)
    chosen = _checked_pairs(pairs, inputs.shape[0])
    flat = flatten_cell(cell, inputs, initial_carry)
    rows, columns = flat.form.span(of, "of"), flat.form.span(wrt, "wrt")
    log_values, largest = in_float64(
        partial(_log_singular_values, of=rows, wrt=columns),
        flat,
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


@partial(jax.jit, static_argnames=("of", "wrt"))
def _log_singular_values(
    flat: FlatCell,
    inputs: Float[Array, "T features"],
    pairs: Int[Array, "pairs 2"],
    *,
    of: Span,
    wrt: Span,
) -> tuple[Float[Array, "pairs m"], Float[Array, "T"]]:
    """Return the log singular values, and the log of each step Jacobian's largest entry."""
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

    log_values = jax.lax.map(one_pair, pairs).astype(jnp.float32)
    largest = safe_log(jnp.max(jnp.abs(jacobians), axis=(1, 2))).astype(jnp.float32)
    return log_values, largest


def _values_of_whole(
    jacobians: Float[Array, "T n n"], frame: Float[Array, "n n"], begin: Array, end: Array
) -> Float[Array, "n"]:
    z = _right_frame(jacobians, frame, begin, end)
    grade, unit, resolved = _forward(jacobians, z, begin, end)
    highest = jnp.max(grade)
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    values = jnp.linalg.svd(jnp.exp(grade - highest)[:, None] * unit, compute_uv=False)
    lost = jnp.max(jnp.where(resolved, -jnp.inf, grade))
    count = jnp.sum(grade > lost)  # as many values lie above what was lost
    is_kept = (jnp.arange(grade.size) < count) | resolved.all()
    smaller = jnp.where(is_kept, _graded_log_values(grade, unit), jnp.nan)
    return jnp.where(_are_trusted(values, jacobians), jnp.log(values) + highest, smaller)


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
    return jnp.where(_are_trusted(values, jacobians), jnp.log(values) + block.log_scale, smaller)


def _are_trusted(values: Float[Array, "m"], jacobians: Float[Array, "T n n"]) -> Bool[Array, "m"]:
    return values > max(TRUSTED, 8 * float(jnp.finfo(jacobians.dtype).eps)) * values[0]


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
        return q, *_graded(triangle, grade, unit), resolved & left

    start = (frame, jnp.zeros(n), jnp.eye(n, dtype=frame.dtype), jnp.full(n, True))
    _, grade, unit, resolved = jax.lax.fori_loop(begin, end, advance, start)
    return grade, unit, resolved


def _graded(
    triangle: Float[Array, "n n"], grade: Float[Array, "n"], unit: Float[Array, "n n"]
) -> tuple[Float[Array, "n"], Float[Array, "n n"]]:
    """Return (e, M) with R diag(eᵈ) N = diag(eᵉ) M: the diagonal of R moves into the grades."""
    diagonal = jnp.diagonal(triangle)
    rows = triangle / jnp.where(diagonal == 0, 1, diagonal)[:, None]
    ratio = jnp.exp(jnp.minimum(grade[None, :] - grade[:, None], 600))
    ratio = jnp.where(jnp.isfinite(ratio), ratio, 0)
    return grade + jnp.log(jnp.abs(diagonal)), multiply(jnp.triu(rows * ratio), unit)


def _graded_log_values(grade: Float[Array, "n"], unit: Float[Array, "n n"]) -> Float[Array, "n"]:
    """Return the log singular values of diag(eᵈ) N by QR iterations on its transpose.

    Nᵀ = QR gives (diag(eᵈ) N)ᵀ = Q (R diag(eᵈ)); R diag(eᵈ) is graded and upper triangular again,
    and has the same singular values.
    """

    def iterate(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        grade, unit = state
        _, triangle = jnp.linalg.qr(unit.T)
        return _graded(triangle, grade, jnp.eye(unit.shape[0], dtype=unit.dtype))

    grade, _ = jax.lax.fori_loop(0, ITERATIONS, iterate, (grade, unit))
    return -jnp.sort(-grade)
