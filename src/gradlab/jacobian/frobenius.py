"""Frobenius norms of all pairs across a midpoint, as one matrix product.

‖A_t B_k‖² = tr(A_tᵀA_t · B_kB_kᵀ) = ⟨G_t, H_k⟩ with G_t = A_tᵀA_t and H_k = B_kB_kᵀ: every pair is
an inner product of n² numbers, all pairs together one (ℓ × n²) by (n² × ℓ) matrix product.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradlab.jacobian.products import ResolvedLogNorms, Scaled, multiply, resolved


def product_log_norms(product: Scaled) -> ResolvedLogNorms:
    """Log Frobenius norms of matrices that are at hand (rows and columns already chosen)."""
    norms = jnp.linalg.norm(product.unit, axis=(-2, -1))
    return ResolvedLogNorms(jnp.log(norms) + product.log_scale, resolved(norms))


def cross_log_norms(prefix: Scaled, suffix_t: Scaled) -> ResolvedLogNorms:
    """Log ‖A_t B_k‖_F for all pairs of each block.

    Args:
        prefix: (blocks, ℓ, rows, n), the rows of A_t that are asked for.
        suffix_t: (blocks, ℓ, columns, n), the columns of B_k that are asked for, transposed.

    Returns:
        (blocks, t, k).
    """

    def one_block(pair: tuple[Array, Array]) -> Array:
        gram_t, gram_k = (gram(x).reshape(x.shape[0], -1) for x in pair)
        return multiply(gram_t, gram_k.mT)

    squares = jax.lax.map(one_block, (prefix.unit, suffix_t.unit))
    # Rounding can leave a tiny negative number where the product is exactly zero.
    logs = 0.5 * jnp.log(jnp.maximum(squares, 0))
    logs = logs + prefix.log_scale[:, :, None] + suffix_t.log_scale[:, None, :]
    return ResolvedLogNorms(logs, resolved(squares))


def gram(matrices: Float[Array, "count rows n"]) -> Float[Array, "count n n"]:
    """XᵀX of each matrix; one at a time, which on a CPU is faster than a batched product."""
    return jax.lax.map(lambda x: multiply(x.mT, x), matrices)
