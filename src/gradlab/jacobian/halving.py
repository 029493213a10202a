"""Prefix and suffix products over blocks of a time axis that is halved repeatedly.

For every pair (t, k) with k < m < t, the product is P = A_t B_k: a prefix of the half to the right
of the midpoint m times a suffix of the half to its left. Each prefix and suffix of a block comes
from those of its two halves by one matrix product, so O(T log T) products determine all pairs,
instead of T²/2.

Norms of A_t B_k depend on A_t by A_tᵀA_t only, so Qᵀ A_t does as well for any orthogonal Q. Over
many steps products come close to low rank; of Qᵀ A_t, with Q from the singular value decomposition,
few rows are left, and the energy (squared Frobenius norm) of those that are left out bounds what
the norm of every pair loses by it:

    ‖L B‖² ≤ ‖A B‖² ≤ ‖L B‖² + lost · ‖B‖²    (spectral and Frobenius norm alike)
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from gradlab.jacobian.arrays import PIECE, AnyArray, in_pieces
from gradlab.jacobian.carry import Span
from gradlab.jacobian.products import Scaled, multiply, rescale

LOST = 1e-13  # energy that truncation may leave out of a matrix, relative to its own
WORTH = 0.7  # share of the rows that must go for truncation to be worth its cost


class Factors(NamedTuple):
    """Rows that stand for the chosen rows of prefixes, or of transposed suffixes.

    Attributes:
        rows: (N, ℓ, r, n), of N blocks.
        lost: (N, ℓ), a bound on the energy that truncation left out, relative to the rows' own.
    """

    rows: Scaled
    lost: Float[AnyArray, "N l"]


class Block(NamedTuple):
    """Prefix and suffix products of N blocks of ℓ consecutive steps.

    Attributes:
        prefix: of the product of the first 1, 2, … ℓ steps: the chosen rows. In segments of
            consecutive ends, each of its own rank.
        suffix_T: of the product from step 1, 2, … ℓ to the end: the chosen columns, transposed. So
            both stack along rows: one large product extends all those of a block.
        whole: (N, n, n), the product of all steps.
    """

    prefix: list[Factors]
    suffix_T: list[Factors]
    whole: Scaled


def single_steps(jacobians: Scaled, of: Span, wrt: Span) -> Block:
    """Return step Jacobians (N, n, n) as N blocks of one step.

    Args:
        jacobians: of all steps.
        of: rows that are chosen of every product.
        wrt: columns that are.
    """
    matrices, log_scale = jacobians.unit[:, None], jacobians.log_scale[:, None]
    prefix = rescale(matrices[..., slice(*of), :], log_scale)
    suffix_T = rescale(matrices[..., slice(*wrt)].mT, log_scale)
    nothing = np.zeros_like(log_scale)
    return Block([Factors(prefix, nothing)], [Factors(suffix_T, nothing)], jacobians)


def halves(block: Block) -> tuple[Block, Block]:
    """Return N blocks as the N/2 left and the N/2 right halves of the next level's blocks."""
    return jax.tree.map(lambda x: x[0::2], block), jax.tree.map(lambda x: x[1::2], block)


def merge_blocks(left: Block, right: Block, truncate: bool) -> Block:
    """Merge neighbouring blocks: extend right prefixes over the left half, and left suffixes.

    Args:
        left, right: halves of the new blocks.
        truncate: leave rows out that hold no energy; it needs arrays of NumPy.
    """
    whole_T = Scaled(right.whole.unit.mT, right.whole.log_scale)
    prefix = _extend(right.prefix, left.whole, truncate)
    suffix_T = _extend(left.suffix_T, whole_T, truncate)
    product = multiply(right.whole.unit, left.whole.unit)
    return Block(
        _joined([*left.prefix, *prefix]),
        _joined([*suffix_T, *right.suffix_T]),
        rescale(product, right.whole.log_scale + left.whole.log_scale),
    )


def _extend(segments: list[Factors], factor: Scaled, truncate: bool) -> list[Factors]:
    """Multiply the rows of each segment by a factor (N, n, n) of their block, from the right."""
    longer = [_extended(segment, factor) for segment in segments]
    rank = _rank(factor.unit[0]) if truncate else np.inf
    if rank >= WORTH * max(segment.rows.unit.shape[2] for segment in longer):
        return longer
    # What the factor has left of them is of about one rank.
    return [_of_one_rank([_truncated(segment) for segment in longer])]


