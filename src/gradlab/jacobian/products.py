"""Matrices with the log of their scale beside them.

Products over thousands of steps, kept so at Frobenius norm 1, neither overflow nor underflow.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from gradlab.jacobian.arrays import AnyArray, inner, library


class Scaled(NamedTuple):
    """Matrices exp(log_scale) · unit, each unit of Frobenius norm 1 (or exactly zero)."""

    unit: Float[AnyArray, "*batch n m"]
    log_scale: Float[AnyArray, "*batch"]


class ResolvedLogNorms(NamedTuple):
    """Log norms, and whether each kept three digits through rounding (an exact zero does)."""

    value: Float[AnyArray, "*pairs"]
    resolved: Bool[AnyArray, "*pairs"]


def rescale(
    matrix: Float[AnyArray, "*batch n m"],
    log_scale: Float[AnyArray, "*batch"] | float = 0.0,
    out: Float[AnyArray, "*batch n m"] | None = None,
) -> Scaled:
    """Move the Frobenius norm of each matrix into its log scale; that of a zero matrix is −inf.

    Args:
        matrix: the matrices.
        log_scale: of them.
        out: where those of NumPy are put.
    """
    xp = library(matrix)
    if xp is np and (squares := _plain_squares(matrix)) is not None:
        norms = np.sqrt(squares)
        unit = np.divide(matrix, norms[..., None, None], out=out)
        return Scaled(unit, log_scale + np.log(norms, dtype=np.float64))
    # Division by the largest entry keeps the squares in the norm from under- or overflowing. The
    # result does not depend on it, so it is a constant to derivatives.
    largest = xp.max(xp.abs(matrix), axis=(-2, -1), keepdims=True)
    largest = largest if xp is np else jax.lax.stop_gradient(largest)
    matrix = matrix / xp.where(largest > 0, largest, 1)
    flat = matrix.reshape(*matrix.shape[:-2], -1)
    square = inner(flat, flat)[..., None, None]
    norm = xp.sqrt(xp.where(square == 0, 1, square))
    # A log scale of thousands needs more digits than the matrices' own float32 may have.
    wide = np.float64 if xp is np else jax.dtypes.canonicalize_dtype(float)
    logs = safe_log(norm.astype(wide)) + safe_log(largest.astype(wide))
    unit = matrix / norm
    if out is not None:
        out[...] = unit
    return Scaled(unit, log_scale + logs[..., 0, 0])


def _plain_squares(matrix: Float[AnyArray, "*batch n m"]) -> Float[AnyArray, "*batch"] | None:
    """Return the squared norms, unless one is zero, not finite, or may have lost a square."""
    flat = matrix.reshape(*matrix.shape[:-2], -1)
    squares, limits = inner(flat, flat), np.finfo(matrix.dtype)
    fits = (limits.tiny / limits.eps**2 < squares) & (squares < limits.max)
    return squares if fits.all() else None


def safe_log(x: Float[AnyArray, "*shape"]) -> Float[AnyArray, "*shape"]:
    """Return the logarithm: −inf at 0, where its derivative is 0 instead of a division by 0."""
    xp = library(x)
    return xp.where(x == 0, -np.inf, xp.log(xp.where(x == 0, 1, x)))


def resolved(size: Float[AnyArray, "*pairs"]) -> Bool[AnyArray, "*pairs"]:
    """Return whether a sum of numbers of size up to 1 kept three digits, or is exactly zero."""
    return (size > 1000 * jnp.finfo(size.dtype).eps) | (size == 0)


def exceeds_rounding(
    size: Float[AnyArray, "*shape"], terms: Float[AnyArray, "*shape"], own: Any, n: int
) -> Bool[AnyArray, "*shape"]:
    """Return whether more than rounding errors is left of sums, or they are exactly zero.

    Args:
        size: of the sums, in the precision that they were added in.
        terms: the size that they have without cancellation.
        own: the precision that the terms were computed in.
        n: the number of terms of a sum.
    """
    noise = jnp.maximum(jnp.finfo(own).eps, n * jnp.finfo(size.dtype).eps)
    return (size > noise * terms) | (size == 0)


def log_norms_of(
    squares: Float[AnyArray, "*pairs"],
    sizes: Float[AnyArray, "*pairs"],
    log_scale: Float[AnyArray, "*pairs"],
) -> ResolvedLogNorms:
    """Return the log norms of matrices from their squared norms at scale 1.

    Args:
        squares: the squared norms.
        sizes: what is left in them of sums of numbers of size 1, which rounding makes uncertain.
        log_scale: of the matrices.
    """
    return ResolvedLogNorms(0.5 * safe_log(squares) + log_scale, resolved(sizes))


def multiply(
    left: Float[AnyArray, "*batch n m"], right: Float[AnyArray, "*batch m p"]
) -> Float[AnyArray, "*batch n p"]:
    """Return the batched product at full precision, which accelerators reduce by default."""
    if library(left) is np:
        return np.matmul(left, right)
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def extend(product: Scaled, jacobian: Float[AnyArray, "n n"]) -> Scaled:
    """Return the product after one more step."""
    return rescale(multiply(jacobian, product.unit), product.log_scale)


def stack(items: list[Scaled]) -> Scaled:
    """Stack scaled matrices along a new first axis."""
    return Scaled(*(jnp.stack(x) for x in zip(*items, strict=True)))


def concatenate(items: list[Scaled]) -> Scaled:
    """Concatenate scaled matrices along their first axis."""
    return Scaled(*(jnp.concatenate(x) for x in zip(*items, strict=True)))
