"""Norms of Jacobians through complex states, whose flat vector holds real and imaginary parts.

The engine's matrices are those of real-linear maps. A complex matrix P has the spectral norm of its
real-linear map z ↦ P z, and 1/√2 of its Frobenius norm, since each number is there twice:

    P z + Q z̄ = [[Re(P + Q), Im(Q − P)], [Im(P + Q), Re(P − Q)]] (Re z, Im z),

of which the squared Frobenius norm is 2 ‖P‖² + 2 ‖Q‖². A block between real and complex numbers has
its entries once: its norm is that of the real-linear map.
"""

import itertools
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from gradlab.jacobian.carry import IMAGINARY_PART, REAL, REAL_PART, CarryForm, Span
from gradlab.jacobian.flat_cell import FlatCell
from gradlab.jacobian.pairs import Norm, log_norm_map
from gradlab.jacobian.products import ResolvedLogNorms, Scaled, rescale, safe_log

NEGLIGIBLE = np.log(1e-3)  # share of a squared norm, in nats, that may be lost to rounding


def carry_log_norm_map(
    form: CarryForm, jacobians: Scaled, *, norm: Norm, of: Span, wrt: Span
) -> ResolvedLogNorms:
    """Return the log norms of all products of step Jacobians of a carry, in nats.

    Args:
        form: of the carry.
        jacobians: of its vector, as in `log_norm_map`.
        norm: "spectral", of the real-linear map; "frobenius", √(‖P‖² + ‖Q‖²) between complex
            numbers; or "rms", Frobenius over √columns, a complex number counted once.
        of, wrt: rows and columns of the product that are measured.

    Returns:
        As `log_norm_map`.
    """
    kinds = form.kinds
    if norm == "spectral" or not (kinds != REAL).any():
        return log_norm_map(jacobians, norm=norm, of=of, wrt=wrt)
    order = np.argsort(kinds != REAL, kind="stable")  # real numbers first
    if (np.diff(order) < 0).any():
        jacobians = Scaled(jacobians.unit[..., order, :][..., order], jacobians.log_scale)
    count = form.numbers(wrt) if norm == "rms" else 1

    def block(rows: _Part, columns: _Part) -> ResolvedLogNorms:
        found = log_norm_map(jacobians, norm="frobenius", of=rows.span, wrt=columns.span)
        times = 2 if rows.is_complex and columns.is_complex else 1
        return found._replace(value=found.value - 0.5 * np.log(times * count))

    pairs = itertools.product(_parts(kinds, of), _parts(kinds, wrt))
    value, resolved = reduce(_join, itertools.starmap(block, pairs))
    return ResolvedLogNorms(value.astype(jnp.float32), resolved)


def log_weight(form: CarryForm, norm: Norm, of: Span, wrt: Span) -> float | None:
    """Return what to add to the log norms of real-linear maps for those of the carry's numbers.

    None is returned where real and complex numbers are mixed and parts have weights of their own.
    """
    is_complex = [form.kinds[slice(*span)] != REAL for span in (of, wrt)]
    if norm == "spectral" or not any(part.any() for part in is_complex):
        return 0.0
    if any(part.any() and not part.all() for part in is_complex):
        return None
    rows, columns = (bool(part.all()) for part in is_complex)
    if norm == "frobenius":
        return -0.5 * float(np.log(2)) if rows and columns else 0.0
    return 0.5 * float(np.log(2)) if columns and not rows else 0.0


def block_log_norm(
    form: CarryForm, product: Scaled, *, norm: Norm, of: Span, wrt: Span
) -> Float[Array, ""]:
    """Return the log norm of rows `of` and columns `wrt` of one product (n, n), by LAPACK."""
    if norm == "spectral":
        block = rescale(product.unit[slice(*of), slice(*wrt)], product.log_scale)
        return jnp.log(jnp.linalg.norm(block.unit, 2)) + block.log_scale
    is_complex = form.kinds != REAL
    weights = np.where(np.outer(is_complex, is_complex), np.sqrt(0.5), 1.0)
    weighted = (product.unit * weights)[slice(*of), slice(*wrt)]
    columns = form.numbers(wrt) if norm == "rms" else 1
    return rescale(weighted, product.log_scale).log_scale - 0.5 * np.log(columns)


def own_jacobian(
    flat: FlatCell, jacobian: Float[Array, "*steps n n"]
) -> Float[Array, "*steps n n"] | Complex[Array, "*steps n/2 n/2"]:
    """Return the complex matrix of a Jacobian if the cell is holomorphic, else the real one."""
    if not flat.is_holomorphic:
        return jacobian
    real, imaginary = (
        np.flatnonzero(flat.form.kinds == kind) for kind in (REAL_PART, IMAGINARY_PART)
    )
    columns = jacobian[..., real]
    return jax.lax.complex(columns[..., real, :], columns[..., imaginary, :])


class _Part(NamedTuple):
    """Components of one kind, once real ones come first."""

    is_complex: bool
    span: Span


def _parts(kinds: Int[np.ndarray, "n"], span: Span) -> list[_Part]:
    """Return the real and the complex components of a part of the vector, those that there are."""
    parts, start = [], 0
    for is_complex in (False, True):
        is_kind = (kinds != REAL) == is_complex
        first, last = (start + int(is_kind[:end].sum()) for end in span)
        if first < last:
            parts.append(_Part(is_complex, (first, last)))
        start += int(is_kind.sum())
    return parts


def _join(one: ResolvedLogNorms, other: ResolvedLogNorms) -> ResolvedLogNorms:
    """Return the Frobenius norms of matrices from those of two parts of them."""
    total = _log_root_of_squares(one.value, other.value)
    lost = _log_root_of_squares(
        *(jnp.where(part.resolved, -jnp.inf, part.value) for part in (one, other))
    )
    return ResolvedLogNorms(total, jnp.isneginf(lost) | (2 * (lost - total) < NEGLIGIBLE))


def _log_root_of_squares(
    one: Float[Array, "*pairs"], other: Float[Array, "*pairs"]
) -> Float[Array, "*pairs"]:
    """Return log √(e²ˣ + e²ʸ); −inf if both are, with the derivative 0."""
    highest = jax.lax.stop_gradient(jnp.maximum(one, other))
    highest = jnp.where(jnp.isneginf(highest), 0, highest)
    squares = jnp.exp(2 * (one - highest)) + jnp.exp(2 * (other - highest))
    return highest + 0.5 * safe_log(squares)
