"""Lyapunov exponents: mean growth rates of small perturbations along the trajectory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.carry import FlatState
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.products import multiply, safe_log
from gradlab.jacobian.steps import random_frame
from gradlab.jacobian.transforms import in_float64

BLOCKS = 10  # intervals of time whose exponents give the standard error


class LyapunovSpectrum(NamedTuple):
    """Lyapunov exponents in nats per step, descending, and their standard errors.

    The standard error is that of the mean over ten intervals of equal length, the transient
    included; nan where T < 2.
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
    """Return the Lyapunov exponents λᵢ, descending, in nats per step.

    λᵢ = (1/T) Σ_t log |R⁽ᵗ⁾ᵢᵢ| of repeated QR factorisations of the step Jacobians: the `exponents`
    of `lyapunov_spectrum`.

    Args:
        cell, inputs, initial_carry, count: as in `lyapunov_spectrum`.

    Returns:
        float32 (..., count); −inf for directions that are mapped to zero.

    Raises:
        ValueError, FloatingPointError: as `lyapunov_spectrum`.

    References:
        Engelken, Wolf & Abbott 2023, Lyapunov spectra of chaotic recurrent neural networks.

    Example:
        >>> cell = nnx.GRUCell(3, 16, rngs=nnx.Rngs(0))
        >>> largest = lyapunov_exponents(cell, jnp.ones((1000, 3)), count=1)[0]
    """
    return lyapunov_spectrum(cell, inputs, initial_carry=initial_carry, count=count).exponents


def lyapunov_spectrum(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    count: int | None = None,
) -> LyapunovSpectrum:
    """Return the Lyapunov exponents with their standard errors, in nats per step.

        J⁽ᵗ⁾ Q⁽ᵗ⁻¹⁾ = Q⁽ᵗ⁾ R⁽ᵗ⁾,    λᵢ = (1/T) Σ_t log |R⁽ᵗ⁾ᵢᵢ|

    The largest is the growth rate of ‖∂s⁽ᵗ⁾/∂s⁽⁰⁾‖ in the long run; the sum of all is the mean of
    log |det J⁽ᵗ⁾|. Memory does not grow with T.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features) or (batch, time, features).
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch, or of every sample, with the batch's
            leading axis; by default the cell's own.
        count: number of exponents, from the largest down; by default all n of the whole carry.

    Returns:
        float32 (..., count) each; −inf for directions that are mapped to zero.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state or Jacobian is not finite; the message names its step.

    References:
        Benettin et al. 1980: the exponents by repeated orthogonalisation.
        Engelken, Wolf & Abbott 2023, Lyapunov spectra of chaotic recurrent neural networks.

    Example:
        >>> cell = nnx.GRUCell(3, 16, rngs=nnx.Rngs(0))
        >>> exponents, standard_error = lyapunov_spectrum(cell, jnp.ones((1000, 3)))
    """
    inputs = jnp.asarray(inputs)
    flat = flatten_cell(cell, inputs, initial_carry)
    n = flat.form.size
    count = n if count is None else count
    if not 1 <= count <= n:
        raise ValueError(f"count must be from 1 to the size of the carry, {n}; got {count}.")
    spectrum: LyapunovSpectrum = in_float64(_spectrum, flat, inputs, random_frame(n, count))
    check_finite(spectrum.exponents, flat, inputs)
    return spectrum


@jax.jit
def _spectrum(
    flat: FlatCell, inputs: Float[Array, "*batch T features"], frame: Float[Array, "n count"]
) -> LyapunovSpectrum:
    count = frame.shape[1]
    length = inputs.shape[-2]
    block_of = jnp.arange(length) * min(BLOCKS, length) // length
    lengths = jnp.bincount(block_of, length=min(BLOCKS, length))[:, None]

    def one_sample(flat: FlatCell, sample: Float[Array, "T features"]) -> LyapunovSpectrum:
        def advance(
            carry: tuple[FlatState, Array, Array], step: tuple[Array, Array]
        ) -> tuple[tuple[FlatState, Array, Array], None]:
            state, frame, growth = carry
            x, block = step
            jacobian = flat.jacobian(state, x).astype(frame.dtype)
            frame, triangle = jnp.linalg.qr(multiply(jacobian, frame))
            growth = growth.at[block].add(safe_log(jnp.abs(jnp.diagonal(triangle))))
            return (flat.step(state, x), frame, growth), None

        start = (flat.initial, frame, jnp.zeros((lengths.size, count)))
        (_, _, growth), _ = jax.lax.scan(advance, start, (sample, block_of))
        exponents = growth.sum(axis=0) / length
        order = jnp.argsort(-exponents)
        error = jnp.std(growth / lengths, axis=0, ddof=1) / jnp.sqrt(lengths.size)
        return LyapunovSpectrum(*(x[order].astype(jnp.float32) for x in (exponents, error)))

    return flat.map_samples(one_sample, inputs)
