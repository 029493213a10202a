"""Systems whose gradients are known in closed form, measured with the engine: is it right?

Ids E1 … E15 name the systems. Log norms are in nats.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from scipy.special import expit

from gradlab import backpropagate, initialisers, jacobian_log_norms, lyapunov_spectrum, theory
from gradlab.cells import LSTM, Elman, set_gate_biases
from gradlab.config import Count
from gradlab.figures import style
from gradlab.jacobian import map_log_norms, step_jacobians
from gradlab.jacobian.cells import split_weights
from gradlab.models import Stack
from gradlab.studies import drawing

Row = dict[str, Any]
GAINS = (0.7, 1.0, 1.2)
FORGET_BIASES = (0.0, 1.0, 2.0, 3.0, 5.0)
TIME_CONSTANTS = (20, 100, 500)
CHRONO_LAGS = (1, 2, 5, 10, 20, 50, 100, 200, 400)
CHRONO_LONGEST, CHRONO_UNITS = 200.0, 20_000
CHAINS, CHAIN_LENGTH = 20_000, 300
MEMORY_LAGS, MEMORY_LENGTH = 400, 40_000


def measure(
    size: Count = 64,
    length: Count = 40,
    jordan_length: Count = 200,
    ginibre_size: Count = 400,
    ginibre_draws: Count = 5,
    product_size: Count = 32,
    product_length: Count = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every system once.

    Args:
        size: n of the orthogonal matrices.
        length: T of most systems.
        jordan_length: T of the Jordan blocks, which grow for 69 steps.
        ginibre_size: n of the Gaussian matrix whose powers are taken.
        ginibre_draws: how many of those.
        product_size: n of the independent Gaussian factors.
        product_length: how many factors.
        seed: of everything that is drawn.

    Returns:
        A row a value: `truth`, `system`, `x` (lag, index or size), `measured`, `expected`, and
        `standard_error` where the value is a mean over draws.
    """
    rng = np.random.default_rng(seed)
    rows = [
        *_orthogonal(rng, size, length),
        *_jordan(jordan_length),
        *_ginibre_powers(rng, ginibre_size, ginibre_draws),
        *_ginibre_products(rng, product_size, product_length),
        *_stacked(length),
        *_fixed_points(length),
        *_resting_lstm(length),
        *_chrono(seed),
        *_explicit_sum(seed),
        *_bound(seed, size, length),
        *_memory(rng),
        *_white_noise(rng),
    ]
    return pd.DataFrame(rows)


def _lines(truth: str, system: str, x: Any, measured: Any, expected: Any) -> Iterator[Row]:
    columns = np.broadcast_arrays(np.asarray(x), np.asarray(measured), np.asarray(expected))
    for values in zip(*(column.tolist() for column in columns), strict=True):
        named = dict(zip(("x", "measured", "expected"), values, strict=True))
        yield {"truth": truth, "system": system, **named}


def _orthogonal(rng: np.random.Generator, n: int, length: int) -> Iterator[Row]:
    """E1, E2: W = g Q has ‖Wᵐ‖ = gᵐ, and so has every typical vector."""
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    lag = np.subtract.outer(np.arange(length + 1), np.arange(length + 1))
    norms: tuple[Literal["spectral", "rms"], ...] = ("spectral", "rms")
    for gain in GAINS:
        for norm in norms:
            found = np.asarray(map_log_norms(np.tile(gain * q, (length, 1, 1)), norm=norm))
            error = np.abs(found - lag * np.log(gain))[lag >= 0].max()
            truth = "E1" if gain == 1 else "E2"
            expected = np.arange(length + 1) * np.log(gain)
            if norm == "spectral":
                yield from _lines(truth, f"g = {gain}", range(length + 1), found[:, 0], expected)
            yield from _lines(truth, f"g = {gain}, all pairs, {norm}", [0], [error], [0])


def _jordan(length: int) -> Iterator[Row]:
    """E3, E4: a Jordan block grows before it decays."""
    lags = np.arange(length + 1)
    for size in (2, 8):
        block = np.zeros((8, 8))
        block[:size, :size] = 0.9 * np.eye(size) + np.eye(size, k=1)
        found = np.asarray(map_log_norms(np.tile(block, (length, 1, 1))))[:, 0]
        expected = [_jordan_log_norm(size, lag) for lag in lags]
        yield from _lines("E3" if size == 2 else "E4", f"{size} × {size}", lags, found, expected)


