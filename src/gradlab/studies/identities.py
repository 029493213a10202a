"""Identities that hold for any weights: E12 to E15 of the ground truths."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from gradlab import backpropagate, theory
from gradlab.cells import LSTM, Elman
from gradlab.jacobian import map_log_norms, step_jacobians
from gradlab.jacobian.flat_cell import split_weights

Row = dict[str, Any]
CHAINS, CHAIN_LENGTH = 20_000, 300
MEMORY_LAGS, MEMORY_LENGTH = 400, 40_000


def table_rows(truth: str, system: str, x: Any, measured: Any, expected: Any) -> Iterator[Row]:
    """Yield one row per value of a system: `truth`, `system`, `x`, `measured`, `expected`."""
    columns = np.broadcast_arrays(np.asarray(x), np.asarray(measured), np.asarray(expected))
    for values in zip(*(column.tolist() for column in columns), strict=True):
        row = dict(zip(("x", "measured", "expected"), values, strict=True))
        yield {"truth": truth, "system": system, **row}


def explicit_sum(seed: int) -> Iterator[Row]:
    """E12: the terms of backpropagation add up to the gradient of automatic differentiation."""
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
        yield from table_rows(
            "E12", f"{name}, relative error", [20], [np.sqrt(error / size)], [0.0]
        )


def _squares(carry: Any, target: Float[Array, ""]) -> Float[Array, ""]:
    h = carry[1] if isinstance(carry, tuple) else carry
    return jnp.sum((h - target) ** 2)


def bound(seed: int, n: int, length: int) -> Iterator[Row]:
    """E13: no norm exceeds (γ σ_max)ᵐ; measured is the largest excess of its logarithm."""
    noise = np.random.default_rng(seed).normal(size=(length, 3))
    inputs = jnp.asarray(noise, jnp.float32)
    lag = np.subtract.outer(np.arange(length + 1), np.arange(length + 1))
    activations: tuple[Literal["tanh", "sigmoid", "relu"], ...] = ("tanh", "sigmoid", "relu")
    for activation in activations:
        kernel = jax.nn.initializers.normal(2 / np.sqrt(n))
        cell = Elman(3, n, activation=activation, recurrent_kernel_init=kernel, rngs=nnx.Rngs(seed))
        bound = theory.jacobian_bound(np.asarray(cell.dense_h.kernel[...]).T, activation)
        excess = np.asarray(map_log_norms(step_jacobians(cell, inputs))) - lag * bound
        yield from table_rows("E13", activation, [length], [excess[lag > 0].max()], [0.0])


def memory(rng: np.random.Generator) -> Iterator[Row]:
    """E14: memory capacities of a linear network add up to its number of units (Jaeger 2002).

    A capacity is the share of a past input's variance that a regression on the state explains.
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
        yield from table_rows("E14", f"n = {n}", [n], [total], [n])


def white_noise(rng: np.random.Generator) -> Iterator[Row]:
    """E15: E h² = 1/(1 − λ²), E (∂h/∂λ)² = (1 + λ²)/(1 − λ²)³ (Zucchet & Orvieto 2024)."""
    noise = rng.normal(size=(CHAIN_LENGTH, CHAINS))
    for eigenvalue in (0.9, 0.97):
        with jax.enable_x64(True):
            last = partial(_last_state, jnp.asarray(noise))
            h, slope = jax.jvp(last, (jnp.float64(eigenvalue),), (jnp.float64(1.0),))
        gap = 1 - eigenvalue**2
        measured = [float(np.mean(np.asarray(x) ** 2)) for x in (h, slope)]
        expected = [1 / gap, (1 + eigenvalue**2) / gap**3]
        for name, *pair in zip(("E h²", "E (∂h/∂λ)²"), measured, expected, strict=True):
            yield from table_rows("E15", f"λ = {eigenvalue}, {name}", [CHAIN_LENGTH], *pair)


def _last_state(noise: Float[Array, "T chains"], weight: Array) -> Float[Array, "chains"]:
    return jax.lax.scan(lambda h, x: (weight * h + x, None), jnp.zeros(CHAINS), noise)[0]
