"""Spectral norms of all pairs by Lanczos iterations that never form a product.

σ²_max(A_t B_k) is the top eigenvalue of the symmetric B_kᵀ G_t B_k with G_t = A_tᵀA_t. One Lanczos
step for a tile of pairs is three stacked matrix products, since all pairs of a row share G_t and
all pairs of a column share B_k. A tile stops once the residual of every pair bounds its error: far
from the diagonal, where products are close to rank one, that is after two or three steps.

The estimate is a Ritz value, so in exact arithmetic it never exceeds the true norm.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradlab.jacobian.frobenius import gram
from gradlab.jacobian.products import ResolvedLogNorms, Scaled, multiply, resolved

TOLERANCE = 1e-5  # Largest residual over σ²: some eigenvalue lies that near, the top far nearer.
LOOK_EVERY = 4  # Steps between two looks at the residual, which cost as much as a step or two.
BISECTIONS = 24
SIDE = 64  # A tile's rows and columns: its vectors and matrices then fit a CPU's caches.


def product_log_norms(product: Scaled) -> ResolvedLogNorms:
    """Log spectral norms of matrices that are at hand (rows and columns already chosen)."""
    grams = gram(product.unit)
    start = _start(grams.shape[:1], grams.shape[-1], grams)
    squares = top_eigenvalue(lambda v: multiply(v[:, None], grams)[:, 0], start)
    norms = jnp.sqrt(squares)
    return ResolvedLogNorms(jnp.log(norms) + product.log_scale, resolved(norms))


def cross_log_norms(prefix: Scaled, suffix_t: Scaled) -> ResolvedLogNorms:
    """Log σ_max(A_t B_k) for all pairs of each block.

    Args:
        prefix: (blocks, ℓ, rows, n), the rows of A_t that are asked for.
        suffix_t: (blocks, ℓ, columns, n), the columns of B_k that are asked for, transposed.

    Returns:
        (blocks, t, k).
    """
    blocks, length, _, n = prefix.unit.shape
    columns = suffix_t.unit.shape[2]
    grams = gram(prefix.unit.reshape(blocks * length, -1, n)).reshape(blocks, length, n, n)
    side, group = _tiling(blocks, length)
    tiles = length // side

    def tile_squares(index: Array) -> Float[Array, "group k t"]:
        which, row, column = jnp.unravel_index(index, (blocks // group, tiles, tiles))
        start = (which * group, row * side, 0, 0)
        g = jax.lax.dynamic_slice(grams, start, (group, side, n, n)).reshape(-1, n, n)
        start = (which * group, column * side, 0, 0)
        b_t = jax.lax.dynamic_slice(suffix_t.unit, start, (group, side, columns, n))
        b_t = b_t.reshape(-1, columns, n)

        def apply(v: Float[Array, "group k t p"]) -> Float[Array, "group k t p"]:
            by_column = _each(v.reshape(-1, side, columns), b_t)  # all t of a k share B_k
            by_row = _each(_transposed(by_column), g)  # all k of a t share G_t
            return _each(_transposed(by_row), b_t.mT).reshape(v.shape)

        def _transposed(w: Float[Array, "group*side side n"]) -> Float[Array, "group*side side n"]:
            return w.reshape(group, side, side, n).swapaxes(1, 2).reshape(-1, side, n)

        return top_eigenvalue(apply, _start((group, side, side), columns, g))

    squares = jax.lax.map(tile_squares, jnp.arange(blocks // group * tiles * tiles))
    squares = squares.reshape(blocks // group, tiles, tiles, group, side, side)
    squares = squares.transpose(0, 3, 1, 5, 2, 4).reshape(blocks, length, length)
    logs = 0.5 * jnp.log(squares)
    logs = logs + prefix.log_scale[:, :, None] + suffix_t.log_scale[:, None, :]
    return ResolvedLogNorms(logs, resolved(squares))


def _each(
    rows: Float[Array, "count side n"], matrices: Float[Array, "count n m"]
) -> Float[Array, "count side m"]:
    """Batched product, one at a time: on a CPU that is up to twice as fast."""
    return jax.lax.map(lambda pair: multiply(*pair), (rows, matrices))


class _Lanczos(NamedTuple):
    step: Array
    vector: Float[Array, "*pairs n"]
    previous: Float[Array, "*pairs n"]
    beta: Float[Array, "*pairs"]
    alphas: Float[Array, "steps *pairs"]
    betas: Float[Array, "steps *pairs"]
    top: Float[Array, "*pairs"]
    settled: Array


def top_eigenvalue(
    apply: Callable[[Float[Array, "*pairs n"]], Float[Array, "*pairs n"]],
    start: Float[Array, "*pairs n"],
) -> Float[Array, "*pairs"]:
    """Largest eigenvalue of many symmetric positive semi-definite operators at once.

    Args:
        apply: multiplies each vector by its operator, of norm at most 1.
        start: one unit vector for each operator.
    """
    *pairs, n = start.shape
    steps = -(-n // LOOK_EVERY) * LOOK_EVERY
    eps, tiny = jnp.finfo(start.dtype).eps, jnp.finfo(start.dtype).tiny
    tolerance = max(TOLERANCE, 1000 * float(eps))

    def advance(_: Array, state: _Lanczos) -> _Lanczos:
        image = apply(state.vector) - state.beta[..., None] * state.previous
        alpha = jnp.sum(image * state.vector, axis=-1)
        image = image - alpha[..., None] * state.vector
        beta = jnp.linalg.norm(image, axis=-1)
        # A vanishing remainder means that the Krylov space is exhausted: it goes on with zeros.
        beta = jnp.where(beta > eps * state.alphas[0], beta, 0)
        vector = jnp.where(beta[..., None] > 0, image / jnp.maximum(beta, tiny)[..., None], 0)
        return state._replace(
            step=state.step + 1,
            vector=vector,
            previous=state.vector,
            beta=beta,
            alphas=state.alphas.at[state.step].set(alpha),
            betas=state.betas.at[state.step].set(beta),
        )

    def advance_and_look(state: _Lanczos) -> _Lanczos:
        state = jax.lax.fori_loop(0, LOOK_EVERY, advance, state)
        top, residual = _top_of_tridiagonal(state.alphas, state.betas, state.step, state.top)
        settled = jnp.all(residual <= jnp.maximum(tolerance * top, 8 * eps))
        return state._replace(top=top, settled=settled)

    zeros = jnp.zeros(pairs, start.dtype)
    table = jnp.zeros((steps, *pairs), start.dtype)
    initial = _Lanczos(
        jnp.array(0), start, jnp.zeros_like(start), zeros, table, table, zeros, jnp.array(False)
    )
    final = jax.lax.while_loop(lambda s: (s.step < steps) & ~s.settled, advance_and_look, initial)
    return final.top


def _top_of_tridiagonal(
    alphas: Float[Array, "steps *pairs"],
    betas: Float[Array, "steps *pairs"],
    size: Array,
    below: Float[Array, "*pairs"],
) -> tuple[Float[Array, "*pairs"], Float[Array, "*pairs"]]:
    """Largest eigenvalue θ of the leading `size` rows of a tridiagonal matrix, and its residual.

    By bisection between `below`, the top of fewer rows, and Gershgorin's bound: x is above θ where
    all pivots of x − T are positive (Sturm). The residual is |β_size| · |last component of θ's unit
    eigenvector|: some eigenvalue of the whole operator lies within it of θ (Parlett 1998, 13.2).
    """
    zero = jnp.zeros_like(below)
    eps = jnp.finfo(alphas.dtype).eps

    def coupling(i: Array) -> Float[Array, "*pairs"]:
        return jnp.where(i > 0, betas[i - 1], 0)

    def gershgorin(i: Array, bound: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
        right = jnp.where(i < size - 1, betas[i], 0)
        return jnp.maximum(bound, alphas[i] + coupling(i) + right)

    high = jax.lax.fori_loop(0, size, gershgorin, zero)
    guard = eps * jnp.where(high > 0, high, 1)

    def bisect(
        _: Array, bounds: tuple[Float[Array, "*pairs"], Float[Array, "*pairs"]]
    ) -> tuple[Float[Array, "*pairs"], Float[Array, "*pairs"]]:
        low, high = bounds
        middle = (low + high) / 2

        def pivot(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            previous, above = state
            current = middle - alphas[i] - coupling(i) ** 2 / previous
            return jnp.where(current > 0, jnp.maximum(current, guard), guard), above & (current > 0)

        one = jnp.ones_like(middle)
        _, above = jax.lax.fori_loop(0, size, pivot, (one, one > 0))
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, high = jax.lax.fori_loop(0, BISECTIONS, bisect, (below, high))

    def component(back: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """From the last component, 1, upwards: the direction in which the recursion is stable."""
        pivot, square, length = state
        i = size - 2 - back
        square = square * (pivot / betas[i]) ** 2
        pivot = jnp.maximum(high - alphas[i] - betas[i] ** 2 / pivot, guard)
        return pivot, square, length + square

    last = jnp.maximum(high - alphas[size - 1], guard)
    one = jnp.ones_like(high)
    _, _, length = jax.lax.fori_loop(0, size - 1, component, (last, one, one))
    return low, betas[size - 1] / jnp.sqrt(length)


def _start(batch: tuple[int, ...], n: int, like: Array) -> Float[Array, "*batch n"]:
    """One random direction for all: hardly ever does one miss a top eigenvector.

    It is drawn here, not in the program: at every level a generator of its own would take a third
    of the time to compile.
    """
    direction = np.random.default_rng(0).standard_normal(n)
    direction /= np.linalg.norm(direction)
    return jnp.broadcast_to(jnp.asarray(direction, like.dtype), (*batch, n))


def _tiling(blocks: int, length: int) -> tuple[int, int]:
    """Side of a tile, which divides ℓ, and how many blocks share one when ℓ² is small."""
    side = length
    while side > SIDE and side % 2 == 0:
        side //= 2
    group = 1
    while group * 2 * side**2 <= SIDE**2 and blocks % (group * 2) == 0:
        group *= 2
    return side, group
