"""The gates of a cell: what they are at one step, for cells that say so."""

from functools import singledispatch
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.cells.base import inherits

Gates = dict[str, Float[Array, "*batch n"]]


@singledispatch
def gates(cell: Any, carry: PyTree, inputs: Float[Array, "*batch features"]) -> Gates:
    """Return the activations of a cell's gates at one step, by name, each from 0 to 1.

    Args:
        cell: a recurrent cell; add a class of yours with `@gradlab.cells.gates.register`.
        carry: the state s⁽ᵗ⁻¹⁾ that enters the step.
        inputs: x⁽ᵗ⁾.

    Raises:
        TypeError: no gates are registered for this class, or for the step that it has of its own.

    Example:
        >>> from gradlab.cells import LSTM, gates
        >>> lstm = LSTM(3, 8, rngs=nnx.Rngs(0))
        >>> opened = gates(lstm, lstm.initialize_carry((3,), nnx.Rngs(0)), jnp.ones(3))
        >>> sorted(opened), opened["forget"].shape
        (['forget', 'input', 'output'], (8,))
    """
    del carry, inputs
    raise TypeError(
        f"gradlab knows no gates of {type(cell).__name__}: measure a cell that has some, such as "
        "an LSTM, or say what they are with @gradlab.cells.gates.register."
    )


def check_step_is_of(
    cell_class: type[nnx.RNNCellBase], cell: nnx.RNNCellBase, *methods: str
) -> None:
    """Check that a cell's step is that of a class: another one may use other gates.

    Args:
        cell_class: the class, whose gates are known.
        cell: an instance of it.
        methods: those that the step calls besides the ones that the gates are read from.

    Raises:
        TypeError: the cell has a step of its own, or a method of its own that the step calls.
    """
    if not inherits(cell, cell_class, "__call__", *methods):
        raise TypeError(
            f"gradlab knows no gates of {type(cell).__name__}, whose step is not that of "
            f"{cell_class.__name__}: say what they are with @gradlab.cells.gates.register."
        )


@gates.register
def _(cell: nnx.OptimizedLSTMCell, carry: PyTree, inputs: Array) -> Gates:
    check_step_is_of(nnx.OptimizedLSTMCell, cell)
    i, f, _, o = jnp.split(cell.dense_i(inputs) + cell.dense_h(carry[1]), 4, axis=-1)
    preactivations = {"input": i, "forget": f, "output": o}
    return {name: cell.gate_fn(value) for name, value in preactivations.items()}


@gates.register
def _(cell: nnx.LSTMCell, carry: PyTree, inputs: Array) -> Gates:
    check_step_is_of(nnx.LSTMCell, cell)
    h = carry[1]
    preactivations = {
        "input": cell.ii(inputs) + cell.hi(h),
        "forget": cell.if_(inputs) + cell.hf(h),
        "output": cell.io(inputs) + cell.ho(h),
    }
    return {name: cell.gate_fn(value) for name, value in preactivations.items()}


@gates.register
def _(cell: nnx.GRUCell, carry: PyTree, inputs: Array) -> Gates:
    check_step_is_of(nnx.GRUCell, cell)
    from_x, from_h = cell.dense_i(inputs), cell.dense_h(carry)
    r, z, _ = jnp.split(from_x + from_h, 3, axis=-1)
    return {"reset": cell.gate_fn(r), "update": cell.gate_fn(z)}
