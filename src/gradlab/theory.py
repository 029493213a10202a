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


def leaky_jacobian_bound(
    w_hh: Float[np.ndarray, "n n"], alpha: float | Vector, activation: str = "tanh"
) -> float:
    """Return the bound ln(max(1 − α) + max(α) γ σ_max(W_hh)) on a leaky step Jacobian's log norm.

    It holds for rate and for current equations, J = diag(1 − α) + diag(α φ′) W_hh and J =
    diag(1 − α) + diag(α) W_hh diag(φ′). Where it is negative, the network forgets every initial
    state (echo states; Jaeger, Lukoševičius, Popovici & Siewert 2007).

    Args:
        w_hh: recurrent weights.
        alpha: α = Δt/τ of all units or of each, from 0 to 1.
        activation: φ, as in `jacobian_bound`.

    Example:
        >>> round(leaky_jacobian_bound(0.5 * np.eye(3), 0.2), 4)  # ln(0.8 + 0.2 · 0.5)
        -0.1054
    """
    gain = np.exp(jacobian_bound(w_hh, activation))
    with np.errstate(divide="ignore"):
        return float(np.log(np.max(1 - np.asarray(alpha)) + np.max(alpha) * gain))


def indrnn_diagonals(
    recurrent: Vector, preactivations: Float[np.ndarray, "T n"], activation: str = "relu"
) -> Float[np.ndarray, "T n"]:
    """Return the diagonals u ⊙ φ′(a⁽ᵗ⁾) of the step Jacobians of an IndRNN (Li et al. 2018).

    Args:
        recurrent: u.
        preactivations: a⁽ᵗ⁾ = W x⁽ᵗ⁾ + u ⊙ h⁽ᵗ⁻¹⁾ + b.
        activation: φ, "relu" or "tanh".

    Raises:
        ValueError: the activation is another one.
    """
    if activation not in ("relu", "tanh"):
        raise ValueError(f"activation must be relu or tanh; got {activation!r}.")
    is_relu = activation == "relu"
    slopes = preactivations > 0 if is_relu else 1 - np.tanh(preactivations) ** 2
    return recurrent * slopes


def diagonal_log_norms(diagonals: Float[np.ndarray, "T n"]) -> Float[np.ndarray, "rows columns"]:
    """Return ln ‖J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾‖₂ of diagonal step Jacobians: max_i Σ_s ln |d_i⁽ˢ⁾|, s = k + 1 … t.

    Args:
        diagonals: d⁽¹⁾ to d⁽ᵀ⁾.

    Returns:
        (T + 1, T + 1), at [t, k]; −inf where k > t.

    Example:
        >>> diagonal_log_norms(np.array([[0.5, 0.1], [0.5, 2.0]])).round(2)
        array([[ 0.  ,  -inf,  -inf],
               [-0.69,  0.  ,  -inf],
               [-1.39,  0.69,  0.  ]])
    """
    with np.errstate(divide="ignore"):
        logs = np.log(np.abs(diagonals))
    length = len(logs)
    log_norms = np.full((length + 1, length + 1), -np.inf)
    for k in range(length + 1):
        log_norms[k, k] = 0
        log_norms[k + 1 :, k] = np.cumsum(logs[k:], axis=0).max(axis=1)
    return log_norms


def cornn_free_rate(dt: float, gamma: float, epsilon: float, damping: str = "explicit") -> float:
    """Return ln ρ of a step of one oscillator of a coRNN that nothing drives (W_h = W_z = 0).

    ρ is the spectral radius of the 2 × 2 step Jacobian, in which a velocity is multiplied by
    1 − Δt ε, or by 1/(1 + Δt ε) if its damping is implicit. If it oscillates, that factor is ρ².

    Args:
        dt, gamma, epsilon: Δt, γ and ε (Rusch & Mishra 2021, equation 3).
        damping: "explicit" or "implicit".

    Example:
        >>> round(cornn_free_rate(0.042, 2.7, 4.7), 4)  # the constants for sequential MNIST
        -0.0276
    """
    pull, keep = _oscillator(dt, gamma, epsilon, damping)
    step = np.array([[1 - dt * pull, dt * keep], [-pull, keep]])
    return float(np.log(spectral_radius(step)))


def cornn_jacobian_bound(
    w_h: Float[np.ndarray, "n n"],
    w_z: Float[np.ndarray, "n n"],
    dt: float,
    gamma: float,
    epsilon: float,
    damping: str = "explicit",
) -> float:
    """Return a bound on the log norm of a coRNN's step Jacobian ∂(h, z)⁽ᵗ⁾/∂(h, z)⁽ᵗ⁻¹⁾.

    The triangle inequality for its four blocks gives the norm of [[1 + Δt a, Δt b], [a, b]], with

        explicit:  a = Δt (σ_max(W_h) + γ),                b = |1 − Δt ε| + Δt σ_max(W_z)
        implicit:  a = Δt (σ_max(W_h) + γ) / (1 + Δt ε),   b = (1 + Δt σ_max(W_z)) / (1 + Δt ε)

    (Rusch & Mishra 2021, equation 3), and so a log norm of O(Δt).

    Args:
        w_h: coupling of the positions.
        w_z: coupling of the velocities.
        dt, gamma, epsilon, damping: as in `cornn_free_rate`.

    Example:
        >>> zeros = np.zeros((2, 2))
        >>> round(cornn_jacobian_bound(zeros, zeros, 0.1, 0.0, 0.0), 4)  # ln ‖[[1, 0.1], [0, 1]]‖
        0.05
    """
    pull, keep = _oscillator(dt, gamma, epsilon, damping)
    scale = dt if damping == "explicit" else dt / (1 + dt * epsilon)
    a = pull + scale * np.linalg.norm(w_h, 2)
    b = abs(keep) + scale * np.linalg.norm(w_z, 2)
    return float(np.log(np.linalg.norm([[1 + dt * a, dt * b], [a, b]], 2)))


def _oscillator(dt: float, gamma: float, epsilon: float, damping: str) -> tuple[float, float]:
    """Return what a free oscillator's velocity loses by its position, and what it keeps."""
    if damping not in ("explicit", "implicit"):
        raise ValueError(f"damping must be explicit or implicit; got {damping!r}.")
    implicit = 1 + dt * epsilon
    return (
        (dt * gamma, 1 - dt * epsilon)
        if damping == "explicit"
        else (dt * gamma / implicit, 1 / implicit)
    )
