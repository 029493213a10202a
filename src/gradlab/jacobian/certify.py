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
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from gradlab.jacobian.flat_cell import FlatCell, Span, SplitCell, flatten_cell, in_precision
from gradlab.jacobian.pairs import Norm
from gradlab.jacobian.products import Scaled, multiply, rescale
from gradlab.jacobian.steps import trajectory

PAIRS = 48  # entries in a sample
SHORT = 4  # lag of the central differences: over longer ones a chaotic network amplifies rounding
NOISE = 1e-6  # smaller derivatives are below the rounding error of a difference
DIFFERENCE = 1e-5  # step of central differences, relative to the state's size
UNRESOLVED = (
    1e-3  # relative error from which a step Jacobian and products through it are unresolved
)


class Certificate(NamedTuple):
    """Errors of a sample of a map's entries, and its unresolved entries (lost to rounding).

    Attributes:
        pairs: the (t, k) of the sample, in strides.
        relative_error: error of their norms against float64 products.
        largest_error: the largest of these, without unresolved entries.
        difference_error: the largest ‖P v − central difference‖ / ‖P v‖ over short lags, for a
            random v.
        unresolved: [..., t, k] is true where rounding left less than three digits, by cancellation
            in the product or in the cell's own derivative (a saturated unit).
    """

    pairs: Int[Array, "*batch pairs 2"]
    relative_error: Float[Array, "*batch pairs"]
    largest_error: Float[Array, "*batch"]
    difference_error: Float[Array, "*batch"]
    unresolved: Bool[Array, "*batch T+1 T+1"]


def sample_pairs(length: int, stride: int) -> Int[np.ndarray, "pairs 2"]:
    """Return pairs (t, k), in strides, whose lags are evenly spaced on a logarithmic scale."""
    rng = np.random.default_rng(0)
    count = length // stride
    lags = np.unique(np.geomspace(1, count, PAIRS).round().astype(int))
    lags = np.resize(lags, PAIRS)
    begin = rng.integers(0, count - lags + 1)
    return np.stack([begin + lags, begin], axis=1)


