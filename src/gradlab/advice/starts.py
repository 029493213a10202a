"""Other starts of a cell, each on a copy: gain, orthogonal weights, smaller inputs, gate biases."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from gradlab.advice.recommendation import Settings
from gradlab.cells import LSTM, ConcatenatedElman, set_gate_biases
from gradlab.initialisers import chrono, forget_bias

# Other cells with gates take biases too, but not all of them forget by σ(b) alone.
GATED: tuple[Any, ...] = (LSTM, nnx.OptimizedLSTMCell, nnx.LSTMCell, nnx.GRUCell)
ELMAN: tuple[Any, ...] = (nnx.SimpleCell, ConcatenatedElman)
INPUT_STDS = (0.5, 0.2, 0.1, 0.05, 0.02)
GAIN_STEPS, LARGEST_GAIN = 7, 4.0  # bisections, and the largest factor of the present gain
LENGTHENINGS = (1, 2, 4)  # of the memory that biases are set for

Change = Callable[[Any, Array], None]  # of one layer, in place, with a random key of its own
Reaches = Callable[[nnx.RNNCellBase], bool]
Kind = Literal["elman", "gated", "other"]  # whose start is advised by other words


class Start(NamedTuple):
    """A changed copy of a cell, and how to describe it."""

    name: str
    settings: Settings
    cost: str
    cell: nnx.RNNCellBase


def starts(cell: nnx.RNNCellBase, lag: int, reaches: Reaches) -> Iterator[Start]:
    """Yield the starts to try, at most one of a kind: the first of it that reaches, or its last.

    Args:
        cell: left as it is.
        lag: in steps, the memory that gates are set for.
        reaches: measures whether a cell's horizon is at least the lag.
    """
    if is_gated(cell):
        for kind in (forget_biases, chrono_biases):
            yield from first_reaching(kind(cell, lag), reaches)
        return
    orthogonal = with_change(cell, orthogonalise)
    settings = {"init": "orthogonal", "init.gain": 1.0}
    cost = "the recurrent weights are drawn anew: for the start of a training"
    yield Start("an orthogonal start", settings, cost, orthogonal)
    if not reaches(orthogonal):  # it would, were it not for the slope of saturated units
        yield from first_reaching(smaller_inputs(orthogonal, settings), reaches)
    yield raised_gain(cell, reaches)


def layers_of(cell: nnx.RNNCellBase) -> list[Any]:
    """Return the layers of a cell whose weights are known: one, or those of a stack; else none."""
    cells = [x for _, x in nnx.iter_graph(cell) if isinstance(x, nnx.RNNCellBase)]
    layers = [x for x in cells if is_layer(x)]
    others = [x for x in cells if not is_layer(x) and not _holds(x, layers)]
    alike = len({has_gates(type(x)) for x in layers}) == 1
    return layers if alike and not others else []


def is_gated(cell: nnx.RNNCellBase) -> bool:
    """Return whether a cell's layers are LSTMs or GRUs."""
    return all(has_gates(type(layer)) for layer in layers_of(cell))


def has_gates(cell_class: Any) -> bool:
    """Return whether a class has the step of an LSTM or a GRU of Flax's or gradlab's."""
    return any(cell_class.__call__ is known.__call__ for known in GATED)


def kind_of(cell_class: Any) -> Kind:
    """Return "gated" for the step of an LSTM or a GRU, "elman" for an Elman layer's, or "other"."""
    if has_gates(cell_class):
        return "gated"
    return "elman" if any(cell_class.__call__ is x.__call__ for x in ELMAN) else "other"


def is_layer(cell: Any) -> bool:
    """Return whether a cell is one layer whose recurrent weights or gate biases are known."""
    is_elman = type(cell).__call__ is nnx.SimpleCell.__call__ and hasattr(cell, "dense_h")
    return is_elman or has_gates(type(cell))


def _holds(cell: nnx.RNNCellBase, layers: list[Any]) -> bool:
    """Return whether a cell is made of others, as a stack is."""
    inner = [x for _, x in nnx.iter_graph(cell) if x is not cell]
    return any(x is layer for x in inner for layer in layers)


def with_change(cell: nnx.RNNCellBase, change: Change) -> nnx.RNNCellBase:
    """Return a copy of a cell with each layer changed."""
    copy: nnx.RNNCellBase = nnx.clone(cell)
    layers = layers_of(copy)
    for layer, key in zip(layers, jax.random.split(jax.random.key(0), len(layers)), strict=True):
        change(layer, key)
    return copy


