"""Networks: one recurrent cell or a stack of cells, and a readout at every step.

A model is configured by conf/model/; `gradlab.cells` says how to add a cell.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

from gradlab import components
from gradlab.cells import EncoderDecoder, Gates, gates, set_gate_biases
from gradlab.cells.biases import uniform_within
from gradlab.cells.precision import InPrecision
from gradlab.cells.recurrence import AdjointRule, step_by_step, unroll
from gradlab.cells.skips import Highway, Residual
from gradlab.components import ConfigError
from gradlab.config import Model

Initialiser = Callable[[Key[Array, ""], int], Float[Array, "n n"]]
BiasRule = Callable[[Key[Array, ""], int], dict[str, Float[Array, "n"]]]
LECUN, ZEROS = nnx.initializers.lecun_normal(), nnx.initializers.zeros_init()  # Flax's choice


class Hidden(NamedTuple):
    """The carry of a layer whose state is one array, which gives it the name h in a stack."""

    h: Float[Array, "*batch n"]


class Stack(nnx.RNNCellBase):
    """Recurrent cells on top of each other as one cell.

    Its carry is a dictionary of the layers' carries, {"layer0": …, "layer1": …}. With skips, what
    a layer passes on is more than its output, so that each layer reaches all above it by shorter
    ways at the same step: of residual layers, ∂(passed on)/∂(read) has a part I. They lead from
    layer to layer alone, not from step to step, and the stack's output is no part of its carry.

    Example:
        >>> from gradlab.models import Stack
        >>> upper = nnx.SimpleCell(8, 8, rngs=nnx.Rngs(1))
        >>> gradlab.jacobian_log_norms(Stack([cell, upper]), x, of="h", wrt="layer0.h").shape
        (4, 21, 21)
    """

    def __init__(
        self, layers: list[nnx.RNNCellBase], skips: Sequence[Residual | Highway] = ()
    ) -> None:
        """Stack the cells; the first one reads the input.

        Args:
            layers: the cells.
            skips: for each layer but the first what it passes on; none: its output.
        """
        self.layers = nnx.List(layers)
        self.skips = nnx.List(list(skips))

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> dict[str, PyTree]:
        """Return the layers' initial carries."""
        carries = [cell.initialize_carry(input_shape, rngs) for cell in self.layers]
        return {f"layer{i}": _wrap(carry) for i, carry in enumerate(carries)}

    def __call__(
        self, carry: dict[str, PyTree], inputs: Float[Array, "*batch features"]
    ) -> tuple[dict[str, PyTree], Array]:
        """Run one step, in which each layer reads the output of the one below at that step."""
        new_carry = {}
        for i, cell in enumerate(self.layers):
            state, output = components.call(cell, _unwrap(carry[f"layer{i}"]), inputs)
            new_carry[f"layer{i}"], inputs = _wrap(state), self.passed_on(i, inputs, output)
        return new_carry, inputs

    def passed_on(self, layer: int, below: Array, output: Array) -> Array:
        """Return what a layer passes on, from what it reads and its output; at one step or many."""
        return self.skips[layer - 1](below, output) if self.skips and layer else output

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of one input, as Flax's cells define it."""
        return 1


@gates.register
def _(cell: Stack, carry: dict[str, PyTree], inputs: Array) -> Gates:
    """Return the gates of every layer that has some, named as "layer0.forget"."""
    stack_gates: Gates = {}
    for i, layer in enumerate(cell.layers):
        state = _unwrap(carry[f"layer{i}"])
        with suppress(TypeError):  # the layer has none that are known
            layer_gates = gates(layer, state, inputs)
            stack_gates |= {f"layer{i}.{gate}": values for gate, values in layer_gates.items()}
        inputs = cell.passed_on(i, inputs, layer(state, inputs)[1])
    return stack_gates


