"""Truncated backpropagation through time, BPTT(h; h′) of Williams & Peng 1990.

Time is cut into segments of h′ = `stride` steps. The losses of a segment reach back h = `window`
steps from the segment's end; the state that enters a window is carried over from the steps before
it, as a constant. With stride = window these are the usual chunks; with stride = 1 each loss
reaches back over lags 0 to window − 1, and `gradlab.truncation` says what that loses.

One sequence gives one update, from the sum of its truncated gradients ("sequence"), or one update a
segment, from that segment's mean loss ("segment"): weights then change while the state goes on.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree, Shaped

from gradlab.cells.recurrence import AdjointRule, unroll
from gradlab.config import ConfigError


def unroll_truncated(
    cell: nnx.RNNCellBase,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
    *,
    window: int,
    stride: int,
) -> Float[Array, "time batch n"]:
    """Outputs of `recurrence.unroll`, each differentiable through its own window alone.

    All windows are run again side by side, from states of a first pass: window / stride times the
    work of backpropagation through the whole sequence, in `window` steps one after another.

    Args:
        cell: any Flax recurrent cell.
        carry: s⁽⁰⁾ of the batch, a constant.
        inputs: x⁽¹⁾ to x⁽ᵀ⁾, time first.
        on_adjoint: as `unroll` takes it.
        window: h, a multiple of stride.
        stride: h′.
    """
    parts = in_segments(inputs, stride)

    def enter(carry: PyTree, part: Array) -> tuple[PyTree, PyTree]:
        return unroll(cell, carry, part)[0], carry

    starts = jax.lax.stop_gradient(jax.lax.scan(enter, carry, parts)[1])

    def one(segment: Array) -> Array:
        numbers = in_window(segment, window // stride)
        start = jax.tree.map(lambda state: state[jnp.maximum(numbers[0], 0)], starts)
        return run_window(cell, start, parts, numbers, on_adjoint)[1]

    outputs = jax.vmap(one)(jnp.arange(len(parts)))
    return outputs.reshape(-1, *outputs.shape[2:])[: len(inputs)]


def run_window(
    cell: nnx.RNNCellBase,
    start: PyTree,
    parts: Float[Array, "segments stride batch features"],
    numbers: Int[Array, "reach"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Float[Array, "stride batch n"]]:
    """Run one window from the state that enters it.

    Args:
        cell: any Flax recurrent cell.
        start: the state that enters the window, or s⁽⁰⁾ where the window reaches beyond it.
        parts: the inputs of every segment of the sequence.
        numbers: which segments the window is made of; negative ones are before the sequence.
        on_adjoint: as `unroll` takes it.

    Returns:
        The state that enters the next window, and the outputs of the window's last segment.
    """

    def one(carry: PyTree, number: Array) -> tuple[PyTree, tuple[PyTree, Array]]:
        new, outputs = unroll(cell, carry, parts[jnp.maximum(number, 0)], on_adjoint)
        new = jax.tree.map(partial(jnp.where, number >= 0), new, carry)
        return new, (new, outputs)

    _, (after, outputs) = jax.lax.scan(one, start, numbers)
    return jax.tree.map(lambda state: state[0], after), outputs[-1]


def in_window(segment: Int[Array, ""], reach: int) -> Int[Array, "reach"]:
    """The segments of the window that ends with a segment."""
    return segment + jnp.arange(1 - reach, 1)


def in_segments(
    values: Shaped[Array, "time *rest"], stride: int
) -> Shaped[Array, "segments stride *rest"]:
    """Cut time into segments; the last is filled up with zeros."""
    missing = -len(values) % stride
    padded = jnp.pad(values, [(0, missing), *[(0, 0)] * (values.ndim - 1)])
    return padded.reshape(-1, stride, *values.shape[1:])


def check(tbptt: Mapping[str, Any], weights: Float[Array, "batch time"]) -> tuple[int, int]:
    """Window and stride of a checked config, for sequences whose steps count by some weights.

    Raises:
        ConfigError: they do not fit the sequences or each other.
    """
    window, stride, length = tbptt["window"], tbptt["stride"], weights.shape[1]
    if window is None:
        for key, usual in (("stride", None), ("update", "sequence")):
            if tbptt[key] != usual:
                raise ConfigError(
                    f"tbptt.{key} means nothing without a window: add tbptt.window=STEPS; "
                    f"got {tbptt[key]!r}."
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
    if tbptt["update"] == "segment" and not in_segments(weights.T, stride).any(axis=(1, 2)).all():
        raise ConfigError(
            f"tbptt.update=segment needs answers in every segment of {stride} steps, and this task "
            "wants none in some: take tbptt.update=sequence."
        )
    return window, stride
