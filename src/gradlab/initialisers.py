"""Initialisers of recurrent weight matrices and of gate biases.

To add one, write a function here or in your own package, and a YAML in conf/init/ (a matrix) or
conf/bias/ (biases) whose `_target_` is its dotted path. An initialiser maps (key, n, …) to an
(n, n) matrix, a bias rule to a dictionary of n biases by gate. Further arguments become the config
keys `init.…` and `bias.…`; floats among them can differ between the points of one compiled program.
Initialisers in Flax's style are taken too (`draw_matrix`).

All functions here take key, the random key, and n, the number of units. W_hh acts from the left,
h⁽ᵗ⁾ = φ(W_hh h⁽ᵗ⁻¹⁾ + …), but Flax stores its transpose, and that is the matrix returned here. The
difference matters only for `sparse`.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from pydantic import Field

from gradlab.components import ConfigError, build, call, locate, needed, parameters_of, takes
from gradlab.config import Count, NonNegative

Matrix = Float[Array, "n n"]
Biases = dict[str, Float[Array, "n"]]
SQUARINGS = 12


def draw_matrix(component: Mapping[str, Any], key: Key[Array, ""], n: int) -> Any:
    """Draw what a section `init` of the config names, in gradlab's style or in Flax's.

    Its function is one of (key, n, …), as those below; one of (key, shape, dtype, …), as Flax calls
    them; or, if it needs no argument that the section lacks, one that returns the latter, such as
    `jax.nn.initializers.orthogonal`. A gain in the section that the function does not take itself
    multiplies what is drawn.

    Args:
        component: the section.
        key: random key.
        n: number of units.

    Returns:
        Whatever was drawn, of a right initialiser an (n, n) matrix; None if it is no initialiser.

    Raises:
        ConfigError: the section has an argument that the network gives.
        CallError: the function does not take these arguments.
    """
    parameters = parameters_of(locate(component["_target_"]))
    scales = "gain" in component and not takes(parameters, "gain")
    own = {name: value for name, value in component.items() if not (scales and name == "gain")}
    if not set(needed(parameters)) - own.keys():
        initialiser = build(own)
        drawn = call(initialiser, key, (n, n), jnp.float32) if callable(initialiser) else None
    elif "shape" in parameters:
        drawn = build(own, key, (n, n), jnp.float32)
    else:
        drawn = build(own, key, n)
    return component["gain"] * drawn if scales and hasattr(drawn, "shape") else drawn


def gaussian(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """Draw independent entries from N(0, gain²/n).

    The spectral radius tends to gain as n → ∞ (Ginibre 1965). The order-chaos transition of an
    autonomous tanh network is at gain 1 (Sompolinsky, Crisanti & Sommers 1988).

    Args:
        key: random key.
        n: number of units.
        gain: limit of the spectral radius, at least 0.

    Example:
        >>> from gradlab.initialisers import gaussian
        >>> w = gaussian(jax.random.key(0), 200, gain=1.5)
        >>> bool(abs(abs(jnp.linalg.eigvals(w)).max() - 1.5) < 0.15)
        True
    """
    return gain / jnp.sqrt(n) * jax.random.normal(key, (n, n))


def orthogonal(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """Draw gain · Q with Q orthogonal and Haar-distributed (Saxe, McClelland & Ganguli 2014).

    Args:
        key: random key.
        n: number of units.
        gain: every singular value, at least 0.

    Example:
        >>> from gradlab.initialisers import orthogonal
        >>> w = orthogonal(jax.random.key(0), 8, gain=2.0)
        >>> bool(jnp.allclose(w @ w.T, 4 * jnp.eye(8), atol=1e-4))
        True
    """
    return gain * jax.nn.initializers.orthogonal()(key, (n, n))


def identity(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """Return gain · I, which with ReLU units is the IRNN of Le, Jaitly & Hinton 2015.

    Args:
        key: not used.
        n: number of units.
        gain: every eigenvalue, at least 0.

    Example:
        >>> from gradlab.initialisers import identity
        >>> identity(jax.random.key(0), 2, gain=0.5).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    del key
    return gain * jnp.eye(n)


