"""Recurrent layers of Keras 3 as Flax cells with the same weights, to be measured.

Keras itself is never imported here: whoever hands over a layer has imported it.
"""

import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gradlab.cells.elman import ACTIVATIONS
from gradlab.integrations.weights import ResetBeforeGRU, as_array, cell_of

NAMES = ACTIVATIONS | {"linear": ACTIVATIONS["identity"]}  # Keras's words, and Flax's functions
NAMES |= {name: getattr(jax.nn, name) for name in ("hard_sigmoid", "elu", "softplus", "silu")}


def from_keras(layer: Any) -> nnx.RNNCellBase:
    """Return a recurrent layer of Keras 3 as a Flax cell with equal outputs, to be measured.

    The weights are copied, and dropout is left out. Inputs of measurements are (time, features) or
    (batch, time, features), as the layer reads them: of a model what the layers below, such as
    an Embedding, hand to it, and of a layer with `go_backwards` reversed in time. The carry of an
    LSTM is (c, h), where Keras has (h, c). Of `Bidirectional`, pass one layer: `.forward_layer`.

    Args:
        layer: a built keras.layers.SimpleRNN, LSTM or GRU, one of their cells, or a keras.Model
            (Sequential, functional or a subclass) that holds exactly one such layer.

    Raises:
        TypeError: the layer is none of these.
        ValueError: the model holds none or several, it has no weights yet, or an activation that
            gradlab does not know.

    Example:
        >>> import os
        >>> os.environ["KERAS_BACKEND"] = "jax"  # or "torch", before Keras is imported
        >>> import keras
        >>> layer = keras.layers.LSTM(8)
        >>> layer.build((None, None, 3))
        >>> gradlab.jacobian_log_norms(gradlab.from_keras(layer), x, of="h", wrt="h").shape
        (4, 21, 21)
    """
    keras = sys.modules.get("keras")
    if keras and isinstance(layer, keras.Model):
        layer = _only_recurrent(layer, keras)
    cell, layers = getattr(layer, "cell", layer), getattr(keras, "layers", None)
    kinds = ("SimpleRNNCell", "LSTMCell", "GRUCell")
    kind = next((k for k in kinds if layers and type(cell) is getattr(layers, k)), None)
    if kind is None:
        ways = ": pass its .forward_layer or .backward_layer"
        raise TypeError(
            "layer must be a keras.layers.SimpleRNN, LSTM or GRU, one of their cells, or a model "
            f"that holds one such layer; got {type(layer).__name__}"
            f"{ways if hasattr(layer, 'forward_layer') else ''}."
        )
    if not cell.built:
        raise ValueError(
            "the layer has no weights yet: layer.build((None, None, features)), or call the model."
        )
    kernel, recurrent_kernel = (as_array(w.value) for w in (cell.kernel, cell.recurrent_kernel))
    bias = None if cell.bias is None else as_array(cell.bias.value)
    weights: dict[str, Any] = {
        "hidden_features": cell.units,
        "activation_fn": _function(cell.activation),
    }
    if kind == "SimpleRNNCell":
        return cell_of(nnx.SimpleCell, kernel, recurrent_kernel, bias=bias, **weights)
    weights["gate_fn"] = _function(cell.recurrent_activation)
    if kind == "LSTMCell":
        return cell_of(
            nnx.OptimizedLSTMCell, kernel, recurrent_kernel, recurrent_bias=bias, **weights
        )
    # Keras orders update, reset, candidate; Flax reset, update, candidate.
    kernel, recurrent_kernel, bias = jax.tree.map(_reset_first, (kernel, recurrent_kernel, bias))
    if not cell.reset_after:
        return cell_of(ResetBeforeGRU, kernel, recurrent_kernel, bias=bias, **weights)
    on_x, on_h = (None, None) if bias is None else bias
    return cell_of(nnx.GRUCell, kernel, recurrent_kernel, bias=on_x, recurrent_bias=on_h, **weights)


def _only_recurrent(model: Any, keras: Any) -> Any:
    """Return the one recurrent layer of a model.

    Raises:
        ValueError: it holds none, or several.
    """
    found = dict(_recurrent_layers(model, "model", keras))
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise ValueError(f"{type(model).__name__} holds no recurrent layer of Keras's.")
    calls = ", ".join(f"from_keras({path})" for path in found)
    raise ValueError(
        f"{type(model).__name__} holds {len(found)} recurrent layers: pass one of them, {calls}."
    )


def _recurrent_layers(model: Any, path: str, keras: Any) -> Iterator[tuple[str, Any]]:
    """Yield the recurrent layers of a model and of those in it, by the code that fetches each."""
    for layer in model.layers:
        there = f"{path}.get_layer({layer.name!r})"
        if isinstance(layer, keras.Model):
            yield from _recurrent_layers(layer, there, keras)
        elif isinstance(layer, keras.layers.Bidirectional):
            yield f"{there}.forward_layer", layer.forward_layer
            yield f"{there}.backward_layer", layer.backward_layer
        elif isinstance(layer, keras.layers.RNN):
            yield there, layer


def _reset_first(columns: jax.Array) -> jax.Array:
    update, reset, candidate = jnp.split(columns, 3, axis=-1)
    return jnp.concatenate([reset, update, candidate], axis=-1)


def _function(activation: Any) -> Any:
    """Return JAX's function of an activation of Keras's, which may be another backend's."""
    name = getattr(activation, "__name__", repr(activation))
    if name not in NAMES:
        raise ValueError(f"the activation must be one of {', '.join(NAMES)}; got {name}.")
    return NAMES[name]