@unroll.register
def _(
    cell: Stack,
    carry: dict[str, PyTree],
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Array]:
    """Run layer after layer, or step by step if a rule needs the adjoints of all layers at once."""
    if on_adjoint is not None or type(cell).__call__ is not Stack.__call__:
        return step_by_step(cell, carry, inputs, on_adjoint)
    last = {}
    for i, layer in enumerate(cell.layers):
        state, outputs = unroll(layer, _unwrap(carry[f"layer{i}"]), inputs)
        last[f"layer{i}"], inputs = _wrap(state), cell.passed_on(i, inputs, outputs)
    return last, inputs


def _wrap(carry: PyTree) -> PyTree:
    """Return a layer's carry as a stack keeps it."""
    return Hidden(carry) if isinstance(carry, jax.Array) else carry


def _unwrap(carry: PyTree) -> PyTree:
    """Return a layer's carry as its cell takes it."""
    return carry.h if isinstance(carry, Hidden) else carry


class Readout(nnx.Linear):
    """An affine map of a cell's output, through the logistic function if it is asked for."""

    def __init__(self, *sizes: int, sigmoid: bool = False, **options: Any) -> None:
        """Draw the weights of Flax's layer, with its options."""
        super().__init__(*sizes, **options)
        self.sigmoid = sigmoid

    def __call__(  # type: ignore[override]  # one array, as a network has it
        self, hidden: Float[Array, "*batch m"]
    ) -> Float[Array, "*batch o"]:
        """Return the network's outputs.

        Raises:
            ConfigError: the cell's output has another size than it has said.
        """
        if hidden.shape[-1] != self.in_features:
            raise ConfigError(
                f"a step of the cell must return an output of size {self.in_features}, "
                f"model.hidden_size or the cell's output_features; it has {hidden.shape[-1]}."
            )
        outputs = super().__call__(hidden)
        return nnx.sigmoid(outputs) if self.sigmoid else outputs


class Network(nnx.Module):
    """A recurrent cell followed by a readout of every step's output.

    Example:
        >>> from gradlab.models import Network, Readout
        >>> network = Network(cell, Readout(8, 2, rngs=nnx.Rngs(1)))
        >>> network(x).shape  # (batch, time, outputs)
        (4, 20, 2)
    """

    def __init__(self, cell: nnx.RNNCellBase, readout: Readout) -> None:
        """Put a readout on a cell.

        Args:
            cell: any recurrent cell.
            readout: maps its output at every step.
        """
        self.cell = cell
        self.readout = readout

    def __call__(self, inputs: Float[Array, "batch time features"]) -> Float[Array, "batch time o"]:
        """Return the readout at every step of the sequences, run from the initial state."""
        _, outputs = unroll(self.cell, self.initial_carry(inputs), inputs.swapaxes(0, 1))
        return self.readout(outputs).swapaxes(0, 1)

    def initial_carry(self, inputs: Float[Array, "batch time features"]) -> PyTree:
        """Return the state s⁽⁰⁾ of a batch of sequences."""
        return self.cell.initialize_carry((inputs.shape[0], inputs.shape[2]), nnx.Rngs(0))


def build_network(
    model: Model,
    initialiser: Initialiser,
    bias_rule: BiasRule,
    features: int,
    outputs: int,
    key: Key[Array, ""],
) -> Network:
    """Build the configured network and draw its weights.

    Args:
        model: the section `model` of the config. `model.dtype` is the type in which the cell keeps
            its state and computes (`InPrecision`). The readout and the weights stay in float32; for
            "float64", which needs JAX's 64-bit types, they are in float64. With `model.decoder`
            there are two stacks, in an `EncoderDecoder`. `model.other_std` is the standard
            deviation of the weights that are not recurrent (into each layer, and of the readout),
            `model.other_limit` the limit that they are uniform within; None: Flax's own
            initialiser.
        initialiser: draws the recurrent matrix of each gate.
        bias_rule: draws the biases of each layer's gates.
        features: size of an input, the answer flag included.
        outputs: size of the readout.
        key: random key of all weights.

    Raises:
        ConfigError: the cell does not take the arguments that Flax's recurrent cells take, or has
            no gate biases where the rule sets some; or the initialiser or the rule is none. What
            their own code raises is raised as it is.
    """
    with jax.enable_x64(False):  # all types start from the same weights
        network = _build_in_float32(model, initialiser, bias_rule, features, outputs, key)
    if model.dtype == "float32":
        return network
    if model.dtype == "float64":
        nnx.update(network, jax.tree.map(_as_float64, nnx.state(network)))
    try:
        network.cell = InPrecision(network.cell, model.dtype, features)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return network


