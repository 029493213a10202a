"""Frobenius norms of all pairs (t, k) on two sides of a midpoint, as one matrix product.

‖A_t B_k‖² = tr(A_tᵀA_t · B_kB_kᵀ) = ⟨G_t, H_k⟩ with G_t = A_tᵀA_t and H_k = B_kB_kᵀ: every pair is
an inner product of n² numbers, all pairs together one (ℓ × n²) by (n² × ℓ) matrix product.
"""

from jaxtyping import Float

from gradlab.jacobian.arrays import AnyArray, in_pieces, inner, library
from gradlab.jacobian.products import multiply


def single_squares(matrices: Float[AnyArray, "N r n"]) -> Float[AnyArray, "N"]:
    """Return the squared Frobenius norms of matrices."""
    flat = matrices.reshape(len(matrices), -1)
    return inner(flat, flat)


def cross_squares(
    a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"]
) -> Float[AnyArray, "N t k"]:
    """Return ‖A_t B_k‖²_F for all pairs of each block."""
    # Where the product is exactly zero, rounding can leave a tiny negative number.
    return library(a).maximum(multiply(_grams(a), _grams(b_T).mT), 0)


def sizes(squares: Float[AnyArray, "*pairs"]) -> Float[AnyArray, "*pairs"]:
    """Return what is left of sums of numbers of size 1: of products of Gram matrices, squares."""
    return squares


def _grams(rows: Float[AnyArray, "N l r n"]) -> Float[AnyArray, "N l n*n"]:
    count, length, r, n = rows.shape
    grams = in_pieces(lambda x: multiply(x.mT, x), rows.reshape(-1, r, n), size=n * n * 8)
    return grams.reshape(count, length, n * n)
