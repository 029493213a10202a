"""Check that a measurement is finite; if not, find the first step at which something is not."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.errors import ConcretizationTypeError
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.flat_cell import StepFunction, flatten_cell, split_cell, split_weights
from gradlab.jacobian.steps import trajectory


def check_finite(
    measured: PyTree,
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    initial_carry: PyTree | None,
) -> None:
    """Check that log norms hold no NaN and no +inf; −inf is the log of an exact zero.

    Under an outer `jax.jit` the values are not known, and nothing is checked.

    Raises:
        FloatingPointError: a value is NaN or +inf; the message names the first one and its step.
    """
    try:
        if all(bool(jnp.all(leaf < jnp.inf)) for leaf in jax.tree.leaves(measured)):
            return
    except ConcretizationTypeError:
        return
    samples = np.asarray(inputs).reshape(-1, *np.shape(inputs)[-2:])
    for index, sample in enumerate(samples):
        reason = _first_not_finite(cell, sample, initial_carry)
        if reason:
            where = f" (sample {index})" if np.ndim(inputs) == 3 else ""
            raise FloatingPointError(f"{reason}{where}; every log norm past it is undefined.")
    raise FloatingPointError("the loss or its gradient is not finite, though every state is.")


def _first_not_finite(
    cell: nnx.RNNCellBase | StepFunction, inputs: np.ndarray, initial_carry: PyTree | None
) -> str:
    weights, _ = split_weights(split_cell(cell, initial_carry).parameters)
    for name, values in weights.items():
        if not np.isfinite(values).all():
            return f"the weights {name} hold a number that is not finite, so step 1 already has one"
    flat = flatten_cell(cell, inputs.shape[-1], initial_carry)
    xs = jnp.asarray(inputs)
    states = trajectory(flat, xs)
    jacobians = jax.lax.map(lambda step: jax.jacfwd(flat.step)(*step), (states, xs))
    quantities = {"the input": inputs, "the state": states, "the step Jacobian": jacobians}
    failures = [
        (int(np.argmin(finite)), name)
        for name, values in quantities.items()
        if not (finite := np.isfinite(values).reshape(len(inputs), -1).all(axis=1)).all()
    ]
    if not failures:
        return ""
    step, name = min(failures, key=lambda failure: failure[0])
    return f"{name} is not finite at step {step + 1}"
