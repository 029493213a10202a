"""The map of log ‖∂s⁽ᵗ⁾/∂s⁽ᵏ⁾‖ for every pair (t, k), by repeated halving of the time axis.

Level by level, two neighbouring blocks become one: their own maps stay, and the pairs across their
midpoint are measured from the suffixes of the left and the prefixes of the right one (halving.py,
frobenius.py, spectral.py).
"""

from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Shaped

from gradlab.jacobian import frobenius, spectral, traced
from gradlab.jacobian.arrays import AnyArray, library
from gradlab.jacobian.carry import Span
from gradlab.jacobian.cores import core_squares
from gradlab.jacobian.halving import Rows, halves, merge_blocks, single_steps, sketch_of_all
from gradlab.jacobian.products import ResolvedLogNorms, Scaled, log_norms_of, rescale
from gradlab.jacobian.underflow import formed_log_norms, may_underflow

Norm = Literal["spectral", "frobenius", "rms"]

# What truncation may take of a squared norm, by its sketches. Even if all that it takes is in one
# direction, where they err most, 1e-5 goes unnoticed with a probability of 3e-5 only.
TRUNCATION = 1e-9


def log_norm_map(jacobians: Scaled, norm: Norm, of: Span, wrt: Span) -> ResolvedLogNorms:
    """Return the log norms of all products of a sequence of step Jacobians, in nats.

    Args:
        jacobians: (T, n, n), T ≥ 1; of NumPy also (S, T, n, n), of several samples.
        norm: "spectral" (largest singular value), "frobenius", or "rms" (Frobenius over √columns).
        of: rows of the product that are measured.
        wrt: columns of the product that are measured.

    Returns:
        (..., T + 1, T + 1), [..., t, k]; values are float32, −inf where k > t or the product is
        exactly zero.
    """
    if library(jacobians.unit) is np:
        maps = _of_known(jacobians, norm, of, wrt)
    else:
        maps = traced.map_within(jacobians, norm == "spectral", of, wrt)
    return _with_diagonal(maps, jacobians.unit.shape[-1], norm, of, wrt)


def _of_known(jacobians: Scaled, norm: Norm, of: Span, wrt: Span) -> ResolvedLogNorms:
    """Return the maps without t = 0 and k = T, (..., T, T)."""
    *samples, length, _, n = jacobians.unit.shape
    steps = Scaled(
        jacobians.unit.reshape(-1, length, n, n), jacobians.log_scale.reshape(-1, length)
    )
    # Truncation takes more time than the one product that all Frobenius norms of a level are.
    truncate = norm == "spectral" and bool(np.isfinite(steps.unit).all())
    maps = _halved(steps, norm, of, wrt, truncate=truncate)
    if truncate and (is_harmed := np.isnan(maps.value)).any():
        exact = _halved(steps, norm, of, wrt, truncate=False)
        maps = ResolvedLogNorms(*(np.where(is_harmed, *x) for x in zip(exact, maps, strict=True)))
    return ResolvedLogNorms(*(x.reshape(*samples, length, length) for x in maps))


