"""Prefix and suffix products over blocks of a time axis that is halved repeatedly.

For every pair (t, k) with k < m < t, the product is P = A_t B_k: a prefix of the half to the right
of the midpoint m times a suffix of the half to its left. Each prefix and suffix of a block comes
from those of its two halves by one matrix product, so O(T log T) products determine all pairs,
instead of T²/2.

Norms of A_t B_k depend on A_t by A_tᵀA_t only, so Qᵀ A_t does as well for any orthogonal Q. Over
many steps products come close to low rank: the rows of A_t W, W the factor that extends A_t, to
the span of W's first r right singular vectors V. The columns Q of the factorisation A_t W V = Q R
leave L = Qᵀ A_t W, of r rows. What they leave out of A_t W, D = (I − Q Qᵀ) A_t W, is known by a
sketch: a few random combinations of its rows, G D, with E ‖G D B‖²_F = ‖D B‖²_F for any B. They are
extended as the rows are and tell what every pair loses (pairs.py):

    ‖L B‖² ≤ ‖A B‖² ≤ ‖L B‖² + ‖D B‖²    (spectral and Frobenius norm alike)
"""

from itertools import accumulate, pairwise
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from gradlab.jacobian.arrays import AnyArray, in_threads, pieces
from gradlab.jacobian.carry import Span
from gradlab.jacobian.products import Scaled, multiply, rescale

LOST = 1e-14  # energy, relative to its own, that truncation may leave out of a factor
WORTH = 0.6  # share of the rows that may be left for truncation to be worth its cost
SKETCHES = 3  # random combinations of what is left out


class Rows(NamedTuple):
    """Rows that stand for the chosen rows of prefixes, or of transposed suffixes, of N blocks.

    Attributes:
        unit: (N, ℓ, r, n), of Frobenius norm 1.
        log_scale: (N, ℓ), of the rows.
        sketch: (N, ℓ, s, n), random combinations of what truncation left out, at the same scale;
            s is 0 where nothing was left out.
    """

    unit: Float[AnyArray, "N l r n"]
    log_scale: Float[AnyArray, "N l"]
    sketch: Float[AnyArray, "N l s n"]


class Block(NamedTuple):
    """Prefix and suffix products of N blocks of ℓ consecutive steps.

    Attributes:
        prefix: of the product of the first 1, 2, … ℓ steps: the chosen rows. In segments of
            consecutive ends, each of its own rank.
        suffix_T: of the product from step 1, 2, … ℓ to the end: the chosen columns, transposed. So
            both stack along rows: one large product extends all those of a block.
        whole: (N, n, n), the product of all steps.
    """

    prefix: list[Rows]
    suffix_T: list[Rows]
    whole: Scaled


def single_steps(jacobians: Scaled, of: Span, wrt: Span) -> Block:
    """Return step Jacobians (N, n, n) as N blocks of one step.

    Args:
        jacobians: of all steps.
        of: rows that are chosen of every product.
        wrt: columns that are.
    """
    (count, n, _), dtype = jacobians.unit.shape, jacobians.unit.dtype
    sides = [
        Rows(
            np.empty((count, 1, end - begin, n), dtype),
            np.empty((count, 1)),
            np.empty((count, 1, 0, n), dtype),
        )
        for begin, end in (of, wrt)
    ]

    def work(blocks: slice, _: slice) -> None:
        unit, log_scale = (x[blocks] for x in jacobians)
        for rows, part in zip(sides, (unit[:, slice(*of)], unit[..., slice(*wrt)].mT), strict=True):
            rows.log_scale[blocks, 0] = rescale(part, log_scale, rows.unit[blocks, 0]).log_scale

    in_threads(work, pieces(count, 1, jacobians.unit[0].nbytes))
    return Block([sides[0]], [sides[1]], jacobians)


def halves(block: Block) -> tuple[Block, Block]:
    """Return N blocks as the N/2 left and the N/2 right halves of the next level's blocks."""
    return jax.tree.map(lambda x: x[0::2], block), jax.tree.map(lambda x: x[1::2], block)


def merge_blocks(block: Block, truncate: bool) -> Block:
    """Merge neighbouring blocks: extend right prefixes over the left half, and left suffixes.

    Args:
        block: N blocks, whose arrays may become those of the N/2 that are returned.
        truncate: leave out what holds no energy.
    """
    left, right = halves(block)
    right_T = Scaled(right.whole.unit.mT, right.whole.log_scale)
    return Block(
        _merged(block.prefix, 1, left.whole, truncate),
        _merged(block.suffix_T, 0, right_T, truncate),
        _product(right.whole, left.whole),
    )


def _product(later: Scaled, earlier: Scaled) -> Scaled:
    log_scale = later.log_scale + earlier.log_scale
    product = Scaled(np.empty(later.unit.shape, later.unit.dtype), np.empty(len(later.unit)))

    def work(blocks: slice, _: slice) -> None:
        unscaled = multiply(later.unit[blocks], earlier.unit[blocks])
        scaled = rescale(unscaled, log_scale[blocks], product.unit[blocks])
        product.log_scale[blocks] = scaled.log_scale

    in_threads(work, pieces(len(later.unit), 1, later.unit[0].nbytes))
    return product


