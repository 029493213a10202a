"""Step Jacobians J⁽ᵗ⁾ = ∂s⁽ᵗ⁾/∂s⁽ᵗ⁻¹⁾ along the trajectory that the inputs drive."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, PyTree

from gradlab.jacobian.arguments import check_finite_jacobians, numbers
from gradlab.jacobian.carry import FlatState
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.products import Scaled, extend, multiply, rescale


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
        (time, n, n), of the whole carry; [t − 1] is J⁽ᵗ⁾.

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
    return jax.vmap(flat.jacobian)(trajectory(flat, inputs)[0], inputs)


def step_products(
    flat: FlatCell,
    states: FlatState,
    inputs: Float[Array, "T features"],
    stride: int,
    dtype: jnp.dtype,
) -> Scaled:
    """Return the product of the step Jacobians of every `stride` consecutive steps.

    The Jacobians are computed in the cell's own precision, at the given states s⁽⁰⁾..s⁽ᵀ⁻¹⁾, and
    multiplied in `dtype`. With stride 1 they are returned as they are.

    Returns:
        ⌊T / stride⌋ matrices (n, n); steps after the last full stride are left out.
    """
    count = inputs.shape[0] // stride

    def grouped(x: Array) -> Array:
        return x[: count * stride].reshape(count, stride, *x.shape[1:])

    def product(group: tuple[FlatState, Array]) -> Scaled:
        jacobians = jax.vmap(flat.jacobian)(*group).astype(dtype)
        total, rest = rescale(jacobians[0]), jacobians[1:]
        return jax.lax.scan(lambda total, step: (extend(total, step), None), total, rest)[0]

    groups = jax.tree.map(grouped, (states, inputs))
    return jax.lax.map(product, groups, batch_size=max(1, 64 // stride))


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
    own, exact = (jnp.finfo(dtype).eps for dtype in (jacobian.dtype, frame.dtype))
    jacobian = jacobian.astype(frame.dtype)
    q, triangle = jnp.linalg.qr(multiply(jacobian, frame))
    terms = jnp.linalg.norm(multiply(jnp.abs(jacobian), jnp.abs(frame)), axis=0)
    diagonal = jnp.abs(jnp.diagonal(triangle))
    noise = jnp.maximum(own, jacobian.shape[0] * exact) * terms
    return q, triangle, (diagonal > noise) | (diagonal == 0)
