"""Check that a measurement is finite; if not, find the first step at which something is not."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import TracerArrayConversionError
from jaxtyping import Array, Bool, Float, PyTree

from gradlab.jacobian.flat_cell import FlatCell, split_weights
from gradlab.jacobian.steps import trajectory


def check_finite(
    measured: PyTree,
    flat: FlatCell,
    inputs: Float[Array, "*batch T features"],
    *,
    may_be_lost: bool = False,
) -> bool:
    """Check that log norms hold no NaN and no +inf; −inf is the log of an exact zero.

    Under an outer `jax.jit` the values are not known, and nothing is checked.

    Args:
        measured: the log norms.
        flat, inputs: the network that they are of.
        may_be_lost: whether NaN also stands where the precision of a product did not suffice.

    Returns:
        Whether all are there.

    Raises:
        FloatingPointError: a value is NaN or +inf; the message names the first one and its step.
    """
    if are_finite(measured):
        return True
    for name, values in split_weights(flat.parameters)[0].items():
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"the weights {name} hold a number that is not finite, so step 1 already has one; "
                "every log norm past it is undefined."
            )
    failures = flat.map_samples(_finite_steps, inputs)
    _raise_first({name: np.atleast_2d(finite) for name, finite in failures.items()}, flat.has_batch)
    if may_be_lost:
        return False
    raise FloatingPointError("the loss or its gradient is not finite, though every state is.")


def are_finite(log_norms: PyTree) -> bool:
    """Return whether log norms hold no NaN and no +inf; true of unknown ones, under `jax.jit`."""
    try:
        return all((np.asarray(leaf) < np.inf).all() for leaf in jax.tree.leaves(log_norms))
    except TracerArrayConversionError:
        return True


@jax.jit
def _finite_steps(
    flat: FlatCell, inputs: Float[Array, "T features"]
) -> dict[str, Bool[Array, "T"]]:
    """Return, for each quantity, at which steps all of it is finite."""
    states, last = trajectory(flat, inputs)
    vectors = jnp.concatenate([states.vector, last.vector[None]])

    def is_finite(x: Array) -> Bool[Array, ""]:
        return jnp.isfinite(x).all()

    return {
        "the input": jax.vmap(is_finite)(inputs),
        "the state": jax.vmap(is_finite)(jnp.stack([vectors[:-1], vectors[1:]], axis=1)),
        "the step Jacobian": jax.lax.map(
            lambda step: is_finite(flat.jacobian(*step)), (states, inputs)
        ),
    }


def _raise_first(finite: dict[str, Bool[np.ndarray, "samples T"]], has_batch: bool) -> None:
    """Raise the error of the first sample in which a quantity is not finite, at its first step."""
    for sample, by_quantity in enumerate(zip(*finite.values(), strict=True)):
        failures = [
            (int(np.argmin(steps)), name)
            for name, steps in zip(finite, by_quantity, strict=True)
            if not steps.all()
        ]
        if failures:
            step, name = min(failures, key=lambda failure: failure[0])
            where = f" (sample {sample})" if has_batch else ""
            raise FloatingPointError(
                f"{name} is not finite at step {step + 1}{where}; every log norm past it is "
                "undefined."
            )
