"""Lyapunov exponents: mean growth rates of small perturbations along the trajectory."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from gradlab.jacobian.arguments import numbers, whole_number
from gradlab.jacobian.carry import FlatState
from gradlab.jacobian.complex_norms import own_jacobian
from gradlab.jacobian.directions import Directions, directions_of, stretch_along
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.lengths import checked_lengths
from gradlab.jacobian.products import safe_log
from gradlab.jacobian.steps import random_frame, stretch
from gradlab.jacobian.transforms import in_float64

BLOCKS = 10  # intervals of time whose exponents give the standard error
FEW = 4  # so many times fewer exponents than numbers in the carry take no step Jacobians


class LyapunovSpectrum(NamedTuple):
    """Lyapunov exponents in nats per step, descending, and their standard errors.

    The standard error is that of the mean over ten intervals of equal length, the transient
    included; nan where T < 2.

    Example:
        >>> spectrum = gradlab.lyapunov_spectrum(cell, x)
        >>> spectrum.exponents.shape, spectrum.standard_error.shape
        ((4, 8), (4, 8))
    """

    exponents: Float[Array, "*batch count"]
    standard_error: Float[Array, "*batch count"]


def lyapunov_exponents(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    count: int | None = None,
    lengths: Int[Array, "*batch"] | None = None,
) -> Float[Array, "*batch count"]:
    """Return the Lyapunov exponents λᵢ, descending, in nats per step.

    λᵢ = (1/T) Σ_t log |R⁽ᵗ⁾ᵢᵢ| of repeated QR factorisations of the step Jacobians: the `exponents`
    of `lyapunov_spectrum`.

    Args:
        cell, inputs, initial_carry, count, lengths: as in `lyapunov_spectrum`.

    Returns:
        float32 (..., count); −inf and NaN as in `lyapunov_spectrum`.

    Raises:
        ValueError, FloatingPointError: as `lyapunov_spectrum`.

    References:
        Engelken, Wolf & Abbott 2023, Lyapunov spectra of chaotic recurrent neural networks.

    Example:
        >>> gru = nnx.GRUCell(3, 8, rngs=nnx.Rngs(0))
        >>> largest = gradlab.lyapunov_exponents(gru, jnp.ones((200, 3)), count=1)[0]
        >>> round(float(largest), 1)  # nats per step: the network forgets
        -0.3
    """
    return lyapunov_spectrum(
        cell, inputs, initial_carry=initial_carry, count=count, lengths=lengths
    ).exponents


def lyapunov_spectrum(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    count: int | None = None,
    lengths: Int[Array, "*batch"] | None = None,
) -> LyapunovSpectrum:
    """Return the Lyapunov exponents with their standard errors, in nats per step.

        J⁽ᵗ⁾ Q⁽ᵗ⁻¹⁾ = Q⁽ᵗ⁾ R⁽ᵗ⁾,    λᵢ = (1/T) Σ_t log |R⁽ᵗ⁾ᵢᵢ|

    The largest is the growth rate of ‖∂s⁽ᵗ⁾/∂s⁽⁰⁾‖ in the long run; the sum of all is the mean of
    log |det J⁽ᵗ⁾|. Memory does not grow with T. A few exponents of a wide carry, up to a quarter of
    its n numbers, take no step Jacobians, and memory for as many vectors only.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features) or (batch, time, features).
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch, or of every sample, with the batch's
            leading axis; by default the cell's own.
        count: number of exponents, from the largest down; by default all of the whole carry: one
            for each real number, and for each complex one if the step is holomorphic (the carry
            has complex numbers only, and the step takes no conjugate, real or imaginary part of
            them), else two, for its real and imaginary part.
        lengths: T of each sample, the number of steps that are measured: sums and means are over
            t ≤ T, whatever inputs follow. By default all steps.

    Returns:
        float32 (..., count) each; −inf for directions that are mapped to zero, and NaN, last, for
        those of which a step in the second half of the sequence leaves no more than the rounding
        errors of the cell's own precision, in float32 1e-7 of its terms (saturated units, or those
        that a ReLU switches off).

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state or Jacobian is not finite; the message names its step.

    References:
        Benettin et al. 1980: the exponents by repeated orthogonalisation.
        Engelken, Wolf & Abbott 2023, Lyapunov spectra of chaotic recurrent neural networks.

    Example:
        >>> gru = nnx.GRUCell(3, 8, rngs=nnx.Rngs(0))
        >>> exponents, standard_error = gradlab.lyapunov_spectrum(gru, jnp.ones((200, 3)))
        >>> exponents.shape, bool((exponents[:-1] >= exponents[1:]).all())
        ((8,), True)
    """
    inputs = numbers("inputs", inputs)
    flat = flatten_cell(cell, inputs, initial_carry)
    n = flat.dimensions
    count = n if count is None else whole_number("count", count, 1, n, "the size of the carry")
    *batch, steps, _ = inputs.shape
    measured = checked_lengths(jnp.full(batch, steps) if lengths is None else lengths, inputs)
    is_few = FEW * count <= n and not flat.is_holomorphic
    directions = directions_of(flat, inputs) if is_few else None
    spectrum, largest = in_float64(
        partial(_spectrum, count=count), flat, directions, inputs, measured
    )
    check_finite(largest, flat, inputs)
    return spectrum


@partial(jax.jit, static_argnames="count")
def _spectrum(
    flat: FlatCell,
    directions: Directions | None,
    inputs: Float[Array, "*batch T features"],
    lengths: Int[Array, "*batch"],
    *,
    count: int,
) -> tuple[LyapunovSpectrum, Float[Array, "*batch T"]]:
    """Return the spectrum, and the log of each measured step Jacobian's size."""
    frame = random_frame(flat.dimensions, count)
    if flat.is_holomorphic:
        frame = frame.astype(jnp.complex128)
    steps = inputs.shape[-2]
    rows = min(BLOCKS, steps)

    def one_sample(
        flat: FlatCell, inputs: Float[Array, "T features"], length: Int[Array, ""]
    ) -> tuple[LyapunovSpectrum, Float[Array, "T"]]:
        blocks = jnp.minimum(BLOCKS, length)
        # Steps past the length belong to no block: what is added to the row `rows` is dropped.
        block_of = jnp.where(jnp.arange(steps) < length, jnp.arange(steps) * blocks // length, rows)
        # In the first half the random frame has yet to turn towards the directions of growth.
        is_late = jnp.arange(steps) >= length // 2
        block_steps = jnp.bincount(block_of, length=rows)[:, None]

        def advance(
            carry: tuple[FlatState, Array, Array], step: tuple[Array, Array, Array]
        ) -> tuple[tuple[FlatState, Array, Array], Array]:
            state, frame, growth = carry
            x, block, is_late = step
            frame, triangle, resolved, size = _stretched(flat, directions, state, x, frame)
            logs = safe_log(jnp.abs(jnp.diagonal(triangle)))
            logs = jnp.where(resolved | ~is_late, logs, jnp.nan)
            growth = growth.at[block].add(logs, mode="drop")
            largest = jnp.where(block < rows, safe_log(size), -jnp.inf)
            return (flat.step(state, x), frame, growth), largest

        start = (flat.initial, frame, jnp.zeros((rows, count)))
        (_, _, growth), largest = jax.lax.scan(advance, start, (inputs, block_of, is_late))
        exponents = growth.sum(axis=0) / length
        order = jnp.argsort(-exponents)
        filled = jnp.arange(rows)[:, None] < blocks
        rates = jax.lax.stop_gradient(growth / jnp.maximum(block_steps, 1))
        error = jnp.std(rates, axis=0, ddof=1, where=filled) / jnp.sqrt(blocks)
        spectrum = (x[order].astype(jnp.float32) for x in (exponents, error))
        return LyapunovSpectrum(*spectrum), largest.astype(jnp.float32)

    return flat.map_samples(one_sample, inputs, lengths.astype(jnp.int64))


def _stretched(
    flat: FlatCell, directions: Directions | None, state: FlatState, x: Array, frame: Array
) -> tuple[Array, Array, Array, Array]:
    """Return Q, R and what of R is resolved, and a size of J, with J itself or along the frame."""
    if directions is not None:
        return stretch_along(flat, directions, state, x, frame)
    jacobian = own_jacobian(flat, flat.jacobian(state, x))
    return *stretch(jacobian, frame), jnp.max(jnp.abs(jax.lax.stop_gradient(jacobian)))