def glorot(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """Draw independent entries from gain · U(−√(3/n), √(3/n)).

    The variance is gain² · 2/(n + n) = gain²/n (Glorot & Bengio 2010, eq. 16).

    Args:
        key: random key.
        n: number of units.
        gain: scale, at least 0.

    Example:
        >>> from gradlab.initialisers import glorot
        >>> w = glorot(jax.random.key(0), 12)
        >>> w.shape, bool((abs(w) <= 0.5).all())  # √(3/12)
        ((12, 12), True)
    """
    limit = gain * jnp.sqrt(3 / n)
    return limit * jax.random.uniform(key, (n, n), minval=-1, maxval=1)


def glorot_rescaled(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """Draw entries from N(0, gain²/n) / ρₙ, so that the spectral radius is mostly below gain.

    ρₙ is a radius that few Gaussian matrices of variance 1/n exceed:
    ρₙ = 1 + √(γ/4n) + G/√(4γn), where γ = ln n − 2 ln ln n − ln 2π and G is the mean plus one
    standard deviation of Gumbel's distribution, 0.5772 + π/√6. The rescaling is that of
    Bar, Seleznova, Alexander, Kutyniok & Giryes 2025 (arXiv:2505.19827), by their code.

    The law is one of wide networks: γ is above 0 from n = 164 on, and ρₙ is too large just above
    (2.22 there, 1.13 at n = 256, 1.07 at 512, 1.04 at 1024).

    Args:
        key: random key.
        n: number of units, at least 164.
        gain: scale, at least 0.

    Raises:
        ConfigError: there are fewer units.

    Example:
        >>> from gradlab.initialisers import glorot_rescaled
        >>> w = glorot_rescaled(jax.random.key(0), 256)
        >>> bool(abs(jnp.linalg.eigvals(w)).max() < 1)
        True
    """
    return gaussian(key, n, gain) / _rarely_exceeded_radius(n)


def lecun(key: Key[Array, ""], n: int, gain: NonNegative = 1.0) -> Matrix:
    """Draw gain times Gaussian entries of variance 1/n, truncated at two standard deviations.

    LeCun et al. 1998, 4.6. The variance 1/n is that after truncation.

    Args:
        key: random key.
        n: number of units.
        gain: scale, at least 0.

    Example:
        >>> from gradlab.initialisers import lecun
        >>> w = lecun(jax.random.key(0), 100)
        >>> round(float(w.std()), 2)  # 1/√n
        0.1
    """
    return gain * jax.nn.initializers.lecun_normal()(key, (n, n))


def normal(key: Key[Array, ""], n: int, std: NonNegative = 0.001) -> Matrix:
    """Draw independent entries from N(0, std²), whatever n is.

    Le, Jaitly & Hinton 2015 draw their non-recurrent weights so.

    Args:
        key: random key.
        n: number of units.
        std: standard deviation, at least 0.

    Example:
        >>> from gradlab.initialisers import normal
        >>> round(float(normal(jax.random.key(0), 100, std=0.001).std()), 4)
        0.001
    """
    return std * jax.random.normal(key, (n, n))


def uniform(key: Key[Array, ""], n: int, limit: NonNegative = 0.1) -> Matrix:
    """Draw independent entries uniformly from [−limit, limit], whatever n is.

    Hochreiter & Schmidhuber 1997 draw their weights so.

    Args:
        key: random key.
        n: number of units.
        limit: largest absolute value, at least 0.

    Example:
        >>> from gradlab.initialisers import uniform
        >>> bool((abs(uniform(jax.random.key(0), 100, limit=0.1)) <= 0.1).all())
        True
    """
    return jax.random.uniform(key, (n, n), minval=-limit, maxval=limit)


def sparse(
    key: Key[Array, ""], n: int, spectral_radius: NonNegative = 0.95, incoming: Count = 15
) -> Matrix:
    """Draw a sparse Gaussian matrix S and return spectral_radius · S / ρ(S).

    The "smart tanh" initialisation of Pascanu et al. 2013, after Sutskever et al. 2013: each unit
    has N(0, 1) weights from `incoming` random units and no others.

    Args:
        key: random key.
        n: number of units.
        spectral_radius: of the result, at least 0.
        incoming: number of non-zero weights into each unit; all n if n is smaller.

    Example:
        >>> from gradlab.initialisers import sparse
        >>> w = sparse(jax.random.key(0), 30, incoming=4)
        >>> (w != 0).sum(axis=0).tolist() == 30 * [4]  # a unit's weights are a column
        True
    """
    choice_key, value_key = jax.random.split(key)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(choice_key, (n, n)), axis=0), axis=0)
    weights = jnp.where(rank < incoming, jax.random.normal(value_key, (n, n)), 0)
    return spectral_radius * weights * jnp.exp(-_log_spectral_radius(weights))