def _as_float64(x: Array) -> Array:
    is_inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    return x.astype(jnp.promote_types(x.dtype, jnp.float64)) if is_inexact else x


def _build_in_float32(
    model: Model,
    initialiser: Initialiser,
    bias_rule: BiasRule,
    features: int,
    outputs: int,
    key: Key[Array, ""],
) -> Network:
    rngs = nnx.Rngs(key)
    build_stack = partial(_build_stack, model, initialiser, bias_rule, rngs=rngs)
    if model.decoder:  # the answer flag is no input of the two stacks
        encoder, decoder = build_stack(features - 1), build_stack(features - 1)
        cell: nnx.RNNCellBase = EncoderDecoder(encoder, decoder)
    else:
        cell = build_stack(features)
    return Network(cell, _build_readout(model, cell, outputs, rngs))


def _build_readout(model: Model, cell: nnx.RNNCellBase, outputs: int, rngs: nnx.Rngs) -> Readout:
    """Build the readout of a cell's output."""
    return Readout(
        _output_size(cell, model.hidden_size),
        outputs,
        sigmoid=model.readout == "sigmoid",
        use_bias=model.readout_bias is not None,
        bias_init=uniform_within(model.readout_bias) if model.readout_bias else ZEROS,
        rngs=rngs,
        **({"kernel_init": LECUN} | _other_initialiser(model)),
    )


def _output_size(cell: nnx.RNNCellBase, n: int) -> int:
    """Return the size of a cell's output: n, unless the cell says otherwise (`output_features`)."""
    if isinstance(cell, EncoderDecoder):
        cell = cell.decoder
    if isinstance(cell, Stack):
        cell = cell.layers[-1]
    return getattr(cell, "output_features", n)


def _build_stack(
    model: Model,
    initialiser: Initialiser,
    bias_rule: BiasRule,
    features: int,
    rngs: nnx.Rngs,
) -> nnx.RNNCellBase:
    """Build the layers, as a `Stack` if there are several."""
    n = model.hidden_size
    if model.skip != "none" and model.num_layers == 1:
        raise ConfigError(f"model.skip={model.skip} needs model.num_layers of 2 or more; got 1.")
    layers: list[nnx.RNNCellBase] = []
    for i in range(model.num_layers):
        arguments = {
            "in_features": features if i == 0 else _output_size(layers[-1], n),
            "hidden_features": n,
            "recurrent_kernel_init": by_gate(initialiser),
            "rngs": rngs,
            **_other_initialiser(model),
        }
        _check_cell(model.cell, arguments)
        layers.append(components.build(model.cell, **arguments))
        biases = _drawn_biases(bias_rule, rngs.biases(), n)
        try:
            set_gate_biases(layers[-1], biases)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    return layers[0] if len(layers) == 1 else Stack(layers, _build_skips(model, layers, rngs))


