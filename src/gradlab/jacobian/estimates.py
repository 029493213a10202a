"""Estimates of the norm of a product P of step Jacobians, by vectors that went through it."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradlab.jacobian.products import multiply, safe_log


class Estimate(NamedTuple):
    """Log norms and their standard errors, in nats."""

    log_norm: Float[Array, "..."]
    error: Float[Array, "..."]


class Rows(NamedTuple):
    """Vectors exp(log_scale) · vector, the largest entry of each of size 1."""

    vector: Float[Array, "starts vectors n"]
    log_scale: Float[Array, "starts vectors"]


def rescaled(
    vector: Float[Array, "starts vectors n"], log_scale: Float[Array, "starts vectors"]
) -> Rows:
    """Move the largest entry of every vector into its log scale; zero vectors keep theirs."""
    wide = vector.astype(jnp.promote_types(vector.dtype, jnp.float32))
    largest = jnp.max(jnp.abs(wide), axis=-1)
    scale = jnp.where(largest > 0, largest, 1)
    unit = (wide / scale[..., None]).astype(vector.dtype)
    return Rows(unit, log_scale + jnp.log(scale.astype(jnp.float64)))


def root_mean_square(rows: Rows, rank: int) -> Estimate:
    """Return the root mean square of the vectors P v, and the standard error of its log.

    With M = PᵀP and normal vectors, vᵀMv has the mean tr M and the variance 2‖M‖²_F, and
    E(vᵀMw)² = ‖M‖²_F for two of them. The mean of m of them is close to a Gamma variable of shape
    a = m (tr M)² / 2‖M‖²_F, the variance of whose log is ψ'(a) = 1/a + 1/2a² + ….

    Args:
        rows: the vectors P v.
        rank: the most that P can have.
    """
    logs = _log_norms(rows)
    count = logs.shape[-1]
    highest = _finite(jnp.max(logs, axis=-1, keepdims=True))
    vectors = rows.vector * jnp.exp(rows.log_scale - highest)[..., None]
    gram = multiply(vectors, vectors.mT)
    mean = jnp.trace(gram, axis1=-2, axis2=-1) / count
    log_norm = highest[..., 0] + 0.5 * safe_log(mean)
    between = jnp.sum((gram * (1 - jnp.eye(count))) ** 2, axis=(-2, -1)) / (count * (count - 1))
    share = between / jnp.where(mean > 0, mean, 1) ** 2
    # E of the squared mean is (tr M)² + 2‖M‖²_F / m; and ‖M‖²_F / (tr M)² lies in [1/rank, 1].
    share = jnp.clip(share / jnp.maximum(1 - 2 * share / count, 1e-6), 1 / rank, 1)
    inverse = 2 * share / count
    error = 0.5 * jnp.sqrt(inverse + inverse**2 / 2)
    return Estimate(log_norm, jnp.where(mean > 0, error, 0))


def frobenius(rows: Rows) -> Estimate:
    """Return the Frobenius norm of a matrix of which every column is given."""
    logs = _log_norms(rows)
    highest = _finite(jnp.max(logs, axis=-1, keepdims=True))
    squares = jnp.sum(jnp.exp(2 * (logs - highest)), axis=-1)
    log_norm = highest[..., 0] + 0.5 * safe_log(squares)
    return Estimate(log_norm, jnp.zeros_like(log_norm))


def spectral(rows: Rows) -> Estimate:
    """Return the spectral norm of a matrix of which every column is given."""
    logs = _log_norms(rows)
    highest = _finite(jnp.max(logs, axis=-1, keepdims=True))
    scaled = rows.vector * jnp.exp(rows.log_scale - highest)[..., None]
    log_norm = highest[..., 0] + safe_log(jnp.linalg.norm(scaled, 2, axis=(-2, -1)))
    return Estimate(log_norm, jnp.zeros_like(log_norm))


def _log_norms(rows: Rows) -> Float[Array, "starts vectors"]:
    # They may be a small part of vectors of size 1: squares of their entries would underflow.
    rows = rescaled(rows.vector.astype(jnp.float64), rows.log_scale)
    return rows.log_scale + 0.5 * safe_log(jnp.sum(rows.vector**2, axis=-1))


def _finite(highest: Float[Array, "starts 1"]) -> Float[Array, "starts 1"]:
    """Return 0 in place of −inf, the log of zero vectors."""
    return jnp.where(jnp.isneginf(highest), 0, highest)
