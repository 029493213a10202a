"""Truncated backpropagation through time, BPTT(h; h′) of Williams & Peng 1990.

Time is cut into segments of h′ = `stride` steps. The gradient of a segment's losses flows back
through a window: the h = `window` steps that end with the segment. The state that enters a window
comes from the steps before it and is treated as a constant. With stride = window these are the
usual chunks. With stride = 1 each loss reaches back over lags 0 to window − 1; `gradlab.truncation`
measures how much of the gradient that loses.

A sequence gives either one update, from the sum of its truncated gradients (update "sequence"), or
one update per segment, from the segment's mean loss (update "segment"). In the latter case the
weights change while the state is carried on.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree, Shaped

from gradlab.cells.recurrence import AdjointRule, unroll
from gradlab.components import ConfigError
from gradlab.config import Tbptt


def unroll_truncated(
    cell: nnx.RNNCellBase,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
    *,
    window: int,
    stride: int,
) -> Float[Array, "time batch n"]:
    """Unroll a cell; each output is differentiable only through the window of its segment.

    A first pass gives the state that enters each window. Then all windows run in parallel. This is
    window / stride times the work of backpropagation through the whole sequence, in `window`
    sequential steps.

    Args:
        cell: any Flax recurrent cell.
        carry: s⁽⁰⁾ of the batch, a constant.
        inputs: x⁽¹⁾ to x⁽ᵀ⁾, time first.
        on_adjoint: as for `recurrence.unroll`.
        window: of BPTT(h; h′), in steps; a multiple of stride.
        stride: h′, in steps.

    Returns:
        The outputs of `recurrence.unroll`.
    """
    segments = split_segments(inputs, stride)

    def advance(carry: PyTree, segment_inputs: Array) -> tuple[PyTree, PyTree]:
        return unroll(cell, carry, segment_inputs)[0], carry

    starts = jax.lax.stop_gradient(jax.lax.scan(advance, carry, segments)[1])

    def segment_outputs(segment: Array) -> Array:
        indices = window_segments(segment, window // stride)
        start = jax.tree.map(lambda state: state[jnp.maximum(indices[0], 0)], starts)
        return run_window(cell, start, segments, indices, on_adjoint)[1]

    outputs = jax.vmap(segment_outputs)(jnp.arange(len(segments)))
    return outputs.reshape(-1, *outputs.shape[2:])[: len(inputs)]


def run_window(
    cell: nnx.RNNCellBase,
    start: PyTree,
    segments: Float[Array, "segments stride batch features"],
    indices: Int[Array, "reach"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Float[Array, "stride batch n"]]:
    """Run one window from the state that enters it.

    Args:
        cell: any Flax recurrent cell.
        start: the state that enters the window; s⁽⁰⁾ if the window reaches back beyond it.
        segments: the inputs of all segments of the sequence.
        indices: the window's segments. Negative indices lie before the sequence and are skipped.
        on_adjoint: as for `recurrence.unroll`.

    Returns:
        The state after the window's first segment, which enters the next window, and the outputs
        of its last segment.
    """

    def advance(carry: PyTree, index: Array) -> tuple[PyTree, tuple[PyTree, Array]]:
        new, outputs = unroll(cell, carry, segments[jnp.maximum(index, 0)], on_adjoint)
        new = jax.tree.map(partial(jnp.where, index >= 0), new, carry)
        return new, (new, outputs)

    _, (states, outputs) = jax.lax.scan(advance, start, indices)
    return jax.tree.map(lambda state: state[0], states), outputs[-1]


def window_segments(segment: Int[Array, ""], reach: int) -> Int[Array, "reach"]:
    """Return the indices of a window's segments: the `reach` segments that end with `segment`."""
    return segment + jnp.arange(1 - reach, 1)


def split_segments(
    values: Shaped[Array, "time *rest"], stride: int
) -> Shaped[Array, "segments stride *rest"]:
    """Split time into segments of `stride` steps; the last one is padded with zeros."""
    padding = -len(values) % stride
    padded = jnp.pad(values, [(0, padding), *[(0, 0)] * (values.ndim - 1)])
    return padded.reshape(-1, stride, *values.shape[1:])


def check(tbptt: Tbptt, weights: Float[Array, "batch time"]) -> tuple[int, int]:
    """Check the window and the stride against each other and against the sequences.

    Args:
        tbptt: the section of a checked config.
        weights: the weights of the time steps in the mean loss; 0 where there is no target.

    Returns:
        The window and the stride, in time steps.

    Raises:
        ConfigError: they contradict each other, or do not fit the sequences.
    """
    window, stride, length = tbptt.window, tbptt.stride, weights.shape[1]
    if window is None:
        for key, default in (("stride", None), ("update", "sequence")):
            if (value := getattr(tbptt, key)) != default:
                raise ConfigError(
                    f"tbptt.{key} means nothing without a window: add tbptt.window=STEPS; "
                    f"got {value!r}."
                )
        return length, length
    if window > length:
        raise ConfigError(
            f"tbptt.window must be at most the task's {length} steps, or null for the whole "
            f"sequence; got {window}."
        )
    stride = window if stride is None else stride
    if window % stride:
        raise ConfigError(f"tbptt.stride must divide tbptt.window ({window}); got {stride}.")
    if tbptt.update == "segment" and not split_segments(weights.T, stride).any(axis=(1, 2)).all():
        raise ConfigError(
            f"tbptt.update=segment needs answers in every segment of {stride} steps, and this task "
            "wants none in some: take tbptt.update=sequence."
        )
    return window, stride
