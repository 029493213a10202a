"""Gradient flossing (Engelken 2023): pushing Lyapunov exponents towards zero before training.

The network is x⁽ᵗ⁾ = J tanh(x⁽ᵗ⁻¹⁾) + b + w_s s⁽ᵗ⁾ with a bit s and the readout w_r · tanh(x).
Flossing is that of `gradlab.training.flossing`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, Float, Key
from matplotlib.figure import Figure

from gradlab import log_singular_values, lyapunov_exponents
from gradlab.config import Count, Threshold
from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.sweeps.lanes import cores
from gradlab.tasks import Batch
from gradlab.tasks.xor import xor
from gradlab.training.flossing import floss

BURN_IN = 20  # steps from x = 0 before exponents are taken
MEASURED_STEPS = 300  # steps that exponents are measured over
ACCURACY_EVERY = 50  # updates that each accuracy is averaged over
LABELS = ("as drawn", "after flossing")
SINGULAR_LABEL = r"$\log_{10}\,\sigma_i$ of $\partial x^{(h)}/\partial x^{(0)}$"


class XorNetwork(NamedTuple):
    """The parameters of a network: J, b, w_s and w_r."""

    coupling: Float[Array, "n n"]
    bias: Float[Array, "n"]
    input_weights: Float[Array, "n"]
    readout: Float[Array, "n"]


Learning = tuple[XorNetwork, optax.OptState]


def measure(
    units: Count,
    exponents: Count,
    horizon: Count,
    flossing: Count,
    updates: Count,
    length: Count,
    delay: Count,
    batch_size: Count,
    learning_rate: float,
    threshold: Threshold,
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Floss networks, and train each on delayed XOR twice: as drawn, and after flossing.

    Args:
        units: n; J ~ N(0, 1/n), at the edge of chaos.
        exponents: number of exponents, from the largest down, that are flossed.
        horizon: number of steps that flossing averages them over.
        flossing: number of updates of flossing.
        updates: number of updates of training.
        length: T of the task.
        delay: d of the task, y⁽ᵗ⁾ = s⁽ᵗ⁻ᵈ⁾ ⊕ s⁽ᵗ⁻²ᵈ⁾.
        batch_size: sequences per update of training.
        learning_rate: of Adam, for flossing and training.
        threshold: the norm of a training's gradient is clipped to it; inf: never.
        seeds: of weights and data.

    Returns:
        Rows by `part`, each with `seed` and `flossed` (0, 1): "exponent" (`index`, `rate`: nats per
        step on inputs not flossed with, by `lyapunov_exponents`), "singular" (`index`, `decades`:
        log₁₀ of a singular value of ∂x⁽ʰ⁾/∂x⁽⁰⁾ over the horizon), "training" (`update`, `accuracy`
        on new sequences, mean since the last).
    """
    task = xor(length, delay, test_size=1)
    optimiser = optax.chain(optax.clip_by_global_norm(threshold), optax.adam(learning_rate))

    def tables_of_seed(seed: int) -> pd.DataFrame:
        weights, floss_key, train_key, inputs = jax.random.split(jax.random.key(seed), 4)
        drawn = _draw(weights, units)
        after = _floss(drawn, floss_key, flossing, horizon, exponents, learning_rate)
        tables = []
        for flossed, network in enumerate((drawn, after)):
            accuracy = _train(network, train_key, task.sample, updates, batch_size, optimiser)
            parts = [*_jacobian_parts(network, inputs, horizon), _training_part(accuracy)]
            tables += [rows.assign(seed=seed, flossed=flossed) for rows in parts]
        return pd.concat(tables)

    with ThreadPoolExecutor(cores()) as threads:  # one QR decomposition keeps one core busy
        return pd.concat(threads.map(tables_of_seed, seeds), ignore_index=True)


def _draw(key: Key[Array, ""], n: int) -> XorNetwork:
    coupling, bias, input_weights, readout = jax.random.split(key, 4)
    return XorNetwork(
        jax.random.normal(coupling, (n, n)) / jnp.sqrt(n),
        0.1 * jax.random.uniform(bias, (n,)),
        jax.random.normal(input_weights, (n,)),
        jax.random.normal(readout, (n,)) / jnp.sqrt(n),
    )


def _step(network: XorNetwork, x: Float[Array, "n"], bit: Array) -> Float[Array, "n"]:
    return network.coupling @ jnp.tanh(x) + network.bias + network.input_weights * bit


def _bits(key: Key[Array, ""], *shape: int) -> Float[Array, "*shape"]:
    return jax.random.bernoulli(key, shape=shape).astype(jnp.float32)