def _jordan_log_norm(size: int, lag: int) -> float:
    if lag == 0:
        return 0.0
    if size == 2:
        return theory.jordan_log_norm(0.9, 1.0, lag)
    binomials = np.cumprod([1.0, *((lag - j) / (j + 1) for j in range(size - 1))])
    power = sum(
        binomials[j] * 0.9 ** (lag - j) * np.eye(size, k=j) for j in range(min(size, lag + 1))
    )
    return float(np.log(np.linalg.norm(power, 2)))


def _ginibre_powers(rng: np.random.Generator, n: int, draws: int) -> Iterator[Row]:
    """E5: the worst case of Wᵐ grows though a typical vector keeps its length."""
    lags = np.arange(1, 6)
    worst, typical = np.zeros((2, 5))
    for _ in range(draws):
        steps = np.tile(rng.normal(size=(n, n)) / np.sqrt(n), (5, 1, 1))
        worst += np.exp(np.asarray(map_log_norms(steps))[1:, 0]) / draws
        typical += np.exp(np.asarray(map_log_norms(steps, norm="rms"))[1:, 0]) / draws
    edge = [np.exp(theory.ginibre_power_edge(int(lag))) for lag in lags]
    yield from _lines("E5", "spectral", lags, worst, edge)
    yield from _lines("E5", "rms", lags, typical, 1.0)


def _ginibre_products(rng: np.random.Generator, n: int, length: int) -> Iterator[Row]:
    """E6: independent factors have Newman's exponents."""

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        return x.reshape(n, n) @ h, h

    factors = (rng.normal(size=(length, n * n)) / np.sqrt(n)).astype(np.float32)
    spectrum = lyapunov_spectrum(step, factors, initial_carry=jnp.zeros(n))
    errors = np.asarray(spectrum.standard_error, float)
    errors[0] = theory.ginibre_fluctuation(n) / np.sqrt(length)
    found = _lines(
        "E6", "exponents", range(1, n + 1), spectrum.exponents, theory.ginibre_exponents(n)
    )
    for row, error in zip(found, errors, strict=True):
        yield row | {"standard_error": error}


def _stacked(length: int) -> Iterator[Row]:
    """E7: stacked layers multiply the ways a gradient may take."""
    for count in (1, 2, 3):
        layers = [_linear(0.9, 0.7 if i else 1.0) for i in range(count)]
        ends = {"of": f"layer{count - 1}.h", "wrt": "layer0.h"}
        inputs = np.zeros((length, 1), np.float32)
        found = jacobian_log_norms(Stack(layers), inputs, norm="frobenius", **ends)
        lags = np.arange(length)  # see theory.stacked_linear for the step and the factor between
        expected = [theory.stacked_linear(0.9, 0.7, count, int(x)) + np.log(0.9) for x in lags]
        yield from _lines("E7", f"L = {count}", lags + 1, np.asarray(found)[1:, 0], expected)


def _linear(recurrent: float, driving: float) -> Elman:
    cell = Elman(1, 1, activation="identity", rngs=nnx.Rngs(0))
    cell.dense_h.kernel[...] = jnp.array([[recurrent]])
    cell.dense_i.kernel[...] = jnp.array([[driving]])
    return cell


def _fixed_points(length: int) -> Iterator[Row]:
    """E8: a tanh unit at its fixed point."""
    for weight in (1.25, 2.0):
        at, factor = theory.scalar_fixed_point(weight)

        def step(h: Array, x: Array, weight: float = weight) -> tuple[Array, Array]:
            return jnp.tanh(weight * h), h

        with jax.enable_x64(True):
            inputs = np.zeros((length, 1))
            logs = jacobian_log_norms(step, inputs, initial_carry=jnp.array([at]), norm="rms")
        rate = float(logs[-1, 0]) / length
        yield from _lines("E8", f"w = {weight}", [length], [rate], [np.log(factor)])