def certificate(
    split: SplitCell,
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
        split: the cell that was measured.
        inputs: (time, features).
        log_norms: the map, [t, k] in strides.
        resolved: the entries whose product kept three digits.
        norm, of, wrt, stride: those of the map.
    """
    length, features = inputs.shape
    flat = split.flatten(features)
    states = trajectory(flat, inputs)
    exact = _in_float64(split, features)
    states64, inputs64 = states.astype(jnp.float64), inputs.astype(jnp.float64)
    pairs = sample_pairs(length, stride)
    expected = _direct_log_norms(exact, states64, inputs64, pairs * stride, norm, of, wrt)
    entries = log_norms[pairs[:, 0], pairs[:, 1]].astype(jnp.float64)
    reliable = resolved & ~_across_unresolved_steps(flat, exact, states, inputs, stride)
    same = entries == expected  # both −inf, whose difference is nan
    error = jnp.where(same, 0, jnp.abs(jnp.expm1(entries - expected)))
    largest = jnp.max(jnp.where(reliable[pairs[:, 0], pairs[:, 1]], error, 0))
    differences = _difference_error(exact, states64, inputs64)
    error, largest, differences = (x.astype(jnp.float32) for x in (error, largest, differences))
    return Certificate(jnp.asarray(pairs, jnp.int32), error, largest, differences, ~reliable)


def _in_float64(split: SplitCell, features: int) -> FlatCell:
    cell: Any = replace(split, parameters=in_precision(split.parameters, jnp.float64)).merge()
    if isinstance(cell, nnx.Module):
        for _, module in nnx.iter_modules(cell):
            if getattr(module, "dtype", None) is not None:  # in which Flax's cells compute
                module.dtype = jnp.float64  # type: ignore[attr-defined]
    initial_carry = split.initial_carry
    if initial_carry is None:
        initial_carry = cell.initialize_carry((features,), nnx.Rngs(0))
    carry = in_precision(initial_carry, jnp.float64)
    return flatten_cell(cell, features, carry)


def _direct_log_norms(
    cell: FlatCell,
    states: Float[Array, "T n"],
    inputs: Float[Array, "T features"],
    pairs: Int[np.ndarray, "pairs 2"],
    norm: Norm,
    of: Span,
    wrt: Span,
) -> Float[Array, "pairs"]:
    def one_pair(pair: Int[Array, "2"]) -> Float[Array, ""]:
        def extend(step: Array, product: Scaled) -> Scaled:
            jacobian = jax.jacrev(cell.step)(states[step], inputs[step])
            return rescale(multiply(jacobian, product.unit), product.log_scale)

        start = rescale(jnp.eye(cell.initial.size))
        product = jax.lax.fori_loop(pair[1], pair[0], extend, start)
        block = rescale(product.unit[slice(*of), slice(*wrt)], product.log_scale)
        if norm == "spectral":
            return jnp.log(jnp.linalg.norm(block.unit, 2)) + block.log_scale
        return block.log_scale - (0.5 * np.log(wrt[1] - wrt[0]) if norm == "rms" else 0)

    return jax.lax.map(one_pair, jnp.asarray(pairs))


def _across_unresolved_steps(
    own: FlatCell, exact: FlatCell, states: Array, inputs: Array, stride: int
) -> Bool[Array, "T+1 T+1"]:
    """Return the pairs whose product goes through an unresolved step Jacobian.

    `own` is the cell in its own precision, `exact` the same in float64.
    """

    def compare(step: tuple[Array, Array]) -> tuple[Float[Array, ""], Bool[Array, "n"]]:
        """Return the relative error of a step Jacobian, and which of its rows are exactly zero."""
        jacobian = jax.jacrev(exact.step)(*(x.astype(jnp.float64) for x in step))
        difference = jnp.linalg.norm(jax.jacfwd(own.step)(*step) - jacobian)
        error = difference / jnp.maximum(jnp.linalg.norm(jacobian), jnp.finfo(jnp.float64).tiny)
        return error, jnp.all(jacobian == 0, axis=1)

    reached = jnp.concatenate([states[1:], own.step(states[-1], inputs[-1])[None]])
    error, zero_rows = jax.lax.map(compare, (states, inputs))
    _, zero_at_rest = compare((jnp.zeros_like(states[0]), jnp.zeros_like(inputs[0])))
    # A zero derivative is exact for an inactive ReLU (its state is 0) but lost for tanh(20) (its
    # state is ±1). One that is zero at every step and at rest is exact too.
    saturated = zero_rows & (reached != 0) & ~(zero_at_rest & jnp.all(zero_rows, axis=0))
    unresolved = (error > UNRESOLVED) | jnp.any(saturated, axis=1)
    before = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(unresolved)])[::stride]
    return jnp.tril(before[:, None] > before[None, :])


def _difference_error(
    cell: FlatCell, states: Float[Array, "T n"], inputs: Float[Array, "T features"]
) -> Float[Array, ""]:
    lag = min(SHORT, inputs.shape[0])
    begins = np.unique(np.linspace(0, inputs.shape[0] - lag, 8).astype(int))
    v = jax.random.normal(jax.random.key(0), (cell.initial.size,), jnp.float64)
    v = v / jnp.linalg.norm(v)

    def run(begin: Array, state: Array) -> Array:
        return jax.lax.fori_loop(
            begin, begin + lag, lambda i, state: cell.step(state, inputs[i]), state
        )

    def relative_error(begin: Array) -> Float[Array, ""]:
        state = states[begin]
        step = DIFFERENCE * jnp.maximum(1, jnp.linalg.norm(state))
        difference = (run(begin, state + step * v) - run(begin, state - step * v)) / (2 * step)
        product = jax.jvp(partial(run, begin), (state,), (v,))[1]
        size = jnp.linalg.norm(product)
        return jnp.linalg.norm(product - difference) / jnp.maximum(size, NOISE)

    return jnp.max(jax.lax.map(relative_error, jnp.asarray(begins)))