def _settled(network: XorNetwork, bits: Float[Array, "T"]) -> Float[Array, "n"]:
    """Return the state after some inputs, from x = 0."""
    x, _ = jax.lax.scan(lambda x, bit: (_step(network, x, bit), None), 0 * network.bias, bits)
    return x


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _floss(
    network: XorNetwork, key: Key[Array, ""], updates: int, horizon: int, count: int, rate: float
) -> XorNetwork:
    """Floss over random inputs, new ones at every update."""

    def rates(network: XorNetwork, key: Key[Array, ""]) -> Float[Array, "count"]:
        bits = _bits(key, BURN_IN + horizon)
        return lyapunov_exponents(count=count, **_after_burn_in(network, bits))

    return floss(network, rates, key, updates, rate)


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _train(
    network: XorNetwork,
    key: Key[Array, ""],
    sample: Callable[[Key[Array, ""], int], Batch],
    updates: int,
    batch_size: int,
    optimiser: optax.GradientTransformation,
) -> Float[Array, "updates"]:
    """Train, and return the accuracy on each update's new sequences before the update."""

    def loss(network: XorNetwork, batch: Batch) -> tuple[Array, Array]:
        def advance(x: Array, bits: Array) -> tuple[Array, Array]:
            x = jax.vmap(partial(_step, network))(x, bits)
            return x, jnp.tanh(x) @ network.readout

        start = jnp.zeros((batch_size, network.bias.size))
        _, logits = jax.lax.scan(advance, start, batch.inputs[..., 0].T)
        losses = optax.sigmoid_binary_cross_entropy(logits.T, batch.targets)
        correct = (logits.T > 0) == batch.targets
        loss, accuracy = (jnp.average(x, weights=batch.weights) for x in (losses, correct))
        return loss, accuracy

    def update(carry: Learning, key: Array) -> tuple[Learning, Array]:
        network, state = carry
        gradient, accuracy = jax.grad(loss, has_aux=True)(network, sample(key, batch_size))
        changes, state = optimiser.update(gradient, state)
        return (optax.apply_updates(network, changes), state), accuracy

    start = (network, optimiser.init(network))
    return jax.lax.scan(update, start, jax.random.split(key, updates))[1]


def _after_burn_in(network: XorNetwork, bits: Float[Array, "T"]) -> dict[str, Any]:
    """Return the arguments of a measurement over all bits but the first BURN_IN."""

    def step(x: Array, bit: Array) -> tuple[Array, Array]:
        x = _step(network, x, bit[0])
        return x, x

    start = _settled(network, bits[:BURN_IN])
    return {"cell": step, "inputs": bits[BURN_IN:, None], "initial_carry": start}


def _jacobian_parts(network: XorNetwork, key: Key[Array, ""], horizon: int) -> list[pd.DataFrame]:
    """Tabulate exponents and singular values, by the library, on inputs not flossed with."""
    bits = _bits(key, BURN_IN + MEASURED_STEPS)
    rates = lyapunov_exponents(**_after_burn_in(network, bits))
    of_horizon = _after_burn_in(network, bits[: BURN_IN + horizon])
    (values,) = log_singular_values(pairs=[(horizon, 0)], **of_horizon)
    index = np.arange(1, len(rates) + 1)
    decades = np.asarray(values, float) / np.log(10)
    return [
        pd.DataFrame({"part": "exponent", "index": index, "rate": np.asarray(rates, float)}),
        pd.DataFrame({"part": "singular", "index": index, "decades": decades}),
    ]


def _training_part(accuracy: Float[Array, "updates"]) -> pd.DataFrame:
    every = min(ACCURACY_EVERY, len(accuracy))
    means = np.asarray(accuracy, float)[: len(accuracy) // every * every].reshape(-1, every).mean(1)
    update = every * np.arange(1, len(means) + 1)
    return pd.DataFrame({"part": "training", "update": update, "accuracy": means})


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw spectrum, singular values and accuracy, with and without flossing."""
    figure, panels = drawing.panels(1, 3, "Gradient flossing", height=3.0)
    contents = (
        ("exponent", "index", "rate", "Lyapunov spectrum", "index i", "λᵢ (nats/step)"),
        ("singular", "index", "decades", "singular values", "index i", SINGULAR_LABEL),
        ("training", "update", "accuracy", "delayed XOR", "update", "accuracy"),
    )
    for axes, (part, x, y, title, name_x, name_y) in zip(panels, contents, strict=True):
        rows = table[table["part"] == part]
        for flossed, (label, colour) in enumerate(zip(LABELS, drawing.HUES[1::-1], strict=True)):
            for seed, line in rows[rows["flossed"] == flossed].groupby("seed"):
                named = label if seed == table["seed"].min() else "_"
                axes.plot(line[x], line[y], color=colour, label=named, linewidth=1.2)
        level = 0.5 if part == "training" else 0.0
        axes.axhline(level, color="0.5", linewidth=0.8, linestyle=":")
        drawing.label_axes(axes, title, name_x, name_y, legend=False)
    drawing.legend_above(panels[-1])
    return style.finish(figure, ["A line a seed. Dotted: no growth (0), chance (0.5)."])
