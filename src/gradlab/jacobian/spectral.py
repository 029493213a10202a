"""Spectral norms of all pairs (t, k) by Lanczos iterations, without forming their products.

σ²_max(A_t B_k) is the largest eigenvalue of the symmetric B_kᵀA_tᵀ A_t B_k. A Lanczos step for a
tile of pairs is four stacked matrix products, since all pairs of one t share A_t and all pairs of
one k share B_k. A tile stops when the residual of every pair is small enough: after a few steps far
from the diagonal, where products are close to rank one.
"""

import math

import numpy as np
from jaxtyping import Float

from gradlab.jacobian.arrays import PIECE, AnyArray, in_pieces, library
from gradlab.jacobian.lanczos import top_eigenvalue
from gradlab.jacobian.products import multiply

SIDE, SMALLEST = 64, 8  # rows and columns of a tile: in fewer, large matrices are read too often


def single_squares(matrices: Float[AnyArray, "N r n"]) -> Float[AnyArray, "N"]:
    """Return the squared spectral norms of matrices."""
    if library(matrices) is np:  # of many, LAPACK's values come sooner than all have converged
        finite = np.nan_to_num(matrices, nan=0, posinf=0, neginf=0)
        values = in_pieces(lambda x: np.linalg.svd(x, compute_uv=False)[:, 0], finite)
        return np.where(np.isfinite(matrices).all(axis=(1, 2)), values, np.nan) ** 2

    def apply(v: Float[AnyArray, "N n"]) -> Float[AnyArray, "N n"]:
        return multiply(multiply(matrices, v[..., None]).mT, matrices)[..., 0, :]

    return top_eigenvalue(apply, _start(matrices[:, 0]))


def cross_squares(
    a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"]
) -> Float[AnyArray, "N t k"]:
    """Return σ²_max(A_t B_k) for all pairs of each block, tile by tile, of arrays of NumPy."""
    if a.shape[2] < b_T.shape[2]:  # vectors are of the smaller rank
        return cross_squares(b_T, a).mT
    (blocks, length_t, _, _), length_k = a.shape, b_T.shape[1]
    a, b_T = _tiles(a, b_T)
    tiles = (blocks, a.shape[1], b_T.shape[1])
    squares = in_pieces(
        lambda block, row, column: tile_squares(a[block, row], b_T[block, column]),
        *np.unravel_index(np.arange(math.prod(tiles)), tiles),
        size=_tile_size(a[0, 0], b_T[0, 0]),
    )
    squares = squares.reshape(*tiles, b_T.shape[2], a.shape[2])
    return squares.transpose(0, 1, 4, 2, 3).reshape(blocks, length_t, length_k)


def tile_squares(
    a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"]
) -> Float[AnyArray, "N k t"]:
    """Return σ²_max(A_t B_k) for all pairs of each block at once."""

    def apply(v: Float[AnyArray, "N k t q"]) -> Float[AnyArray, "N k t q"]:
        b_v = multiply(v, b_T).swapaxes(1, 2)  # all t of one k share B_k
        g_b_v = multiply(multiply(b_v, a.mT), a).swapaxes(1, 2)  # all k of one t share A_t
        return multiply(g_b_v, b_T.mT)

    shape = (*b_T.shape[:2], a.shape[1], b_T.shape[2])
    return top_eigenvalue(apply, _start(library(a).broadcast_to(b_T[:, :, None, :, 0], shape)))


def sizes(squares: Float[AnyArray, "*pairs"]) -> Float[AnyArray, "*pairs"]:
    """Return what is left of sums of numbers of size 1: of A_t B_k v, norms."""
    return library(squares).sqrt(squares)


def _tiles(*rows: Float[AnyArray, "N l r n"]) -> list[Float[AnyArray, "N tiles side r n"]]:
    """Cut matrices into tiles that, with the vectors of all pairs, fit a core's cache."""
    side = SIDE
    while side > SMALLEST and _tile_size(*(x[0, :side] for x in rows)) > PIECE:
        side //= 2
    return [x.reshape(len(x), -1, math.gcd(x.shape[1], side), *x.shape[2:]) for x in rows]


def _tile_size(a: Float[AnyArray, "t r n"], b_T: Float[AnyArray, "k q n"]) -> int:
    """Return the bytes of a tile's matrices, and of a vector for each of its pairs."""
    return a.nbytes + b_T.nbytes + len(a) * b_T[:, 0].nbytes


def _start(like: Float[AnyArray, "*batch n"]) -> Float[AnyArray, "*batch n"]:
    """Return a random unit vector, the same for all: it hardly ever misses a top eigenvector.

    It is drawn with NumPy: a JAX generator would take longer to compile than all else.
    """
    direction = np.random.default_rng(0).standard_normal(like.shape[-1])
    direction /= np.linalg.norm(direction)
    xp = library(like)
    return xp.broadcast_to(xp.asarray(direction, like.dtype), like.shape)
