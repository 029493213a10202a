"""Initialisers of the recurrent weights, each a function (key, n, …) -> (n, n) matrix.

`W_hh` acts from the left, h⁽ᵗ⁾ = φ(W_hh h⁽ᵗ⁻¹⁾ + …); Flax keeps its transpose, which has the same
distribution for every rule here. To add one: a function here and a YAML in conf/init/.
"""

import jax
import jax.numpy as jnp
from jax.nn.initializers import orthogonal as haar
from jaxtyping import Array, Float, Key

from gradlab.config import NonNegative

Matrix = Float[Array, "n n"]


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
