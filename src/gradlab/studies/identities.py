"""Identities that hold for any weights: E12 to E15 of the ground truths."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from gradlab import backpropagate, jacobian_log_norms, theory
from gradlab.cells import LSTM, Elman
from gradlab.jacobian import map_log_norms, step_jacobians
from gradlab.jacobian.flat_cell import split_weights

Row = dict[str, Any]
MEMORY_LAGS, MEMORY_RADIUS = 800, 0.9  # steps; spectral radius of the recurrent weights
NOISE_LENGTH = 600  # steps, after which 0.97²ᵗ is 1e-16


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

    The capacity of a lag is the share of the variance of white noise, so many steps ago, that a
    regression on the state explains: ‖∂h⁽ᵗ⁾/∂u⁽ᵏ⁾‖² in coordinates in which the state is white.
    Here the carry is (h, u) with u the input of the next step.
    """
    for n in (10, 20):
        w, driving = rng.normal(size=(n, n)), rng.normal(size=(n, 1))
        w *= MEMORY_RADIUS / theory.spectral_radius(w)
        powers = (np.linalg.matrix_power(w, lag) for lag in range(MEMORY_LAGS))
        reached = np.hstack([power @ driving for power in powers])
        _, upper = np.linalg.qr(reached.T)  # the root of the covariance, without its squared error
        root = upper.T
        whitened = np.linalg.solve(root, np.hstack([w @ root, driving]))
        with jax.enable_x64(True):
            step = partial(_driven, jnp.asarray(whitened))
            start = {"h": jnp.zeros(n), "u": jnp.zeros(1)}
            inputs = jnp.zeros((MEMORY_LAGS, 1))
            log_norms = jacobian_log_norms(step, inputs, initial_carry=start, of="h", wrt="u")
        capacities = np.exp(2 * np.asarray(log_norms, float)[1:, 0])
        yield from table_rows("E14", f"n = {n}", [n], [capacities.sum()], [n])


Driven = dict[str, Array]


def _driven(
    weights: Float[Array, "n n+1"], carry: Driven, x: Float[Array, "1"]
) -> tuple[Driven, Array]:
    h = weights @ jnp.concatenate([carry["h"], carry["u"]])
    return {"h": h, "u": x}, h


def white_noise() -> Iterator[Row]:
    """E15: E h² = 1/(1 − λ²), E (∂h/∂λ)² = (1 + λ²)/(1 − λ²)³ (Zucchet & Orvieto 2024).

    h⁽ᵗ⁾ = λ h⁽ᵗ⁻¹⁾ + x⁽ᵗ⁾ of white noise x; a variance is the sum over k of squared derivatives by
    x⁽ᵏ⁾, which are those by h⁽ᵏ⁾: ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾, and ∂g⁽ᵗ⁾/∂h⁽ᵏ⁾ with g = ∂h/∂λ in the carry.
    """
    for eigenvalue in (0.9, 0.97):
        with jax.enable_x64(True):
            start = {"h": jnp.zeros(1), "g": jnp.zeros(1)}
            log_norms = partial(
                jacobian_log_norms,
                partial(_with_slope, eigenvalue),
                jnp.zeros((NOISE_LENGTH, 1)),
                initial_carry=start,
                wrt="h",
            )
            maps = [np.asarray(log_norms(of=part), float)[-1] for part in ("h", "g")]
        gap = 1 - eigenvalue**2
        expected = [1 / gap, (1 + eigenvalue**2) / gap**3]
        for name, row, value in zip(("E h²", "E (∂h/∂λ)²"), maps, expected, strict=True):
            measured = np.exp(2 * row).sum()
            system = f"λ = {eigenvalue}, {name}"
            yield from table_rows("E15", system, [NOISE_LENGTH], [measured], [value])


def _with_slope(eigenvalue: float, carry: Driven, x: Float[Array, "1"]) -> tuple[Driven, Array]:
    h, g = carry["h"], carry["g"]
    return {"h": eigenvalue * h + x, "g": eigenvalue * g + h}, h
