"""One sigmoid unit without input: its error, the wall of its error surface, and gradient descent.

The unit is x⁽ᵗ⁾ = w σ(x⁽ᵗ⁻¹⁾) + b from x⁽⁰⁾ = ½, with the error E = (σ(x⁽⁵⁰⁾) − 0.7)²: eq. 8 of
Pascanu, Mikolov & Bengio 2013. Everything is computed in float64.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import expit

INITIAL_STATE, TARGET, STEPS = 0.5, 0.7, 50

Points = Float[np.ndarray, "*points"]


class UnitError(NamedTuple):
    """E and its gradient at some points (w, b)."""

    error: Points
    by_weight: Points
    by_bias: Points

    @property
    def grad_norm(self) -> Points:
        """Return ‖∂E/∂(w, b)‖."""
        return np.hypot(self.by_weight, self.by_bias)


def unit_error(weight: Points | float, bias: Points | float) -> UnitError:
    """Compute E, ∂E/∂w and ∂E/∂b at each point, by automatic differentiation."""
    w, b = np.broadcast_arrays(np.float64(weight), np.float64(bias))
    with jax.enable_x64(True):
        values, gradients = _errors_and_gradients(jnp.asarray(w.ravel()), jnp.asarray(b.ravel()))
        flat = (values, *gradients)
        return UnitError(*(np.asarray(x).reshape(w.shape) for x in flat))


def _error(w: Float[Array, ""], b: Float[Array, ""]) -> Float[Array, ""]:
    start = jnp.full_like(w, INITIAL_STATE)
    x = jax.lax.fori_loop(0, STEPS, lambda _, x: w * jax.nn.sigmoid(x) + b, start)
    return (jax.nn.sigmoid(x) - TARGET) ** 2


_errors_and_gradients = jax.jit(jax.vmap(jax.value_and_grad(_error, argnums=(0, 1))))


def wall(weight: Points | float) -> Points:
    """Return the b of the wall: where x⁽⁰⁾ is the unstable fixed point (w > 4.255).

    The slope is steepest there, because x stays near x⁽⁰⁾ while a difference from it grows by
    w σ′(x⁽⁰⁾) > 1 a step.
    """
    return INITIAL_STATE - np.asarray(weight) * expit(INITIAL_STATE)


def wall_slope(weight: Points | float) -> Points:
    """Return ‖∂E/∂(w, b)‖ on the wall, in closed form.

    On the wall every x⁽ᵗ⁾ is x⁽⁰⁾, so that with m = w σ′(x⁽⁰⁾) the derivative ∂x⁽⁵⁰⁾/∂b is
    1 + m + … + m⁴⁹ = (m⁵⁰ − 1)/(m − 1), and ∂x⁽⁵⁰⁾/∂w is σ(x⁽⁰⁾) times that.

    Args:
        weight: w, of which w σ′(x⁽⁰⁾) is not 1.
    """
    activation = expit(INITIAL_STATE)
    slope = activation * (1 - activation)
    growth = np.asarray(weight) * slope
    total = (growth**STEPS - 1) / (growth - 1)
    return 2 * np.abs(activation - TARGET) * slope * total * np.hypot(1, activation)


class Descent(NamedTuple):
    """Paths of gradient descent, before the first update and after each one."""

    weight: Float[np.ndarray, "starts updates+1"]
    bias: Float[np.ndarray, "starts updates+1"]
    error: Float[np.ndarray, "starts updates+1"]
    largest_step: Float[np.ndarray, "starts updates+1"]  # length of the largest step so far


def descend(
    starts: Sequence[tuple[float, float]], *, learning_rate: float, threshold: float, updates: int
) -> Descent:
    """Run plain gradient descent from each start.

    Args:
        starts: (w, b) of each path.
        learning_rate: of the updates.
        threshold: the gradient's norm is clipped to it; inf: never.
        updates: number of updates.
    """
    path = jax.vmap(partial(_path, learning_rate, updates), in_axes=(None, 0))
    with jax.enable_x64(True):
        return Descent(*map(np.asarray, path(threshold, jnp.array(starts))))


def _path(
    learning_rate: float, updates: int, threshold: float, start: Float[Array, "2"]
) -> tuple[Float[Array, "updates+1"], ...]:
    def update(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], list[Array]]:
        at, largest = state
        value, gradient = jax.value_and_grad(lambda at: _error(at[0], at[1]))(at)
        change = learning_rate * jnp.minimum(1, threshold / jnp.linalg.norm(gradient)) * gradient
        new = (at - change, jnp.maximum(largest, jnp.linalg.norm(change)))
        return new, [at[0], at[1], value, largest]

    return tuple(jax.lax.scan(update, (start, jnp.zeros(())), None, length=updates + 1)[1])