def _merged(segments: list[Rows], half: int, factor: Scaled, truncate: bool) -> list[Rows]:
    """Extend the rows of each block's left (0) or right (1) half by the factor, and join both."""
    moving = jax.tree.map(lambda x: x[half::2], segments)
    staying = jax.tree.map(lambda x: x[1 - half :: 2], segments)
    most = max(rows.unit.shape[2] for rows in segments)
    basis = _basis(factor.unit, WORTH * most) if truncate else None
    if basis is None and len(segments) == 1:
        _extend(moving[0], factor, None, moving[0])
        return [Rows(*(x.reshape(len(x) // 2, 2 * x.shape[1], *x.shape[2:]) for x in segments[0]))]
    extended = _of_one_rank(moving, factor, basis, most)
    return [*staying, extended] if half else [extended, *staying]


def _of_one_rank(
    segments: list[Rows], factor: Scaled, basis: Float[AnyArray, "N n r"] | None, most: int
) -> Rows:
    """Return the extended rows of all segments as one, with rows of zeros where one has fewer."""
    ends = list(accumulate((rows.unit.shape[1] for rows in segments), initial=0))
    count, _, n = factor.unit.shape
    shape, dtype = (count, ends[-1]), factor.unit.dtype
    joined = Rows(
        np.zeros((*shape, most if basis is None else basis.shape[2], n), dtype),
        np.zeros(shape),
        np.zeros((*shape, SKETCHES, n), dtype),
    )
    for rows, (start, end) in zip(segments, pairwise(ends), strict=True):
        _extend(rows, factor, basis, Rows(*(x[:, start:end] for x in joined)))
    return joined


def _extend(
    rows: Rows, factor: Scaled, basis: Float[AnyArray, "N n r"] | None, target: Rows
) -> None:
    """Multiply the rows by a factor (N, n, n) of their block from the right, in place of target.

    Args:
        rows: of N blocks.
        factor: of each block.
        basis: what the factor's own rows come close to being in the span of; None to leave out
            nothing.
        target: may be the rows themselves.
    """
    count, length, r, n = rows.unit.shape
    mix = _random_combinations(rows, length)
    toward = None if basis is None else multiply(factor.unit, basis)

    def work(blocks: slice, part: slice) -> None:
        unit, sketch = rows.unit[blocks, part], rows.sketch[blocks, part]
        if toward is not None:
            q = np.linalg.qr(_times(unit, toward[blocks]))[0]
            kept = multiply(q.mT, unit)
            left_out = multiply(mix, unit) - multiply(multiply(mix, q), kept)
            unit, sketch = kept, _added(left_out, sketch)
        longer, sketch = (_times(x, factor.unit[blocks]) for x in (unit, sketch))
        _, shrunk = rescale(longer, out=target.unit[blocks, part, : longer.shape[2]])
        if sketch.shape[2]:  # of rows that are zero the sketch is zero too, or else infinite
            scaled = sketch / np.exp(shrunk)[..., None, None]
            target.sketch[blocks, part] = np.nan_to_num(scaled, nan=0, posinf=np.inf)
        log_scale = shrunk + factor.log_scale[blocks, None]
        target.log_scale[blocks, part] = rows.log_scale[blocks, part] + log_scale

    in_threads(work, pieces(count, length, r * n * rows.unit.itemsize))


def sketch_of_all(rows: Rows) -> Float[AnyArray, "N l s n"]:
    """Return random combinations of the rows and of what was left out of them."""
    return _added(multiply(_random_combinations(rows, 0), rows.unit), rows.sketch)


def _random_combinations(rows: Rows, seed: int) -> Float[AnyArray, "s r"]:
    """Return G with E ‖G X‖²_F = ‖X‖²_F for any X of so many rows."""
    normal = np.random.default_rng(seed).standard_normal((SKETCHES, rows.unit.shape[2]))
    return (normal / SKETCHES**0.5).astype(rows.unit.dtype)


def _added(
    sketch: Float[AnyArray, "N l s n"], before: Float[AnyArray, "N l s_or_0 n"]
) -> Float[AnyArray, "N l s n"]:
    return sketch + before if before.shape[2] else sketch


def _times(
    rows: Float[AnyArray, "N l r n"], factor: Float[AnyArray, "N n m"]
) -> Float[AnyArray, "N l r m"]:
    """Multiply the rows by their block's factor: one large product."""
    count, length, r, n = rows.shape
    return multiply(rows.reshape(count, length * r, n), factor).reshape(
        count, length, r, factor.shape[-1]
    )


def _basis(factors: Float[AnyArray, "N n n"], most: float) -> Float[AnyArray, "N n r"] | None:
    """Return orthonormal columns that span the rows of each factor, but for LOST of its energy.

    None where a factor has more than `most`.
    """
    if _rank(np.linalg.eigvalsh(multiply(factors[0].mT, factors[0]))) > most:
        return None
    energies, vectors = np.linalg.eigh(multiply(factors.mT, factors))
    rank = _rank(energies)
    return np.ascontiguousarray(vectors[..., -rank:]) if rank <= most else None


def _rank(energies: Float[AnyArray, "*batch n"]) -> int:
    left_out = np.cumsum(np.abs(energies), axis=-1) < LOST
    return max(1, energies.shape[-1] - int(np.min(np.sum(left_out, axis=-1))))
