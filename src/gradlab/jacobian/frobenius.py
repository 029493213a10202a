"""Frobenius norms of all pairs (t, k) on two sides of a midpoint, as one matrix product.

‖A_t B_k‖² = tr(A_tᵀA_t · B_kB_kᵀ) = ⟨G_t, H_k⟩ with G_t = A_tᵀA_t and H_k = B_kB_kᵀ: every pair is
an inner product of n² numbers, all pairs together one (ℓ × n²) by (n² × ℓ) matrix product. Of few
rows the products A_t B_k themselves, r × q, are fewer numbers.
"""

import numpy as np
from jaxtyping import Float

from gradlab.jacobian.arrays import PIECE, AnyArray, in_threads, inner, library, pieces
from gradlab.jacobian.cores import core_squares
from gradlab.jacobian.products import multiply

TOGETHER = 4  # pieces of Gram matrices that are multiplied with all those of their block


def single_squares(matrices: Float[AnyArray, "N r n"]) -> Float[AnyArray, "N"]:
    """Return the squared Frobenius norms of matrices."""
    flat = matrices.reshape(len(matrices), -1)
    return inner(flat, flat)


def cross_squares(
    a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"]
) -> Float[AnyArray, "N t k"]:
    """Return ‖A_t B_k‖²_F for all pairs of each block, of arrays of NumPy."""
    if a.shape[2] * b_T.shape[2] < a.shape[3]:
        return core_squares(a, b_T)
    g, h = (_packed_grams(x) for x in (a, b_T))
    squares = np.empty((*a.shape[:2], b_T.shape[1]), a.dtype)

    def product(blocks: slice, part: slice) -> None:
        squares[blocks, part] = gram_products(g[blocks, part], h[blocks])

    in_threads(product, pieces(len(a), a.shape[1], g[0, 0].nbytes, TOGETHER * PIECE))
    return squares


def _packed_grams(rows: Float[AnyArray, "N l r n"]) -> Float[AnyArray, "N l n*(n+1)/2"]:
    """Return one triangle of each Gram matrix, with the same inner products as the whole."""
    n = rows.shape[3]
    row, column = np.triu_indices(n)
    weight = np.where(row == column, 1, 2**0.5).astype(rows.dtype)
    packed = np.empty((*rows.shape[:2], len(row)), rows.dtype)

    def work(blocks: slice, part: slice) -> None:
        np.multiply(grams(rows[blocks, part])[..., row * n + column], weight, packed[blocks, part])

    in_threads(work, pieces(len(rows), rows.shape[1], n * n * rows.itemsize))
    return packed


def gram_products(
    g: Float[AnyArray, "N t n*n"], h: Float[AnyArray, "N k n*n"]
) -> Float[AnyArray, "N t k"]:
    """Return ⟨G_t, H_k⟩; where it is exactly zero, rounding can leave a tiny negative number."""
    return library(g).maximum(multiply(g, h.mT), 0)


def sizes(squares: Float[AnyArray, "*pairs"]) -> Float[AnyArray, "*pairs"]:
    """Return what is left of sums of numbers of size 1: of products of Gram matrices, squares."""
    return squares


def grams(rows: Float[AnyArray, "N l r n"]) -> Float[AnyArray, "N l n*n"]:
    """Return the Gram matrices RᵀR of rows, flat."""
    return multiply(rows.mT, rows).reshape(*rows.shape[:2], -1)
