"""What to say when a measurement meets a number that is not finite: what, and at which step."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.errors import ConcretizationTypeError
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.flat_cell import StepFunction, flatten_cell, split_cell, split_weights
from gradlab.jacobian.steps import trajectory


def refuse_not_finite(
    found: PyTree,
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    initial_carry: PyTree | None,
) -> None:
    """Let a measurement pass that holds no NaN and no +inf; log norms of −inf are exact zeros.

    Inside somebody else's jit nothing can be checked, and everything passes.

    Raises:
        FloatingPointError: where the first number that is not finite appeared.
    """
    try:
        if all(bool(jnp.all(leaf < jnp.inf)) for leaf in jax.tree.leaves(found)):
            return
    except ConcretizationTypeError:
        return
    samples = np.asarray(inputs).reshape(-1, *np.shape(inputs)[-2:])
    for number, sample in enumerate(samples):
        reason = _first_not_finite(cell, sample, initial_carry)
        if reason:
            where = f" (sample {number})" if np.ndim(inputs) == 3 else ""
            raise FloatingPointError(f"{reason}{where}; every log norm past it is undefined.")
    raise FloatingPointError("the loss or its gradient is not finite, though every state is.")


def _first_not_finite(
    cell: nnx.RNNCellBase | StepFunction, inputs: np.ndarray, initial_carry: PyTree | None
) -> str:
    weights, _ = split_weights(split_cell(cell)[1])
    for name, values in weights.items():
        if not np.isfinite(values).all():
            return f"the weights {name} hold a number that is not finite, so step 1 already has one"
    flat = flatten_cell(cell, inputs.shape[-1], initial_carry)
    states = trajectory(flat, jnp.asarray(inputs))
    jacobians = jax.lax.map(lambda at: jax.jacfwd(flat.step)(*at), (states, jnp.asarray(inputs)))
    kinds = {
        "the input": inputs,
        "the state": states,
        "the step Jacobian": jacobians,
    }
    found = [
        (int(np.argmin(fine)), kind)
        for kind, values in kinds.items()
        if not (fine := np.isfinite(values).reshape(len(inputs), -1).all(axis=1)).all()
    ]
    if not found:
        return ""
    step, kind = min(found, key=lambda entry: entry[0])
    return f"{kind} is not finite at step {step + 1}"
