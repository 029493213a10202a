"""Norms of ∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾ from random vectors, for carries too wide for step Jacobians.

For a vector v of independent standard normal numbers E‖P v‖² = ‖P‖²_F (Hutchinson 1990), and one
pass forward carries v from a k through all t ≥ k. The vectors of many k go through a step together.
Each is kept at size 1 with the log of its scale beside it, so none over- or underflows.

Normal numbers, not random signs: signs have a smaller variance only where PᵀP is close to diagonal,
as it is at short lags, where either error is a percent or two; and signs can cancel exactly, so
that a norm would pass for 0.
"""

import math
import operator
import reprlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from gradlab.jacobian.arguments import (
    check_at_least_zero,
    check_choice,
    check_fits,
    numbers,
    whole_number,
)
from gradlab.jacobian.carry import Span
from gradlab.jacobian.complex_norms import log_weight
from gradlab.jacobian.directions import Directions, directions_of
from gradlab.jacobian.estimates import (
    Estimate,
    Rows,
    frobenius,
    rescaled,
    root_mean_square,
    spectral,
)
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.pairs import Norm
from gradlab.jacobian.steps import trajectory
from gradlab.jacobian.subspace import Factors, largest_log_values
from gradlab.jacobian.transforms import in_float64

ROWS = 512  # vectors that go through a step together, at most, where memory allows them
TOLERANCE = 0.01  # nats that a spectral norm may be below the true one
ROW_COPIES = 16  # arrays of the size of a vector that are in memory for each of them


