"""The map of log norms as one program of constant shape, which is traced once and then compiled.

It halves the time axis as pairs.py does. All levels are one loop, so what has to be compiled does
not grow with the number of steps: of L steps, a power of two, every level extends L/2 prefixes and
L/2 suffixes by one batched product, and measures the pairs of their right and left halves.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from gradlab.jacobian import frobenius, spectral
from gradlab.jacobian.carry import Span
from gradlab.jacobian.lanczos import top_eigenvalue
from gradlab.jacobian.products import ResolvedLogNorms, Scaled, log_norms_of, multiply, rescale
from gradlab.jacobian.underflow import may_underflow

SIDE = 128  # rows and columns of a tile, whose pairs an accelerator takes at once


class _State(NamedTuple):
    """Products of each step's block up to it, from it on (transposed), (L, n, n), and the map."""

    prefix: Scaled
    suffix_T: Scaled
    value: Float[Array, "L L"]
    resolved: Bool[Array, "L L"]


def map_within(jacobians: Scaled, is_spectral: bool, of: Span, wrt: Span) -> ResolvedLogNorms:
    """Return the map of step Jacobians (T, n, n) without t = 0 and k = T, (T, T)."""
    length = len(jacobians.log_scale)
    levels = (length - 1).bit_length()
    missing = 2**levels - length  # steps of zeros, whose pairs are cut off in the end
    steps = Scaled(*(jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in jacobians))
    place = jnp.arange(2**levels // 2, dtype=jnp.int32)  # as JAX has indices outside 64-bit types

    def level(state: _State, half: Int[Array, ""]) -> tuple[_State, None]:
        left = place // half * 2 * half + place % half
        right = left + half
        prefix, suffix_T = _at(state.prefix, right), _at(state.suffix_T, left)
        value, resolved = _cross(
            _chosen(prefix, of), _chosen(suffix_T, wrt), half if is_spectral else None
        )
        is_pair = place[:, None] // half == place[None, :] // half
        # The last prefix of a left half, and the first suffix of a right one, are all of it.
        first = left // half * half
        return _State(
            _with(state.prefix, right, _extended(prefix, _at(state.prefix, first + half - 1))),
            _with(state.suffix_T, left, _extended(suffix_T, _at(state.suffix_T, first + half))),
            _placed(state.value, right, left, is_pair, value),
            _placed(state.resolved, right, left, is_pair, resolved),
        ), None

    norms = spectral if is_spectral else frobenius
    part = rescale(steps.unit[:, slice(*of), slice(*wrt)], steps.log_scale)
    squares = norms.single_squares(part.unit)
    single = log_norms_of(squares, norms.sizes(squares), part.log_scale)
    is_single = jnp.eye(2**levels, dtype=bool)
    start = _State(
        steps,
        Scaled(steps.unit.mT, steps.log_scale),
        jnp.where(is_single, single.value, -jnp.inf),
        jnp.where(is_single, single.resolved, True),
    )
    state = start
    if levels:
        state, _ = jax.lax.scan(level, start, 2 ** jnp.arange(levels, dtype=jnp.int32))
    return ResolvedLogNorms(state.value[:length, :length], state.resolved[:length, :length])


def _chosen(rows: Scaled, span: Span) -> Scaled:
    # They may be far smaller than the whole: squares of their entries would underflow.
    return rescale(rows.unit[:, slice(*span)], rows.log_scale)


def _cross(a: Scaled, b_T: Scaled, half: Int[Array, ""] | None) -> ResolvedLogNorms:
    """Return log ‖A_t B_k‖, (L/2, L/2); of spectral norms, those within blocks of `half` alone."""
    scale = a.log_scale[:, None] + b_T.log_scale[None]
    if half is None:
        squares = frobenius.gram_products(*(_grams(x.unit) for x in (a, b_T)))[0]
        sizes = frobenius.sizes(squares)
    else:
        squares = _tile_by_tile(a.unit, b_T.unit, half)
        sizes = spectral.sizes(squares)
    value, resolved = log_norms_of(squares, sizes, scale)
    is_lost = may_underflow(squares[None], a.unit[None], b_T.unit[None])[0]
    return ResolvedLogNorms(jnp.where(is_lost, jnp.nan, value), resolved & ~is_lost)


def _grams(rows: Float[Array, "l r n"]) -> Float[Array, "1 l n*n"]:
    return _in_pieces(lambda x: frobenius.grams(x[:, None])[:, 0], rows)[None]


def _tile_by_tile(
    a: Float[Array, "l r n"], b_T: Float[Array, "l q n"], half: Int[Array, ""]
) -> Float[Array, "l l"]:
    side = min(SIDE, len(a))
    tiles = jnp.maximum(half // side, 1)  # in each direction of a block

    def one(i: Int[Array, ""], squares: Float[Array, "l l"]) -> Float[Array, "l l"]:
        first, row, column = i // tiles**2 * tiles, i // tiles % tiles, i % tiles
        corner = ((first + row) * side, (first + column) * side)
        rows, columns = (
            jax.lax.dynamic_slice_in_dim(x, begin, side)[None]
            for x, begin in zip((a, b_T), corner, strict=True)
        )
        top = top_eigenvalue(
            spectral.tile_operator(rows, columns), spectral.tile_start(rows, columns)
        )
        tile = top.reshape(side, side).T
        return jax.lax.dynamic_update_slice(squares, tile, corner)

    empty = jnp.zeros((len(a), len(a)), a.dtype)
    return jax.lax.fori_loop(jnp.int32(0), len(a) // side * tiles, one, empty)


def _extended(rows: Scaled, factor: Scaled) -> Scaled:
    product = _in_pieces(multiply, rows.unit, factor.unit)
    return rescale(product, rows.log_scale + factor.log_scale)


def _at(scaled: Scaled, places: Int[Array, "l"]) -> Scaled:
    return Scaled(*(x[places] for x in scaled))


def _with(scaled: Scaled, places: Int[Array, "l"], others: Scaled) -> Scaled:
    return Scaled(*(x.at[places].set(y) for x, y in zip(scaled, others, strict=True)))


def _placed(
    entries: Shaped[Array, "L L"],
    right: Int[Array, "l"],
    left: Int[Array, "l"],
    is_pair: Bool[Array, "l l"],
    cross: Shaped[Array, "l l"],
) -> Shaped[Array, "L L"]:
    places = (right[:, None], left[None])
    return entries.at[places].set(jnp.where(is_pair, cross, entries[places]))


def _in_pieces(function: Callable[..., Any], *arrays: Any) -> Any:
    """Return function(*arrays): in one call on an accelerator.

    On a CPU it is one for each item, where XLA is slow with batched products, and fails on some
    whose batches are nested.

    Args:
        function: of arrays, item by item along the first axis; returns such arrays.
        arrays: with the same first axis.
    """
    if jax.default_backend() != "cpu":
        return function(*arrays)
    return jax.lax.map(lambda item: function(*(x[None] for x in item))[0], arrays)
