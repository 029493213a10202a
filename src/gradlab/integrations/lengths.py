"""The steps of padded sequences, and sequences read from their ends."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Shaped


def checked_lengths(
    lengths: Any, inputs: Float[Array, "batch T features"]
) -> Int[np.ndarray, "batch"]:
    """Return the number of steps of each sequence; None: all.

    Raises:
        ValueError: they are not a whole number from 1 to T for each.
    """
    batch, time = inputs.shape[:2]
    if lengths is None:
        return np.full(batch, time)
    checked = np.asarray(lengths)
    is_whole = checked.shape == (batch,) and checked.dtype.kind in "iu"
    if not is_whole or np.any(checked < 1) or np.any(checked > time):
        raise ValueError(
            f"lengths must be {batch} whole numbers from 1 to {time}, the steps of each sequence; "
            f"got {lengths!r:.80}."
        )
    return checked


def from_the_end(
    values: Shaped[Array, "batch T ..."], lengths: Int[np.ndarray, "batch"]
) -> Shaped[Array, "batch T ..."]:
    """Return sequences from their ends; the padding after them stays where it is."""
    steps = np.arange(values.shape[1])
    order = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return values[np.arange(len(values))[:, None], order]
