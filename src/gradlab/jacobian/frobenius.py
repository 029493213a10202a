"""Frobenius norms of all pairs (t, k) on two sides of a midpoint, as one matrix product.

‖A_t B_k‖² = tr(A_tᵀA_t · B_kB_kᵀ) = ⟨G_t, H_k⟩ with G_t = A_tᵀA_t and H_k = B_kB_kᵀ: every pair is
an inner product of n² numbers, all pairs together one (ℓ × n²) by (n² × ℓ) matrix product.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradlab.jacobian.products import (
    ResolvedLogNorms,
    Scaled,
    multiply,
    rescale,
    resolved,
    safe_log,
)


def product_log_norms(product: Scaled) -> ResolvedLogNorms:
    """Return the log Frobenius norms of matrices, whose rows and columns are already chosen."""
    # They may be far smaller than the whole: squares of their entries would underflow.
    chosen = rescale(product.unit)
    return ResolvedLogNorms(
        chosen.log_scale + product.log_scale, resolved(jnp.exp(chosen.log_scale))
    )


def cross_log_norms(prefix: Scaled, suffix_T: Scaled) -> ResolvedLogNorms:
    """Return log ‖A_t B_k‖_F for all pairs of each block.

    Args:
        prefix: (blocks, ℓ, rows, n), the chosen rows of A_t.
        suffix_T: (blocks, ℓ, columns, n), the chosen columns of B_k, transposed.

    Returns:
        (blocks, ℓ, ℓ), [block, t, k].
    """

    def one_block(pair: tuple[Array, Array]) -> Array:
        gram_t, gram_k = (gram(x).reshape(x.shape[0], -1) for x in pair)
        return multiply(gram_t, gram_k.mT)

    squares = jax.lax.map(one_block, (prefix.unit, suffix_T.unit))
    # Where the product is exactly zero, rounding can leave a tiny negative number.
    logs = 0.5 * safe_log(jnp.maximum(squares, 0))
    logs = logs + prefix.log_scale[:, :, None] + suffix_T.log_scale[:, None, :]
    return ResolvedLogNorms(logs, resolved(squares))


def gram(matrices: Float[Array, "count rows n"]) -> Float[Array, "count n n"]:
    """Return XᵀX of each matrix, one at a time: on a CPU faster than a batched product."""
    return jax.lax.map(lambda x: multiply(x.mT, x), matrices)
