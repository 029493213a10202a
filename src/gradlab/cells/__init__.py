"""Recurrent cells with the options that the field compares, and what a cell's gates are.

Flax's cells are the definition of the maths: those here are built on them, and take what they take.
"""

from functools import singledispatch
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.cells.elman import ConcatenatedElman, Elman
from gradlab.cells.encoder_decoder import EncoderDecoder, decoding
from gradlab.cells.lstm import LSTM

Gates = dict[str, Float[Array, "*batch n"]]

__all__ = ["LSTM", "ConcatenatedElman", "Elman", "EncoderDecoder", "gates", "set_gate_biases"]


@singledispatch
def gates(cell: Any, carry: PyTree, inputs: Float[Array, "*batch features"]) -> Gates:
    """Activations of a cell's gates at one step, by name. Register a cell of yours to add it.

    Raises:
        TypeError: gradlab knows no gates of this cell.
    """
    del carry, inputs
    raise TypeError(
        f"gradlab knows no gates of {type(cell).__name__}: measure an LSTM or a GRU, or say what "
        "they are with @gradlab.cells.gates.register."
    )


@gates.register
def _(cell: LSTM, carry: PyTree, inputs: Array) -> Gates:
    activations = cell.activations(carry, inputs)
    return {name: activations[name] for name in ("input", "forget", "output")}


@gates.register
def _(cell: nnx.OptimizedLSTMCell, carry: PyTree, inputs: Array) -> Gates:
    i, f, _, o = jnp.split(cell.dense_i(inputs) + cell.dense_h(carry[1]), 4, axis=-1)
    named = {"input": i, "forget": f, "output": o}
    return {name: cell.gate_fn(value) for name, value in named.items()}


@gates.register
def _(cell: nnx.LSTMCell, carry: PyTree, inputs: Array) -> Gates:
    h = carry[1]
    named = {
        "input": cell.ii(inputs) + cell.hi(h),
        "forget": cell.if_(inputs) + cell.hf(h),
        "output": cell.io(inputs) + cell.ho(h),
    }
    return {name: cell.gate_fn(value) for name, value in named.items()}


@gates.register
def _(cell: nnx.GRUCell, carry: PyTree, inputs: Array) -> Gates:
    driven, recurrent = cell.dense_i(inputs), cell.dense_h(carry)
    r, z, _ = jnp.split(driven + recurrent, 3, axis=-1)
    return {"reset": cell.gate_fn(r), "update": cell.gate_fn(z)}


@gates.register
def _(cell: EncoderDecoder, carry: PyTree, inputs: Array) -> Gates:
    """Gates of the cell that acts."""
    encoder, decoder = (
        gates(each, carry, inputs[..., :-1]) for each in (cell.encoder, cell.decoder)
    )
    return {name: jnp.where(decoding(inputs), decoder[name], encoder[name]) for name in encoder}


def set_gate_biases(cell: nnx.RNNCellBase, biases: dict[str, Float[Array, "n"]]) -> None:
    """Put biases at the gates that forget and that let in; a cell without such gates stays.

    A GRU's update gate z keeps h by z h, so it takes the bias that an LSTM's forget gate does.
    """
    if isinstance(cell, nnx.OptimizedLSTMCell):
        order: tuple[str, ...] = cell.learned if isinstance(cell, LSTM) else LSTM.ORDER
        linear = cell.dense_h
    elif isinstance(cell, nnx.GRUCell):
        order, linear = ("reset", "forget", "candidate"), cell.dense_i
    else:
        return
    n = cell.hidden_features
    bias: Any = linear.bias
    for index, gate in enumerate(order):
        if gate in biases:
            columns = slice(index * n, (index + 1) * n)
            bias[...] = bias[...].at[columns].set(biases[gate])
