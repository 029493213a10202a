"""Networks: one recurrent cell or a stack of them, and a linear readout at every step."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from hydra.utils import get_object
from jaxtyping import Array, Float, Key, PyTree

from gradlab import config
from gradlab.cells import EncoderDecoder, Gates, gates, set_gate_biases
from gradlab.cells.recurrence import AdjointRule, step_by_step, unroll
from gradlab.config import ConfigError

Initialiser = Callable[[Key[Array, ""], int], Float[Array, "n n"]]
BiasRule = Callable[[Key[Array, ""], int], dict[str, Float[Array, "n"]]]
LECUN = nnx.initializers.lecun_normal()  # Flax's own choice


class Hidden(NamedTuple):
    """The carry of a layer whose state is one array, so that it has a name in a stack."""

    h: Float[Array, "*batch n"]


class Stack(nnx.RNNCellBase):
    """Recurrent cells on top of each other, seen as one cell; its carry is named by layer."""

    def __init__(self, layers: list[nnx.RNNCellBase]) -> None:
        """Stack the cells, the first nearest to the input."""
        self.layers = nnx.List(layers)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> dict[str, PyTree]:
        """The layers' own initial carries."""
        carries = [cell.initialize_carry(input_shape, rngs) for cell in self.layers]
        return {f"layer{i}": _named(carry) for i, carry in enumerate(carries)}

    def __call__(
        self, carry: dict[str, PyTree], inputs: Float[Array, "*batch features"]
    ) -> tuple[dict[str, PyTree], Array]:
        """One step: each layer reads the output of the one below at the same time step."""
        new_carry = {}
        for i, cell in enumerate(self.layers):
            state, inputs = cell(_bare(carry[f"layer{i}"]), inputs)
            new_carry[f"layer{i}"] = _named(state)
        return new_carry, inputs

    @property
    def num_feature_axes(self) -> int:
        """Axes of one input that are features, as of Flax's own cells."""
        return 1


@gates.register
def _(cell: Stack, carry: dict[str, PyTree], inputs: Array) -> Gates:
    """Gates of every layer that has some, as "layer0.forget"."""
    found: Gates = {}
    for i, layer in enumerate(cell.layers):
        state = _bare(carry[f"layer{i}"])
        if gates.dispatch(type(layer)) is not gates.dispatch(object):
            named = gates(layer, state, inputs)
            found |= {f"layer{i}.{gate}": values for gate, values in named.items()}
        _, inputs = layer(state, inputs)
    return found


@unroll.register
def _(
    cell: Stack,
    carry: dict[str, PyTree],
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Array]:
    """Layer after layer; step by step where a rule sees the adjoints of all layers together."""
    if on_adjoint is not None or type(cell).__call__ is not Stack.__call__:
        return step_by_step(cell, carry, inputs, on_adjoint)
    last = {}
    for i, layer in enumerate(cell.layers):
        state, inputs = unroll(layer, _bare(carry[f"layer{i}"]), inputs)
        last[f"layer{i}"] = _named(state)
    return last, inputs


def _bare(carry: PyTree) -> PyTree:
    return carry.h if isinstance(carry, Hidden) else carry


def _named(carry: PyTree) -> PyTree:
    return Hidden(carry) if isinstance(carry, jax.Array) else carry


class Network(nnx.Module):
    """A recurrent cell followed by a linear readout of every step's output."""

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        width: int,
        outputs: int,
        rngs: nnx.Rngs,
        kernel_init: nnx.Initializer = LECUN,
    ) -> None:
        """Read `outputs` numbers off a cell with an output of `width` numbers."""
        self.cell = cell
        self.readout = nnx.Linear(width, outputs, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, inputs: Float[Array, "batch time features"]) -> Float[Array, "batch time o"]:
        """Run the sequences from the initial state."""
        _, outputs = unroll(self.cell, self.initial_carry(inputs), inputs.swapaxes(0, 1))
        return self.readout(outputs).swapaxes(0, 1)

    def initial_carry(self, inputs: Float[Array, "batch time features"]) -> PyTree:
        """The state s⁽⁰⁾ of a batch of sequences."""
        return self.cell.initialize_carry((inputs.shape[0], inputs.shape[2]), nnx.Rngs(0))


def build_network(
    model: Mapping[str, Any],
    initialiser: Initialiser,
    bias_rule: BiasRule,
    features: int,
    outputs: int,
    key: Key[Array, ""],
) -> Network:
    """Build the configured stack, its recurrent weights and gate biases drawn by the rules given.

    With `model.decoder` there are two of them, in an `EncoderDecoder`. `model.other_std` is the
    standard deviation of the weights that are not recurrent: into each layer, and of the readout.

    Raises:
        ConfigError: the cell does not take the arguments that Flax's recurrent cells take.
    """
    rngs = nnx.Rngs(key)
    stack = partial(_build_stack, model, initialiser, bias_rule, rngs=rngs)
    if model["decoder"]:  # the flag that picks one of them is not their input
        cell: nnx.RNNCellBase = EncoderDecoder(stack(features - 1), stack(features - 1))
    else:
        cell = stack(features)
    return Network(cell, model["hidden_size"], outputs, rngs, **_other_weights(model))


def _build_stack(
    model: Mapping[str, Any],
    initialiser: Initialiser,
    bias_rule: BiasRule,
    features: int,
    rngs: nnx.Rngs,
) -> nnx.RNNCellBase:
    width = model["hidden_size"]
    cells = []
    for layer in range(model["num_layers"]):
        arguments = {
            "in_features": features if layer == 0 else width,
            "hidden_features": width,
            "recurrent_kernel_init": by_gate(initialiser),
            "rngs": rngs,
            **_other_weights(model),
        }
        cells.append(config.build(model["cell"], **_accepted(model["cell"], arguments)))
        set_gate_biases(cells[-1], bias_rule(rngs.biases(), width))
    return cells[0] if len(cells) == 1 else Stack(cells)


def _other_weights(model: Mapping[str, Any]) -> dict[str, nnx.Initializer]:
    std = model["other_std"]
    return {} if std is None else {"kernel_init": nnx.initializers.normal(std)}


def by_gate(initialiser: Initialiser) -> Callable[..., Float[Array, "n gates*n"]]:
    """Draw the (n, n) matrix of each gate on its own where a cell keeps them side by side."""

    def initialise(key: Key[Array, ""], shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
        n, columns = shape
        matrices = [initialiser(k, n) for k in jax.random.split(key, columns // n)]
        return jnp.concatenate(matrices, axis=1).astype(dtype)

    return initialise


def _accepted(cell: Mapping[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    target = get_object(cell["_target_"])
    if not (isinstance(target, type) and issubclass(target, nnx.RNNCellBase)):
        raise ConfigError(
            "model.cell._target_ must be a subclass of flax.nnx.RNNCellBase; got "
            f"{cell['_target_']!r}."
        )
    parameters = config.parameters_of(target)
    missing = [name for name in arguments if not config.takes(parameters, name)]
    if missing:
        raise ConfigError(
            f"model.cell._target_ must be a cell class that takes {', '.join(arguments)}, as those "
            f"of flax.nnx do; {cell['_target_']} takes no {', '.join(missing)}."
        )
    return arguments
