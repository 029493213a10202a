"""Products of step Jacobians over a time axis that is halved again and again.

Every pair (t, k) with k < m < t splits at some midpoint m into P = A_t B_k: a prefix of the right
half times a suffix of the left half. The prefixes and suffixes of a block come from those of its
two halves by one matrix product each, so all that is needed to know every pair costs
O(T log T) products instead of T²/2.

All matrices are kept at Frobenius norm 1 with the log of their scale beside them: a product over
thousands of steps neither overflows nor underflows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LEAF = 8  # Shorter blocks are multiplied out: below this a product a pair costs less than a level.


class Scaled(NamedTuple):
    """Matrices exp(log_scale) · unit, each unit of Frobenius norm 1 (or exactly zero)."""

    unit: Float[Array, "*batch n m"]
    log_scale: Float[Array, "*batch"]


class ResolvedLogNorms(NamedTuple):
    """Log norms, and whether rounding left three digits of each (an exact zero has them all)."""

    value: Float[Array, "*pairs"]
    resolved: Bool[Array, "*pairs"]


class Block(NamedTuple):
    """All partial products of N blocks of ℓ consecutive steps.

    `prefix[i]` is the product of the first i + 1 step Jacobians of its block; `suffix_t[i]` is the
    *transpose* of the product from step i to the block's end. Prefixes and transposed suffixes
    both stack along rows, so one large matrix product extends all of a block's at once.
    """

    prefix: Scaled
    suffix_t: Scaled


def rescale(
    matrix: Float[Array, "*batch n m"], log_scale: Float[Array, "*batch"] | float = 0.0
) -> Scaled:
    """Move the Frobenius norm of each matrix into its log scale; zero matrices get −inf."""
    # Dividing by the largest entry first keeps the squares in the norm from under- or overflowing.
    largest = jnp.max(jnp.abs(matrix), axis=(-2, -1), keepdims=True)
    safe = jnp.where(largest > 0, largest, 1)
    matrix = matrix / safe
    norm = jnp.sqrt(jnp.sum(matrix**2, axis=(-2, -1), keepdims=True))
    unit = matrix / jnp.where(norm > 0, norm, 1)
    return Scaled(unit, log_scale + jnp.log(norm * largest)[..., 0, 0])


def split_length(length: int) -> tuple[int, int]:
    """Choose (leaf, levels) so that leaf · 2**levels ≥ length with little padding.

    Leaves hold 8 to 15 steps, so at most one step in eight is padding.
    """
    levels = max(0, (length // LEAF).bit_length() - 1)
    return -(-length // 2**levels), levels


def pad_steps(jacobians: Scaled, padded_length: int) -> Scaled:
    """Append identity steps, which leave every product that ends before them as it is."""
    length, n, _ = jacobians.unit.shape
    identity = jnp.broadcast_to(
        jnp.eye(n, dtype=jacobians.unit.dtype), (padded_length - length, n, n)
    )
    return join([jacobians, rescale(identity)])


def leaf_products(jacobians: Scaled) -> list[Scaled]:
    """Every product inside one leaf, by lag: element j holds the products of j + 1 steps,

    (ℓ − j, n, n), from the first starting step to the last.
    """
    products = [jacobians]
    for lag in range(1, jacobians.log_scale.size):
        shorter = products[-1]
        product = multiply(jacobians.unit[lag:], shorter.unit[:-1])
        products.append(rescale(product, jacobians.log_scale[lag:] + shorter.log_scale[:-1]))
    return products


def leaf_block(products: list[Scaled]) -> Block:
    """Read the prefixes and suffixes of a leaf off its products."""
    prefix = [Scaled(p.unit[0], p.log_scale[0]) for p in products]
    suffix_t = [Scaled(p.unit[-1].mT, p.log_scale[-1]) for p in reversed(products)]
    return Block(stack(prefix), stack(suffix_t))


def halves(block: Block) -> tuple[Block, Block]:
    """Split N blocks into the N/2 left and the N/2 right halves of the next level's blocks."""
    left = jax.tree.map(lambda x: x[0::2], block)
    right = jax.tree.map(lambda x: x[1::2], block)
    return left, right


def merge(left: Block, right: Block) -> Block:
    """Join neighbouring blocks: right prefixes run on through the left, left suffixes the right."""
    whole_left = Scaled(left.prefix.unit[:, -1], left.prefix.log_scale[:, -1])
    whole_right_t = Scaled(right.suffix_t.unit[:, 0], right.suffix_t.log_scale[:, 0])
    return Block(
        prefix=_append(left.prefix, _extend(right.prefix, whole_left)),
        suffix_t=_append(_extend(left.suffix_t, whole_right_t), right.suffix_t),
    )


def resolved(size: Float[Array, "*pairs"]) -> Bool[Array, "*pairs"]:
    """Whether a sum of products of numbers up to 1 is large enough for three digits, or zero."""
    return (size > 1000 * jnp.finfo(size.dtype).eps) | (size == 0)


def multiply(
    left: Float[Array, "*batch n m"], right: Float[Array, "*batch m p"]
) -> Float[Array, "*batch n p"]:
    """Batched product at full precision: an accelerator's reduced modes would cost the digits."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def stack(items: list[Scaled]) -> Scaled:
    """Stack along a new first axis."""
    return Scaled(*(jnp.stack(x) for x in zip(*items, strict=True)))


def join(items: list[Scaled]) -> Scaled:
    """Concatenate along the first axis."""
    return Scaled(*(jnp.concatenate(x) for x in zip(*items, strict=True)))


def _extend(rows: Scaled, factor: Scaled) -> Scaled:
    _, length, n, _ = rows.unit.shape

    def stacked(pair: tuple[Array, Array]) -> Array:
        return multiply(pair[0].reshape(length * n, n), pair[1]).reshape(length, n, n)

    product = jax.lax.map(stacked, (rows.unit, factor.unit))
    return rescale(product, rows.log_scale + factor.log_scale[:, None])


def _append(first: Scaled, second: Scaled) -> Scaled:
    return Scaled(*(jnp.concatenate(pair, axis=1) for pair in zip(first, second, strict=True)))
