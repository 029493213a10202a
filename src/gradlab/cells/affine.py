"""Cells as an affine map of (x, 1, h) followed by a rule at each unit: what a fast unroll needs.

Flax's cells stay the definition of the maths. To add one: a function here, or in a file of yours,
that gives its weights and rule, registered by the `__call__` that it stands for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.cells.elman import ConcatenatedElman
from gradlab.cells.lstm import LSTM

Blocks = tuple[Float[Array, "batch n"], ...]


class Affine(NamedTuple):
    """A cell: s⁽ᵗ⁾ = rule(blocks, s⁽ᵗ⁻¹⁾), with blocks of n from x W_x + b and from h W_h.

    Of its blocks, the first `apart` come from x alone and the last `apart` from h alone, so x gives
    the first k and h the last k of k + apart; where both give one, they are added.
    """

    driven: Float[Array, "features k*n"]
    bias: Float[Array, "k*n"]
    recurrent: Float[Array, "n k*n"]
    rule: Callable[[Blocks, PyTree], PyTree]
    apart: int = 0


Description = Callable[[Any], Affine | None]
DESCRIPTIONS: dict[Callable[..., Any], Description] = {}


def affine(cell: nnx.RNNCellBase) -> Affine | None:
    """A cell's weights and rule; None if it is none of those known, or changed in some way.

    A subclass is known only where it steps by the very `__call__` that was described.
    """
    describe = DESCRIPTIONS.get(type(cell).__call__)
    if describe is None or any(not _is_plain(x) for x in vars(cell).values()):
        return None
    return describe(cell)


def describes(cell: type[nnx.RNNCellBase]) -> Callable[[Description], Description]:
    """Register what describes the cells that step by this class's `__call__`."""

    def register(description: Description) -> Description:
        DESCRIPTIONS[cell.__call__] = description
        return description

    return register


@describes(nnx.SimpleCell)
def _simple(cell: nnx.SimpleCell) -> Affine:
    return Affine(
        cell.dense_i.kernel[...], _bias(cell.dense_i), cell.dense_h.kernel[...], _elman_rule(cell)
    )


@describes(ConcatenatedElman)
def _concatenated(cell: ConcatenatedElman) -> Affine:
    driven, recurrent = jnp.split(cell.kernel[...], [cell.in_features])
    bias: Any = cell.bias
    return Affine(driven, bias[...], recurrent, _elman_rule(cell, residual=False))


@describes(LSTM)
def _lstm(cell: LSTM) -> Affine | None:
    if type(cell).activations is not LSTM.activations:
        return None
    return _gated(cell, cell.learned, dict(cell.pins))


@describes(nnx.OptimizedLSTMCell)
def _optimised_lstm(cell: nnx.OptimizedLSTMCell) -> Affine:
    return _gated(cell, LSTM.ORDER, {})


@describes(nnx.GRUCell)
def _gru(cell: nnx.GRUCell) -> Affine:
    gate, activation = cell.gate_fn, cell.activation_fn

    def rule(blocks: Blocks, h: Array) -> Array:
        candidate, reset, update, recurrent = blocks
        z = gate(update)
        return (1.0 - z) * activation(candidate + gate(reset) * recurrent) + z * h

    # Flax's order is reset, update, candidate; the candidate's part of x comes first here.
    n = cell.hidden_features
    driven, bias = (jnp.roll(w, n, -1) for w in (cell.dense_i.kernel[...], _bias(cell.dense_i)))
    return Affine(driven, bias, cell.dense_h.kernel[...], rule, apart=1)


def _elman_rule(cell: nnx.SimpleCell, residual: bool | None = None) -> Callable:
    activation = cell.activation_fn
    residual = cell.residual if residual is None else residual
    return lambda blocks, h: activation(blocks[0] + h if residual else blocks[0])


def _gated(cell: nnx.OptimizedLSTMCell, learned: tuple[str, ...], pins: dict[str, float]) -> Affine:
    gate, activation = cell.gate_fn, cell.activation_fn

    def rule(blocks: Blocks, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a = pins | {
            name: (activation if name == "candidate" else gate)(block)
            for name, block in zip(learned, blocks, strict=True)
        }
        c = a["forget"] * carry[0] + a["input"] * a["candidate"]
        return c, a["output"] * activation(c)

    return Affine(cell.dense_i.kernel[...], _bias(cell.dense_h), cell.dense_h.kernel[...], rule)


def _bias(linear: nnx.Linear) -> Array:
    bias: Any = linear.bias
    return bias[...]


def _is_plain(part: Any) -> bool:
    """Whether a part of a cell is no layer, or the layer x W + b that Flax's cells make."""
    if not isinstance(part, nnx.Module):
        return True
    return (
        type(part) is nnx.Linear
        and part.precision is None
        and part.dot_general is jax.lax.dot_general
        and part.preferred_element_type is None
        and part.dtype in (None, part.kernel[...].dtype)
    )