def _extended(segment: Factors, factor: Scaled) -> Factors:
    count, length, r, n = segment.rows.unit.shape

    def product(
        unit: Float[AnyArray, "m l r n"],
        log_scale: Float[AnyArray, "m l"],
        factor: Float[AnyArray, "m n n"],
    ) -> Scaled:
        stacked = multiply(unit.reshape(len(unit), -1, n), factor)
        return rescale(stacked.reshape(unit.shape), log_scale)

    split = length // _part(length, r * n * segment.rows.unit.itemsize)
    rows = jax.tree.map(lambda x: x.reshape(count * split, -1, *x.shape[2:]), segment.rows)
    parts = (rows.unit, rows.log_scale, np.repeat(factor.unit, split, axis=0))
    longer = in_pieces(product, *parts)
    longer = Scaled(*(x.reshape(count, length, *x.shape[2:]) for x in longer))
    shrunk = np.exp(2 * (segment.rows.log_scale - longer.log_scale))  # nan of zeros
    lost = np.where(segment.lost > 0, segment.lost * np.nan_to_num(shrunk, nan=np.inf), 0)
    longer = longer._replace(log_scale=longer.log_scale + factor.log_scale[:, None])
    return Factors(longer, lost)


def _truncated(segment: Factors) -> Factors:
    """Return the rows in the basis of their singular vectors, without those of no energy."""
    matrices = segment.rows.unit.reshape(-1, *segment.rows.unit.shape[2:])

    def rotated(matrices: Float[AnyArray, "m r n"]) -> tuple[AnyArray, AnyArray]:
        energies, vectors = np.linalg.eigh(multiply(matrices, matrices.mT))
        return multiply(vectors[..., ::-1].mT, matrices), np.maximum(energies, 0)

    rows, energies = in_pieces(rotated, matrices)
    below = np.cumsum(energies, axis=-1)  # of the smallest 1, 2, … r
    dropped = int(np.min(np.sum(below < LOST, axis=-1), initial=rows.shape[1] - 1))
    kept = rows.shape[1] - dropped
    shape = segment.lost.shape
    lost = below[:, dropped - 1].reshape(shape) if dropped else 0
    return Factors(
        segment.rows._replace(unit=rows[:, :kept].reshape(*shape, kept, -1)), segment.lost + lost
    )


def _rank(matrix: Float[AnyArray, "n n"]) -> int:
    """Return the rank that truncation would leave."""
    energies = np.linalg.svd(matrix, compute_uv=False) ** 2
    return len(energies) - int(np.sum(np.cumsum(energies[::-1]) < LOST))


def _part(length: int, size: int) -> int:
    """Return a divisor of ℓ, a power of two: so many matrices of a block make a piece."""
    while length > 1 and length * size > PIECE:
        length //= 2
    return length


def _joined(segments: list[Factors]) -> list[Factors]:
    """Join neighbouring segments of equal rank, which are measured together."""
    joined = segments[:1]
    for segment in segments[1:]:
        if joined[-1].rows.unit.shape[2] == segment.rows.unit.shape[2]:
            joined[-1] = _of_one_rank([joined[-1], segment])
        else:
            joined.append(segment)
    return joined


def _of_one_rank(segments: list[Factors]) -> Factors:
    """Join segments, with rows of zeros where one has fewer."""
    rank = max(segment.rows.unit.shape[2] for segment in segments)

    def filled(unit: Float[AnyArray, "N l r n"]) -> Float[AnyArray, "N l rank n"]:
        missing = rank - unit.shape[2]
        return np.pad(unit, [(0, 0), (0, 0), (0, missing), (0, 0)]) if missing else unit

    rows = Scaled(
        np.concatenate([filled(segment.rows.unit) for segment in segments], axis=1),
        np.concatenate([segment.rows.log_scale for segment in segments], axis=1),
    )
    return Factors(rows, np.concatenate([segment.lost for segment in segments], axis=1))
