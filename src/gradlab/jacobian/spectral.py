"""Spectral norms of all pairs by Lanczos iterations that never form a product.

σ²_max(A_t B_k) is the top eigenvalue of the symmetric B_kᵀ G_t B_k with G_t = A_tᵀA_t. One Lanczos
step for a tile of pairs is three stacked matrix products, since all pairs of a row share G_t and
all pairs of a column share B_k. A tile stops as soon as no estimate in it moves any more: far from
the diagonal, where products are close to rank one, that is after two or three steps.

The estimate is a Ritz value, so in exact arithmetic it never exceeds the true norm.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradlab.jacobian.frobenius import gram
from gradlab.jacobian.hierarchy import Scaled, multiply

TOLERANCE = 1e-5  # Largest relative change of σ² in a step that still counts as converged.
QUIET_STEPS = 2  # One may be a pause on the way from the second eigenvalue to the first.
MAX_STEPS = 64  # Only near-degenerate spectra come here; their top is then known to better than 1e-3.
ROOT_STEPS = 5
TILE = 4096  # Pairs iterated together: their vectors and matrices then fit a CPU's caches.


def product_log_norms(product: Scaled) -> Float[Array, "*batch"]:
    """Log spectral norms of matrices that are at hand (rows and columns already chosen)."""
    *batch, rows, columns = product.unit.shape
    matrices = product.unit.reshape(-1, rows, columns)

    def chunk_norms(chunk: Float[Array, "count rows columns"]) -> Float[Array, "count"]:
        grams = gram(chunk)
        return top_eigenvalue(
            lambda v: multiply(grams, v[..., None])[..., 0], _start(chunk.shape[:1], columns, chunk)
        )

    squares = jax.lax.map(lambda m: chunk_norms(m[None])[0], matrices, batch_size=128)
    return 0.5 * jnp.log(squares).reshape(batch) + product.log_scale


def cross_log_norms(prefix: Scaled, suffix_t: Scaled) -> Float[Array, "blocks t k"]:
    """Log σ_max(A_t B_k) for all pairs of each block.

    Args:
        prefix: (blocks, ℓ, rows, n), the rows of A_t that are asked for.
        suffix_t: (blocks, ℓ, columns, n), the columns of B_k that are asked for, transposed.
    """
    blocks, length, _, n = prefix.unit.shape
    columns = suffix_t.unit.shape[2]
    grams = gram(prefix.unit.reshape(blocks * length, -1, n)).reshape(blocks, length, n, n)
    side, group = _tiling(blocks, length)
    tiles = length // side

    def tile_squares(index: Array) -> Float[Array, "group side side"]:
        which, row, column = jnp.unravel_index(index, (blocks // group, tiles, tiles))
        start = (which * group, row * side, 0, 0)
        g = jax.lax.dynamic_slice(grams, start, (group, side, n, n))
        start = (which * group, column * side, 0, 0)
        b_t = jax.lax.dynamic_slice(suffix_t.unit, start, (group, side, columns, n))

        def apply(v: Float[Array, "group t k p"]) -> Float[Array, "group t k p"]:
            by_column = multiply(v.swapaxes(1, 2), b_t)  # (group, k, t, n): all t share B_k
            by_row = multiply(by_column.swapaxes(1, 2), g)  # (group, t, k, n): all k share G_t
            return multiply(by_row.swapaxes(1, 2), b_t.mT).swapaxes(1, 2)

        return top_eigenvalue(apply, _start((group, side, side), columns, g))

    squares = jax.lax.map(tile_squares, jnp.arange(blocks // group * tiles * tiles))
    squares = squares.reshape(blocks // group, tiles, tiles, group, side, side)
    squares = squares.transpose(0, 3, 1, 4, 2, 5).reshape(blocks, length, length)
    logs = 0.5 * jnp.log(squares)
    return logs + prefix.log_scale[:, :, None] + suffix_t.log_scale[:, None, :]


class _Lanczos(NamedTuple):
    step: Array
    vector: Float[Array, "*pairs n"]
    previous: Float[Array, "*pairs n"]
    beta: Float[Array, "*pairs"]
    alphas: Float[Array, "steps *pairs"]
    betas: Float[Array, "steps *pairs"]
    estimate: Float[Array, "*pairs"]
    quiet: Int[Array, ""]  # steps in a row in which no estimate moved


def top_eigenvalue(
    apply: Callable[[Float[Array, "*pairs n"]], Float[Array, "*pairs n"]],
    start: Float[Array, "*pairs n"],
) -> Float[Array, "*pairs"]:
    """Largest eigenvalue of many symmetric positive semi-definite operators at once.

    Args:
        apply: multiplies each vector by its operator.
        start: one unit vector for each operator.
    """
    *pairs, n = start.shape
    steps = min(n, MAX_STEPS)
    zeros = jnp.zeros(pairs, start.dtype)
    tiny = jnp.finfo(start.dtype).tiny

    def advance(state: _Lanczos) -> _Lanczos:
        image = apply(state.vector)
        alpha = jnp.sum(image * state.vector, axis=-1)
        image = image - alpha[..., None] * state.vector - state.beta[..., None] * state.previous
        beta = jnp.linalg.norm(image, axis=-1)
        # A vanishing remainder means that the Krylov space is exhausted: the estimate is exact.
        exhausted = beta <= 4 * jnp.finfo(start.dtype).eps * state.estimate
        beta = jnp.where(exhausted, 0, beta)
        vector = jnp.where(exhausted[..., None], 0, image / jnp.maximum(beta, tiny)[..., None])
        alphas = state.alphas.at[state.step].set(alpha)
        betas = state.betas.at[state.step].set(beta)
        estimate = _top_of_tridiagonal(alphas, betas, state.step, state.estimate)
        moved = jnp.any(estimate - state.estimate > TOLERANCE * estimate)
        quiet = jnp.where(moved, 0, state.quiet + 1)
        return _Lanczos(
            state.step + 1, vector, state.vector, beta, alphas, betas, estimate, quiet
        )

    table = jnp.zeros((steps, *pairs), start.dtype)
    initial = _Lanczos(
        jnp.array(0), start, jnp.zeros_like(start), zeros, table, table, zeros, jnp.array(0)
    )
    final = jax.lax.while_loop(lambda s: (s.step < steps) & (s.quiet < QUIET_STEPS), advance, initial)
    return final.estimate


def _top_of_tridiagonal(
    alphas: Float[Array, "steps *pairs"],
    betas: Float[Array, "steps *pairs"],
    last: Array,
    top_before: Float[Array, "*pairs"],
) -> Float[Array, "*pairs"]:
    """Largest eigenvalue of the leading (last + 1) rows of a tridiagonal matrix.

    Laguerre's iteration descends monotonically to the largest root of a polynomial with real roots
    from any point above it, cubically. Without its last row the matrix has top eigenvalue
    `top_before`, so the larger root of a 2 × 2 matrix bounds the whole from above.
    """
    beta = jnp.where(last > 0, betas[last - 1], 0)
    mean, half = (top_before + alphas[last]) / 2, (top_before - alphas[last]) / 2
    bound = mean + jnp.hypot(half, beta)
    scale = jnp.where(bound > 0, bound, 1)
    alphas, betas = alphas / scale, betas / scale
    eps = jnp.finfo(alphas.dtype).eps
    degree = (last + 1).astype(alphas.dtype)

    def laguerre(_: Array, x: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        def row(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
            # Ratios of successive polynomials stay in range where the polynomials do not;
            # slope and bend are the first two derivatives of log |ratio|.
            ratio, slope, bend, slopes, bends = carry
            coupling = jnp.where(i > 0, betas[i - 1], 0) ** 2 / ratio
            ratio = jnp.maximum(x - alphas[i] - coupling, eps)
            first = 1 + coupling * slope
            second = coupling * (bend - slope**2)
            slope = first / ratio
            bend = second / ratio - slope**2
            return ratio, slope, bend, slopes + slope, bends + bend

        one = jnp.ones_like(x)
        zero = jnp.zeros_like(x)
        *_, slopes, bends = jax.lax.fori_loop(0, last + 1, row, (one, zero, zero, zero, zero))
        spread = jnp.maximum((degree - 1) * (-degree * bends - slopes**2), 0)
        return x - degree / (slopes + jnp.sqrt(spread))

    top = jax.lax.fori_loop(0, ROOT_STEPS, laguerre, jnp.ones_like(bound))
    return top * bound


def _start(batch: tuple[int, ...], n: int, like: Array) -> Float[Array, "*batch n"]:
    """The same random direction for every pair: almost surely no top eigenvector is missed."""
    direction = jax.random.normal(jax.random.key(0), (n,), like.dtype)
    return jnp.broadcast_to(direction / jnp.linalg.norm(direction), (*batch, n))


def _tiling(blocks: int, length: int) -> tuple[int, int]:
    """Side of a tile, which divides ℓ, and how many blocks share one when ℓ² is small."""
    side, target = length, int(TILE**0.5)
    while side > target and side % 2 == 0:
        side //= 2
    group = 1
    while group * 2 * side**2 <= TILE and blocks % (group * 2) == 0:
        group *= 2
    return side, group
