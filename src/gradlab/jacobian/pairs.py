"""The map of log ‖∂s⁽ᵗ⁾/∂s⁽ᵏ⁾‖ for every pair (t, k)."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from gradlab.jacobian import frobenius, spectral
from gradlab.jacobian.flat_cell import Span
from gradlab.jacobian.products import (
    Block,
    ResolvedLogNorms,
    Scaled,
    halves,
    join,
    leaf_block,
    leaf_products,
    merge,
    pad_steps,
    rescale,
    split_length,
)

Norm = Literal["spectral", "frobenius", "rms"]


@partial(jax.jit, static_argnames=("norm", "of", "wrt"))
def log_norm_map(
    jacobians: Scaled,
    norm: Norm,
    of: Span,
    wrt: Span,
) -> ResolvedLogNorms:
    """Log norms of all products of a sequence of scaled step Jacobians.

    Args:
        jacobians: T step Jacobians (T, n, n); T ≥ 1.
        norm: "spectral" (largest singular value), "frobenius", or "rms" (Frobenius over √columns:
            the typical growth of a random vector).
        of: rows of the product that count.
        wrt: columns of the product that count.

    Returns:
        [t, k] = log norm in nats, float32; −inf where k > t or the product is exactly zero.
    """
    length, n, _ = jacobians.unit.shape
    measure = spectral if norm == "spectral" else frobenius
    leaf, levels = split_length(length)

    def one_leaf(steps: Scaled) -> tuple[ResolvedLogNorms, Block]:
        products = leaf_products(steps)
        pairs = join(products)
        asked_for = Scaled(pairs.unit[:, slice(*of), slice(*wrt)], pairs.log_scale)
        norms = measure.product_log_norms(asked_for)
        return ResolvedLogNorms(*(_leaf_map(x, leaf) for x in norms)), leaf_block(products)

    padded = pad_steps(jacobians, leaf * 2**levels)
    by_leaf = jax.tree.map(lambda x: x.reshape(-1, leaf, *x.shape[1:]), padded)
    log_norms, block = jax.lax.map(one_leaf, by_leaf)
    for level in range(levels):
        left, right = halves(block)
        cross = measure.cross_log_norms(_rows(right.prefix, of), _rows(left.suffix_t, wrt))
        log_norms = ResolvedLogNorms(*map(_join, log_norms, cross))
        if level < levels - 1:
            block = merge(left, right)
    below, resolved = (x[0, :length, :length] for x in log_norms)
    return ResolvedLogNorms(
        _with_diagonal(below, n, norm, of, wrt),
        jnp.pad(resolved, ((1, 0), (0, 1)), constant_values=True),
    )


def _rows(scaled: Scaled, span: Span) -> Scaled:
    return rescale(scaled.unit[..., slice(*span), :], scaled.log_scale)


def _leaf_map(by_lag: Shaped[Array, "pairs"], leaf: int) -> Shaped[Array, "leaf leaf"]:
    """Place entries sorted by lag, then by starting step, at [t − 1, k] of a leaf's map."""
    lag = np.repeat(np.arange(leaf), np.arange(leaf, 0, -1))
    start = np.concatenate([np.arange(leaf - j) for j in range(leaf)])
    empty = jnp.full((leaf, leaf), _nothing(by_lag), by_lag.dtype)
    return empty.at[start + lag, start].set(by_lag)


def _join(
    within: Shaped[Array, "2*blocks l l"], cross: Shaped[Array, "blocks l l"]
) -> Shaped[Array, "blocks 2*l 2*l"]:
    after = jnp.full_like(cross, _nothing(cross))
    upper = jnp.concatenate([within[0::2], after], axis=2)
    return jnp.concatenate([upper, jnp.concatenate([cross, within[1::2]], axis=2)], axis=1)


def _nothing(entries: Array) -> float | bool:
    """What stands where k > t: log 0, which is resolved."""
    return True if entries.dtype == bool else -np.inf


def _with_diagonal(
    below: Float[Array, "T T"], n: int, norm: Norm, of: Span, wrt: Span
) -> Float[Array, "T+1 T+1"]:
    """Add row t = 0, column k = T and the diagonal, where the product is the identity's block."""
    length = below.shape[0]
    log_norms = jnp.full((length + 1, length + 1), -jnp.inf, below.dtype)
    log_norms = log_norms.at[1:, :-1].set(below)
    columns = jnp.eye(n)[slice(*of), slice(*wrt)]
    squares = jnp.sum(columns) if norm != "spectral" else jnp.max(columns)
    step = jnp.arange(length + 1)
    log_norms = log_norms.at[step, step].set(0.5 * jnp.log(squares.astype(below.dtype)))
    if norm == "rms":
        log_norms = log_norms - 0.5 * jnp.log(columns.shape[1])
    return log_norms.astype(jnp.float32)
