"""Recurrent modules of PyTorch as Flax cells with the same weights, to be measured.

torch itself is never imported here: whoever hands over a module has imported it.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gradlab.cells.recurrence import unroll
from gradlab.integrations.torch_layers import (
    PARTS,
    Kind,
    Layers,
    layers_of_tensors,
    read_safetensors,
)
from gradlab.integrations.weights import as_array
from gradlab.jacobian.arguments import check_choice, whole_number
from gradlab.models import Stack

CLASSES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


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
            "both directions of the layer below, so the whole is no recurrent cell. Measure one "
            "layer: from_torch(module, layer=1), reverse=True for its backward direction, on "
            "cell_inputs(module, inputs, layer=1), of gradlab.integrations.torch."
        )
    return Stack([layers.cell(i) for i in range(layers.num_layers)])


def recurrent_modules(model: Any) -> dict[str, Any]:
    """Return the recurrent modules of a torch model by name, a module itself under the name "".

    Args:
        model: a torch.nn.Module.

    Returns:
        The torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell and GRUCell in it; empty if there are none.

    Raises:
        TypeError: the model is no torch module.

    Example:
        >>> import torch
        >>> from gradlab.integrations.torch import recurrent_modules
        >>> parts = {"encoder": torch.nn.LSTM(8, 64), "head": torch.nn.Linear(64, 2)}
        >>> recurrent_modules(torch.nn.ModuleDict(parts))
        {'encoder': LSTM(8, 64)}
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"module must be a torch.nn.{', '.join(CLASSES[:-1])} or {CLASSES[-1]}, a model that "
            "holds one, a mapping of their tensors with kind=, or the path of a safetensors file "
            f"with kind=; got {type(model).__name__}."
        )
    classes = tuple(getattr(torch.nn, name) for name in CLASSES)
    return {name: module for name, module in model.named_modules() if isinstance(module, classes)}


def cell_inputs(
    module: Any, inputs: Any, *, layer: int | None = None, reverse: bool = False
) -> Float[Array, "*batch T features"]:
    """Return the inputs of the cell of `from_torch`, from those of the module.

    Args:
        module: as in `from_torch`: a torch module.
        inputs: what its recurrent module reads: (batch, time, features) with `batch_first`,
            (time, batch, features) without, or (time, features); a tensor or array.
        layer: as in `from_torch`. The layers below are run, in both directions if there are two,
            from zeros.
        reverse: as in `from_torch`; for the backward direction, the result is reversed in time.

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
    recurrent = _only_recurrent(module)
    layers, sequence = _layers_of_module(recurrent), as_array(inputs)
    _check_direction(layers, reverse)
    if sequence.ndim not in (2, 3):
        raise ValueError(
            f"inputs must be (time, features), or with a batch; got shape {sequence.shape}."
        )
    is_batch = sequence.ndim == 3
    batch_first = is_batch and getattr(recurrent, "batch_first", True)
    sequence = sequence.swapaxes(0, 1) if batch_first else sequence
    if not is_batch:
        sequence = sequence[:, None]
    for below in range(_checked_layer(layers, layer or 0)):
        sequence = _layer_outputs(layers, below, sequence)
    sequence = sequence[::-1] if reverse else sequence
    return sequence.swapaxes(0, 1) if is_batch else sequence[:, 0]


def _layer_outputs(
    layers: Layers, layer: int, inputs: Float[Array, "T batch features"]
) -> Float[Array, "T batch m"]:
    """Return the outputs of a layer, those of both directions side by side."""
    outputs = []
    for reverse in layers.directions:
        cell, order = layers.cell(layer, reverse), slice(None, None, -1 if reverse else 1)
        start = cell.initialize_carry(inputs.shape[1:], nnx.Rngs(0))
        outputs.append(unroll(cell, start, inputs[order])[1][order])
    return jnp.concatenate(outputs, axis=-1)


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
    recurrent = _only_recurrent(module)
    if kind is not None or prefix is not None:
        raise ValueError(
            "kind and prefix are of tensors: leave them out with a torch module, which says itself "
            "what it is."
        )
    return _layers_of_module(recurrent)


def _only_recurrent(model: Any) -> Any:
    """Return the one recurrent module of a torch model.

    Raises:
        TypeError: it is no torch module.
        ValueError: it holds none, or several.
    """
    modules = recurrent_modules(model)
    if not modules:
        raise ValueError(
            f"{type(model).__name__} holds no torch.nn.{', '.join(CLASSES[:-1])} or {CLASSES[-1]}."
        )
    if len(modules) > 1:
        calls = ", ".join(f"from_torch(model.{name})" for name in modules)
        raise ValueError(
            f"{type(model).__name__} holds {len(modules)} recurrent modules: pass one of them, "
            f"{calls}."
        )
    return next(iter(modules.values()))


def _layers_of_module(module: Any) -> Layers:
    """Return the tensors of a recurrent module, as its forward pass reads them.

    They are read as attributes, which weight norm, pruning and other parametrisations keep.

    Raises:
        TypeError: the module is of a subclass whose forward pass is another.
    """
    torch = sys.modules["torch"]
    own_class = next(c for name in CLASSES if isinstance(module, c := getattr(torch.nn, name)))
    if type(module).forward is not own_class.forward:
        raise TypeError(
            f"{type(module).__name__} has a forward of its own, which may compute something else "
            f"than torch.nn.{own_class.__name__}: if its steps are the same, pass its tensors, "
            "from_torch(module.state_dict(), kind=…)."
        )
    kind: Any = own_class.__name__.removesuffix("Cell").lower()
    if kind == "rnn":
        kind = f"rnn_{module.nonlinearity}"
    suffixes = [""]
    if hasattr(module, "num_layers"):
        directions = ("", "_reverse") if module.bidirectional else ("",)
        suffixes = [f"_l{i}{way}" for i in range(module.num_layers) for way in directions]
    names = [part + suffix for suffix in suffixes for part in PARTS]
    return Layers(kind, {name: getattr(module, name) for name in names if hasattr(module, name)})
