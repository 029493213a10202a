"""Closed forms to compare measurements with: bounds, mean fields, random matrices, gates.

Rates and Lyapunov exponents are in nats per step. n is the number of units, σ the logistic
function.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit, gammaln, polygamma, psi

Vector = Float[np.ndarray, "n"]
STEEPEST_SLOPES = {"tanh": 1.0, "relu": 1.0, "identity": 1.0, "sigmoid": 0.25}
# Nodes and weights of E f(z), z ~ N(0, 1): the trapezoidal rule converges exponentially here.
NODES = np.linspace(-12, 12, 8001)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()


class MeanField(NamedTuple):
    """Fixed point of a wide network.

    Attributes:
        q: variance of the pre-activations.
        chi: mean square growth χ of a perturbation in one step.
        rate: ½ ln χ, nats per step.
    """

    q: float
    chi: float
    rate: float


def jacobian_bound(w_hh: Float[np.ndarray, "n n"], activation: str = "tanh") -> float:
    """Return the bound ln(γ σ_max(W_hh)) on a step Jacobian's log norm (Pascanu et al. 2013, 2.1).

    The log norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ is at most t − k times the bound.

    Args:
        w_hh: recurrent weights, h⁽ᵗ⁾ = φ(W_hh h⁽ᵗ⁻¹⁾ + …).
        activation: φ, whose steepest slope γ is 1, or ¼ for the sigmoid.

    Raises:
        ValueError: the activation is not "tanh", "relu", "identity" or "sigmoid".
    """
    if activation not in STEEPEST_SLOPES:
        allowed = ", ".join(STEEPEST_SLOPES)
        raise ValueError(f"activation must be one of {allowed}; got {activation!r}.")
    with np.errstate(divide="ignore"):
        return float(np.log(STEEPEST_SLOPES[activation] * np.linalg.norm(w_hh, 2)))


def spectral_radius(w_hh: Float[np.ndarray, "n n"]) -> float:
    """Return the largest |eigenvalue|, whose logarithm is the rate of a linear network."""
    return float(np.abs(np.linalg.eigvals(w_hh)).max())


def mean_field(gain: float, input_variance: float = 0.0) -> MeanField:
    """Return the mean field of a tanh network with W_hh ~ N(0, gain²/n) as n → ∞.

        q = gain² E tanh²(√q z) + input_variance,    χ = gain² E tanh'(√q z)²,    z ~ N(0, 1)

    (Sompolinsky, Crisanti & Sommers 1988; with input noise, Molgedey, Schuchhardt & Schuster 1992).

    Args:
        gain: √n times the standard deviation of the recurrent weights.
        input_variance: of the inputs' part of the pre-activations, independent at every unit.

    Raises:
        ValueError: gain or input_variance is negative.
    """
    if gain < 0 or input_variance < 0:
        raise ValueError(
            f"gain and input_variance must be at least 0; got {gain} and {input_variance}."
        )

    def excess(q: float) -> float:
        return gain**2 * float(WEIGHTS @ np.tanh(np.sqrt(q) * NODES) ** 2) + input_variance - q

    highest = gain**2 + input_variance + 1
    at_rest = input_variance == 0 and gain <= 1
    q = 0.0 if at_rest else float(brentq(excess, 1e-12, highest, xtol=1e-14))
    decay = np.exp(-np.abs(np.sqrt(q) * NODES))  # cosh itself overflows
    chi = gain**2 * float(WEIGHTS @ (2 * decay / (1 + decay**2)) ** 4)
    return MeanField(q, chi, float(0.5 * np.log(chi)) if chi > 0 else -np.inf)


def ginibre_exponents(n: int, gain: float = 1.0) -> Vector:
    """Return the Lyapunov exponents of products of independent matrices N(0, gain²/n), descending.

    λᵢ = ½ [ln(2 gain²/n) + ψ((n − i + 1)/2)], i = 1..n, ψ the digamma function (Newman 1986).
    """
    index = np.arange(1, n + 1)
    return 0.5 * (np.log(2 * gain**2 / n) + psi((n - index + 1) / 2))


def ginibre_fluctuation(n: int) -> float:
    """Return the standard deviation of one step's log growth of a vector under such matrices.

    ½ √ψ'(n/2), ψ' the trigamma function (Cohen & Newman 1984).
    """
    return float(0.5 * np.sqrt(polygamma(1, n / 2)))


def ginibre_power_edge(lag: int) -> float:
    """Return the limit of ln ‖Wᵐ‖₂ for W ~ N(0, 1/n) as n → ∞, m the lag.

    It is ln √((m + 1)^(m + 1) / mᵐ), the edge of the Fuss–Catalan law (Alexeev, Götze & Tikhomirov
    2010).
    """
    return 0.5 * ((lag + 1) * np.log(lag + 1) - lag * np.log(lag))


def jordan_log_norm(eigenvalue: float, coupling: float, lag: int) -> float:
    """Return ln σ_max of [[λ, c], [0, λ]] to the power `lag`, which may grow before it decays."""
    a, b = eigenvalue**lag, lag * coupling * eigenvalue ** (lag - 1)
    return 0.5 * float(np.log((2 * a**2 + b**2 + np.sqrt(b**2 * (4 * a**2 + b**2))) / 2))


def stacked_linear(recurrent: float, feedforward: float, layers: int, lag: int) -> float:
    """Return ln ∂hᴸ⁽ᵗ⁾/∂h¹⁽ᵏ⁾ of a stack of L scalar linear layers, m = t − k the lag.

    The derivative is C(m + L − 1, L − 1) aᵐ b^(L − 1), with the number of paths, the recurrent
    weight a and the feed-forward weight b. Here a change of h¹⁽ᵏ⁾ reaches the layers above within
    step k. A Jacobian map holds their states at k fixed, so the same paths take one step more.
    """
    paths = gammaln(lag + layers) - gammaln(layers) - gammaln(lag + 1)
    return float(paths + lag * np.log(recurrent) + (layers - 1) * np.log(feedforward))


def scalar_fixed_point(weight: float, bias: float = 0.0) -> tuple[float, float]:
    """Return the largest fixed point h* of h = tanh(w h + b), and the slope w (1 − h*²) there."""
    # Iterates of an increasing map from above descend to its largest fixed point.
    h = 1.0
    for _ in range(10_000):
        h = float(np.tanh(weight * h + bias))
    return h, weight * (1 - h**2)


def fold_points(weight: float) -> tuple[float, float]:
    """Return the two biases b between which x = w σ(x) + b has three solutions (Doya 1993).

    Raises:
        ValueError: the weight w is 4 or less, so that there is one solution for every bias.
    """
    if weight <= 4:
        raise ValueError(f"weight must be more than 4, else there is no fold; got {weight}.")
    root = np.sqrt(1 - 4 / weight)
    s = np.array([1 + root, 1 - root]) / 2  # σ(x) where σ'(x) = 1/w
    low, high = np.log(s / (1 - s)) - weight * s
    return float(low), float(high)


def forget_rate(bias: float) -> float:
    """Return ln σ(b), the rate of ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ where the forget gate depends on its bias b only.

    The time constant is −1/ln σ(b) steps, which the bias ln(T − 1) makes T − ½ + O(1/T) (Tallec &
    Ollivier 2018).
    """
    return float(-np.logaddexp(0, -bias))


def chrono_mean(lag: int, longest: float) -> float:
    """Return E f^lag for chrono initialisation: forget gates f = σ(b), b = ln U(1, longest − 1).

    By quadrature. It has a heavy tail in the lag.
    """
    integral, _ = quad(lambda u: expit(np.log(u)) ** lag, 1, longest - 1, epsabs=0, epsrel=1e-10)
    return integral / (longest - 2)


def uniform_gate_mean(lag: int, n: int) -> float:
    """Return E f^lag for uniform gate initialisation, f ~ U(1/n, 1 − 1/n) (Gu et al. 2020).

    With m = lag and n > 2 units it is ((1 − 1/n)^(m + 1) − n^(−m − 1)) / ((m + 1)(1 − 2/n)), about
    1/(m + 1) where m is small beside n. It is of f itself: the effective gate of the UR-LSTM, which
    a refine gate r = 1 − f makes of it, is g = f + (1 − 2 f) f (1 − f), near 1 − 2 (1 − f) where f
    is near 1, so that E g^m is about 1/(2 m).

    Example:
        >>> from gradlab.theory import uniform_gate_mean
        >>> round(uniform_gate_mean(9, 10_000), 4)
        0.0999
    """
    edge, power = 1 / n, lag + 1
    return float(((1 - edge) ** power - edge**power) / (power * (1 - 2 * edge)))
