"""Step Jacobians J⁽ᵗ⁾ = ∂s⁽ᵗ⁾/∂s⁽ᵗ⁻¹⁾ along the trajectory that the inputs drive."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, PyTree

from gradlab.jacobian.flat_cell import (
    FlatCell,
    StepFunction,
    check_inputs,
    flatten_cell,
    join_cell,
    split_cell,
)
from gradlab.jacobian.products import Scaled, multiply, rescale


def trajectory(cell: FlatCell, inputs: Float[Array, "T features"]) -> Float[Array, "T n"]:
    """The states s⁽⁰⁾..s⁽ᵀ⁻¹⁾ that the step Jacobians are taken at."""

    def advance(
        state: Float[Array, "n"], x: Float[Array, "features"]
    ) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
        return cell.step(state, x), state

    return jax.lax.scan(advance, cell.initial, inputs)[1]


def step_jacobians(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "T features"],
    *,
    initial_carry: PyTree | None = None,
) -> Float[Array, "T n n"]:
    """The step Jacobians ∂s⁽ᵗ⁾/∂s⁽ᵗ⁻¹⁾ of one sample, in the cell's own precision."""
    check_inputs(inputs)
    definition, parameters = split_cell(cell)
    return _step_jacobians(parameters, initial_carry, inputs, definition)


@partial(jax.jit, static_argnums=3)
def _step_jacobians(
    parameters: PyTree,
    initial_carry: PyTree | None,
    inputs: Float[Array, "T features"],
    definition: nnx.GraphDef | StepFunction,
) -> Float[Array, "T n n"]:
    flat = flatten_cell(join_cell(definition, parameters), jnp.shape(inputs)[-1], initial_carry)
    return jax.vmap(jax.jacfwd(flat.step))(trajectory(flat, inputs), inputs)


def step_products(
    cell: FlatCell, inputs: Float[Array, "T features"], stride: int, dtype: jnp.dtype
) -> Scaled:
    """Scaled products of every `stride` consecutive step Jacobians; with stride 1, those alone.

    The Jacobians are total derivatives with the input held. They are computed in the cell's own
    precision at the states that the network really visits, then multiplied in `dtype`.

    Returns:
        ⌊T / stride⌋ matrices (n, n); steps after the last full stride are left out.
    """
    count = inputs.shape[0] // stride
    states = trajectory(cell, inputs)
    jacobian = jax.vmap(jax.jacfwd(cell.step))

    def grouped(x: Array) -> Array:
        return x[: count * stride].reshape(count, stride, *x.shape[1:])

    def product(group: tuple[Array, Array]) -> Scaled:
        jacobians = jacobian(*group).astype(dtype)
        return jax.lax.scan(extend, rescale(jacobians[0]), jacobians[1:])[0]

    def extend(total: Scaled, step: Float[Array, "n n"]) -> tuple[Scaled, None]:
        return rescale(multiply(step, total.unit), total.log_scale), None

    return jax.lax.map(product, (grouped(states), grouped(inputs)), batch_size=max(1, 64 // stride))
