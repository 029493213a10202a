"""All singular values of chosen products ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾, down to those that floats cannot hold.

The product of many steps has singular values that lie hundreds of orders of magnitude apart, and
multiplied out it keeps those within 1e-16 of the largest. Two sweeps of QR factorisations keep the
others (Geist, Parlitz & Lauterborn 1990; Stewart 1997): one backward, whose last frame nears the
right singular vectors, then one forward from there, P = Q · diag(eᵈ) N · Zᵀ with N unit upper
triangular and of moderate size. QR iterations on this small graded factor finish.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from gradlab.jacobian.finite import refuse_not_finite
from gradlab.jacobian.flat_cell import StepFunction, flatten_cell
from gradlab.jacobian.products import multiply
from gradlab.jacobian.steps import step_jacobians

ITERATIONS = 60  # of QR on the graded factor: neighbours 5 % apart are settled to 1e-3 nats
TRUSTED = 1e-8  # singular values within this of the largest are those of LAPACK


def log_singular_values(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "T features"],
    pairs: Sequence[tuple[int, int]],
    *,
    initial_carry: PyTree | None = None,
    of: str | None = None,
    wrt: str | None = None,
) -> Float[Array, "pairs m"]:
    """Log singular values of ∂ of⁽ᵗ⁾ / ∂ wrt⁽ᵏ⁾ for chosen pairs (t, k), descending, in nats.

    Those within 1e-8 of the largest are exact to rounding; of smaller ones, those of a whole carry
    are settled to 1e-3 nats where neighbours lie 5 % apart, and those of a block are −inf.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features), of one sample.
        pairs: (t, k) with 0 ≤ k ≤ t ≤ T.
        initial_carry: s⁽⁰⁾; by default the cell's own.
        of, wrt: None for the whole carry, else a part of it by name ("h", "c"; "layer0.h").

    Raises:
        ValueError: an argument is not one of those above; the sentence says what is allowed.
        FloatingPointError: a number on the way is not finite; the sentence names its step.
    """
    length, features = jnp.shape(inputs)
    wrong = [pair for pair in pairs if not 0 <= pair[1] <= pair[0] <= length]
    if wrong or not pairs:
        raise ValueError(f"pairs must be (t, k) with 0 ≤ k ≤ t ≤ {length}; got {wrong or 'none'}.")
    flat = flatten_cell(cell, features, initial_carry)
    rows, columns = flat.span(of, "of"), flat.span(wrt, "wrt")
    with jax.enable_x64(True):
        jacobians = step_jacobians(cell, inputs, initial_carry=initial_carry).astype(jnp.float64)
        refuse_not_finite(jnp.abs(jacobians), cell, inputs, initial_carry)
        return _of_pairs(jacobians, np.asarray(pairs), of=rows, wrt=columns)


@partial(jax.jit, static_argnames=("of", "wrt"))
def _of_pairs(
    jacobians: Float[Array, "T n n"], pairs: Int[np.ndarray, "pairs 2"], *, of: tuple, wrt: tuple
) -> Float[Array, "pairs m"]:
    n = jacobians.shape[-1]
    whole = of == wrt == (0, n)

    def one(pair: Int[Array, "2"]) -> Float[Array, "m"]:
        end, begin = pair
        z = _right_frame(jacobians, begin, end)
        q, grade, unit = _forward(jacobians, z, begin, end)
        highest = jnp.max(grade)
        highest = jnp.where(jnp.isfinite(highest), highest, 0)
        small = jnp.exp(grade - highest)[:, None] * unit
        block = multiply(multiply(q, small), z.T)[slice(*of), slice(*wrt)]
        values = jnp.linalg.svd(block, compute_uv=False)
        trusted = values > TRUSTED * values[0]
        deep = _settled(grade, unit) if whole else jnp.full(values.size, -jnp.inf)
        return jnp.where(trusted, jnp.log(values) + highest, deep)

    return jax.lax.map(one, jnp.asarray(pairs)).astype(jnp.float32)


def _right_frame(jacobians: Array, begin: Array, end: Array) -> Float[Array, "n n"]:
    n = jacobians.shape[-1]
    # A random frame: the unit vectors may lie in subspaces that the Jacobians keep apart.
    frame = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (n, n), jacobians.dtype))[0]

    def back(i: Array, frame: Array) -> Array:
        return jnp.linalg.qr(multiply(jacobians[end - 1 - i].T, frame))[0]

    return jax.lax.fori_loop(0, end - begin, back, frame)


def _forward(
    jacobians: Array, frame: Array, begin: Array, end: Array
) -> tuple[Float[Array, "n n"], Float[Array, "n"], Float[Array, "n n"]]:
    """(Q, d, N) of J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾ frame = Q diag(eᵈ) N."""
    n = frame.shape[0]

    def advance(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        q, grade, unit = state
        q, triangle = jnp.linalg.qr(multiply(jacobians[i], q))
        signs = jnp.where(jnp.diagonal(triangle) < 0, -1, 1)  # the grades are logs: they have none
        return q * signs, *_graded(triangle, grade, unit)

    return jax.lax.fori_loop(begin, end, advance, (frame, jnp.zeros(n), jnp.eye(n)))


def _graded(
    triangle: Float[Array, "n n"], grade: Float[Array, "n"], unit: Float[Array, "n n"]
) -> tuple[Float[Array, "n"], Float[Array, "n n"]]:
    """R diag(eᵈ) N = diag(eᵉ) M: the diagonal of R joins the grades, the rest is kept relative."""
    diagonal = jnp.diagonal(triangle)
    rows = triangle / jnp.where(diagonal == 0, 1, diagonal)[:, None]
    ratio = jnp.exp(jnp.minimum(grade[None, :] - grade[:, None], 600))
    ratio = jnp.where(jnp.isfinite(ratio), ratio, 0)
    return grade + jnp.log(jnp.abs(diagonal)), multiply(jnp.triu(rows * ratio), unit)


def _settled(grade: Float[Array, "n"], unit: Float[Array, "n n"]) -> Float[Array, "n"]:
    """Log singular values of diag(eᵈ) N by QR iterations on its transpose, which keep it graded:

    Nᵀ = QR makes (diag(eᵈ) N)ᵀ = Q (R diag(eᵈ)), and R diag(eᵈ) is upper triangular again.
    """

    def iterate(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        grade, unit = state
        _, triangle = jnp.linalg.qr(unit.T)
        return _graded(triangle, grade, jnp.eye(unit.shape[0]))

    grade, _ = jax.lax.fori_loop(0, ITERATIONS, iterate, (grade, unit))
    return -jnp.sort(-grade)