def _halved(
    jacobians: Scaled, norm: Norm, of: Span, wrt: Span, *, truncate: bool
) -> ResolvedLogNorms:
    """Return the maps without t = 0 and k = T, (S, T, T), NaN where truncation may do harm."""
    samples, length = jacobians.log_scale.shape
    norms = spectral if norm == "spectral" else frobenius
    block = single_steps(_merged(jacobians), of, wrt)
    maps = _single(norms, block.prefix[0], wrt)
    while (count := len(maps.value) // samples) > 1:
        if count % 2:
            block, maps = (_padded(tree, samples) for tree in (block, maps))
        left, right = halves(block)
        maps = _joined(maps, _cross(norms, right.prefix, left.suffix_T))
        if count > 2:
            block = merge_blocks(block, truncate)
    return ResolvedLogNorms(*(x[:, :length, :length] for x in maps))


def _merged(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(len(x) * x.shape[1], *x.shape[2:]), tree)


def _padded(tree: Any, samples: int) -> Any:
    """Append a block of zeros to those of each sample; what it holds is cut off in the end."""

    def pad(x: Shaped[AnyArray, "N ..."]) -> Shaped[AnyArray, "M ..."]:
        by_sample = x.reshape(samples, len(x) // samples, *x.shape[1:])
        return np.pad(by_sample, [(0, 0), (0, 1)] + [(0, 0)] * (x.ndim - 1))

    return _merged(jax.tree.map(pad, tree))


def _single(norms: Any, steps: Rows, wrt: Span) -> ResolvedLogNorms:
    """Return the maps of single steps, (N, 1, 1)."""
    unit, log_scale = steps.unit, steps.log_scale
    if wrt != (0, unit.shape[3]):  # else it is of norm 1, and large
        unit, log_scale = rescale(unit[..., slice(*wrt)], log_scale)
    squares = norms.single_squares(unit[:, 0])[:, None, None]
    return log_norms_of(squares, norms.sizes(squares), log_scale[..., None])


def _cross(norms: Any, prefix: list[Rows], suffix_T: list[Rows]) -> ResolvedLogNorms:
    """Return the maps of the pairs across the midpoints of blocks, (N, ℓ, ℓ)."""

    def one(a: Rows, b: Rows, of_a: AnyArray, of_b: AnyArray) -> ResolvedLogNorms:
        squares = norms.cross_squares(a.unit, b.unit)
        scale = a.log_scale[:, :, None] + b.log_scale[:, None]
        value, resolved = log_norms_of(squares, norms.sizes(squares), scale)
        if (places := may_underflow(squares, a.unit, b.unit)).any():
            formed = formed_log_norms(norms, places, a.unit, b.unit)
            value[places], resolved[places] = formed.value + scale[places], formed.resolved
        for pair in ((a.sketch, of_b), (of_a, b.sketch)):
            if min(x.shape[2] for x in pair):
                is_safe = core_squares(*pair) <= TRUNCATION * squares
                is_safe &= ~may_underflow(squares, *pair)
                value = np.where(is_safe, value, np.nan)
        return ResolvedLogNorms(value, resolved)

    is_truncated = any(rows.sketch.shape[2] for rows in prefix + suffix_T)
    left, right = (
        [(rows, sketch_of_all(rows) if is_truncated else rows.sketch) for rows in side]
        for side in (suffix_T, prefix)
    )
    table = [[one(a, b, of_a, of_b) for b, of_b in left] for a, of_a in right]
    return _concatenated([_concatenated(row, axis=2) for row in table], axis=1)


def _concatenated(maps: list[ResolvedLogNorms], axis: int) -> ResolvedLogNorms:
    return ResolvedLogNorms(*(np.concatenate(x, axis) for x in zip(*maps, strict=True)))


def _joined(within: ResolvedLogNorms, cross: ResolvedLogNorms) -> ResolvedLogNorms:
    """Return the maps of N blocks, from those of their 2 N halves and of the pairs across."""
    joined = (_join(*x) for x in zip(within, cross, (-np.inf, True), strict=True))
    return ResolvedLogNorms(*joined)


def _join(
    within: Shaped[AnyArray, "2*N l l"], cross: Shaped[AnyArray, "N l l"], future: float | bool
) -> Shaped[AnyArray, "N 2*l 2*l"]:
    upper = np.concatenate([within[0::2], np.full_like(cross, future)], axis=2)
    return np.concatenate([upper, np.concatenate([cross, within[1::2]], axis=2)], axis=1)


def _with_diagonal(
    maps: ResolvedLogNorms, n: int, norm: Norm, of: Span, wrt: Span
) -> ResolvedLogNorms:
    """Add row t = 0, column k = T and the diagonal t = k, where the product is the identity."""
    xp, length = library(maps.value), maps.value.shape[-1]
    around = [(0, 0)] * (maps.value.ndim - 2) + [(1, 0), (0, 1)]
    columns = np.eye(n)[slice(*of), slice(*wrt)]
    square = columns.sum() if norm != "spectral" else columns.max()
    value = xp.pad(maps.value, around, constant_values=-np.inf)
    diagonal = 0.5 * np.log(square) if square else -np.inf
    value = xp.where(np.eye(length + 1, dtype=bool), diagonal, value)
    if norm == "rms":
        value = value - 0.5 * np.log(columns.shape[1])
    resolved = xp.pad(maps.resolved, around, constant_values=True)
    return ResolvedLogNorms(value.astype(np.float32), resolved)