def zero_bias(key: Key[Array, ""], n: int) -> Biases:
    """Return no biases, so that gates keep the cell's own.

    In an LSTM or a GRU these are 0 as in Flax, and every gate starts half open, σ(0) = ½. Cells
    whose authors chose a bias, such as JANET's of 1, keep it.

    Args:
        key: not used.
        n: not used.

    Example:
        >>> from gradlab.initialisers import zero_bias
        >>> zero_bias(jax.random.key(0), 8)
        {}
    """
    del key, n
    return {}


def forget_bias(key: Key[Array, ""], n: int, value: float = 1.0) -> Biases:
    """Return one bias b_f for every forget gate, which opens it to σ(b_f).

    Gers, Schmidhuber & Cummins 2000; b_f = 1 as in Jozefowicz, Zaremba & Sutskever 2015. Without
    this rule the forget bias of an LSTM starts at 0 as in Flax.

    Args:
        key: not used.
        n: number of units.
        value: b_f, any real number.

    Example:
        >>> from gradlab.initialisers import forget_bias
        >>> forget_bias(jax.random.key(0), 2, value=1.0)["forget"].tolist()
        [1.0, 1.0]
    """
    del key
    return {"forget": jnp.full(n, value)}


def chrono(key: Key[Array, ""], n: int, longest: Annotated[float, Field(gt=2)] = 100.0) -> Biases:
    """Draw forget biases b_f = ln U(1, longest − 1), with input biases b_i = −b_f.

    Tallec & Ollivier 2018, eq. 16. Without other input a unit's gate is then σ(b_f) = 1 − 1/τ, with
    time constants τ from 2 to `longest` steps.

    Args:
        key: random key.
        n: number of units.
        longest: the longest memory in steps, above 2 (T_max of the paper).

    Example:
        >>> from gradlab.initialisers import chrono
        >>> biases = chrono(jax.random.key(0), 8, longest=50.0)
        >>> sorted(biases), bool((biases["forget"] == -biases["input"]).all())
        (['forget', 'input'], True)
    """
    bias = jnp.log(jax.random.uniform(key, (n,), minval=1.0, maxval=longest - 1))
    return {"forget": bias, "input": -bias}


def uniform_gate(key: Key[Array, ""], n: int) -> Biases:
    """Draw forget biases b_f that make the forget gates uniform, σ(b_f) ~ U(1/n, 1 − 1/n).

    The uniform gate initialisation of Gu et al. 2020. A refine gate takes −b_f, as in their
    pseudo-code. So does an input gate, which makes a logistic one 1 − σ(b_f), as a coupled one is.
    The time constants −1/ln σ(b_f) have a heavy tail, up to about n steps. With a refine gate it is
    f before its refinement that is uniform: the effective gate is lower where f > ½, and its time
    constants are half as long in the tail.

    Args:
        key: random key.
        n: number of units.

    Returns:
        b_f for "forget", −b_f for "input" and "refine".

    Example:
        >>> from gradlab.initialisers import uniform_gate
        >>> gate = jax.nn.sigmoid(uniform_gate(jax.random.key(0), 8)["forget"])
        >>> bool(((gate > 1 / 8) & (gate < 7 / 8)).all())
        True
    """
    edge = 1 / max(n, 2)
    gate = jax.random.uniform(key, (n,), minval=edge, maxval=1 - edge)
    bias = jnp.log(gate) - jnp.log1p(-gate)
    return {"forget": bias, "input": -bias, "refine": -bias}


def _rarely_exceeded_radius(n: int) -> float:
    """Return ρₙ of `glorot_rescaled`."""
    gamma = math.log(n / (2 * math.pi * math.log(n) ** 2)) if n > 1 else -math.inf
    if gamma <= 0:
        raise ConfigError(
            "init=glorot_rescaled needs at least 164 units, since its law of the spectral radius "
            f"holds for wide networks only; model.hidden_size is {n}."
        )
    quantile = np.euler_gamma + math.pi / math.sqrt(6)
    return 1 + math.sqrt(gamma / (4 * n)) + quantile / math.sqrt(4 * gamma * n)


def _log_spectral_radius(matrix: Matrix) -> Float[Array, ""]:
    """Return ln ρ by Gelfand's formula, ρ ≈ ‖M^m‖^(1/m) with m = 2¹².

    Eigenvalues of a general matrix cannot be part of a program compiled for a GPU.
    """

    def square(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        power, log_norm = state
        power = jnp.matmul(power, power, precision=jax.lax.Precision.HIGHEST)
        size = jnp.linalg.norm(power)
        return power / size, 2 * log_norm + jnp.log(size)

    norm = jnp.linalg.norm(matrix)
    _, log_norm = jax.lax.fori_loop(0, SQUARINGS, square, (matrix / norm, jnp.log(norm)))
    return log_norm / 2**SQUARINGS
