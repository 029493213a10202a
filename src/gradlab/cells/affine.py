"""Cells in affine form, which `recurrence.unroll` runs fast.

The affine form of a cell is an affine map of (x⁽ᵗ⁾, h⁽ᵗ⁻¹⁾), followed by a rule that acts on each
unit. Flax's cells remain the definition of the maths; a cell without a known affine form is run
through its own steps, and so is one that differs in any part from what its form knows: a layer of
another kind or shape, a part that a subclass computes. To add a form, write a function that maps a
cell to its `AffineForm`, here or in a file of yours, and register it with
`@affine_form_of(CellClass)`.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gradlab.cells import lstm_variants as variants
from gradlab.cells.base import inherits
from gradlab.cells.elman import ConcatenatedElman
from gradlab.cells.lstm import LSTM

Blocks = tuple[Float[Array, "batch n"], ...]
Rule = Callable[..., Any]
# A bias that is not there is None; the last are those of the rule.
Weights = tuple[Array, Array | None, Array, Array | None, tuple[Array, ...]]
PROMOTE_DTYPE = inspect.signature(nnx.Linear.__init__).parameters["promote_dtype"].default


class AffineForm(NamedTuple):
    """The weights and the rule of a cell s⁽ᵗ⁾ = rule(blocks, s⁽ᵗ⁻¹⁾).

    The blocks are arrays of n columns, made of x W_x + b and h W_h + b_h, which have k blocks each.
    If `separate` is 0, the rule gets the k sums of both. Otherwise it gets k + separate blocks: x's
    are the first k and h's the last k of them, added where they overlap. The first `separate`
    blocks then come from x only and the last `separate` from h only.

    Attributes:
        input_kernel: W_x.
        bias: b; None: 0.
        recurrent_kernel: W_h.
        rule: maps blocks, carry and `rule_weights` to the new carry.
        separate: the number of blocks that come from x only, and of those from h only.
        recurrent_bias: b_h; None: 0.
        rule_weights: weights that the rule takes as further arguments, such as the bias of a
            modReLU; it must read none in another way, since those would get no gradient.
    """

    input_kernel: Float[Array, "features k*n"]
    bias: Float[Array, "k*n"] | None
    recurrent_kernel: Float[Array, "n k*n"]
    rule: Rule
    separate: int = 0
    recurrent_bias: Float[Array, "k*n"] | None = None
    rule_weights: tuple[Array, ...] = ()

    @property
    def weights(self) -> Weights:
        """Everything that is trained."""
        layers = self.input_kernel, self.bias, self.recurrent_kernel, self.recurrent_bias
        return *layers, self.rule_weights


FormFunction = Callable[[Any], AffineForm | None]
FORMS: dict[Callable[..., Any], FormFunction] = {}


def affine_form(cell: nnx.RNNCellBase) -> AffineForm | None:
    """Return a cell's affine form; None if it has none that is known.

    Forms are registered by the `__call__` of a cell class: a subclass has its parent's form only if
    it inherits that method, and only if every part that the method reads is what the form takes it
    for.
    """
    form_function = FORMS.get(type(cell).__call__)
    return None if form_function is None else form_function(cell)


def affine_form_of(cell_class: type[nnx.RNNCellBase]) -> Callable[[FormFunction], FormFunction]:
    """Register the decorated function as the affine form of this class's `__call__`."""

    def register(form_function: FormFunction) -> FormFunction:
        FORMS[cell_class.__call__] = form_function
        return form_function

    return register


@affine_form_of(nnx.SimpleCell)
def _simple(cell: nnx.SimpleCell) -> AffineForm | None:
    if not has_own(cell, "residual", bool):
        return None
    return two_layers(cell, 1, _elman_rule(cell, cell.residual))


@affine_form_of(ConcatenatedElman)
def _concatenated(cell: ConcatenatedElman) -> AffineForm | None:
    if not (has_own(cell, "kernel", nnx.Variable) and _has_plain_functions(cell)):
        return None
    if not has_own(cell, "bias", nnx.Variable | None):
        return None
    kernel, bias = cell.kernel[...], value_of(cell.bias)
    n = kernel.shape[-1]
    if not fits((kernel[-n:], bias), n, 1):
        return None
    return AffineForm(kernel[:-n], bias, kernel[-n:], _elman_rule(cell, residual=False))


@affine_form_of(LSTM)
def _lstm(cell: LSTM) -> AffineForm | None:
    parts = ("learned", "pins", "options")
    if not (inherits(cell, LSTM, "activations") and all(has_own(cell, x, tuple) for x in parts)):
        return None
    if not all(isinstance(pin, int | float) for _, pin in cell.pins):
        return None
    if cell.options:
        return _lstm_with_options(cell)
    return two_layers(cell, len(cell.learned), _lstm_rule(cell, cell.learned, dict(cell.pins)))


@affine_form_of(nnx.OptimizedLSTMCell)
def _optimised_lstm(cell: nnx.OptimizedLSTMCell) -> AffineForm | None:
    return two_layers(cell, len(LSTM.ORDER), _lstm_rule(cell, LSTM.ORDER, {}))


