"""Closed forms that measurements are laid against: bounds, mean fields, random matrices, gates.

Rates are in nats per step; n is the number of units.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit, gammaln, polygamma, psi

Vector = Float[np.ndarray, "n"]
STEEPEST = {"tanh": 1.0, "relu": 1.0, "identity": 1.0, "sigmoid": 0.25}
NODES = np.linspace(-12, 12, 8001)  # the trapezoidal rule converges exponentially on Gaussians
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()


class MeanField(NamedTuple):
    """A wide network's fixed point: variance q of the pre-activations, χ, and the rate ½ ln χ."""

    q: float
    chi: float
    rate: float


def jacobian_bound(w_hh: Float[np.ndarray, "n n"], activation: str = "tanh") -> float:
    """ln(γ σ_max(W_hh)), which no log norm's slope exceeds (Pascanu et al. 2013, 2.1).

    γ is the steepest slope of the activation: 1, and ¼ for the sigmoid.

    Raises:
        ValueError: an activation of another name.
    """
    if activation not in STEEPEST:
        raise ValueError(f"activation must be one of {', '.join(STEEPEST)}; got {activation!r}.")
    with np.errstate(divide="ignore"):
        return float(np.log(STEEPEST[activation] * np.linalg.norm(w_hh, 2)))


def spectral_radius(w_hh: Float[np.ndarray, "n n"]) -> float:
    """The largest |eigenvalue|: the rate of a linear network is its logarithm."""
    return float(np.abs(np.linalg.eigvals(w_hh)).max())


def mean_field(gain: float, input_variance: float = 0.0) -> MeanField:
    """Mean field of a wide tanh network with W_hh ~ N(0, gain²/n), n → ∞.

    q = gain² E tanh²(√q z) + input_variance, χ = gain² E tanh'(√q z)², with z ~ N(0, 1)
    (Sompolinsky, Crisanti & Sommers 1988; with independent input noise of that variance at every
    unit, Molgedey, Schuchhardt & Schuster 1992).

    Raises:
        ValueError: a negative gain or variance.
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
    chi = gain**2 * float(WEIGHTS @ np.cosh(np.sqrt(q) * NODES) ** -4.0)
    return MeanField(q, chi, float(0.5 * np.log(chi)) if chi > 0 else -np.inf)


def ginibre_exponents(n: int, gain: float = 1.0) -> Vector:
    """Lyapunov exponents of products of independent matrices N(0, gain²/n), descending.

    ½ [ln(2 gain²/n) + ψ((n − i + 1)/2)] (Newman 1986).
    """
    index = np.arange(1, n + 1)
    return 0.5 * (np.log(2 * gain**2 / n) + psi((n - index + 1) / 2))


def ginibre_fluctuation(n: int) -> float:
    """Standard deviation of one step's growth of a vector: ½ √ψ'(n/2) (Cohen & Newman 1984)."""
    return float(0.5 * np.sqrt(polygamma(1, n / 2)))


def ginibre_power_edge(lag: int) -> float:
    """lim ln ‖Wᵐ‖₂ of one matrix W ~ N(0, 1/n), m the lag: √((m + 1)^(m + 1)/mᵐ).

    The edge of the Fuss–Catalan law (Alexeev, Götze & Tikhomirov 2010).
    """
    return 0.5 * ((lag + 1) * np.log(lag + 1) - lag * np.log(lag))


def jordan_log_norm(eigenvalue: float, coupling: float, lag: int) -> float:
    """ln σ_max of the lag-th power of [[λ, c], [0, λ]], which may grow before it decays."""
    a, b = eigenvalue**lag, lag * coupling * eigenvalue ** (lag - 1)
    return 0.5 * float(np.log((2 * a**2 + b**2 + np.sqrt(b**2 * (4 * a**2 + b**2))) / 2))


def stacked_linear(recurrent: float, feedforward: float, layers: int, lag: int) -> float:
    """ln ∂hᴸ⁽ᵗ⁾/∂h¹⁽ᵏ⁾ of scalar linear layers: C(m + L − 1, L − 1) aᵐ b^(L − 1), m the lag.

    A change of h¹⁽ᵏ⁾ reaches the layers above at step k already. A map's (t, k) holds their states
    at k, so there the same number of ways takes one step more.
    """
    paths = gammaln(lag + layers) - gammaln(layers) - gammaln(lag + 1)
    return float(paths + lag * np.log(recurrent) + (layers - 1) * np.log(feedforward))


def scalar_fixed_point(weight: float, bias: float = 0.0) -> tuple[float, float]:
    """The largest fixed point h* of h = tanh(w h + b), and its factor w (1 − h*²) a step."""
    # From the top, an increasing map steps down onto its largest fixed point and no further.
    h = 1.0
    for _ in range(10_000):
        h = float(np.tanh(weight * h + bias))
    return h, weight * (1 - h**2)


def fold_points(weight: float) -> tuple[float, float]:
    """Biases between which x = w σ(x) + b has three solutions (Doya 1993), for w > 4.

    Raises:
        ValueError: a weight of 4 or less, where no two solutions meet.
    """
    if weight <= 4:
        raise ValueError(f"weight must be more than 4, else there is no fold; got {weight}.")
    root = np.sqrt(1 - 4 / weight)
    s = np.array([1 + root, 1 - root]) / 2  # σ'(x) = 1/w
    low, high = np.log(s / (1 - s)) - weight * s
    return float(low), float(high)


def forget_rate(bias: float) -> float:
    """ln σ(b): the rate of ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ where the forget gate sees its bias alone."""
    return float(-np.logaddexp(0, -bias))


def forget_time(bias: float) -> float:
    """−1/ln σ(b), steps; ln(T − 1) gives T − ½ + O(1/T) (Tallec & Ollivier 2018)."""
    return -1 / forget_rate(bias)


def pinned_log_decay(forget: Float[np.ndarray, "T n"]) -> Float[np.ndarray, "T n"]:
    """ln ∏ f⁽ⁱ⁾ from the first step on: ∂c⁽ᵗ⁾/∂c⁽⁰⁾ of each unit if gates do not see h."""
    return np.cumsum(np.log(forget), axis=0)


def chrono_mean(lag: int, longest: float) -> float:
    """E f^lag over forget biases ln U(1, longest − 1), by quadrature: a heavy tail."""
    integral, _ = quad(lambda u: expit(np.log(u)) ** lag, 1, longest - 1, epsabs=0, epsrel=1e-10)
    return integral / (longest - 2)
