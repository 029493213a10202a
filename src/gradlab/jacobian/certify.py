"""How far a map can be trusted: a sample of its entries along other routes, and what it lost.

Route one: step Jacobians by reverse mode, in float64 throughout, multiplied out pair by pair, with
LAPACK's norms. Route two: central differences of the recurrence itself. The engine goes another
way in everything: forward mode in the cell's own precision, hierarchical products, Gram matrices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradlab.jacobian.flat_cell import FlatCell, Span, flatten_cell, in_precision, join_cell
from gradlab.jacobian.pairs import Norm
from gradlab.jacobian.products import Scaled, multiply, rescale
from gradlab.jacobian.steps import trajectory

PAIRS = 48
SHORT = 4  # lags that central differences are taken over: a chaotic network forgets longer ones
NOISE = 1e-6  # derivatives below this cannot be told from the rounding of a difference
DIFFERENCE = 1e-5  # step of central differences, relative to the state's size
LOST = 1e-3  # relative error of a step Jacobian beyond which no product through it is trusted


class Certificate(NamedTuple):
    """What recomputing a sample of entries found.

    `pairs` are the (t, k) of the sample and `relative_error` that of their norms against float64
    products; `difference_error` is the largest of ‖P v − central difference‖ / ‖P v‖ over short
    lags and a random v. `unresolved[..., t, k]` marks entries that rounding left without three
    digits: cancelled in the product, or lost in the cell's own derivative (a saturated unit).
    Marked entries are not part of `largest_error`.
    """

    pairs: Int[Array, "*batch pairs 2"]
    relative_error: Float[Array, "*batch pairs"]
    largest_error: Float[Array, "*batch"]
    difference_error: Float[Array, "*batch"]
    unresolved: Bool[Array, "*batch T+1 T+1"]


def sample_pairs(length: int, stride: int) -> Int[np.ndarray, "pairs 2"]:
    """Pairs (t, k), in strides, whose lags are spread evenly over the orders of magnitude."""
    rng = np.random.default_rng(0)
    count = length // stride
    lags = np.unique(np.geomspace(1, count, PAIRS).round().astype(int))
    lags = np.resize(lags, PAIRS)
    begin = rng.integers(0, count - lags + 1)
    return np.stack([begin + lags, begin], axis=1)


def certificate(
    definition: nnx.GraphDef | Callable[..., Any],
    parameters: PyTree,
    initial_carry: PyTree | None,
    inputs: Float[Array, "T features"],
    found: Float[Array, "T+1 T+1"],
    resolved: Bool[Array, "T+1 T+1"],
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
) -> Certificate:
    """Check one sample's map; see `Certificate`."""
    length, features = inputs.shape
    flat = flatten_cell(join_cell(definition, parameters), features, initial_carry)
    states = trajectory(flat, inputs)
    exact = _in_float64(definition, parameters, initial_carry, features)
    states64, inputs64 = states.astype(jnp.float64), inputs.astype(jnp.float64)
    pairs = sample_pairs(length, stride)
    expected = _direct_log_norms(exact, states64, inputs64, pairs * stride, norm, of, wrt)
    entries = found[pairs[:, 0], pairs[:, 1]].astype(jnp.float64)
    kept = resolved & ~_across_lost_steps(flat, exact, states, inputs, stride)
    same = entries == expected  # two exact zeros
    error = jnp.where(same, 0, jnp.abs(jnp.expm1(entries - expected)))
    largest = jnp.max(jnp.where(kept[pairs[:, 0], pairs[:, 1]], error, 0))
    differences = _difference_error(exact, states64, inputs64)
    error, largest, differences = (x.astype(jnp.float32) for x in (error, largest, differences))
    return Certificate(jnp.asarray(pairs, jnp.int32), error, largest, differences, ~kept)


def _in_float64(
    definition: nnx.GraphDef | Callable[..., Any],
    parameters: PyTree,
    initial_carry: PyTree | None,
    features: int,
) -> FlatCell:
    cell: Any = join_cell(definition, in_precision(parameters, jnp.float64))
    if isinstance(cell, nnx.Module):
        for _, module in nnx.iter_modules(cell):
            if getattr(module, "dtype", None) is not None:  # Flax's cells compute in this one
                module.dtype = jnp.float64  # type: ignore[attr-defined]
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
    def one(pair: Int[Array, "2"]) -> Float[Array, ""]:
        def extend(step: Array, product: Scaled) -> Scaled:
            jacobian = jax.jacrev(cell.step)(states[step], inputs[step])
            return rescale(multiply(jacobian, product.unit), product.log_scale)

        start = rescale(jnp.eye(cell.initial.size))
        product = jax.lax.fori_loop(pair[1], pair[0], extend, start)
        block = rescale(product.unit[slice(*of), slice(*wrt)], product.log_scale)
        if norm == "spectral":
            return jnp.log(jnp.linalg.norm(block.unit, 2)) + block.log_scale
        return block.log_scale - (0.5 * np.log(wrt[1] - wrt[0]) if norm == "rms" else 0)

    return jax.lax.map(one, jnp.asarray(pairs))


def _across_lost_steps(
    own: FlatCell, exact: FlatCell, states: Array, inputs: Array, stride: int
) -> Bool[Array, "T+1 T+1"]:
    """Pairs whose product goes through a step whose Jacobian the cell's own precision lost."""

    def compared(at: tuple[Array, Array]) -> tuple[Float[Array, ""], Bool[Array, "n"]]:
        exactly = jax.jacrev(exact.step)(*(x.astype(jnp.float64) for x in at))
        difference = jnp.linalg.norm(jax.jacfwd(own.step)(*at) - exactly)
        error = difference / jnp.maximum(jnp.linalg.norm(exactly), jnp.finfo(jnp.float64).tiny)
        return error, jnp.all(exactly == 0, axis=1)

    reached = jnp.concatenate([states[1:], own.step(states[-1], inputs[-1])[None]])
    error, flat = jax.lax.map(compared, (states, inputs))
    _, flat_at_rest = compared((jnp.zeros_like(states[0]), jnp.zeros_like(inputs[0])))
    # tanh(20) is 1 in float64 too: a unit that is on, moved by nothing now and by something
    # elsewhere, is saturated. (A ReLU that is off is at 0, and its zero is exact.)
    saturated = flat & (reached != 0) & ~(flat_at_rest & jnp.all(flat, axis=0))
    lost = (error > LOST) | jnp.any(saturated, axis=1)
    before = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(lost)])[::stride]
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

    def one(begin: Array) -> Float[Array, ""]:
        state = states[begin]
        step = DIFFERENCE * jnp.maximum(1, jnp.linalg.norm(state))
        difference = (run(begin, state + step * v) - run(begin, state - step * v)) / (2 * step)
        product = jax.jvp(partial(run, begin), (state,), (v,))[1]
        size = jnp.linalg.norm(product)
        return jnp.linalg.norm(product - difference) / jnp.maximum(size, NOISE)

    return jnp.max(jax.lax.map(one, jnp.asarray(begins)))