@affine_form_of(nnx.GRUCell)
def _gru(cell: nnx.GRUCell) -> AffineForm | None:
    form = two_layers(cell, 3, _gru_rule(cell), join_biases=False)
    if form is None:
        return None
    # The reset gate multiplies only the candidate's part from h, so its two parts stay separate.
    # Flax's order is reset, update, candidate; x's part of the candidate comes first here.
    n = form.recurrent_kernel.shape[0]
    input_kernel, bias = jax.tree.map(lambda w: jnp.roll(w, n, -1), (form.input_kernel, form.bias))
    return form._replace(input_kernel=input_kernel, bias=bias, separate=1)


def _elman_rule(cell: nnx.SimpleCell, residual: bool) -> Rule:
    activation = cell.activation_fn
    return lambda blocks, h: activation(blocks[0] + h if residual else blocks[0])


def _lstm_rule(
    cell: nnx.OptimizedLSTMCell, learned: tuple[str, ...], pins: dict[str, float]
) -> Rule:
    gate, activation = cell.gate_fn, cell.activation_fn

    def rule(blocks: Blocks, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a = pins | {
            name: (activation if name == "candidate" else gate)(block)
            for name, block in zip(learned, blocks, strict=True)
        }
        c = a["forget"] * carry[0] + a["input"] * a["candidate"]
        return c, a["output"] * activation(c)

    return rule


def _lstm_with_options(cell: LSTM) -> AffineForm | None:
    """Return the form of an LSTM with options; None with layer norm, which has none."""
    peepholes = variants.peepholes_of(cell)
    is_known = "layer_norm" not in cell.options and all(
        has_own(cell, f"peephole_{gate}", nnx.Variable) and weights.shape == (cell.hidden_features,)
        for gate, weights in peepholes.items()
    )
    form = two_layers(cell, len(cell.learned), variants.rule_of(cell)) if is_known else None
    return form and form._replace(rule_weights=tuple(peepholes.values()))


def _gru_rule(cell: nnx.GRUCell) -> Rule:
    gate, activation = cell.gate_fn, cell.activation_fn

    def rule(blocks: Blocks, h: Array) -> Array:
        from_x, reset, update, from_h = blocks  # from_x and from_h: parts of the candidate
        z = gate(update)
        return (1.0 - z) * activation(from_x + gate(reset) * from_h) + z * h

    return rule


def two_layers(cell: Any, blocks: int, rule: Rule, join_biases: bool = True) -> AffineForm | None:
    """Return the form of a cell whose layers are dense_i on x and dense_h on h; None if it differs.

    Args:
        cell: the cell.
        blocks: k.
        rule: of the form.
        join_biases: the biases of both layers are added to one; else they stay apart.
    """
    on_x, on_h = plain_layer(cell, "dense_i"), plain_layer(cell, "dense_h")
    if on_x is None or on_h is None or not _has_plain_functions(cell):
        return None
    kernel, bias, recurrent_bias = on_h.kernel[...], value_of(on_x.bias), value_of(on_h.bias)
    n = kernel.shape[0]
    if not (fits((kernel, recurrent_bias), n, blocks) and fits((on_x.kernel, bias), n, blocks)):
        return None
    if join_biases:
        present = [b for b in (bias, recurrent_bias) if b is not None]
        bias, recurrent_bias = (sum(present[1:], start=present[0]) if present else None), None
    return AffineForm(on_x.kernel[...], bias, kernel, rule, recurrent_bias=recurrent_bias)


def plain_layer(cell: Any, name: str) -> nnx.Linear | None:
    """Return the layer that a cell holds under a name; None if it is not Flax's plain x W + b."""
    if not has_own(cell, name, nnx.Linear):
        return None
    layer: nnx.Linear = getattr(cell, name)
    return layer if is_plain(layer) else None


def has_own(cell: Any, name: str, kind: Any) -> bool:
    """Return whether a cell's attribute is its own and of a kind, not computed by a property."""
    own = vars(cell)
    return name in own and getattr(cell, name) is own[name] and isinstance(own[name], kind)


def _has_plain_functions(cell: Any) -> bool:
    """Return whether a cell's gate and activation functions are functions without weights."""
    names = [name for name in ("gate_fn", "activation_fn") if hasattr(cell, name)]
    return all(
        has_own(cell, name, Callable)
        and all(leaf is vars(cell)[name] for leaf in jax.tree.leaves(vars(cell)[name]))
        for name in names
    )


def is_plain(layer: nnx.Linear) -> bool:
    """Return whether a layer is Flax's plain x W + b, in the precision of its weights."""
    return (
        type(layer) is nnx.Linear
        and layer.precision is None
        and layer.dot_general is jax.lax.dot_general
        and layer.preferred_element_type is None
        and layer.promote_dtype is PROMOTE_DTYPE
        and layer.dtype in (None, layer.kernel[...].dtype)
        and layer.use_bias == (layer.bias is not None)
    )


def fits(weights: tuple[Any, Array | None], n: int, blocks: int) -> bool:
    """Return whether a kernel and a bias have n columns for each block: nothing is broadcast."""
    kernel, bias = weights
    columns = blocks * n
    return kernel.shape[1:] == (columns,) and (bias is None or bias.shape == (columns,))


def value_of(bias: Any) -> Array | None:
    """Return the array of a bias; None if there is none."""
    return None if bias is None else bias[...]
