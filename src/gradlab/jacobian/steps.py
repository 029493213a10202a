"""Step Jacobians J⁽ᵗ⁾ = ∂s⁽ᵗ⁾/∂s⁽ᵗ⁻¹⁾ along the trajectory that the inputs drive."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, PyTree

from gradlab.jacobian.flat_cell import (
    FlatCell,
    SplitCell,
    StepFunction,
    check_inputs,
    split_cell,
)
from gradlab.jacobian.products import Scaled, multiply, rescale


def trajectory(flat: FlatCell, inputs: Float[Array, "T features"]) -> Float[Array, "T n"]:
    """Return the states s⁽⁰⁾..s⁽ᵀ⁻¹⁾, at which the step Jacobians are taken."""

    def advance(
        state: Float[Array, "n"], x: Float[Array, "features"]
    ) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
        return flat.step(state, x), state

    return jax.lax.scan(advance, flat.initial, inputs)[1]


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
    """
    check_inputs(inputs)
    return _step_jacobians(split_cell(cell, initial_carry), inputs)


@jax.jit
def _step_jacobians(split: SplitCell, inputs: Float[Array, "T features"]) -> Float[Array, "T n n"]:
    flat = split.flatten(jnp.shape(inputs)[-1])
    return jax.vmap(jax.jacfwd(flat.step))(trajectory(flat, inputs), inputs)


def step_products(
    flat: FlatCell, inputs: Float[Array, "T features"], stride: int, dtype: jnp.dtype
) -> Scaled:
    """Return the product of the step Jacobians of every `stride` consecutive steps.

    The Jacobians are computed in the cell's own precision, at the states that the inputs lead to,
    and multiplied in `dtype`. With stride 1 they are returned as they are.

    Returns:
        ⌊T / stride⌋ matrices (n, n); steps after the last full stride are left out.
    """
    count = inputs.shape[0] // stride
    states = trajectory(flat, inputs)
    jacobian = jax.vmap(jax.jacfwd(flat.step))

    def grouped(x: Array) -> Array:
        return x[: count * stride].reshape(count, stride, *x.shape[1:])

    def product(group: tuple[Array, Array]) -> Scaled:
        jacobians = jacobian(*group).astype(dtype)
        return jax.lax.scan(extend, rescale(jacobians[0]), jacobians[1:])[0]

    def extend(total: Scaled, step: Float[Array, "n n"]) -> tuple[Scaled, None]:
        return rescale(multiply(step, total.unit), total.log_scale), None

    return jax.lax.map(product, (grouped(states), grouped(inputs)), batch_size=max(1, 64 // stride))