def sampled_log_norms(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    norm: Norm = "rms",
    of: str | None = None,
    wrt: str | None = None,
    stride: int = 1,
    vectors: int = 16,
    starts: Sequence[int] | None = None,
    memory_budget: int = 2**33,
) -> tuple[
    Float[Array, "*batch T//stride+1 T//stride+1"], Float[Array, "*batch T//stride+1 T//stride+1"]
]:
    """Return log ‖∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾‖ from random vectors, and the errors, in nats.

    This is `jacobian_log_norms(..., method="sampled")`. It forms no step Jacobian: memory is that
    of the vectors that go through a step together, and of the states.

    The standard error of a Frobenius or rms norm is 1/√(2 · vectors · r) or a little more, with
    r = ‖P‖_F⁴ / ‖PᵀP‖²_F the number of directions that P has, estimated from the products between
    vectors. It is largest where P is close to rank one: 0.18 nats for 16 vectors. From 8 vectors on
    19 in 20 norms lie within two of them.

    Spectral norms come from sweeps forward and backward, and are bounds from below. Their error is
    an estimate of how far below: less than 0.01 nats unless 100 sweeps were too few.

    Where the vectors are as many as the columns, each column is carried instead: norms are exact,
    and errors 0.

    Args:
        cell, inputs, initial_carry, of, wrt, stride: as in `jacobian_log_norms`.
        norm: "rms", "frobenius" or "spectral"; the last for `starts` only, since it takes sweeps
            for every pair.
        vectors: the number of random vectors for each k, at least 2.
        starts: a few k, multiples of the stride; by default all of them.
        memory_budget: bytes that the work arrays may take.

    Returns:
        The log norms and their standard errors, float32 (..., T // stride + 1, T // stride + 1);
        [..., t, k], in strides. −inf with error 0 where k > t or the product is exactly zero; NaN
        in the columns of other k than `starts`. The same call returns the same numbers.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state or Jacobian is not finite; the message names its step.

    References:
        Hutchinson 1990, A stochastic estimator of the trace of the influence matrix.
        Avron & Toledo 2011, Randomized algorithms for estimating the trace: the variance.
        Halko, Martinsson & Tropp 2011, Finding structure with randomness: subspace iteration.

    Example:
        >>> lstm = nnx.OptimizedLSTMCell(3, 64, rngs=nnx.Rngs(0))
        >>> options = {"of": "h", "wrt": "h", "norm": "rms"}
        >>> logs, errors = gradlab.jacobian_log_norms(lstm, x[0], method="sampled", **options)
        >>> exact = gradlab.jacobian_log_norms(lstm, x[0], **options)
        >>> bool(abs(logs - exact)[20, 10] < 3 * errors[20, 10])  # log ‖∂h⁽²⁰⁾/∂h⁽¹⁰⁾‖/√n
        True
    """
    inputs = numbers("inputs", inputs)
    check_choice("norm", norm, get_args(Norm))
    check_at_least_zero("memory_budget", memory_budget)
    flat = flatten_cell(cell, inputs, initial_carry)
    length = inputs.shape[-2]
    stride = whole_number("stride", stride, 1, length, "the number of steps")
    rows, columns = flat.form.span(of, "of"), flat.form.span(wrt, "wrt")
    count = min(_checked_vectors(vectors), columns[1] - columns[0])
    begins = _checked_starts(starts, length, stride)
    is_swept = norm == "spectral" and count < columns[1] - columns[0]
    if is_swept and starts is None:
        raise ValueError(
            "a sampled spectral norm takes sweeps forward and backward for every pair: name a few "
            "k, as starts=[0], or use norm='rms'."
        )
    weight = log_weight(flat.form, norm, rows, columns)
    if weight is None:
        raise ValueError(
            "of a carry of real and complex numbers method='sampled' measures one part at a time: "
            "name it, as of='z', wrt='z', or use method='exact'."
        )
    measured = in_float64(
        partial(
            _sampled,
            norm=norm,
            of=rows,
            wrt=columns,
            stride=stride,
            vectors=count,
            at_once=_starts_at_once(flat, inputs, stride, count, len(begins), memory_budget),
        ),
        flat,
        directions_of(flat, inputs, backward=is_swept),
        inputs,
        jnp.asarray(begins, jnp.int32),
        not_differentiable="sampled norms cannot be differentiated: use method='exact'.",
    )
    check_finite(measured.log_norm[..., begins // stride], flat, inputs)
    return measured.log_norm + weight, measured.error


def _checked_vectors(vectors: Any) -> int:
    """Return the number of vectors.

    Raises:
        ValueError: it is no whole number from 2 up.
    """
    try:
        number = 0 if isinstance(vectors, bool) else operator.index(vectors)
    except TypeError:
        number = 0
    if number < 2:
        raise ValueError(
            "vectors must be a whole number of at least 2, for one has no standard error; got "
            f"{reprlib.repr(vectors)}."
        )
    return number


def _checked_starts(starts: Any, length: int, stride: int) -> Int[np.ndarray, "starts"]:
    """Return the steps k at which vectors start, in order.

    Raises:
        ValueError: they are no multiples of the stride, or there is none.
    """
    grid = np.arange(0, length + 1, stride)
    if starts is None:
        return grid
    try:
        chosen = np.asarray(list(starts))
    except (TypeError, ValueError):  # no sequence, or a ragged one
        chosen = np.empty(0)
    is_whole = chosen.ndim == 1 and chosen.size and np.issubdtype(chosen.dtype, np.integer)
    if not is_whole or not np.isin(chosen, grid).all():
        allowed = "whole numbers" if stride == 1 else f"multiples of the stride, {stride},"
        raise ValueError(
            f"starts must be a few k, {allowed} from 0 to {grid[-1]}, as [0]; got "
            f"{reprlib.repr(starts)}."
        )
    return np.unique(chosen)


def _starts_at_once(
    flat: FlatCell, inputs: Array, stride: int, vectors: int, starts: int, memory_budget: int
) -> int:
    """Return how many k go through the steps together."""
    n, length, samples = flat.form.size, inputs.shape[-2], math.prod(inputs.shape[:-2])
    itemsize, count = flat.example.vector.dtype.itemsize, length // stride + 1
    fixed = 2 * count * (8 * starts + 4 * count * samples) + length * n * itemsize
    start = vectors * n * ROW_COPIES * max(4, itemsize)
    work = f"carrying {vectors} vectors of {n} numbers through {length} steps"
    instead = "or use fewer vectors or a larger stride."
    check_fits(work, fixed + start, memory_budget, instead)
    at_once = int(max(1, min((memory_budget - fixed) // start, starts, ROWS // vectors)))
    return -(-starts // -(-starts // at_once))  # groups of about equal size


@partial(jax.jit, static_argnames=("norm", "of", "wrt", "stride", "vectors", "at_once"))
def _sampled(
    flat: FlatCell,
    directions: Directions,
    inputs: Float[Array, "*batch T features"],
    starts: Int[Array, "starts"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
    vectors: int,
    at_once: int,
) -> Estimate:
    is_exact = vectors == wrt[1] - wrt[0]

    def one_sample(flat: FlatCell, inputs: Float[Array, "T features"], number: Array) -> Estimate:
        states, _ = trajectory(flat, inputs)
        factors = Factors(flat, directions, states, inputs, of, wrt)
        if norm == "spectral" and not is_exact:
            found = _swept(factors, starts, stride, vectors)
        elif is_exact:
            measure = spectral if norm == "spectral" else frobenius
            found = _carried(factors, starts, stride, at_once, _unit_vectors(factors), measure)
        else:
            draw = _normal_vectors(factors, number, vectors)
            measure = partial(root_mean_square, rank=min(of[1] - of[0], wrt[1] - wrt[0]))
            found = _carried(factors, starts, stride, at_once, draw, measure)
        return _on_map(found, starts, stride, norm, of, wrt)

    if not flat.has_batch:
        return one_sample(flat, inputs, jnp.uint32(0))
    numbered = jnp.arange(inputs.shape[0], dtype=jnp.uint32)
    estimate: Estimate = flat.map_samples(one_sample, inputs, numbered)
    return estimate


def _carried(
    factors: Factors,
    starts: Int[Array, "starts"],
    stride: int,
    at_once: int,
    draw: Callable[[Array], Float[Array, "vectors n"]],
    measure: Callable[[Rows], Estimate],
) -> Estimate:
    """Return what is measured of the vectors of every start after every stride, [t, start].

    Args:
        factors: of the products.
        starts: the k, ascending.
        stride: steps between two rows.
        at_once: how many starts are carried together.
        draw: the vectors that start at k.
        measure: an entry from rows `of` of the vectors that were carried there, [start].
    """
    length = factors.inputs.shape[0]
    count = length // stride + 1
    groups = -(-starts.size // at_once)
    padding = jnp.full(groups * at_once - starts.size, length, starts.dtype)

    def one_group(starts: Int[Array, "starts"]) -> Estimate:
        drawn = jax.vmap(draw)(starts)

        def advance(i: Array, carry: tuple[Rows, Estimate]) -> tuple[Rows, Estimate]:
            rows, table = carry
            state, x = jax.tree.map(lambda leaf: leaf[i], (factors.states, factors.inputs))
            vector = jnp.where((starts == i)[:, None, None], drawn, rows.vector)
            vector = factors.directions.push(factors.flat, state, x, vector)
            rows = rescaled(vector, rows.log_scale)
            entries = measure(Rows(rows.vector[..., slice(*factors.of)], rows.log_scale))
            t, is_on_grid = (i + 1) // stride, (i + 1) % stride == 0

            def put(table: Array, entries: Array) -> Array:
                return table.at[t].set(jnp.where(is_on_grid, entries, table[t]))

            return rows, jax.tree.map(put, table, entries)

        nothing = Rows(jnp.zeros_like(drawn), jnp.zeros(drawn.shape[:2]))
        table = Estimate(*jnp.zeros((2, count, at_once)))
        return jax.lax.fori_loop(starts[0], length, advance, (nothing, table))[1]

    tables = jax.lax.map(one_group, jnp.concatenate([starts, padding]).reshape(groups, at_once))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(count, -1)[:, : starts.size], tables)


def _swept(factors: Factors, starts: Int[Array, "starts"], stride: int, vectors: int) -> Estimate:
    """Return the largest singular values, and how far below them these may be, [t, start]."""
    times = jnp.arange(0, factors.inputs.shape[0] + 1, stride, starts.dtype)
    pairs = jnp.stack(jnp.meshgrid(times, starts, indexing="ij"), axis=-1)
    block = min(vectors, factors.of[1] - factors.of[0])
    found = largest_log_values(
        factors, pairs.reshape(-1, 2), count=1, block=block, tolerance=TOLERANCE
    )
    return Estimate(*(x.reshape(pairs.shape[:2]) for x in found))


def _on_map(
    found: Estimate, starts: Int[Array, "starts"], stride: int, norm: Norm, of: Span, wrt: Span
) -> Estimate:
    """Put entries [t, start] on a map, with the identity at t = k, and zero before."""
    count = found.error.shape[0]
    lag = jnp.arange(count)[:, None] - starts // stride
    shared = max(0, min(of[1], wrt[1]) - max(of[0], wrt[0]))  # entries of 1 in the identity
    at_zero = math.log(min(1, shared) if norm == "spectral" else shared) / 2 if shared else -np.inf
    log_norm = jnp.where(lag > 0, found.log_norm, jnp.where(lag == 0, at_zero, -jnp.inf))
    if norm == "rms":
        log_norm = log_norm - 0.5 * math.log(wrt[1] - wrt[0])
    error = jnp.where(lag > 0, found.error, 0)
    nothing = jnp.full((count, count), jnp.nan, jnp.float32)
    at = starts // stride
    return Estimate(*(nothing.at[:, at].set(x.astype(jnp.float32)) for x in (log_norm, error)))


def _normal_vectors(
    factors: Factors, sample: Array, vectors: int
) -> Callable[[Array], Float[Array, "vectors n"]]:
    """Return the random vectors of a start: other ones for every start and every sample."""
    # The key of seed 0; jax.random.key would need 64-bit types where JAX traces this again.
    key = jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32), impl="threefry2x32")
    key = jax.random.fold_in(key, sample)
    first, last = factors.wrt

    def draw(start: Array) -> Float[Array, "vectors n"]:
        own = jax.random.fold_in(key, start.astype(jnp.uint32))
        entries = jax.random.normal(own, (vectors, last - first), jnp.float32)
        like = factors.states.vector
        return jnp.zeros((vectors, like.shape[1]), like.dtype).at[:, first:last].set(entries)

    return draw


def _unit_vectors(factors: Factors) -> Callable[[Array], Float[Array, "columns n"]]:
    """Return the columns of the identity, at every start."""
    (first, last), like = factors.wrt, factors.states.vector
    return lambda start: jnp.eye(last - first, like.shape[1], k=first, dtype=like.dtype)
