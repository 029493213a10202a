"""Recurrent cells: their options, their gates, and running them over sequences.

The cells here are Flax's cells with the options that the field compares (`elman`, `lstm`), the
memory cells of 1997 (`lstm_1997`), and an encoder and a decoder joined into one cell
(`encoder_decoder`). `recurrence.unroll` runs a cell over a batch of sequences, fast where `affine`
knows the cell's affine form.

To add a cell, write a subclass of flax.nnx.RNNCellBase, here or in your own package, whose
`__init__` takes in_features, hidden_features, kernel_init, recurrent_kernel_init and rngs, and a
YAML in conf/model/ whose `cell._target_` is its dotted path. Other arguments become the config keys
`model.cell.…`. Optional: register its gates with `@gradlab.cells.gates.register`, and say by an
attribute `output_features` that its output is of another size than hidden_features.
"""

from functools import singledispatch
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.cells.biases import set_gate_biases
from gradlab.cells.elman import ConcatenatedElman, Elman
from gradlab.cells.encoder_decoder import EncoderDecoder, decoding
from gradlab.cells.gru import GRU
from gradlab.cells.lstm import LSTM
from gradlab.cells.lstm_1997 import LSTM1997

Gates = dict[str, Float[Array, "*batch n"]]

__all__ = [
    "GRU",
    "LSTM",
    "LSTM1997",
    "ConcatenatedElman",
    "Elman",
    "EncoderDecoder",
    "gates",
    "set_gate_biases",
]


@singledispatch
def gates(cell: Any, carry: PyTree, inputs: Float[Array, "*batch features"]) -> Gates:
    """Return the activations of a cell's gates at one step, by name, each from 0 to 1.

    Args:
        cell: a recurrent cell; add a class of yours with `@gradlab.cells.gates.register`.
        carry: the state s⁽ᵗ⁻¹⁾ that enters the step.
        inputs: x⁽ᵗ⁾.

    Raises:
        TypeError: no gates are registered for this class, or for the step that it has of its own.
    """
    del carry, inputs
    raise TypeError(
        f"gradlab knows no gates of {type(cell).__name__}: measure an LSTM or a GRU, or say what "
        "they are with @gradlab.cells.gates.register."
    )


@gates.register
def _(cell: LSTM, carry: PyTree, inputs: Array) -> Gates:
    _check_step_is_of(LSTM, cell)
    activations = cell.activations(carry, inputs)
    return {name: activations[name] for name in ("input", "forget", "output")}


@gates.register
def _(cell: LSTM1997, carry: PyTree, inputs: Array) -> Gates:
    _check_step_is_of(LSTM1997, cell)
    values = nnx.sigmoid(cell.net_inputs(carry, inputs)[..., cell.hidden_features :])
    names = ("input", "output")[: cell.gate_count // cell.blocks]
    return dict(zip(names, jnp.split(values, len(names), axis=-1), strict=True))


@gates.register
def _(cell: nnx.OptimizedLSTMCell, carry: PyTree, inputs: Array) -> Gates:
    _check_step_is_of(nnx.OptimizedLSTMCell, cell)
    i, f, _, o = jnp.split(cell.dense_i(inputs) + cell.dense_h(carry[1]), 4, axis=-1)
    preactivations = {"input": i, "forget": f, "output": o}
    return {name: cell.gate_fn(value) for name, value in preactivations.items()}


@gates.register
def _(cell: nnx.LSTMCell, carry: PyTree, inputs: Array) -> Gates:
    _check_step_is_of(nnx.LSTMCell, cell)
    h = carry[1]
    preactivations = {
        "input": cell.ii(inputs) + cell.hi(h),
        "forget": cell.if_(inputs) + cell.hf(h),
        "output": cell.io(inputs) + cell.ho(h),
    }
    return {name: cell.gate_fn(value) for name, value in preactivations.items()}


@gates.register
def _(cell: nnx.GRUCell, carry: PyTree, inputs: Array) -> Gates:
    _check_step_is_of(nnx.GRUCell, cell)
    from_x, from_h = cell.dense_i(inputs), cell.dense_h(carry)
    r, z, _ = jnp.split(from_x + from_h, 3, axis=-1)
    return {"reset": cell.gate_fn(r), "update": cell.gate_fn(z)}


@gates.register
def _(cell: EncoderDecoder, carry: PyTree, inputs: Array) -> Gates:
    """Return the gates of the cell that acts."""
    encoder, decoder = (
        gates(half, carry, inputs[..., :-1]) for half in (cell.encoder, cell.decoder)
    )
    return {name: jnp.where(decoding(inputs), decoder[name], encoder[name]) for name in encoder}


def _check_step_is_of(cell_class: type[nnx.RNNCellBase], cell: nnx.RNNCellBase) -> None:
    """Check that a cell's step is its class's: another one may use other gates.

    Raises:
        TypeError: the cell is of a subclass with a step of its own.
    """
    if type(cell).__call__ is not cell_class.__call__:
        raise TypeError(
            f"gradlab knows no gates of {type(cell).__name__}, whose step is not that of "
            f"{cell_class.__name__}: say what they are with @gradlab.cells.gates.register."
        )
