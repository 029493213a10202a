"""Cells in affine form, which `recurrence.unroll` runs fast.

The affine form of a cell is an affine map of (x⁽ᵗ⁾, h⁽ᵗ⁻¹⁾), followed by a rule that acts on each
unit. Flax's cells remain the definition of the maths; a cell without a known affine form is run
through its own steps. To add a form, write a function that maps a cell to its `AffineForm`, here or
in a file of yours, and register it with `@affine_form_of(CellClass)`.
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


class AffineForm(NamedTuple):
    """The weights and the rule of a cell s⁽ᵗ⁾ = rule(blocks, s⁽ᵗ⁻¹⁾).

    The blocks are arrays of n columns, made of x W_x + b and h W_h, which have k blocks each. If
    `separate` is 0, the rule gets the k sums of both. Otherwise it gets k + separate blocks: x's
    are the first k and h's the last k of them, added where they overlap. The first `separate`
    blocks then come from x only and the last `separate` from h only.

    Attributes:
        input_kernel: W_x.
        bias: b.
        recurrent_kernel: W_h.
        rule: maps blocks and carry to the new carry.
        separate: the number of blocks that come from x only, and of those from h only.
    """

    input_kernel: Float[Array, "features k*n"]
    bias: Float[Array, "k*n"]
    recurrent_kernel: Float[Array, "n k*n"]
    rule: Callable[[Blocks, PyTree], PyTree]
    separate: int = 0


FormFunction = Callable[[Any], AffineForm | None]
FORMS: dict[Callable[..., Any], FormFunction] = {}


def affine_form(cell: nnx.RNNCellBase) -> AffineForm | None:
    """Return a cell's affine form; None if it has none that is known.

    Forms are registered by the `__call__` of a cell class: a subclass has its parent's form only if
    it inherits that method. A cell with a layer other than Flax's plain x W + b has none.
    """
    form_function = FORMS.get(type(cell).__call__)
    if form_function is None or any(not _is_plain(part) for part in vars(cell).values()):
        return None
    return form_function(cell)


def affine_form_of(cell_class: type[nnx.RNNCellBase]) -> Callable[[FormFunction], FormFunction]:
    """Register the decorated function as the affine form of this class's `__call__`."""

    def register(form_function: FormFunction) -> FormFunction:
        FORMS[cell_class.__call__] = form_function
        return form_function

    return register


@affine_form_of(nnx.SimpleCell)
def _simple(cell: nnx.SimpleCell) -> AffineForm:
    return AffineForm(
        cell.dense_i.kernel[...], _bias(cell.dense_i), cell.dense_h.kernel[...], _elman_rule(cell)
    )


@affine_form_of(ConcatenatedElman)
def _concatenated(cell: ConcatenatedElman) -> AffineForm:
    input_kernel, recurrent_kernel = jnp.split(cell.kernel[...], [cell.in_features])
    bias: Any = cell.bias
    rule = _elman_rule(cell, residual=False)
    return AffineForm(input_kernel, bias[...], recurrent_kernel, rule)


@affine_form_of(LSTM)
def _lstm(cell: LSTM) -> AffineForm | None:
    if type(cell).activations is not LSTM.activations:
        return None
    return _lstm_form(cell, cell.learned, dict(cell.pins))


@affine_form_of(nnx.OptimizedLSTMCell)
def _optimised_lstm(cell: nnx.OptimizedLSTMCell) -> AffineForm:
    return _lstm_form(cell, LSTM.ORDER, {})


@affine_form_of(nnx.GRUCell)
def _gru(cell: nnx.GRUCell) -> AffineForm:
    gate, activation = cell.gate_fn, cell.activation_fn

    def rule(blocks: Blocks, h: Array) -> Array:
        from_x, reset, update, from_h = blocks  # from_x and from_h: parts of the candidate
        z = gate(update)
        return (1.0 - z) * activation(from_x + gate(reset) * from_h) + z * h

    # The reset gate multiplies only the candidate's part from h, so its two parts stay separate.
    # Flax's order is reset, update, candidate; x's part of the candidate comes first here.
    n = cell.hidden_features
    input_kernel, bias = (
        jnp.roll(w, n, -1) for w in (cell.dense_i.kernel[...], _bias(cell.dense_i))
    )
    return AffineForm(input_kernel, bias, cell.dense_h.kernel[...], rule, separate=1)


def _elman_rule(
    cell: nnx.SimpleCell, residual: bool | None = None
) -> Callable[[Blocks, Array], Array]:
    activation = cell.activation_fn
    residual = cell.residual if residual is None else residual
    return lambda blocks, h: activation(blocks[0] + h if residual else blocks[0])


def _lstm_form(
    cell: nnx.OptimizedLSTMCell, learned: tuple[str, ...], pins: dict[str, float]
) -> AffineForm:
    gate, activation = cell.gate_fn, cell.activation_fn

    def rule(blocks: Blocks, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a = pins | {
            name: (activation if name == "candidate" else gate)(block)
            for name, block in zip(learned, blocks, strict=True)
        }
        c = a["forget"] * carry[0] + a["input"] * a["candidate"]
        return c, a["output"] * activation(c)

    return AffineForm(cell.dense_i.kernel[...], _bias(cell.dense_h), cell.dense_h.kernel[...], rule)


def _bias(linear: nnx.Linear) -> Array:
    bias: Any = linear.bias
    return bias[...]


def _is_plain(part: Any) -> bool:
    """Return whether a cell's attribute is Flax's plain layer x W + b, or no layer at all."""
    if not isinstance(part, nnx.Module):
        return True
    return (
        type(part) is nnx.Linear
        and part.precision is None
        and part.dot_general is jax.lax.dot_general
        and part.preferred_element_type is None
        and part.dtype in (None, part.kernel[...].dtype)
    )
