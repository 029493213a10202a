"""The steps of padded sequences, and sequences read from their ends."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from gradlab.jacobian.lengths import checked_lengths


def lengths_of(lengths: Any, inputs: Float[Array, "batch T features"]) -> Int[np.ndarray, "batch"]:
    """Return the number of steps of each sequence; None: all.

    Raises:
        ValueError: they are not one whole number from 1 to T for each.
    """
    if lengths is None:
        batch, time = inputs.shape[:2]
        return np.full(batch, time)
    with jax.ensure_compile_time_eval():  # numbers also where JAX is tracing
        return np.asarray(checked_lengths(lengths, inputs))


def from_the_end(
    values: Shaped[Array, "batch T ..."], lengths: Int[np.ndarray, "batch"]
) -> Shaped[Array, "batch T ..."]:
    """Return sequences from their ends; the padding after them stays where it is."""
    steps = np.arange(values.shape[1])
    order = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return values[np.arange(len(values))[:, None], order]


def check_padded(name: str, values: Any) -> None:
    """Check that sequences of torch are one tensor.

    Raises:
        ValueError: they are a packed sequence, or what a recurrent module returns, (output, state).
    """
    if type(values).__name__ == "PackedSequence":
        raise ValueError(f"{name} must be padded: give pad_packed_sequence's tensor and lengths=.")
    if isinstance(values, tuple) and values and hasattr(values[0], "detach"):
        raise ValueError(
            f"{name} must be one tensor; got a tuple of {len(values)}: of (output, state), which a "
            "recurrent module of torch returns, give the output, module(x)[0]."
        )
