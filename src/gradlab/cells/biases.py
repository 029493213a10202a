"""Drawing biases, and setting those of a cell's gates."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gradlab.cells.elman import ConcatenatedElman
from gradlab.cells.lstm import LSTM

GRU_ORDER = ("reset", "forget", "candidate")  # the update gate keeps, as a forget gate does
GATED: list[Any] = [LSTM, nnx.OptimizedLSTMCell, nnx.LSTMCell, nnx.GRUCell]
UNGATED: list[Any] = [ConcatenatedElman, nnx.SimpleCell]
Cell = TypeVar("Cell", bound=type[nnx.RNNCellBase])


def takes_gate_biases(cell_class: Cell) -> Cell:
    """Register a class of cells whose gates have their biases in `dense_i`.

    Their attribute `blocks` names the columns of that layer, n for each name, among them "forget"
    or "input".
    """
    GATED.append(cell_class)
    return cell_class


def takes_no_gate_biases(cell_class: Cell) -> Cell:
    """Register a class of cells whose gates have no biases that rules for gates set."""
    UNGATED.append(cell_class)
    return cell_class


def uniform_within(limit: float) -> nnx.Initializer:
    """Return a Flax initialiser that draws uniformly from [−limit, limit]."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -limit, limit
    )


def set_gate_biases(cell: nnx.RNNCellBase, biases: Mapping[str, Float[Array, "n"]]) -> None:
    """Set the biases of a cell's gates in place; an Elman layer has none and is left unchanged.

    A GRU's update gate z keeps the part z ⊙ h of the state, so it takes the forget gate's bias.
    Where both layers of a cell have a bias, as in PyTorch, one takes the value and the other 0.

    Args:
        cell: an LSTM, a GRU or an Elman layer of Flax or of gradlab, a cell of a class that is
            registered here, or of a subclass with the same step; any cell if there are no biases
            to set.
        biases: by gate, "forget", "input" and "refine"; gates that the cell has not, or has pinned
            or coupled, are skipped.

    Raises:
        ValueError: the cell has another step, other layers or no biases.

    Example:
        >>> from gradlab.cells import LSTM, gates, set_gate_biases
        >>> lstm = LSTM(3, 8, rngs=nnx.Rngs(0))
        >>> set_gate_biases(lstm, {"forget": jnp.full(8, 5.0)})
        >>> state = lstm.initialize_carry((3,), nnx.Rngs(0))
        >>> round(float(gates(lstm, state, jnp.zeros(3))["forget"][0]), 3)  # σ(5)
        0.993
    """
    if not biases or any(type(cell).__call__ is known.__call__ for known in UNGATED):
        return
    name = type(cell).__name__
    if not any(type(cell).__call__ is known.__call__ for known in GATED):
        raise ValueError(
            f"gate biases need a cell whose gates gradlab knows, such as those of model=lstm and "
            f"model=gru; {name} has a step of its own: take bias=zero, and set them where it draws "
            "its weights."
        )
    for gates, *layers in _layers(cell):
        if any(type(layer) not in (nnx.Linear, nnx.LayerNorm) for layer in layers) or all(
            layer.bias is None for layer in layers
        ):
            raise ValueError(
                f"gate biases need a cell with biases, in layers of the class flax.nnx.Linear; "
                f"{name} has other layers or none (use_bias=false): take bias=zero."
            )
        _set_columns(gates, [layer for layer in layers if layer.bias is not None], biases)


def _layers(cell: Any) -> Iterator[tuple[Any, ...]]:
    """Yield gates, in the order of their columns, with their layers; Flax's has a bias first."""
    step = type(cell).__call__
    if step is LSTM.__call__ and "layer_norm" in cell.options:
        yield cell.learned, cell.norm_h  # a bias below it would be normalised too
    elif step is LSTM.__call__:
        yield cell.learned, cell.dense_h, cell.dense_i
    elif step is nnx.OptimizedLSTMCell.__call__:
        yield LSTM.ORDER, cell.dense_h, cell.dense_i
    elif step is nnx.GRUCell.__call__:
        yield GRU_ORDER, cell.dense_i, cell.dense_h
    elif step is nnx.LSTMCell.__call__:
        yield ("input",), cell.hi, cell.ii
        yield ("forget",), cell.hf, cell.if_
    else:
        yield cell.blocks, cell.dense_i


def _set_columns(
    gates: tuple[str, ...], layers: list[nnx.Linear], biases: Mapping[str, Float[Array, "n"]]
) -> None:
    for index, gate in enumerate(gates):
        if gate in biases:
            value = biases[gate]
            columns = slice(index * len(value), (index + 1) * len(value))
            for layer in layers:
                bias: Any = layer.bias
                bias[...] = bias[...].at[columns].set(value)
                value = 0 * value  # the other layer's
