"""The map of log ‖∂s⁽ᵗ⁾/∂s⁽ᵏ⁾‖ for every pair (t, k), by repeated halving of the time axis.

Inside a leaf of 8 to 15 steps every product is formed. Then, level by level, two neighbouring
blocks become one: their own maps stay, and the pairs across their midpoint are measured from the
suffixes of the left and the prefixes of the right one (frobenius.py, spectral.py).
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from gradlab.jacobian import frobenius, spectral
from gradlab.jacobian.carry import Span
from gradlab.jacobian.products import (
    Block,
    ResolvedLogNorms,
    Scaled,
    concatenate,
    halves,
    leaf_block,
    leaf_products,
    merge_blocks,
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
    """Return the log norms of all products of a sequence of step Jacobians, in nats.

    Args:
        jacobians: (T, n, n), T ≥ 1.
        norm: "spectral" (largest singular value), "frobenius", or "rms" (Frobenius over √columns).
        of: rows of the product that are measured.
        wrt: columns of the product that are measured.

    Returns:
        (T + 1, T + 1), [t, k]; values are float32, −inf where k > t or the product is exactly zero.
    """
    length, n, _ = jacobians.unit.shape
    norms = spectral if norm == "spectral" else frobenius
    leaf, levels = split_length(length)

    def one_leaf(steps: Scaled) -> tuple[ResolvedLogNorms, Block]:
        products = leaf_products(steps)
        pairs = concatenate(products)
        chosen = Scaled(pairs.unit[:, slice(*of), slice(*wrt)], pairs.log_scale)
        within = norms.product_log_norms(chosen)
        return ResolvedLogNorms(*(_leaf_map(x, leaf) for x in within)), leaf_block(products)

    padded = pad_steps(jacobians, leaf * 2**levels)
    by_leaf = jax.tree.map(lambda x: x.reshape(-1, leaf, *x.shape[1:]), padded)
    log_norms, block = jax.lax.map(one_leaf, by_leaf)
    for level in range(levels):
        left, right = halves(block)
        cross = norms.cross_log_norms(_rows(right.prefix, of), _rows(left.suffix_T, wrt))
        log_norms = ResolvedLogNorms(*map(_join_halves, log_norms, cross))
        if level < levels - 1:
            block = merge_blocks(left, right)
    below, resolved = (x[0, :length, :length] for x in log_norms)
    return ResolvedLogNorms(
        _with_diagonal(below, n, norm, of, wrt),
        jnp.pad(resolved, ((1, 0), (0, 1)), constant_values=True),
    )


def _rows(scaled: Scaled, span: Span) -> Scaled:
    return rescale(scaled.unit[..., slice(*span), :], scaled.log_scale)


def _leaf_map(by_lag: Shaped[Array, "pairs"], leaf: int) -> Shaped[Array, "leaf leaf"]:
    """Arrange entries, which are in order of lag and then of k, as [t − 1, k] of a leaf's map."""
    lag = np.repeat(np.arange(leaf), np.arange(leaf, 0, -1))
    start = np.concatenate([np.arange(leaf - j) for j in range(leaf)])
    empty = jnp.full((leaf, leaf), _fill_value(by_lag), by_lag.dtype)
    return empty.at[start + lag, start].set(by_lag)


def _join_halves(
    within: Shaped[Array, "2*blocks l l"], cross: Shaped[Array, "blocks l l"]
) -> Shaped[Array, "blocks 2*l 2*l"]:
    future = jnp.full_like(cross, _fill_value(cross))
    upper = jnp.concatenate([within[0::2], future], axis=2)
    return jnp.concatenate([upper, jnp.concatenate([cross, within[1::2]], axis=2)], axis=1)


def _fill_value(entries: Array) -> float | bool:
    """Return the entry where k > t: log 0 = −inf, which is resolved (True)."""
    return True if entries.dtype == bool else -np.inf


def _with_diagonal(
    below: Float[Array, "T T"], n: int, norm: Norm, of: Span, wrt: Span
) -> Float[Array, "T+1 T+1"]:
    """Add row t = 0, column k = T and the diagonal t = k, where the product is the identity."""
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