def _resting_lstm(length: int) -> Iterator[Row]:
    """E9, E10: without weights, ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ is σ(b_f) to the lag."""
    zero = jax.nn.initializers.zeros
    cell = LSTM(1, 1, kernel_init=zero, recurrent_kernel_init=zero, rngs=nnx.Rngs(0))
    inputs, lags = np.zeros((length, 1), np.float32), np.arange(length + 1)
    logs = np.log(np.subtract(TIME_CONSTANTS, 1))
    cases = [("E9", f"b = {bias:g}", bias) for bias in FORGET_BIASES]
    cases += [("E10", f"T = {t}", b) for t, b in zip(TIME_CONSTANTS, logs.tolist(), strict=True)]
    for truth, system, bias in cases:
        set_gate_biases(cell, {"forget": jnp.array([bias])})
        found = jacobian_log_norms(cell, inputs, of="c", wrt="c", norm="frobenius")
        expected = lags * theory.forget_rate(bias)
        yield from _lines(truth, system, lags, np.asarray(found)[:, 0], expected)


def _chrono(seed: int) -> Iterator[Row]:
    """E11: gates of many time scales have a heavy tail, those of one have none."""
    biases = initialisers.chrono(jax.random.key(seed), CHRONO_UNITS, CHRONO_LONGEST)["forget"]
    gates = expit(np.asarray(biases, float))
    for lag in CHRONO_LAGS:
        kept = gates**lag
        (row,) = _lines(
            "E11", "chrono", [lag], [kept.mean()], theory.chrono_mean(lag, CHRONO_LONGEST)
        )
        yield row | {"standard_error": kept.std() / np.sqrt(CHRONO_UNITS)}


def _explicit_sum(seed: int) -> Iterator[Row]:
    """E12: the terms (t, k) add up to the gradient of automatic differentiation."""
    inputs = jax.random.normal(jax.random.key(seed), (20, 3))
    for name, cell in (
        ("tanh", Elman(3, 16, rngs=nnx.Rngs(seed))),
        ("LSTM", LSTM(3, 16, rngs=nnx.Rngs(seed))),
    ):
        terms = backpropagate(cell, inputs, _squares, jnp.ones(20))
        graph, state = nnx.split(cell)

        def total(state: nnx.State, graph: nnx.GraphDef = graph) -> Float[Array, ""]:
            cell = nnx.merge(graph, state)

            def step(carry: Any, x: Array) -> tuple[Any, Array]:
                carry, _ = cell(carry, x)
                return carry, _squares(carry, jnp.ones(()))

            start = cell.initialize_carry((3,), nnx.Rngs(0))
            return jnp.sum(jax.lax.scan(step, start, inputs)[1])

        whole, _ = split_weights(jax.grad(total)(state))
        scale = float(np.exp(terms.log_scale))
        error, size = 0.0, 0.0
        for weight, gradient in whole.items():
            added_up = scale * np.asarray(terms.by_lag[weight], float).sum(axis=0)
            error += float(np.sum((added_up - np.asarray(gradient, float)) ** 2))
            size += float(np.sum(np.asarray(gradient, float) ** 2))
        yield from _lines("E12", f"{name}, relative error", [20], [np.sqrt(error / size)], [0.0])


def _squares(carry: Any, target: Float[Array, ""]) -> Float[Array, ""]:
    h = carry[1] if isinstance(carry, tuple) else carry
    return jnp.sum((h - target) ** 2)


def _bound(seed: int, n: int, length: int) -> Iterator[Row]:
    """E13: no norm exceeds (γ σ_max)ᵐ; here the largest excess of its logarithm."""
    inputs = np.random.default_rng(seed).normal(size=(length, 3)).astype(np.float32)
    lag = np.subtract.outer(np.arange(length + 1), np.arange(length + 1))
    activations: tuple[Literal["tanh", "sigmoid", "relu"], ...] = ("tanh", "sigmoid", "relu")
    for activation in activations:
        kernel = jax.nn.initializers.normal(2 / np.sqrt(n))
        cell = Elman(3, n, activation=activation, recurrent_kernel_init=kernel, rngs=nnx.Rngs(seed))
        bound = theory.jacobian_bound(np.asarray(cell.dense_h.kernel[...]).T, activation)
        excess = np.asarray(map_log_norms(step_jacobians(cell, inputs))) - lag * bound
        yield from _lines("E13", activation, [length], [excess[lag > 0].max()], [0.0])


