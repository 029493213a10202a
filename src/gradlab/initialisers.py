"""Initialisers: of recurrent weights, (key, n, …) -> (n, n), and of gate biases, by gate.

`W_hh` acts from the left, h⁽ᵗ⁾ = φ(W_hh h⁽ᵗ⁻¹⁾ + …); Flax keeps its transpose, and that is what is
returned (it matters for `sparse` alone). To add one: a function here, and a YAML in conf/init/ or,
for biases, conf/bias/.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from jax.nn.initializers import orthogonal as haar
from jaxtyping import Array, Float, Key
from pydantic import Field

from gradlab.config import Count, NonNegative

Matrix = Float[Array, "n n"]
Biases = dict[str, Float[Array, "n"]]
SQUARINGS = 12


def gaussian(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """Independent entries N(0, gain²/n); spectral radius → gain as n → ∞ (Ginibre 1965).

    The order-chaos transition of an autonomous tanh network is at gain 1 (Sompolinsky, Crisanti &
    Sommers 1988).
    """
    return gain / jnp.sqrt(n) * jax.random.normal(key, (n, n))


def orthogonal(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """gain · Q with Q Haar-distributed: every singular value is gain (Saxe et al. 2014)."""
    return gain * haar()(key, (n, n))


def identity(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """gain · I: with ReLU units the IRNN of Le, Jaitly & Hinton 2015. Draws nothing."""
    del key
    return gain * jnp.eye(n)


def glorot(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """gain · U(−√(3/n), √(3/n)): variance 2/(n + n) = 1/n (Glorot & Bengio 2010, eq. 16)."""
    limit = gain * jnp.sqrt(3 / n)
    return limit * jax.random.uniform(key, (n, n), minval=-1, maxval=1)


def lecun(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """gain · N(0, 1/n) cut off at two standard deviations (LeCun et al. 1998, 4.6)."""
    return gain * jax.nn.initializers.lecun_normal()(key, (n, n))


def normal(key: Key[Array, ""], n: int, std: NonNegative = 0.001) -> Matrix:
    """N(0, std²), not scaled by n (Le, Jaitly & Hinton 2015, for non-recurrent weights)."""
    return std * jax.random.normal(key, (n, n))


def sparse(
    key: Key[Array, ""], n: int, spectral_radius: NonNegative = 0.95, incoming: Count = 15
) -> Matrix:
    """`incoming` Gaussian weights into each unit, at random, scaled to a spectral radius.

    "Smart tanh" of Pascanu et al. 2013, after Sutskever et al. 2013. With fewer than `incoming`
    units, all are connected.
    """
    choice, values = jax.random.split(key)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(choice, (n, n)), axis=0), axis=0)
    weights = jnp.where(rank < incoming, jax.random.normal(values, (n, n)), 0)
    return spectral_radius * weights * jnp.exp(-_log_spectral_radius(weights))


def zero_bias(key: Key[Array, ""], n: int) -> Biases:
    """Every gate half open."""
    del key, n
    return {}


def forget_bias(key: Key[Array, ""], n: int, value: float = 1.0) -> Biases:
    """One bias at every forget gate (Gers et al. 2000; 1 as of Jozefowicz et al. 2015)."""
    del key
    return {"forget": jnp.full(n, value)}


def chrono(key: Key[Array, ""], n: int, longest: Annotated[float, Field(gt=2)] = 100.0) -> Biases:
    """b_f = ln U(1, longest − 1), b_i = −b_f: memories of 1 to `longest` steps.

    Tallec & Ollivier 2018, eq. 16.
    """
    bias = jnp.log(jax.random.uniform(key, (n,), minval=1.0, maxval=longest - 1))
    return {"forget": bias, "input": -bias}


def _log_spectral_radius(matrix: Matrix) -> Float[Array, ""]:
    """ln ρ by Gelfand's formula, ‖M^m‖^(1/m) with m = 2¹²: eigenvalues are not traced on GPUs."""

    def square(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        power, log_norm = state
        power = jnp.matmul(power, power, precision=jax.lax.Precision.HIGHEST)
        size = jnp.linalg.norm(power)
        return power / size, 2 * log_norm + jnp.log(size)

    start = jnp.linalg.norm(matrix)
    _, log_norm = jax.lax.fori_loop(0, SQUARINGS, square, (matrix / start, jnp.log(start)))
    return log_norm / 2**SQUARINGS
