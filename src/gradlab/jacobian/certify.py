"""Certificates: errors of a map's entries by independent methods, and its unresolved entries.

The first method multiplies reverse-mode step Jacobians in float64, pair by pair, and takes
LAPACK's norms. The second takes central differences of the recurrence. The engine shares nothing
with them: it uses forward mode in the cell's own precision, hierarchical products and Gram
matrices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradlab.jacobian.carry import CarryForm, FlatState, Span, is_inexact
from gradlab.jacobian.complex_norms import block_log_norm, carry_log_norm_map
from gradlab.jacobian.flat_cell import FlatCell, flatten_cell
from gradlab.jacobian.pairs import Norm, log_norm_map
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


def in_double_precision(
    cell: nnx.RNNCellBase | Callable[..., Any],
    flat: FlatCell,
    inputs: Float[Array, "*batch T features"],
) -> FlatCell:
    """Return the cell computing in float64, with Jacobians in reverse mode.

    Weights that a plain function reads keep their own type, which float64 states promote.

    Args:
        cell, inputs: those of the measurement.
        flat: the cell in its own precision.

    Raises:
        ValueError: the cell draws random numbers, which would be others in float64.
    """
    drawing = ("random_bits", "random_gamma", "threefry2x32")
    if any(name in str(flat.advance.program.jaxpr) for name in drawing):
        raise ValueError(
            "certify=True compares with the same cell in float64, for which random numbers are "
            "drawn anew: leave it out for a cell that draws any."
        )
    with jax.enable_x64(True):
        if isinstance(cell, nnx.Module):
            definition, state = nnx.split(cell)
            cell = nnx.merge(definition, _as_float64(state))
            for _, module in nnx.iter_modules(cell):
                if (dtype := getattr(module, "dtype", None)) is not None:  # Flax computes in it
                    module.dtype = _double(dtype)  # type: ignore[attr-defined]
        carry = flat.carry(flat.example)
        sample = inputs.reshape(-1, *inputs.shape[-2:])[0]
        return flatten_cell(cell, _as_float64(sample), _as_float64(carry), jacobian=jax.jacrev)


def _as_float64(tree: PyTree) -> PyTree:
    """Return the tree with its numbers in double precision; integers and keys stay."""

    def cast(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        # With a type of its own, or JAX would promote a weakly typed counter to 64 bits.
        return jnp.asarray(leaf, _double(leaf.dtype) if is_inexact(leaf) else leaf.dtype)

    return jax.tree.map(cast, tree)


def _double(dtype: Any) -> Any:
    """Return the type of double precision, complex for a complex type."""
    return jnp.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.float64


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
    double: tuple[FlatState, Array] = _as_float64(own)
    pairs = sample_pairs(inputs.shape[0], stride)
    expected = _direct_log_norms(exact, *double, pairs * stride, norm, of, wrt)
    entries = log_norms[pairs[:, 0], pairs[:, 1]].astype(jnp.float64)
    reached = jnp.concatenate([states.vector[1:], last.vector[None]])
    jacobians = products_of_strides(jacobians_at(exact, *double), stride, jnp.float64)
    eps = float(jnp.finfo(states.vector.dtype).eps)
    lost = _cancelled(exact.form, jacobians, log_norms, eps, norm, of, wrt)
    lost = lost | _across_unresolved_steps(flat, exact, own, double, reached, stride)
    reliable = resolved & ~lost
    same = entries == expected  # both −inf, whose difference is nan
    error = jnp.where(same, 0, jnp.abs(jnp.expm1(entries - expected)))
    largest = jnp.max(jnp.where(reliable[pairs[:, 0], pairs[:, 1]], error, 0))
    differences = _difference_error(exact, *double)
    error, largest, differences = (x.astype(jnp.float32) for x in (error, largest, differences))
    return Certificate(jnp.asarray(pairs, jnp.int32), error, largest, differences, ~reliable)


def _direct_log_norms(
    cell: FlatCell,
    states: FlatState,
    inputs: Float[Array, "T features"],
    pairs: Int[np.ndarray, "pairs 2"],
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

    return jax.lax.map(one_pair, jnp.asarray(pairs))


def _cancelled(
    form: CarryForm,
    jacobians: Scaled,
    log_norms: Float[Array, "T+1 T+1"],
    eps: float,
    norm: Norm,
    of: Span,
    wrt: Span,
) -> Bool[Array, "T+1 T+1"]:
    """Return the entries in which ways through the state cancel down to the cell's own rounding.

    An error of ε‖J⁽ⁱ⁾‖ in a step Jacobian is one of ε‖∂s⁽ᵗ⁾/∂s⁽ⁱ⁾‖ ‖∂s⁽ⁱ⁾/∂s⁽ᵏ⁾‖ in an entry. This
    is a bound: what lies below it and is as in float64 is no loss.

    Args:
        form: of the carry.
        jacobians: of the cell in float64, at the measured states.
        log_norms: the map that was measured.
        eps: ε of the cell's own precision.
        norm, of, wrt: those of the map.
    """
    whole = (0, jacobians.unit.shape[-1])
    exact = carry_log_norm_map(form, jacobians, norm=norm, of=of, wrt=wrt).value
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
    saturated = zero_rows & (reached != 0) & ~(zero_at_rest & jnp.all(zero_rows, axis=0))
    unresolved = (error > UNRESOLVED) | jnp.any(saturated, axis=1)
    before = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(unresolved)])[::stride]
    return jnp.tril(before[:, None] > before[None, :])


def _difference_error(
    cell: FlatCell, states: FlatState, inputs: Float[Array, "T features"]
) -> Float[Array, ""]:
    lag = min(SHORT, inputs.shape[0])
    begins = np.unique(np.linspace(0, inputs.shape[0] - lag, 8).astype(int))
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

    return jnp.max(jax.lax.map(relative_error, jnp.asarray(begins)))


def _at(step: Array | int, tree: PyTree) -> Any:
    return jax.tree.map(lambda x: x[step], tree)
