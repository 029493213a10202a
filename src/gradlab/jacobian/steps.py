"""Step Jacobians J⁽ᵗ⁾ = ∂s⁽ᵗ⁾/∂s⁽ᵗ⁻¹⁾ along the trajectory that the inputs drive."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, PyTree

from gradlab.jacobian.arguments import check_finite_jacobians, numbers
from gradlab.jacobian.arrays import AnyArray, fori_loop
from gradlab.jacobian.carry import FlatState
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.products import Scaled, exceeds_rounding, extend, multiply, rescale

AT_ONCE = 2**24  # entries of step Jacobians whose derivatives are in memory at once


def trajectory(flat: FlatCell, inputs: Float[Array, "T features"]) -> tuple[FlatState, FlatState]:
    """Return the states s⁽⁰⁾..s⁽ᵀ⁻¹⁾, at which the step Jacobians are taken, and s⁽ᵀ⁾."""

    def advance(state: FlatState, x: Float[Array, "features"]) -> tuple[FlatState, FlatState]:
        return flat.step(state, x), state

    last, states = jax.lax.scan(advance, flat.initial, inputs)
    return states, last


def step_jacobians(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "T features"],
    *,
    initial_carry: PyTree | None = None,
) -> Float[Array, "T n n"]:
    """Return the step Jacobians J⁽ᵗ⁾ = ∂s⁽ᵗ⁾/∂s⁽ᵗ⁻¹⁾ of one sample, in the cell's own precision.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y).
        inputs: (time, features).
        initial_carry: s⁽⁰⁾; by default the cell's own.

    Returns:
        (time, n, n), of the whole carry; [t − 1] is J⁽ᵗ⁾. A complex array in the carry has the
        rows and columns of its real parts, then those of its imaginary parts.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a Jacobian is not finite; the message names its step.
    """
    inputs = one_sequence(inputs)
    jacobians: Array = jacobians_along(flatten_cell(cell, inputs, initial_carry), inputs)
    check_finite_jacobians(jacobians)
    return jacobians


def one_sequence(inputs: Float[Array, "T features"]) -> Float[Array, "T features"]:
    """Return the inputs of one sample as an array.

    Raises:
        ValueError: they are no numbers, or have another rank.
    """
    inputs = numbers("inputs", inputs)
    if inputs.ndim != 2:
        raise ValueError(f"inputs must be (time, features); got an array of shape {inputs.shape}.")
    return inputs


@jax.jit
def jacobians_along(flat: FlatCell, inputs: Float[Array, "T features"]) -> Float[Array, "T n n"]:
    """Return the step Jacobians along the trajectory, in the cell's own precision."""
    return jacobians_at(flat, trajectory(flat, inputs)[0], inputs)


def jacobians_at(
    flat: FlatCell, states: FlatState, inputs: Float[Array, "T features"]
) -> Float[Array, "T n n"]:
    """Return the step Jacobians at given states s⁽⁰⁾..s⁽ᵀ⁻¹⁾, in the cell's own precision."""
    if len(inputs) * flat.form.size**2 <= AT_ONCE:
        return jax.vmap(flat.jacobian)(states, inputs)
    batch = max(1, AT_ONCE // flat.form.size**2)
    return jax.lax.map(lambda step: flat.jacobian(*step), (states, inputs), batch_size=batch)


def products_of_strides(jacobians: Float[AnyArray, "T n n"], stride: int, dtype: Any) -> Scaled:
    """Return the product of the step Jacobians of every `stride` consecutive steps.

    Returns:
        ⌊T / stride⌋ matrices (n, n) of a type; steps after the last full stride are left out.
    """
    count = len(jacobians) // stride
    if jacobians.dtype != dtype:
        jacobians = jacobians.astype(dtype)
    groups = jacobians[: count * stride].reshape(count, stride, *jacobians.shape[1:])
    return fori_loop(
        1,
        stride,
        lambda i, product: extend(product, groups[:, i]),
        rescale(groups[:, 0]),
        jacobians,
    )


def random_frame(n: int, count: int) -> Float[Array, "n count"]:
    """Return random orthonormal columns, the same at every call.

    Unit vectors could stay in subspaces that the Jacobians do not mix. The frame is computed at
    once even where an outer function is traced, for 64-bit random numbers cannot be drawn later.
    """
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        key = jax.random.key(0, impl="threefry2x32")
        return jnp.linalg.qr(jax.random.normal(key, (n, count), jnp.float64))[0]


def stretch(
    jacobian: Float[Array, "n n"], frame: Float[Array, "n count"]
) -> tuple[Float[Array, "n count"], Float[Array, "count count"], Bool[Array, "count"]]:
    """Return Q and R of J · frame = Q R in float64, and whether rounding left some of each |Rᵢᵢ|.

    What cancels in the sums of J · frame leaves the rounding errors of the cell's own precision,
    1e-7 of the terms in float32, and of the factorisation; an exact zero is resolved.
    """
    own = jacobian.dtype
    jacobian = jacobian.astype(frame.dtype)
    q, triangle = jnp.linalg.qr(multiply(jacobian, frame))
    terms = jnp.linalg.norm(multiply(jnp.abs(jacobian), jnp.abs(frame)), axis=0)
    diagonal = jnp.abs(jnp.diagonal(triangle))
    return q, triangle, exceeds_rounding(diagonal, terms, own, jacobian.shape[0])
