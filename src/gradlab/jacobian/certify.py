"""Certificates: errors of a map's entries by independent methods, and its unresolved entries.

The first method multiplies reverse-mode step Jacobians in float64, pair by pair, and takes
LAPACK's norms. The second takes central differences of the recurrence. The engine shares nothing
with them: it uses forward mode in the cell's own precision, hierarchical products and Gram
matrices.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradlab.jacobian.carry import FlatState, Span
from gradlab.jacobian.complex_norms import block_log_norm, carry_log_norm_map
from gradlab.jacobian.double import as_float64
from gradlab.jacobian.flat_cell import FlatCell
from gradlab.jacobian.lengths import rests
from gradlab.jacobian.pairs import Norm, log_norm_map
from gradlab.jacobian.precision import rounding
from gradlab.jacobian.products import Scaled, extend, rescale
from gradlab.jacobian.steps import jacobians_at, products_of_strides, trajectory

PAIRS = 48  # entries in a sample
SHORT = 4  # lag of the central differences: over longer ones a chaotic network amplifies rounding
NOISE = 1e-6  # smaller derivatives are below the rounding error of a difference
DIFFERENCE = 1e-5  # step of central differences, relative to the state's size
UNRESOLVED = (
    1e-3  # relative error from which a step Jacobian and products through it are unresolved
)


class Certificate(NamedTuple):
    """Errors of a sample of a map's entries, and its unresolved entries (lost to rounding).

    The map itself is right to about 1e-5; what the last two attributes say below that says nothing.
    They are 0 where both norms are zero, inf where the exact one is and the measured one is not,
    and NaN where k > t, past the end of a sequence, and for a network that casts to a shorter type
    by itself (an `astype` in a plain function), which has no float64 run.

    Attributes:
        pairs: the (t, k) of the sample, in strides.
        relative_error: error of their norms against float64 products.
        largest_error: the largest of these, without unresolved entries; NaN if all are.
        difference_error: the largest ‖P v − central difference‖ / ‖P v‖ over short lags, for a
            random v.
        unresolved: [..., t, k] is true where rounding left less than three digits, by cancellation
            in the product or in the cell's own derivative (a saturated unit), or since the cell
            computes in bfloat16 or float16, which hold no three.
        precision_error: [..., t, k] is |norm / exact − 1| with the norm of the same network (the
            same weights, inputs and initial state) run in float64: what the cell's precision makes
            of the entry, along its trajectory and in its derivatives.
        derivative_error: [..., t, k] is the part of that which is made at given states, by the
            rounding of the derivatives: as `precision_error`, with the float64 derivatives along
            the trajectory that was measured.

    Example:
        >>> log_norms, certificate = gradlab.jacobian_log_norms(cell, x, certify=True)
        >>> certificate.unresolved.shape, bool(certificate.unresolved.any())
        ((4, 21, 21), False)
        >>> bool((certificate.largest_error < 1e-3).all())
        True
    """

    pairs: Int[Array, "*batch pairs 2"]
    relative_error: Float[Array, "*batch pairs"]
    largest_error: Float[Array, "*batch"]
    difference_error: Float[Array, "*batch"]
    unresolved: Bool[Array, "*batch T+1 T+1"]
    precision_error: Float[Array, "*batch T+1 T+1"]
    derivative_error: Float[Array, "*batch T+1 T+1"]


def sample_pairs(length: int, stride: int) -> Int[np.ndarray, "pairs 2"]:
    """Return pairs (t, k), in strides, whose lags are evenly spaced on a logarithmic scale."""
    rng = np.random.default_rng(0)
    count = length // stride
    lags = np.unique(np.geomspace(1, count, PAIRS).round().astype(int))
    lags = np.resize(lags, PAIRS)
    begin = rng.integers(0, count - lags + 1)
    return np.stack([begin + lags, begin], axis=1)


def _within(
    pairs: Int[np.ndarray, "pairs 2"], count: int, length: Int[Array, ""], stride: int
) -> Int[Array, "pairs 2"]:
    """Return the sample of pairs of a sequence that ends before the others do.

    Its longest lag is that of the sequence, and lags stay evenly spaced on a logarithmic scale.

    Args:
        pairs: those of `count` strides.
        length: in steps, of the sequence.
        stride: in steps.
    """
    own, lags = length // stride, pairs[:, 0] - pairs[:, 1]
    share = np.log(lags) / np.log(max(count, 2))
    shorter = jnp.minimum(jnp.round(jnp.maximum(own, 1) ** share).astype(own.dtype), own)
    place = pairs[:, 1] / (count - lags + 1) + 1e-9  # from 0 to 1; it must not round down
    begin = jnp.floor(place * (own - shorter + 1)).astype(own.dtype)
    return jnp.stack([begin + shorter, begin], axis=1)


@partial(jax.jit, static_argnames=("norm", "of", "wrt", "stride"))
def certificates(
    flat: FlatCell,
    exact: FlatCell,
    inputs: Float[Array, "*batch T features"],
    log_norms: Float[Array, "*batch T+1 T+1"],
    resolved: Bool[Array, "*batch T+1 T+1"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
) -> Certificate:
    """Return the certificates of maps that were measured.

    Args:
        flat, exact, norm, of, wrt, stride: as in `certificate`.
        inputs: (time, features) or (batch, time, features).
        log_norms: the map of each sample.
        resolved: the entries whose product kept three digits.
    """

    def one_sample(flat: FlatCell, inputs: Array, log_norms: Array, resolved: Array) -> Certificate:
        states, last = trajectory(flat, inputs)
        return certificate(
            flat, exact, states, last, inputs, log_norms, resolved,
            norm=norm, of=of, wrt=wrt, stride=stride,
        )  # fmt: skip

    return flat.map_samples(one_sample, inputs, log_norms, resolved)


def certificate(
    flat: FlatCell,
    exact: FlatCell,
    states: FlatState,
    last: FlatState,
    inputs: Float[Array, "T features"],
    log_norms: Float[Array, "T+1 T+1"],
    resolved: Bool[Array, "T+1 T+1"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
) -> Certificate:
    """Return the certificate of the map of one sample.

    Args:
        flat: the cell that was measured.
        exact: the same in float64 (`in_double_precision`).
        states, last: s⁽⁰⁾..s⁽ᵀ⁻¹⁾ and s⁽ᵀ⁾, as measured.
        inputs: (time, features).
        log_norms: the map, [t, k] in strides.
        resolved: the entries whose product kept three digits.
        norm, of, wrt, stride: those of the map.
    """
    own = (states, inputs)
    double: tuple[FlatState, Array] = as_float64(own)
    length = jnp.sum(~rests(states))
    pairs = _within(
        sample_pairs(inputs.shape[0], stride), inputs.shape[0] // stride, length, stride
    )
    at_pairs = pairs[:, 0], pairs[:, 1]
    expected = _direct_log_norms(exact, *double, pairs * stride, norm, of, wrt)
    error = _relative_error(log_norms[at_pairs], expected)
    reached = jnp.concatenate([states.vector[1:], last.vector[None]])
    in_double = replace(exact, initial=as_float64(flat.initial))
    products, exact_maps = _two_runs(in_double, *double, norm, of, wrt, stride)
    lost = _cancelled(products, log_norms, exact_maps[0], rounding(flat))
    lost = lost | _across_unresolved_steps(flat, exact, own, double, reached, stride)
    reliable = resolved & ~lost
    counts = reliable[at_pairs]
    largest = jnp.where(counts.any(), jnp.max(jnp.where(counts, error, 0)), jnp.nan)
    differences = _difference_error(exact, *double, length)
    times = stride * jnp.arange(len(log_norms))
    is_measured = jnp.tril(jnp.broadcast_to((times <= length)[:, None], log_norms.shape))
    is_known = is_measured & (rounding(exact) <= jnp.finfo(jnp.float64).eps)
    by_precision = jnp.where(is_known, _relative_error(log_norms, exact_maps), jnp.nan)
    error, largest, differences, by_precision = (
        x.astype(jnp.float32) for x in (error, largest, differences, by_precision)
    )
    pairs = pairs.astype(jnp.int32)
    unresolved = ~reliable & is_measured
    return Certificate(pairs, error, largest, differences, unresolved, *by_precision[::-1])


def _two_runs(
    exact: FlatCell,
    states: FlatState,
    inputs: Float[Array, "T features"],
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
) -> tuple[Scaled, Float[Array, "2 T+1 T+1"]]:
    """Return the float64 step products at given states, and two maps.

    The first is along these states, the second along the trajectory in float64.
    """
    run, _ = trajectory(exact, inputs)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), states, run)

    def measure(states: FlatState) -> tuple[Scaled, Array]:
        products = products_of_strides(jacobians_at(exact, states, inputs), stride, jnp.float64)
        return products, carry_log_norm_map(exact.form, products, norm=norm, of=of, wrt=wrt).value

    products, maps = jax.lax.map(measure, both)
    return jax.tree.map(lambda x: x[0], products), maps


def _relative_error(
    log_norms: Float[Array, "*pairs"], expected: Float[Array, "*pairs"]
) -> Float[Array, "*pairs"]:
    same = log_norms == expected  # both −inf, whose difference is nan
    difference = log_norms.astype(jnp.float64) - expected
    return jnp.where(same, 0, jnp.abs(jnp.expm1(difference)))


def _direct_log_norms(
    cell: FlatCell,
    states: FlatState,
    inputs: Float[Array, "T features"],
    pairs: Int[Array, "pairs 2"],
    norm: Norm,
    of: Span,
    wrt: Span,
) -> Float[Array, "pairs"]:
    def one_pair(pair: Int[Array, "2"]) -> Float[Array, ""]:
        def advance(step: Array, product: Scaled) -> Scaled:
            return extend(product, cell.jacobian(*_at(step, (states, inputs))))

        start = rescale(jnp.eye(cell.form.size))
        product = jax.lax.fori_loop(pair[1], pair[0], advance, start)
        return block_log_norm(cell.form, product, norm=norm, of=of, wrt=wrt)

    return jax.lax.map(one_pair, pairs)


def _cancelled(
    jacobians: Scaled,
    log_norms: Float[Array, "T+1 T+1"],
    exact: Float[Array, "T+1 T+1"],
    eps: float,
) -> Bool[Array, "T+1 T+1"]:
    """Return the entries in which ways through the state cancel down to the cell's own rounding.

    An error of ε‖J⁽ⁱ⁾‖ in a step Jacobian is one of ε‖∂s⁽ᵗ⁾/∂s⁽ⁱ⁾‖ ‖∂s⁽ⁱ⁾/∂s⁽ᵏ⁾‖ in an entry. This
    is a bound: what lies below it and is as in float64 is no loss.

    Args:
        jacobians: of the cell in float64, at the measured states.
        log_norms: the map that was measured.
        exact: that of `jacobians`.
        eps: ε of the cell's own precision.
    """
    whole = (0, jacobians.unit.shape[-1])
    sizes = log_norm_map(jacobians, norm="frobenius", of=whole, wrt=whole).value
    largest = jax.lax.map(lambda row: jnp.max(row[:, None] + sizes, axis=0), sizes)
    differs = jnp.abs(jnp.expm1(log_norms - exact)) > UNRESOLVED
    return differs & (log_norms < largest + np.log(eps / UNRESOLVED))


def _across_unresolved_steps(
    flat: FlatCell,
    exact: FlatCell,
    own: tuple[FlatState, Array],
    double: tuple[FlatState, Array],
    reached: Float[Array, "T n"],
    stride: int,
) -> Bool[Array, "T+1 T+1"]:
    """Return the pairs whose product goes through an unresolved step Jacobian.

    Args:
        flat, exact: the cell in its own precision and in float64.
        own, double: the states and inputs of every step in these precisions.
        reached: the states after every step.
        stride: of the map.
    """

    def compare(
        step: tuple[tuple[FlatState, Array], tuple[FlatState, Array]],
    ) -> tuple[Float[Array, ""], Bool[Array, "n"]]:
        """Return the relative error of a step Jacobian, and which of its rows are exactly zero."""
        own, double = step
        jacobian = exact.jacobian(*double)
        difference = jnp.linalg.norm(flat.jacobian(*own) - jacobian)
        error = difference / jnp.maximum(jnp.linalg.norm(jacobian), jnp.finfo(jnp.float64).tiny)
        return error, jnp.all(jacobian == 0, axis=1)

    error, zero_rows = jax.lax.map(compare, (own, double))
    rest = [
        (state._replace(vector=jnp.zeros_like(state.vector)), jnp.zeros_like(x))
        for state, x in (_at(0, own), _at(0, double))
    ]
    _, zero_at_rest = compare((rest[0], rest[1]))
    # A zero derivative is exact for an inactive ReLU (its state is 0) but lost for tanh(20) (its
    # state is ±1). One that is zero at every step and at rest is exact too.
    at_every_step = jnp.all(zero_rows | rests(own[0])[:, None], axis=0)
    saturated = zero_rows & (reached != 0) & ~(zero_at_rest & at_every_step)
    unresolved = (error > UNRESOLVED) | jnp.any(saturated, axis=1)
    before = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(unresolved)])[::stride]
    return jnp.tril(before[:, None] > before[None, :])


def _difference_error(
    cell: FlatCell,
    states: FlatState,
    inputs: Float[Array, "T features"],
    length: Int[Array, ""],
) -> Float[Array, ""]:
    lag = min(SHORT, inputs.shape[0])
    last = inputs.shape[0] - lag
    begins = jnp.asarray(np.unique(np.linspace(0, last, 8).astype(int)))
    begins = begins * jnp.maximum(length - lag, 0) // max(last, 1)
    v = jnp.asarray(np.random.default_rng(0).standard_normal(cell.form.size))
    v = v / jnp.linalg.norm(v)

    def run(begin: Array, state: FlatState) -> Float[Array, "n"]:
        return jax.lax.fori_loop(
            begin, begin + lag, lambda i, state: cell.step(state, inputs[i]), state
        ).vector

    def relative_error(begin: Array) -> Float[Array, ""]:
        state = _at(begin, states)
        size = DIFFERENCE * jnp.maximum(1, jnp.linalg.norm(state.vector))
        ends = [
            run(begin, state._replace(vector=state.vector + sign * size * v)) for sign in (1, -1)
        ]
        difference = (ends[0] - ends[1]) / (2 * size)
        product = jax.lax.fori_loop(
            begin, begin + lag, lambda i, v: cell.jacobian(*_at(i, (states, inputs))) @ v, v
        )
        return jnp.linalg.norm(product - difference) / jnp.maximum(jnp.linalg.norm(product), NOISE)

    return jnp.max(jax.lax.map(relative_error, begins))


def _at(step: Array | int, tree: PyTree) -> Any:
    return jax.tree.map(lambda x: x[step], tree)