def first_reaching(tried: Iterator[Start], reaches: Reaches) -> Iterator[Start]:
    """Yield the first start that reaches, or else the last, if there is any."""
    start = None
    for start in tried:
        if reaches(start.cell):
            break
    if start is not None:
        yield start


def orthogonalise(layer: Any, key: Array) -> None:
    """Draw orthogonal recurrent weights (Saxe, McClelland & Ganguli 2014)."""
    kernel = layer.dense_h.kernel
    draw = jax.nn.initializers.orthogonal()
    kernel[...] = draw(key, kernel[...].shape, kernel[...].dtype)


def smaller_inputs(orthogonal: nnx.RNNCellBase, settings: Settings) -> Iterator[Start]:
    """Yield an orthogonal start with smaller and smaller weights of the inputs.

    The singular values of J = diag(φ′) W are those of φ′, and units that large inputs drive
    into saturation have a small slope φ′.
    """
    present = np.sqrt(np.mean(np.square(layers_of(orthogonal)[0].dense_i.kernel[...])))
    for std in (std for std in INPUT_STDS if std < present):

        def scale(layer: Any, _: Array, std: float = std) -> None:
            kernel = layer.dense_i.kernel
            kernel[...] *= std / jnp.maximum(jnp.sqrt(jnp.mean(kernel[...] ** 2)), 1e-30)

        yield Start(
            "an orthogonal start with smaller input weights",
            {**settings, "model.other_std": std},
            f"inputs move the state less: their weights shrink from {present:.2g} to {std:.2g} "
            "(standard deviation), and have to grow where the task needs them large",
            with_change(orthogonal, scale),
        )


def raised_gain(cell: nnx.RNNCellBase, reaches: Reaches) -> Start:
    """Return the present recurrent weights, scaled by the smallest factor that reaches."""
    present = root_mean_square(layers_of(cell)[0].dense_h.kernel[...])

    def scaled(factor: float) -> Start:
        def scale(layer: Any, _: Array) -> None:
            layer.dense_h.kernel[...] *= factor

        cost = (
            "scaled weights keep the spread of their singular values: while one direction "
            "reaches, others vanish or explode"
        )
        settings = {"init.gain": present * factor}
        return Start("a larger gain", settings, cost, with_change(cell, scale))

    low, high = 1.0, LARGEST_GAIN
    if reaches(scaled(high).cell):
        for _ in range(GAIN_STEPS):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if reaches(scaled(middle).cell) else (middle, high)
    return scaled(high)


def root_mean_square(kernel: Float[Array, "n n"]) -> float:
    """Return ‖W‖_F/√n, the root mean square singular value, which `init.gain` sets."""
    return float(jnp.linalg.norm(kernel) / np.sqrt(len(kernel)))


def set_anew(layer: Any, biases: Mapping[str, Float[Array, "n"]]) -> None:
    """Set the biases of a rule in place, and those that it leaves to 0, as a new cell has them."""
    zeros = jnp.zeros(layer.hidden_features)
    set_gate_biases(layer, {"input": zeros, "refine": zeros, **biases})


def forget_biases(cell: nnx.RNNCellBase, lag: int) -> Iterator[Start]:
    """Yield forget biases b with σ(b) = exp(−1/τ), time constants τ from the lag upwards.

    The forget bias of an LSTM starts at 0 as in Flax, a time constant of 1.4 steps.
    """
    for memory in (lag * times for times in LENGTHENINGS):
        bias = float(-np.log(np.expm1(1 / memory)))

        def change(layer: Any, key: Array, bias: float = bias) -> None:
            set_anew(layer, forget_bias(key, layer.hidden_features, bias))

        yield Start(
            "a forget bias",
            {"bias": "forget", "bias.value": bias},
            f"every unit forgets with a time constant of {memory} steps, so what is over after a "
            "few is unlearnt slowly",
            with_change(cell, change),
        )


def chrono_biases(cell: nnx.RNNCellBase, lag: int) -> Iterator[Start]:
    """Yield chrono biases b_f = ln U(1, T_max − 1), b_i = −b_f (Tallec & Ollivier 2018, eq. 16)."""
    for longest in (max(lag * times, 3) for times in LENGTHENINGS):

        def change(layer: Any, key: Array, longest: int = longest) -> None:
            set_anew(layer, chrono(key, layer.hidden_features, float(longest)))

        yield Start(
            "chrono biases",
            {"bias": "chrono", "bias.longest": float(longest)},
            f"time constants are spread from 2 to {longest} steps, and inputs enter by the input "
            "gate's 1/τ: short lags are learnt more slowly",
            with_change(cell, change),
        )
