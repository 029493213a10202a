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


def _packed_grams(rows: Float[AnyArray, "N l r n"]) -> Float[AnyArray, "N l 3*n*n/4"]:
    """Return three quarters of each Gram matrix, with the same inner products as the whole.

    Of the four blocks of a symmetric matrix one is the transpose of another, which has its weight.
    """
    first, second = np.split(rows, [rows.shape[3] // 2], axis=3)
    corners = np.cumsum([first.shape[3] ** 2, first.shape[3] * second.shape[3]])
    packed = np.empty((*rows.shape[:2], corners[-1] + second.shape[3] ** 2), rows.dtype)
    upper, across, lower = np.split(packed, corners, axis=2)

    def work(blocks: slice, part: slice) -> None:
        one, two = first[blocks, part], second[blocks, part]
        upper[blocks, part] = _flat(multiply(one.mT, one))
        np.multiply(_flat(multiply(one.mT, two)), 2**0.5, out=across[blocks, part])
        lower[blocks, part] = _flat(multiply(two.mT, two))

    in_threads(work, pieces(len(rows), rows.shape[1], packed[0, 0].nbytes))
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
    return _flat(multiply(rows.mT, rows))


def _flat(matrices: Float[AnyArray, "N l n m"]) -> Float[AnyArray, "N l n*m"]:
    return matrices.reshape(*matrices.shape[:2], matrices.shape[2] * matrices.shape[3])
