"""Products of step Jacobians over a time axis that is halved repeatedly.

For every pair (t, k) with k < m < t, the product is P = A_t B_k: a prefix of the half to the right
of the midpoint m times a suffix of the half to its left. Each prefix and suffix of a block comes
from those of its two halves by one matrix product, so O(T log T) products determine all pairs,
instead of T²/2.

All matrices are kept at Frobenius norm 1 with the log of their scale beside them, so that products
over thousands of steps neither overflow nor underflow.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LEAF = 8  # In shorter blocks, forming the product of every pair is cheaper than another level.


class Scaled(NamedTuple):
    """Matrices exp(log_scale) · unit, each unit of Frobenius norm 1 (or exactly zero)."""

    unit: Float[Array, "*batch n m"]
    log_scale: Float[Array, "*batch"]


class ResolvedLogNorms(NamedTuple):
    """Log norms, and whether each kept three digits through rounding (an exact zero does)."""

    value: Float[Array, "*pairs"]
    resolved: Bool[Array, "*pairs"]


class Block(NamedTuple):
    """Prefix and suffix products of N blocks of ℓ consecutive steps, each (N, ℓ, n, n).

    Suffixes are kept transposed, as `suffix_T`: transposed suffixes stack along rows, as prefixes
    do, so one large matrix product extends all those of a block at once.

    Attributes:
        prefix: [:, i] is the product of the first i + 1 step Jacobians of the block.
        suffix_T: [:, i] is the *transpose* of the product from step i to the end of the block.
    """

    prefix: Scaled
    suffix_T: Scaled


def rescale(
    matrix: Float[Array, "*batch n m"], log_scale: Float[Array, "*batch"] | float = 0.0
) -> Scaled:
    """Move the Frobenius norm of each matrix into its log scale; that of a zero matrix is −inf."""
    # Division by the largest entry keeps the squares in the norm from under- or overflowing. The
    # result does not depend on it, so it is a constant to derivatives.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(matrix), axis=(-2, -1), keepdims=True))
    matrix = matrix / jnp.where(largest > 0, largest, 1)
    square = jnp.sum(matrix**2, axis=(-2, -1), keepdims=True)
    norm = jnp.sqrt(jnp.where(square == 0, 1, square))
    return Scaled(matrix / norm, log_scale + safe_log(norm * largest)[..., 0, 0])


def safe_log(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the logarithm: −inf at 0, where its derivative is 0 instead of a division by 0."""
    return jnp.where(x == 0, -jnp.inf, jnp.log(jnp.where(x == 0, 1, x)))


def split_length(length: int) -> tuple[int, int]:
    """Return (leaf, levels) with leaf · 2**levels ≥ length and little padding.

    A leaf has 8 to 15 steps (fewer only if the sequence has), so at most one step in eight is
    padding.
    """
    levels = max(0, (length // LEAF).bit_length() - 1)
    return -(-length // 2**levels), levels


def pad_steps(jacobians: Scaled, padded_length: int) -> Scaled:
    """Append identity steps, which do not change the products of the steps before them."""
    length, n, _ = jacobians.unit.shape
    identity = jnp.broadcast_to(
        jnp.eye(n, dtype=jacobians.unit.dtype), (padded_length - length, n, n)
    )
    return concatenate([jacobians, rescale(identity)])


def leaf_products(jacobians: Scaled) -> list[Scaled]:
    """Return every product inside one leaf of ℓ steps, by lag.

    Element j holds the products of j + 1 consecutive steps, (ℓ − j, n, n), in order of their first
    step.
    """
    products = [jacobians]
    for lag in range(1, jacobians.log_scale.size):
        shorter = products[-1]
        product = multiply(jacobians.unit[lag:], shorter.unit[:-1])
        products.append(rescale(product, jacobians.log_scale[lag:] + shorter.log_scale[:-1]))
    return products


def leaf_block(products: list[Scaled]) -> Block:
    """Return the prefixes and suffixes of a leaf, which are among its products."""
    prefix = [Scaled(p.unit[0], p.log_scale[0]) for p in products]
    suffix_T = [Scaled(p.unit[-1].mT, p.log_scale[-1]) for p in reversed(products)]
    return Block(stack(prefix), stack(suffix_T))


def halves(block: Block) -> tuple[Block, Block]:
    """Return N blocks as the N/2 left and the N/2 right halves of the next level's blocks."""
    left = jax.tree.map(lambda x: x[0::2], block)
    right = jax.tree.map(lambda x: x[1::2], block)
    return left, right


def merge_blocks(left: Block, right: Block) -> Block:
    """Merge neighbouring blocks: extend right prefixes over the left half, and left suffixes."""
    whole_left = Scaled(left.prefix.unit[:, -1], left.prefix.log_scale[:, -1])
    whole_right_T = Scaled(right.suffix_T.unit[:, 0], right.suffix_T.log_scale[:, 0])
    return Block(
        prefix=_append(left.prefix, _extend(right.prefix, whole_left)),
        suffix_T=_append(_extend(left.suffix_T, whole_right_T), right.suffix_T),
    )


def resolved(size: Float[Array, "*pairs"]) -> Bool[Array, "*pairs"]:
    """Return whether a sum of numbers of size up to 1 kept three digits, or is exactly zero."""
    return (size > 1000 * jnp.finfo(size.dtype).eps) | (size == 0)


def multiply(
    left: Float[Array, "*batch n m"], right: Float[Array, "*batch m p"]
) -> Float[Array, "*batch n p"]:
    """Return the batched product at full precision, which accelerators reduce by default."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def extend(product: Scaled, jacobian: Float[Array, "n n"]) -> Scaled:
    """Return the product after one more step."""
    return rescale(multiply(jacobian, product.unit), product.log_scale)


def stack(items: list[Scaled]) -> Scaled:
    """Stack scaled matrices along a new first axis."""
    return Scaled(*(jnp.stack(x) for x in zip(*items, strict=True)))


def concatenate(items: list[Scaled]) -> Scaled:
    """Concatenate scaled matrices along their first axis."""
    return Scaled(*(jnp.concatenate(x) for x in zip(*items, strict=True)))


def _extend(rows: Scaled, factor: Scaled) -> Scaled:
    _, length, n, _ = rows.unit.shape

    def stacked(pair: tuple[Array, Array]) -> Array:
        return multiply(pair[0].reshape(length * n, n), pair[1]).reshape(length, n, n)

    product = jax.lax.map(stacked, (rows.unit, factor.unit))
    return rescale(product, rows.log_scale + factor.log_scale[:, None])


def _append(first: Scaled, second: Scaled) -> Scaled:
    return Scaled(*(jnp.concatenate(pair, axis=1) for pair in zip(first, second, strict=True)))
