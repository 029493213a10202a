"""Singular values of graded factors diag(eᵈ) N, in which a product of many steps is kept.

Grades d span hundreds of orders of magnitude; N is unit upper triangular, of moderate size. QR
iterations converge to all singular values, however small (Stewart 1997).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradlab.jacobian.products import multiply

ITERATIONS = 60  # QR on the graded factor: values 5 % apart converge to 1e-3 nats
TRUSTED = 1e-8  # relative to the largest: above it, singular values in float64 are LAPACK's


def extend_graded(
    triangle: Float[Array, "n n"], grade: Float[Array, "n"], unit: Float[Array, "n n"]
) -> tuple[Float[Array, "n"], Float[Array, "n n"]]:
    """Return (e, M) with R diag(eᵈ) N = diag(eᵉ) M: the diagonal of R moves into the grades."""
    diagonal = jnp.diagonal(triangle)
    rows = triangle / jnp.where(diagonal == 0, 1, diagonal)[:, None]
    ratio = jnp.exp(jnp.minimum(grade[None, :] - grade[:, None], 600))
    ratio = jnp.where(jnp.isfinite(ratio), ratio, 0)
    return grade + jnp.log(jnp.abs(diagonal)), multiply(jnp.triu(rows * ratio), unit)


def graded_log_values(
    grade: Float[Array, "n"],
    unit: Float[Array, "n n"],
    resolved: Bool[Array, "n"],
    own: jnp.dtype,
) -> Float[Array, "n"]:
    """Return the log singular values of diag(eᵈ) N, descending.

    Args:
        grade, unit: d and N.
        resolved: the grades of which rounding left something; as many values as grades lie above
            the largest that it did not are returned, the others are NaN.
        own: the precision in which the cell computes.
    """
    highest = jnp.max(grade)
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    values = jnp.linalg.svd(jnp.exp(grade - highest)[:, None] * unit, compute_uv=False)
    lost = jnp.max(jnp.where(resolved, -jnp.inf, grade))
    count = jnp.sum(grade > lost)  # as many values lie above what was lost
    is_kept = (jnp.arange(grade.size) < count) | resolved.all()
    smaller = jnp.where(is_kept, _by_iteration(grade, unit), jnp.nan)
    return jnp.where(are_trusted(values, own), jnp.log(values) + highest, smaller)


def are_trusted(values: Float[Array, "m"], own: jnp.dtype) -> Bool[Array, "m"]:
    """Return which singular values, descending, rounding in float64 and in the cell leaves."""
    return values > max(TRUSTED, 8 * float(jnp.finfo(own).eps)) * values[0]


def _by_iteration(grade: Float[Array, "n"], unit: Float[Array, "n n"]) -> Float[Array, "n"]:
    """Return the log singular values of diag(eᵈ) N by QR iterations on its transpose.

    Nᵀ = QR gives (diag(eᵈ) N)ᵀ = Q (R diag(eᵈ)); R diag(eᵈ) is graded and upper triangular again,
    and has the same singular values.
    """

    def iterate(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        grade, unit = state
        _, triangle = jnp.linalg.qr(unit.T)
        return extend_graded(triangle, grade, jnp.eye(unit.shape[0], dtype=unit.dtype))

    grade, _ = jax.lax.fori_loop(0, ITERATIONS, iterate, (grade, unit))
    return -jnp.sort(-grade)
