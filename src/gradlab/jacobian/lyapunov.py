"""Lyapunov exponents: the mean growth rates of a volume carried along the trajectory."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.finite import refuse_not_finite
from gradlab.jacobian.flat_cell import (
    StepFunction,
    check_inputs,
    flatten_cell,
    join_cell,
    split_cell,
)
from gradlab.jacobian.products import multiply

BLOCKS = 10  # stretches of time whose exponents are compared


class LyapunovSpectrum(NamedTuple):
    """Exponents in nats per step, descending, and how far they have converged.

    The standard error is that of the mean over ten stretches of equal length. It takes in the
    transient, and is nan where T < 2.
    """

    exponents: Float[Array, "*batch count"]
    standard_error: Float[Array, "*batch count"]


def lyapunov_exponents(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    count: int | None = None,
) -> Float[Array, "*batch count"]:
    """The exponents of `lyapunov_spectrum`, float32, descending, in nats per step."""
    return lyapunov_spectrum(cell, inputs, initial_carry=initial_carry, count=count).exponents


def lyapunov_spectrum(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    count: int | None = None,
) -> LyapunovSpectrum:
    """(1/T) Σ log diag R of repeated QR of the step Jacobians (Benettin et al. 1980).

    The largest says how fast the norm of ∂s⁽ᵗ⁾/∂s⁽⁰⁾ grows or falls in the long run; the sum of all
    is the mean of log |det J⁽ᵗ⁾|. No Jacobian is kept, so T may be as long as patience allows.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features) or (batch, time, features).
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch; by default the cell's own.
        count: how many, from the largest down; by default all, the size n of the whole carry.

    Returns:
        float32; −inf for directions that are lost altogether.

    Raises:
        ValueError: an argument is not one of those above; the sentence says what is allowed.
        FloatingPointError: a number on the way is not finite; the sentence names its step.
    """
    check_inputs(inputs)
    n = flatten_cell(cell, jnp.shape(inputs)[-1], initial_carry).initial.size
    count = n if count is None else count
    if not 1 <= count <= n:
        raise ValueError(f"count must be from 1 to the size of the carry, {n}; got {count}.")
    definition, parameters = split_cell(cell)
    with jax.enable_x64(True):
        found = _spectrum(parameters, initial_carry, jnp.asarray(inputs), definition, count)
    refuse_not_finite(found.exponents, cell, inputs, initial_carry)
    return found


@partial(jax.jit, static_argnames=("definition", "count"))
def _spectrum(
    parameters: PyTree,
    initial_carry: PyTree | None,
    inputs: Float[Array, "*batch T features"],
    definition: nnx.GraphDef | StepFunction,
    count: int,
) -> LyapunovSpectrum:
    flat = flatten_cell(join_cell(definition, parameters), inputs.shape[-1], initial_carry)
    n = flat.initial.size
    # A random frame: the unit vectors may lie in subspaces that the Jacobians keep apart.
    frame, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (n, count), jnp.float64))

    length = inputs.shape[-2]
    block_of = jnp.arange(length) * min(BLOCKS, length) // length
    lengths = jnp.bincount(block_of, length=min(BLOCKS, length))[:, None]

    def one_sample(sample: Float[Array, "T features"]) -> LyapunovSpectrum:
        def advance(
            carry: tuple[Array, Array, Array], step: tuple[Array, Array]
        ) -> tuple[tuple[Array, Array, Array], None]:
            state, frame, growth = carry
            x, block = step
            jacobian = jax.jacfwd(flat.step)(state, x).astype(frame.dtype)
            frame, triangle = jnp.linalg.qr(multiply(jacobian, frame))
            growth = growth.at[block].add(jnp.log(jnp.abs(jnp.diagonal(triangle))))
            return (flat.step(state, x), frame, growth), None

        start = (flat.initial, frame, jnp.zeros((lengths.size, count)))
        (_, _, growth), _ = jax.lax.scan(advance, start, (sample, block_of))
        exponents = growth.sum(axis=0) / length
        order = jnp.argsort(-exponents)
        error = jnp.std(growth / lengths, axis=0, ddof=1) / jnp.sqrt(lengths.size)
        return LyapunovSpectrum(*(x[order].astype(jnp.float32) for x in (exponents, error)))

    return one_sample(inputs) if inputs.ndim == 2 else jax.lax.map(one_sample, inputs)
