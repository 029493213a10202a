"""Spectral norms of all pairs (t, k) without forming large products.

σ²_max(A_t B_k) is the largest eigenvalue of the symmetric B_kᵀA_tᵀ A_t B_k. Of few rows or columns
that is a small matrix (cores.py). Else Lanczos steps for a tile of pairs are four stacked matrix
products each, since all pairs of one t share A_t and all pairs of one k share B_k. A pair stops
when its residual is small enough; the few of a tile that go on do so as formed products.
"""

from functools import partial

import numpy as np
from jaxtyping import Float, Int

from gradlab.jacobian.arrays import PIECE, AnyArray, library
from gradlab.jacobian.cores import SMALL, WAVE, core_spectral_squares, tiles
from gradlab.jacobian.lanczos import (
    Operator,
    random_start,
    top_eigenvalue,
    top_eigenvalues,
    top_eigenvalues_of,
)
from gradlab.jacobian.products import multiply

CORE = 0.25  # rows or columns, of all n, up to which a core is measured sooner than its factors
MOST = 512  # pairs of a tile: two threads share what is left
SIDE = 16  # rows and columns of a tile: in fewer, matrices are read too often


def single_squares(matrices: Float[AnyArray, "N r n"]) -> Float[AnyArray, "N"]:
    """Return the squared spectral norms of matrices."""

    if library(matrices) is not np:
        return top_eigenvalue(gram_operator(matrices), random_start(matrices[:, 0]))
    return top_eigenvalues_of(matrices, gram_operator)


def gram_operator(matrices: Float[AnyArray, "N r n"]) -> Operator:
    """Return PᵀP of each matrix P, as one operator."""
    return lambda v: multiply(multiply(matrices, v[..., None]).mT, matrices)[..., 0, :]


def cross_squares(
    a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"]
) -> Float[AnyArray, "N t k"]:
    """Return σ²_max(A_t B_k) for all pairs of each block, of arrays of NumPy."""
    if a.shape[2] < b_T.shape[2]:  # vectors are of the smaller rank
        return cross_squares(b_T, a).mT
    if b_T.shape[2] <= max(SMALL, CORE * b_T.shape[3]):
        return core_spectral_squares(a, b_T)
    if a.shape[1] == b_T.shape[1] == 1:  # of single pairs a step takes longer than their product
        return single_squares(multiply(a[:, 0], b_T[:, 0].mT))[:, None, None]
    squares = np.empty((*a.shape[:2], b_T.shape[1]), a.dtype)
    side = min(SIDE, a.shape[1], b_T.shape[1])
    fitting = min(side * max(side, PIECE // a[0, 0].nbytes), MOST)
    cut = tiles(len(a), a.shape[1], b_T.shape[1], fitting)
    at_once = max(1, WAVE // (fitting * b_T[0, 0, :, 0].nbytes))
    for i in range(0, len(cut), at_once):
        wave = cut[i : i + at_once]
        pairs = [(a[block, rows], b_T[block, columns]) for block, rows, columns in wave]
        tops = top_eigenvalues(
            [tile_operator(*pair) for pair in pairs],
            [tile_start(*pair) for pair in pairs],
            [partial(tile_products, *pair) for pair in pairs],
            gram_operator,
        )
        for place, top, (left, right) in zip(wave, tops, pairs, strict=True):
            squares[place] = top.reshape(len(left), right.shape[1], left.shape[1]).mT
    return squares


def tile_operator(a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"]) -> Operator:
    """Return B_kᵀA_tᵀ A_t B_k of all pairs (k, t) of each block, as one operator."""

    def apply(v: Float[AnyArray, "N*k*t q"]) -> Float[AnyArray, "N*k*t q"]:
        by_k = v.reshape(*b_T.shape[:2], a.shape[1], -1)
        b_v = multiply(by_k, b_T).swapaxes(1, 2)  # all t of one k share B_k
        g_b_v = multiply(multiply(b_v, a.mT), a).swapaxes(1, 2)  # all k of one t share A_t
        return multiply(g_b_v, b_T.mT).reshape(v.shape)

    return apply


def tile_products(
    a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"], pairs: Int[np.ndarray, "few"]
) -> Float[AnyArray, "few r q"]:
    """Return A_t B_k of some of the pairs (k, t), counted as in `tile_operator`."""
    block, k, t = np.unravel_index(pairs, (*b_T.shape[:2], a.shape[1]))
    return multiply(a[block, t], b_T[block, k].mT)


def tile_start(
    a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"]
) -> Float[AnyArray, "N*k*t q"]:
    """Return a unit vector for each pair."""
    repeated = library(a).broadcast_to(
        b_T[:, :, None, :, 0], (*b_T.shape[:2], a.shape[1], b_T.shape[2])
    )
    return random_start(repeated.reshape(-1, b_T.shape[2]))


def sizes(squares: Float[AnyArray, "*pairs"]) -> Float[AnyArray, "*pairs"]:
    """Return what is left of sums of numbers of size 1: of A_t B_k v, norms."""
    return library(squares).sqrt(squares)
