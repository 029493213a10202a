"""Products A_t B_k of few rows and columns, their cores, for all pairs of a tile at once.

Many steps from the midpoint little is left of prefixes and suffixes but a few rows (halving.py).
All cores of a tile are one matrix product.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from gradlab.jacobian.arrays import PIECE, AnyArray, in_threads, pieces
from gradlab.jacobian.lanczos import Operator, top_eigenvalues_of
from gradlab.jacobian.products import multiply

SMALL = 8  # columns up to which LAPACK has all eigenvalues before Lanczos steps have the largest
WAVE = 2**25  # bytes of the matrices that are measured together


def core_squares(
    a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"]
) -> Float[AnyArray, "N t k"]:
    """Return ‖A_t B_k‖²_F for all pairs of each block."""
    squares = np.empty((*a.shape[:2], b_T.shape[1]), a.dtype)
    _measure(lambda core: np.einsum("...ij,...ij->...", core, core), a, b_T, squares)
    return squares


def core_spectral_squares(
    a: Float[AnyArray, "N t r n"], b_T: Float[AnyArray, "N k q n"]
) -> Float[AnyArray, "N t k"]:
    """Return σ²_max(A_t B_k) for all pairs of each block, q ≤ r."""
    (blocks, length_t, _, _), (_, length_k, q, _) = a.shape, b_T.shape
    squares = np.empty((blocks, length_t, length_k), a.dtype)
    for block, rows, columns in tiles(blocks, length_t, length_k, WAVE // (q * q * a.itemsize)):
        part = squares[block, rows, columns]
        grams = np.empty((*part.shape, q, q), a.dtype)
        _measure(_gram, a[block, rows], b_T[block, columns], grams)
        squares[block, rows, columns] = top_of_grams(grams.reshape(-1, q, q)).reshape(part.shape)
    return squares


def top_of_grams(grams: Float[AnyArray, "N q q"]) -> Float[AnyArray, "N"]:
    """Return the largest eigenvalues of positive semi-definite matrices; NaN of NaN."""
    if grams.shape[1] > SMALL:
        return top_eigenvalues_of(grams, _times)
    tops = np.empty(len(grams), grams.dtype)

    def by_lapack(blocks: slice, _: slice) -> None:
        part = grams[blocks]
        finite = np.isfinite(part).all(axis=(1, 2))  # else LAPACK may refuse all
        values = np.linalg.eigvalsh(np.where(finite[:, None, None], part, 0))[:, -1]
        tops[blocks] = np.where(finite, np.maximum(values, 0), np.nan)

    in_threads(by_lapack, pieces(len(grams), 1, grams[0].nbytes))
    return tops


def _times(matrices: Float[AnyArray, "N q q"]) -> Operator:
    return lambda v: multiply(matrices, v[..., None])[..., 0]


def _gram(core: Float[AnyArray, "N t k r q"]) -> Float[AnyArray, "N t k q q"]:
    core = np.ascontiguousarray(core)
    return multiply(core.mT, core)


def _measure(
    measure: Callable[[Float[AnyArray, "N t k r q"]], Float[AnyArray, "N t k ..."]],
    a: Float[AnyArray, "N t r n"],
    b_T: Float[AnyArray, "N k q n"],
    measured: Float[AnyArray, "N t k ..."],
) -> None:
    """Put the measure of each A_t B_k in its place, piece by piece in threads."""
    (blocks, length_t, r, n), (_, length_k, q, _) = a.shape, b_T.shape

    def work(block: slice, rows: slice, columns: slice) -> None:
        left, right = a[block, rows], b_T[block, columns]
        count, length, columns_of = len(left), left.shape[1], right.shape[1]
        core = multiply(
            left.reshape(count, length * r, n), right.reshape(count, columns_of * q, n).mT
        ).reshape(count, length, r, columns_of, q)
        measured[block, rows, columns] = measure(core.swapaxes(2, 3))

    in_threads(work, tiles(blocks, length_t, length_k, PIECE // (r * q * a.itemsize)))


def tiles(
    blocks: int, length_t: int, length_k: int, fitting: int
) -> list[tuple[slice, slice, slice]]:
    """Cut (blocks, t, k) pairs into tiles that hold about as many as fit, near to squares."""
    rows = min(length_t, max(1, int(fitting**0.5)))
    columns = min(length_k, max(1, fitting // rows))
    rows = min(length_t, max(1, fitting // columns))
    step = max(1, fitting // (rows * columns))
    return [
        (slice(i, i + step), slice(t, t + rows), slice(k, k + columns))
        for i in range(0, blocks, step)
        for t in range(0, length_t, rows)
        for k in range(0, length_k, columns)
    ]
