"""Recurrent modules of PyTorch as Flax cells with the same weights, to be measured.

torch itself is never imported here: whoever hands over a module has imported it.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from gradlab.cells.recurrence import unroll
from gradlab.integrations.lengths import check_padded, from_the_end, lengths_of
from gradlab.integrations.torch_layers import (
    Kind,
    Layers,
    layers_of_tensors,
    read_safetensors,
)
from gradlab.integrations.torch_modules import (
    layers_of_module,
    only_recurrent,
    recurrent_modules,
)
from gradlab.integrations.weights import as_array
from gradlab.jacobian.arguments import check_choice, whole_number
from gradlab.models import Stack

__all__ = ["cell_inputs", "from_torch", "recurrent_modules"]


def from_torch(
    module: Any,
    *,
    kind: Kind | None = None,
    prefix: str | None = None,
    layer: int | None = None,
    reverse: bool = False,
) -> nnx.RNNCellBase:
    """Return a recurrent module of PyTorch as a Flax cell with equal outputs, to be measured.

    The weights are copied: the cell is the module as it is at the call, whatever trains it later.
    The cell computes in float64 if the module does and JAX's x64 is on, else in float32. It runs
    as `module.eval()` does, without dropout between layers.

    Inputs of measurements are (time, features) or (batch, time, features), whatever the module's
    `batch_first`: `cell_inputs` makes them of a tensor in the module's own layout. The carry of
    an LSTM is (c, h), the other way round than PyTorch's (h, c); several layers are a
    `gradlab.models.Stack`, whose parts are called "layer0.h", ….

    Args:
        module: a torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell; a model that holds exactly
            one of these; their tensors by name, as of a state_dict (PyTorch's, NumPy's or JAX's
            arrays); or the path of a safetensors file.
        kind: of tensors or a file: "rnn_tanh", "rnn_relu", "lstm" or "gru".
        prefix: of tensors or a file: what stands before their names, such as "encoder.lstm."; by
            default found, if they are of one module.
        layer: measure this layer alone, from 0; by default all as one cell. The layers of a
            bidirectional module above the first read both directions of the layer below, and so
            the future: there each is measured alone, on the inputs that `cell_inputs` computes.
        reverse: of a bidirectional module, take the backward direction, whose inputs are
            reversed in time.

    Returns:
        A Flax cell: nnx.SimpleCell, OptimizedLSTMCell, GRUCell, or one with a projected output; a
        `Stack` of these.

    Raises:
        TypeError: the module is nothing of the kind, or has a forward of its own.
        ValueError: it holds none or several, the tensors do not fit, or there is no such layer or
            direction.
        ImportError: a safetensors file is given and the package is not installed.

    Example:
        >>> import torch
        >>> lstm = torch.nn.LSTM(3, 8, num_layers=2, batch_first=True)
        >>> stack = gradlab.from_torch(lstm)
        >>> gradlab.jacobian_log_norms(stack, x, of="layer0.h", wrt="layer0.h").shape
        (4, 21, 21)
    """
    layers = _layers_of(module, kind, prefix)
    _check_direction(layers, reverse)
    if layer is not None:
        return layers.cell(_checked_layer(layers, layer), reverse)
    if layers.num_layers == 1:
        return layers.cell(0, reverse)
    if len(layers.directions) == 2:
        raise ValueError(
            f"this module has {layers.num_layers} bidirectional layers; those above the first read "
            "both directions of the layer below, so the whole is no recurrent cell. gradlab.watch "
            "measures each of them; to measure one, from_torch(module, layer=1), reverse=True for "
            "its backward direction, on cell_inputs(module, inputs, layer=1), of "
            "gradlab.integrations.torch."
        )
    return Stack(layers.cells())


class Part(NamedTuple):
    """A part of a module that `from_torch` makes a cell of: a direction of a layer, or all of it.

    Attributes:
        layer: from 0; None: all.
        reverse: whether it is the backward direction.
    """

    layer: int | None
    reverse: bool


def parts_of(module: Any) -> dict[str, Part]:
    """Return the parts of a recurrent module that are cells of their own, by name.

    A module that runs forwards only is one cell, whose name is "". A bidirectional one has
    "forward" and "backward"; several layers of it have "layer0.forward", "layer0.backward", ….
    """
    if not getattr(module, "bidirectional", False):
        return {"": Part(None, False)}
    ways = {"forward": False, "backward": True}
    if module.num_layers == 1:
        return {way: Part(None, reverse) for way, reverse in ways.items()}
    return {
        f"layer{layer}.{way}": Part(layer, reverse)
        for layer in range(module.num_layers)
        for way, reverse in ways.items()
    }


def cell_inputs(
    module: Any,
    inputs: Any,
    *,
    layer: int | None = None,
    reverse: bool = False,
    lengths: Any = None,
) -> Float[Array, "*batch T features"]:
    """Return the inputs of the cell of `from_torch`, from those of the module.

    Args:
        module: as in `from_torch`: a torch module.
        inputs: what its recurrent module reads: (batch, time, features) with `batch_first`,
            (time, batch, features) without, or (time, features); a tensor or array.
        layer: as in `from_torch`. The layers below are run, in both directions if there are two,
            from zeros.
        reverse: as in `from_torch`; for the backward direction, the result is reversed in time.
        lengths: the number of steps of each sequence, as those of a packed sequence; what follows
            is padding. None: all steps.

    Returns:
        (batch, time, features) or (time, features).

    Raises:
        TypeError: the module is no recurrent module.
        ValueError: there is no such layer or direction, or the inputs do not fit.

    Example:
        >>> import torch
        >>> from gradlab.integrations.torch import cell_inputs
        >>> lstm = torch.nn.LSTM(3, 8, num_layers=2, bidirectional=True, batch_first=True)
        >>> backward = {"layer": 1, "reverse": True}
        >>> upper = gradlab.from_torch(lstm, **backward)
        >>> inputs = cell_inputs(lstm, torch.randn(4, 20, 3), **backward)
        >>> inputs.shape, gradlab.jacobian_log_norms(upper, inputs).shape
        ((4, 20, 16), (4, 21, 21))
    """
    recurrent = only_recurrent(module)
    _check_direction(layers_of_module(recurrent), reverse)
    check_padded("inputs", inputs)
    sequence = as_array(inputs)
    if sequence.ndim not in (2, 3):
        raise ValueError(
            f"inputs must be (time, features), or with a batch; got shape {sequence.shape}."
        )
    is_batch = sequence.ndim == 3
    time_first = is_batch and not getattr(recurrent, "batch_first", True)
    sequence = sequence.swapaxes(0, 1) if time_first else sequence
    batch = sequence if is_batch else sequence[None]
    steps = lengths_of(lengths, batch)
    batch = outputs_below(recurrent, layer or 0, batch, steps)
    batch = from_the_end(batch, steps) if reverse else batch
    return batch if is_batch else batch[0]


def outputs_below(
    module: Any,
    layer: int,
    inputs: Float[Array, "batch T features"],
    lengths: Int[np.ndarray, "batch"],
) -> Float[Array, "batch T m"]:
    """Return what a layer of a recurrent module reads, in the order of the inputs.

    Args:
        module: a torch.nn.RNN, LSTM or GRU, or their cells.
        layer: from 0.
        inputs: of the module, whatever its `batch_first`.
        lengths: the number of steps of each sequence.

    Raises:
        ValueError: there is no such layer, or the inputs have other features.
    """
    layers = layers_of_module(module)
    if inputs.shape[-1] != module.input_size:
        raise ValueError(
            f"inputs must have the {module.input_size} features that the module reads, last; got "
            f"shape {inputs.shape}."
        )
    for below in range(_checked_layer(layers, layer)):
        outputs = []
        for reverse in layers.directions:
            read = from_the_end(inputs, lengths) if reverse else inputs
            written = _run(layers.cell(below, reverse), read)
            outputs.append(from_the_end(written, lengths) if reverse else written)
        inputs = jnp.concatenate(outputs, axis=-1)
    return inputs


@nnx.jit
def _run(cell: Any, inputs: Float[Array, "batch T features"]) -> Float[Array, "batch T m"]:
    """Return a cell's outputs from its initial carry."""
    by_time = inputs.swapaxes(0, 1)
    start = cell.initialize_carry(by_time.shape[1:], nnx.Rngs(0))
    return unroll(cell, start, by_time)[1].swapaxes(0, 1)


def _check_direction(layers: Layers, reverse: bool) -> None:
    check_choice("reverse", reverse, (False, True))
    if reverse not in layers.directions:
        raise ValueError("reverse=True needs a bidirectional module; this one runs forwards only.")


def _checked_layer(layers: Layers, layer: int) -> int:
    return whole_number("layer", layer, 0, layers.num_layers - 1, "the last layer")


def _layers_of(module: Any, kind: Kind | None, prefix: str | None) -> Layers:
    """Return the tensors of anything that `from_torch` takes."""
    if isinstance(module, str | os.PathLike):
        return layers_of_tensors(read_safetensors(module), kind, prefix)
    if isinstance(module, Mapping):
        return layers_of_tensors(module, kind, prefix)
    recurrent = only_recurrent(module)
    if kind is not None or prefix is not None:
        raise ValueError(
            "kind and prefix are of tensors: leave them out with a torch module, which says itself "
            "what it is."
        )
    return layers_of_module(recurrent)