def _build_skips(
    model: Model, layers: list[nnx.RNNCellBase], rngs: nnx.Rngs
) -> list[Residual | Highway]:
    """Return the ways around all layers but the first."""
    if model.skip == "none":
        return []
    sizes = {_output_size(layer, model.hidden_size) for layer in layers}
    if len(sizes) > 1:
        raise ConfigError(
            f"model.skip={model.skip} needs layers whose outputs have one size; those of "
            f"{type(layers[0]).__name__} have {', '.join(map(str, sorted(sizes)))}."
        )
    if model.skip == "residual":
        return [Residual() for _ in layers[1:]]
    return [Highway(sizes.copy().pop(), rngs, **_other_initialiser(model)) for _ in layers[1:]]


def _other_initialiser(model: Model) -> dict[str, nnx.Initializer]:
    """Return the argument that initialises weights that are not recurrent, if it is configured."""
    if model.other_limit is not None:
        return {"kernel_init": uniform_within(model.other_limit)}
    std = model.other_std
    return {} if std is None else {"kernel_init": nnx.initializers.normal(std)}


def by_gate(initialiser: Initialiser) -> Callable[..., Float[Array, "n gates*n"]]:
    """Return a Flax initialiser of the gates' (n, n) matrices side by side, drawn independently."""

    def initialise(key: Key[Array, ""], shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
        n, columns = shape
        matrices = [_drawn(initialiser, k, n) for k in jax.random.split(key, columns // n)]
        return jnp.concatenate(matrices, axis=1).astype(dtype)

    return initialise


def _drawn(initialiser: Initialiser, key: Key[Array, ""], n: int) -> Float[Array, "n n"]:
    """Return the matrix that an initialiser draws.

    Raises:
        ConfigError: it takes other arguments, or returns something else.
    """
    matrix = _called("init._target_", "an (n, n) matrix", initialiser, key, n)
    if getattr(matrix, "shape", None) != (n, n) or jnp.iscomplexobj(matrix):
        raise ConfigError(
            f"init._target_ must return an (n, n) matrix of real numbers, here {(n, n)}; it "
            f"returned {_kind(matrix)}."
        )
    return matrix


def _drawn_biases(rule: BiasRule, key: Key[Array, ""], n: int) -> dict[str, Float[Array, "n"]]:
    """Return the biases that a rule draws.

    Raises:
        ConfigError: it takes other arguments, or returns something else.
    """
    biases = _called("bias._target_", "a dictionary of n biases by gate", rule, key, n)
    wrong = biases.values() if isinstance(biases, dict) else [biases]
    wrong = [_kind(values) for values in wrong if getattr(values, "shape", None) != (n,)]
    if wrong:
        raise ConfigError(
            f"bias._target_ must return a dictionary of n biases by gate, here of shape {(n,)}; "
            f"it returned {wrong[0]}."
        )
    return biases


def _called(name: str, returned: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a component of the config returns."""
    other = ", or Flax's of (key, shape, dtype)" if name.startswith("init") else ""
    try:
        return function(*arguments)
    except components.CallError as error:
        raise ConfigError(
            f"{name} must be a function of (key, n) that returns {returned}{other}; it raises "
            f"TypeError: {error}"
        ) from error


def _kind(value: Any) -> str:
    has_shape = hasattr(value, "dtype")
    return f"{value.dtype} of shape {value.shape}" if has_shape else f"a {type(value).__name__}"


def _check_cell(cell: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Check that a configured cell is a Flax recurrent cell and takes these arguments.

    Raises:
        ConfigError: it is not, or does not.
    """
    target = components.locate(cell["_target_"])
    if not (isinstance(target, type) and issubclass(target, nnx.RNNCellBase)):
        raise ConfigError(
            "model.cell._target_ must be a subclass of flax.nnx.RNNCellBase; got "
            f"{cell['_target_']!r}."
        )
    parameters = components.parameters_of(target)
    missing = [name for name in arguments if not components.takes(parameters, name)]
    if missing:
        raise ConfigError(
            f"model.cell._target_ must be a cell class that takes {', '.join(arguments)}, as those "
            f"of flax.nnx do; {cell['_target_']} takes no {', '.join(missing)}."
        )
