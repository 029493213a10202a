"""MNIST-1D (Greydanus & Kobak 2024): four kinds of networks on digits drawn as 40 numbers.

Networks, initialisation (PyTorch's), optimiser and order of the batches are those of the authors'
notebook of figure 2 and table 1.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, Float, Int, Key
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.config import Count, Positive
from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.tasks.mnist1d_data import ORDER, POINTS, Digits, digits

CLASSES, MLP_UNITS, CHANNELS, GRU_UNITS = 10, 100, 25, 6
PRINTED = {  # table 1: test accuracy, per cent, of points in order and permuted
    "logistic": (32, 32),
    "MLP": (68, 68),
    "CNN": (94, 56),
    "GRU": (91, 57),
}
HUMAN = 96
COLOURS = dict(zip(PRINTED, (drawing.HUES[i] for i in (2, 0, 7, 1)), strict=True))

Parameters = dict[str, Array]
Batch = Float[Array, "batch points"]
Logits = Float[Array, "batch classes"]


class Network(NamedTuple):
    """Shapes of the parameters with the fan-in that bounds each at its start, and the network."""

    shapes: Mapping[str, tuple[tuple[int, ...], int]]
    logits: Callable[[Parameters, Batch], Logits]


def measure(
    updates: Count, every: Count, batch_size: Count, learning_rate: Positive, seeds: Sequence[int]
) -> pd.DataFrame:
    """Train every network on digits with their points in order, and permuted.

    Args:
        updates: number of updates.
        every: updates between measurements.
        batch_size: sequences per update, taken one after the other.
        learning_rate: of Adam.
        seeds: of the parameters; the data are the same for all.

    Returns:
        Rows by `part`: "training" (network, permuted: 0 or 1, seed, update, train, test: accuracies
        in per cent) and "best" (network, permuted, seed, test: the best of all updates measured,
        last: that of the last one, train: the best on the training set).
    """
    in_order = digits()
    tables = [
        _trained(network, permuted, data, updates, every, batch_size, learning_rate, seeds)
        for network in NETWORKS
        for permuted, data in enumerate((in_order, in_order.permuted(ORDER)))
    ]
    training = pd.concat(tables, ignore_index=True)
    of_network = training.groupby(["network", "permuted", "seed"], sort=False)
    best = of_network.agg(test=("test", "max"), last=("test", "last"), train=("train", "max"))
    parts = {"training": training, "best": best.reset_index()}
    tables = [rows.assign(part=part) for part, rows in parts.items()]
    return pd.concat(tables, ignore_index=True)


def _dense(parameters: Parameters, name: str, x: Float[Array, "*batch m"]) -> Float[Array, "..."]:
    return x @ parameters[f"{name}.w"].T + parameters[f"{name}.b"]


def _dense_shapes(name: str, m: int, n: int) -> dict[str, tuple[tuple[int, ...], int]]:
    return {f"{name}.w": ((n, m), m), f"{name}.b": ((n,), m)}


def _mlp(parameters: Parameters, x: Batch) -> Logits:
    h = jax.nn.relu(_dense(parameters, "first", x))
    h = h + jax.nn.relu(_dense(parameters, "second", h))
    return _dense(parameters, "last", h)


def _convolution(
    parameters: Parameters, name: str, x: Float[Array, "batch channels points"]
) -> Float[Array, "batch others fewer"]:
    kernel, bias = parameters[f"{name}.w"], parameters[f"{name}.b"]
    width, padded = kernel.shape[2], jnp.pad(x, ((0, 0), (0, 0), (1, 1)))
    starts = jnp.arange(0, padded.shape[2] - width + 1, 2)
    windows = padded[:, :, starts[:, None] + jnp.arange(width)]
    # As a product of matrices: a convolution by kernels of several seeds is slow on a CPU.
    y = jnp.einsum("bctw,dcw->bdt", windows, kernel)
    return jax.nn.relu(y + bias[:, None])


def _convolution_shapes(
    name: str, channels: int, width: int
) -> dict[str, tuple[tuple[int, ...], int]]:
    fan_in = channels * width
    shape = (CHANNELS, channels, width)
    return {f"{name}.w": (shape, fan_in), f"{name}.b": ((CHANNELS,), fan_in)}


def _cnn(parameters: Parameters, x: Batch) -> Logits:
    h = x[:, None, :]
    for name in ("first", "second", "third"):
        h = _convolution(parameters, name, h)
    return _dense(parameters, "last", h.reshape(len(h), -1))


def gru_states(
    parameters: Parameters, way: str, x: Float[Array, "T batch"]
) -> Float[Array, "T batch n"]:
    """Return the states of a GRU of one input, in PyTorch's form, from 0.

    Args:
        parameters: `way.input.w` (3n, 1), `way.state.w` (3n, n) and their biases `.b`; gates r, z
            and the candidate one below the other.
        way: prefix of their names.
        x: the input at each step.
    """

    def step(h: Array, xt: Array) -> tuple[Array, Array]:
        given = jnp.split(_dense(parameters, f"{way}.input", xt[:, None]), 3, axis=1)
        kept = jnp.split(_dense(parameters, f"{way}.state", h), 3, axis=1)
        r, z = (jax.nn.sigmoid(a + b) for a, b in zip(given[:2], kept[:2], strict=True))
        h = (1 - z) * jnp.tanh(given[2] + r * kept[2]) + z * h
        return h, h

    start = jnp.zeros((x.shape[1], parameters[f"{way}.state.w"].shape[1]))
    return jax.lax.scan(step, start, x)[1]


def _gru(parameters: Parameters, x: Batch) -> Logits:
    forwards = gru_states(parameters, "forwards", x.T)
    backwards = gru_states(parameters, "backwards", x.T[::-1])[::-1]
    states = jnp.concatenate([forwards, backwards], axis=2)  # (T, batch, 2n)
    return _dense(parameters, "last", states.transpose(1, 0, 2).reshape(len(x), -1))


def _gru_shapes(way: str, n: int) -> dict[str, tuple[tuple[int, ...], int]]:
    shapes = _dense_shapes(f"{way}.input", 1, 3 * n) | _dense_shapes(f"{way}.state", n, 3 * n)
    return {name: (shape, n) for name, (shape, _) in shapes.items()}


NETWORKS = {
    "logistic": Network(
        _dense_shapes("last", POINTS, CLASSES), lambda parameters, x: _dense(parameters, "last", x)
    ),
    "MLP": Network(
        _dense_shapes("first", POINTS, MLP_UNITS)
        | _dense_shapes("second", MLP_UNITS, MLP_UNITS)
        | _dense_shapes("last", MLP_UNITS, CLASSES),
        _mlp,
    ),
    "CNN": Network(
        _convolution_shapes("first", 1, 5)
        | _convolution_shapes("second", CHANNELS, 3)
        | _convolution_shapes("third", CHANNELS, 3)
        | _dense_shapes("last", CHANNELS * 5, CLASSES),
        _cnn,
    ),
    "GRU": Network(
        _gru_shapes("forwards", GRU_UNITS)
        | _gru_shapes("backwards", GRU_UNITS)
        | _dense_shapes("last", 2 * GRU_UNITS * POINTS, CLASSES),
        _gru,
    ),
}


def draw_parameters(key: Key[Array, ""], network: str) -> Parameters:
    """Draw parameters as PyTorch does, from U(−1/√m, 1/√m) with the fan-in m; of a GRU, m = n.

    Args:
        key: random key.
        network: one of NETWORKS.
    """
    shapes = NETWORKS[network].shapes
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.uniform(k, shape, minval=-1, maxval=1) / jnp.sqrt(fan_in)
        for k, (name, (shape, fan_in)) in zip(keys, shapes.items(), strict=True)
    }


@partial(jax.jit, static_argnames=("network", "updates", "every", "batch_size"))
def _accuracies(
    seeds: Int[Array, "seeds"],
    data: Digits,
    learning_rate: float,
    network: str,
    updates: int,
    every: int,
    batch_size: int,
) -> Float[Array, "seeds measurements 2"]:
    """Return accuracies on the training and test set after update 0 and after every `every`."""
    logits, optimiser = NETWORKS[network].logits, optax.adam(learning_rate)
    x, y = jnp.asarray(data.x), jnp.asarray(data.y)

    def loss(parameters: Parameters, start: Array) -> Array:
        inputs = jax.lax.dynamic_slice_in_dim(x, start, batch_size)
        labels = jax.lax.dynamic_slice_in_dim(y, start, batch_size)
        scores = logits(parameters, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    def update(state: Any, i: Array) -> tuple[Any, None]:
        parameters, memory = state
        gradient = jax.grad(loss)(parameters, i * batch_size % len(x))
        change, memory = optimiser.update(gradient, memory)
        return (optax.apply_updates(parameters, change), memory), None

    def accuracy(parameters: Parameters, inputs: Array, labels: Array) -> Array:
        return 100 * jnp.mean(jnp.argmax(logits(parameters, inputs), axis=1) == labels)

    def stretch(state: Any, first: Array) -> tuple[Any, Array]:
        state, _ = jax.lax.scan(update, state, first + jnp.arange(every))
        on_test = accuracy(state[0], jnp.asarray(data.x_test), jnp.asarray(data.y_test))
        return state, jnp.stack([accuracy(state[0], x, y), on_test])

    def train(seed: Array) -> Array:
        parameters = draw_parameters(jax.random.key(seed), network)
        state, _ = update((parameters, optimiser.init(parameters)), jnp.array(0))
        return jax.lax.scan(stretch, state, 1 + jnp.arange(0, updates, every))[1]

    return jax.vmap(train)(seeds)


def _trained(
    network: str,
    permuted: int,
    data: Digits,
    updates: int,
    every: int,
    batch_size: int,
    learning_rate: float,
    seeds: Sequence[int],
) -> pd.DataFrame:
    data = Digits(*(a.astype(np.float32 if a.ndim == 2 else np.int32) for a in data))
    settings = (network, updates, every, batch_size)
    accuracies = np.asarray(_accuracies(jnp.asarray(seeds), data, learning_rate, *settings), float)
    at = np.arange(every, updates + 1, every)
    columns = {
        "seed": np.repeat(seeds, len(at)),
        "update": np.tile(at, len(seeds)),
        "train": accuracies[..., 0].ravel(),
        "test": accuracies[..., 1].ravel(),
    }
    return pd.DataFrame(columns).assign(network=network, permuted=permuted)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw accuracies on training and test set over the updates, and table 1 beside them."""
    figure, panels = drawing.panels(1, 2, "Four networks on MNIST-1D", height=3.4)
    training = table[table["part"] == "training"]
    for axes, column, title in zip(
        panels, ("train", "test"), ("training accuracy", "test accuracy"), strict=True
    ):
        for network, colour in COLOURS.items():
            for permuted, dashes in enumerate(("-", (0, (3, 1.5)))):
                rows = training[
                    (training["network"] == network) & (training["permuted"] == permuted)
                ]
                places, values = drawing.by_seed(rows.assign(value=rows[column]), "update")
                name = "_" if permuted else network
                look: dict[str, Any] = {"linestyle": dashes, "linewidth": 1.4}
                drawing.band(axes, places, values, colour, name, **look)
        last = float(training["update"].max())
        if column == "test":
            _draw_printed(axes, last)
        drawing.label_axes(axes, title, "update", "accuracy (%)", legend=False, ylim=(0, 100))
        axes.set_xlim(0, 1.12 * last)
    drawing.legend_above(panels[1])
    notes = (
        "As figure 2 of Greydanus & Kobak 2024. Dashed: permuted points. Band: range over seeds."
    )
    return style.finish(figure, [notes])


def _draw_printed(axes: Axes, last: float) -> None:
    """Draw table 1 as open marks to the right of the curves: circles in order, squares permuted."""
    for i, (network, accuracies) in enumerate(PRINTED.items()):
        for marker, accuracy in zip("os", accuracies, strict=True):
            look: dict[str, Any] = {"color": COLOURS[network], "markerfacecolor": "none", "ms": 6}
            axes.plot(last * (1.03 + 0.02 * i), accuracy, marker, **look)
    axes.plot([], [], "o", color="0.3", markerfacecolor="none", label="as printed")
    axes.plot([], [], "s", color="0.3", markerfacecolor="none", label="as printed, permuted")
    axes.axhline(HUMAN, color="0.3", linewidth=1, linestyle=":")
    axes.text(0.02 * last, HUMAN - 1, "human", va="top", fontsize="small")