def _memory(rng: np.random.Generator) -> Iterator[Row]:
    """E14: memory capacities of a linear network add up to its number of units (Jaeger 2002).

    Of each past input, the share of its variance that a regression on the state explains.
    """
    for n in (10, 20):
        w, driving = rng.normal(size=(n, n)), rng.normal(size=n)
        w *= 0.9 / theory.spectral_radius(w)
        inputs = rng.normal(size=MEMORY_LAGS + MEMORY_LENGTH)
        states, h = np.zeros((len(inputs), n)), np.zeros(n)
        for t, x in enumerate(inputs):
            states[t] = h = w @ h + driving * x
        q, _ = np.linalg.qr(states[MEMORY_LAGS:])
        total = 0.0
        for lag in range(MEMORY_LAGS):
            past = inputs[MEMORY_LAGS - lag : len(inputs) - lag]
            explained = np.sum((past @ q) ** 2) / np.sum(past**2)
            total += explained - (1 - explained) * n / MEMORY_LENGTH  # what chance explains
        yield from _lines("E14", f"n = {n}", [n], [total], [n])


def _white_noise(rng: np.random.Generator) -> Iterator[Row]:
    """E15: E h² = 1/(1 − λ²), E (∂h/∂λ)² = (1 + λ²)/(1 − λ²)³ (Zucchet & Orvieto 2024)."""
    noise = rng.normal(size=(CHAIN_LENGTH, CHAINS))
    for eigenvalue in (0.9, 0.97):
        with jax.enable_x64(True):
            last = partial(_last_state, jnp.asarray(noise))
            h, slope = jax.jvp(last, (jnp.float64(eigenvalue),), (jnp.float64(1.0),))
        gap = 1 - eigenvalue**2
        found = [float(np.mean(np.asarray(x) ** 2)) for x in (h, slope)]
        known = [1 / gap, (1 + eigenvalue**2) / gap**3]
        for name, one, other in zip(("E h²", "E (∂h/∂λ)²"), found, known, strict=True):
            yield from _lines("E15", f"λ = {eigenvalue}, {name}", [CHAIN_LENGTH], [one], [other])


def _last_state(noise: Float[Array, "T chains"], weight: Array) -> Float[Array, "chains"]:
    return jax.lax.scan(lambda h, x: (weight * h + x, None), jnp.zeros(CHAINS), noise)[0]


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Six of the systems, measured over theory."""
    figure, axes = drawing.panels(2, 3, "The instrument against closed forms")
    log_norm = r"$\log\,\Vert\cdot\Vert_2$ (nats)"
    lines = table[~table["system"].str.contains("pairs")]

    def draw(panel: int, truths: list[str], rename: Callable[[str], str] = str) -> None:
        rows = lines[lines["truth"].isin(truths)].sort_values("system", kind="stable")
        drawing.overlay(
            axes[panel], rows, "x", "system", [rename(x) for x in rows["system"].unique()]
        )

    draw(0, ["E1", "E2"])
    drawing.dress(axes[0], "W = g Q, Q orthogonal", drawing.LAG, log_norm)
    draw(1, ["E3", "E4"])
    drawing.dress(axes[1], "Jordan block, λ = 0.9", drawing.LAG, log_norm)
    draw(2, ["E5"], {"spectral": "spectral: worst case", "rms": "rms: typical"}.__getitem__)
    drawing.dress(axes[2], "powers of one Gaussian matrix", "power", "norm", ylim=(0, None))
    draw(3, ["E6"])
    axes[3].get_lines()[0].set_label("_")
    drawing.dress(
        axes[3], "product of independent Gaussians", "index", "Lyapunov exponent (nats/step)"
    )
    draw(4, ["E7"])
    drawing.dress(
        axes[4],
        "stack of L linear layers",
        drawing.LAG,
        r"$\log\,|\partial h^L/\partial h^1|$ (nats)",
    )
    draw(5, ["E9"])
    drawing.dress(
        axes[5],
        "LSTM, gates at their bias",
        drawing.LAG,
        r"$\log\,|\partial c^{(t)}/\partial c^{(k)}|$ (nats)",
    )
    return drawing.close(figure, "Monte Carlo panels: Gaussian matrices.")
