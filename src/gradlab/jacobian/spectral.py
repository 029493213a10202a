"""Spectral norms of all pairs (t, k) by Lanczos iterations, without forming their products.

σ²_max(A_t B_k) is the largest eigenvalue of the symmetric B_kᵀ G_t B_k with G_t = A_tᵀA_t. A
Lanczos step for a tile of pairs is three stacked matrix products, since all pairs of one t share
G_t and all pairs of one k share B_k. A tile stops when the residual of every pair is small enough:
after two or three steps far from the diagonal, where products are close to rank one.

The estimate is a Ritz value, so in exact arithmetic it never exceeds the true norm.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradlab.jacobian.frobenius import gram
from gradlab.jacobian.products import ResolvedLogNorms, Scaled, multiply, rescale, resolved

TOLERANCE = 1e-5  # Largest residual over σ²; the error of the largest eigenvalue is far smaller.
CHECK_EVERY = 4  # Steps between checks of the residual, each as expensive as a step or two.
BISECTIONS = 24
SIDE = 64  # Rows and columns of a tile, whose vectors and matrices then fit a CPU's caches.


def product_log_norms(product: Scaled) -> ResolvedLogNorms:
    """Return the log spectral norms of matrices, whose rows and columns are already chosen."""
    # They may be far smaller than the whole: squares of their entries would underflow.
    chosen = rescale(product.unit)
    grams = gram(chosen.unit)
    start = _start(grams.shape[:1], grams.shape[-1], grams)
    squares = top_eigenvalue(lambda v: multiply(v[:, None], grams)[:, 0], start)
    norms = jnp.sqrt(squares)
    logs = jnp.log(norms) + chosen.log_scale + product.log_scale
    return ResolvedLogNorms(logs, resolved(norms * jnp.exp(chosen.log_scale)))


def cross_log_norms(prefix: Scaled, suffix_T: Scaled) -> ResolvedLogNorms:
    """Return log σ_max(A_t B_k) for all pairs of each block.

    Args:
        prefix: (blocks, ℓ, rows, n), the chosen rows of A_t.
        suffix_T: (blocks, ℓ, columns, n), the chosen columns of B_k, transposed.

    Returns:
        (blocks, ℓ, ℓ), [block, t, k].
    """
    blocks, length, _, n = prefix.unit.shape
    columns = suffix_T.unit.shape[2]
    grams = gram(prefix.unit.reshape(blocks * length, -1, n)).reshape(blocks, length, n, n)
    side, group = _tiling(blocks, length)
    tiles = length // side

    def tile_squares(index: Array) -> Float[Array, "group k t"]:
        first, row, column = jnp.unravel_index(index, (blocks // group, tiles, tiles))
        start = (first * group, row * side, 0, 0)
        g = jax.lax.dynamic_slice(grams, start, (group, side, n, n)).reshape(-1, n, n)
        start = (first * group, column * side, 0, 0)
        b_T = jax.lax.dynamic_slice(suffix_T.unit, start, (group, side, columns, n))
        b_T = b_T.reshape(-1, columns, n)

        def apply(v: Float[Array, "group k t p"]) -> Float[Array, "group k t p"]:
            b_v = _products(v.reshape(-1, side, columns), b_T)  # all t of one k share B_k
            g_b_v = _products(transposed(b_v), g)  # all k of one t share G_t
            return _products(transposed(g_b_v), b_T.mT).reshape(v.shape)

        def transposed(w: Float[Array, "group*side side n"]) -> Float[Array, "group*side side n"]:
            return w.reshape(group, side, side, n).swapaxes(1, 2).reshape(-1, side, n)

        return top_eigenvalue(apply, _start((group, side, side), columns, g))

    squares = jax.lax.map(tile_squares, jnp.arange(blocks // group * tiles * tiles))
    squares = squares.reshape(blocks // group, tiles, tiles, group, side, side)
    squares = squares.transpose(0, 3, 1, 5, 2, 4).reshape(blocks, length, length)
    logs = 0.5 * jnp.log(squares)
    logs = logs + prefix.log_scale[:, :, None] + suffix_T.log_scale[:, None, :]
    return ResolvedLogNorms(logs, resolved(squares))


def _products(
    rows: Float[Array, "count side n"], matrices: Float[Array, "count n m"]
) -> Float[Array, "count side m"]:
    """Return the batched product, one matrix at a time: on a CPU up to twice as fast."""
    return jax.lax.map(lambda pair: multiply(*pair), (rows, matrices))


class _Lanczos(NamedTuple):
    step: Array
    vector: Float[Array, "*pairs n"]
    previous: Float[Array, "*pairs n"]
    beta: Float[Array, "*pairs"]
    alphas: Float[Array, "steps *pairs"]
    betas: Float[Array, "steps *pairs"]
    top: Float[Array, "*pairs"]
    converged: Array


def top_eigenvalue(
    apply: Callable[[Float[Array, "*pairs n"]], Float[Array, "*pairs n"]],
    start: Float[Array, "*pairs n"],
) -> Float[Array, "*pairs"]:
    """Return the largest eigenvalues of many symmetric positive semi-definite operators at once.

    Args:
        apply: multiplies each vector by its operator, whose norm is at most 1.
        start: a unit vector for each operator.
    """
    *pairs, n = start.shape
    steps = -(-n // CHECK_EVERY) * CHECK_EVERY
    eps, tiny = jnp.finfo(start.dtype).eps, jnp.finfo(start.dtype).tiny
    tolerance = max(TOLERANCE, 1000 * float(eps))

    def advance(_: Array, state: _Lanczos) -> _Lanczos:
        image = apply(state.vector) - state.beta[..., None] * state.previous
        alpha = jnp.sum(image * state.vector, axis=-1)
        image = image - alpha[..., None] * state.vector
        beta = jnp.linalg.norm(image, axis=-1)
        # A vanishing remainder means that the Krylov space is exhausted: continue with zeros.
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

    def advance_and_check(state: _Lanczos) -> _Lanczos:
        state = jax.lax.fori_loop(0, CHECK_EVERY, advance, state)
        top, residual = _top_of_tridiagonal(state.alphas, state.betas, state.step, state.top)
        converged = jnp.all(residual <= jnp.maximum(tolerance * top, 8 * eps))
        return state._replace(top=top, converged=converged)

    zeros = jnp.zeros(pairs, start.dtype)
    table = jnp.zeros((steps, *pairs), start.dtype)
    initial = _Lanczos(
        jnp.array(0), start, jnp.zeros_like(start), zeros, table, table, zeros, jnp.array(False)
    )
    return jax.lax.while_loop(
        lambda state: (state.step < steps) & ~state.converged, advance_and_check, initial
    ).top


def _top_of_tridiagonal(
    alphas: Float[Array, "steps *pairs"],
    betas: Float[Array, "steps *pairs"],
    size: Array,
    below: Float[Array, "*pairs"],
) -> tuple[Float[Array, "*pairs"], Float[Array, "*pairs"]]:
    """Return the largest eigenvalue θ of the leading `size` rows of a tridiagonal matrix T.

    Bisection starts from `below`, the eigenvalue of fewer rows, and Gershgorin's bound; x is above
    θ if all pivots of x − T are positive (Sturm).

    Returns:
        θ and its residual, |β_size| · |last component of θ's unit eigenvector|. Some eigenvalue of
        the whole operator is that close to θ (Parlett 1998, 13.2).
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

        ones = jnp.ones_like(middle)
        _, above = jax.lax.fori_loop(0, size, pivot, (ones, ones > 0))
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, high = jax.lax.fori_loop(0, BISECTIONS, bisect, (below, high))

    def component(back: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Go from the last component, 1, to the first: the stable direction of the recursion."""
        pivot, square, length = state
        i = size - 2 - back
        square = square * (pivot / betas[i]) ** 2
        pivot = jnp.maximum(high - alphas[i] - betas[i] ** 2 / pivot, guard)
        return pivot, square, length + square

    last = jnp.maximum(high - alphas[size - 1], guard)
    ones = jnp.ones_like(high)
    _, _, length = jax.lax.fori_loop(0, size - 1, component, (last, ones, ones))
    return low, betas[size - 1] / jnp.sqrt(length)


def _start(batch: tuple[int, ...], n: int, like: Array) -> Float[Array, "*batch n"]:
    """Return a random unit vector, the same for all: it hardly ever misses a top eigenvector.

    It is drawn with NumPy: a JAX generator at every level would take a third of the compile time.
    """
    direction = np.random.default_rng(0).standard_normal(n)
    direction /= np.linalg.norm(direction)
    return jnp.broadcast_to(jnp.asarray(direction, like.dtype), (*batch, n))


def _tiling(blocks: int, length: int) -> tuple[int, int]:
    """Return the side of a tile, a divisor of ℓ, and how many blocks share a tile."""
    side = length
    while side > SIDE and side % 2 == 0:
        side //= 2
    group = 1
    while group * 2 * side**2 <= SIDE**2 and blocks % (group * 2) == 0:
        group *= 2
    return side, group
