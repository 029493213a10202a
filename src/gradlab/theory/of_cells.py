"""Closed forms of cells: step Jacobians of diagonal ones, bounds, and mean fields."""

import numpy as np
from jaxtyping import Complex, Float
from scipy.special import expit, logsumexp

from gradlab.theory import NODES, WEIGHTS, MeanField, Vector, jacobian_bound, spectral_radius

MOST_ITERATIONS = 10_000


def diagonal_log_norms(log_factors: Float[np.ndarray, "T n"]) -> Float[np.ndarray, "t k"]:
    """Return ln ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖₂ where step Jacobians are diag(d⁽ᵗ⁾): the largest unit's Σ ln |d|.

    Args:
        log_factors: ln |d⁽¹⁾| to ln |d⁽ᵀ⁾|, such as `mingru_log_factors`; −inf where d is 0.

    Returns:
        A (T+1, T+1) map, −inf where k > t.

    Example:
        >>> from gradlab.theory.of_cells import diagonal_log_norms, mingru_log_factors
        >>> halved = mingru_log_factors(np.zeros((3, 4)))  # z = ½ at each of three steps
        >>> round(float(np.exp(diagonal_log_norms(halved)[3, 0])), 3)
        0.125
    """
    length = len(log_factors)
    log_norms = np.full((length + 1, length + 1), -np.inf)
    for k in range(length + 1):
        log_norms[k, k] = 0
        log_norms[k + 1 :, k] = np.cumsum(log_factors[k:], axis=0).max(axis=1)
    return log_norms


def diagonal_log_norm(
    eigenvalues: Complex[np.ndarray, "n"] | Vector, lag: int, norm: str = "spectral"
) -> float:
    """Return ln ‖Λ^lag‖ of Λ = diag λ, the Jacobian of h⁽ᵗ⁾ = Λ h⁽ᵗ⁻¹⁾ + B x⁽ᵗ⁾ at every input.

    It is ln max |λ|^lag ("spectral"), ½ ln Σ |λ|^(2 lag) ("frobenius") or that with the mean over λ
    ("rms").

    Raises:
        ValueError: the norm has another name.

    Example:
        >>> from gradlab.theory.of_cells import diagonal_log_norm
        >>> round(diagonal_log_norm(np.array([0.5, 0.9j]), 10), 4)  # 10 ln 0.9
        -1.0536
    """
    if norm not in ("spectral", "frobenius", "rms"):
        raise ValueError(f"norm must be spectral, frobenius or rms; got {norm!r}.")
    with np.errstate(divide="ignore"):
        logs = lag * np.log(np.abs(eigenvalues)) if lag else np.zeros(len(eigenvalues))
    columns = len(logs) if norm == "rms" else 1
    squares = 2 * logs.max() if norm == "spectral" else logsumexp(2 * logs)
    return 0.5 * float(squares - np.log(columns))


def ring_log_norm(r_min: float, r_max: float, lag: int) -> float:
    """Return ½ ln E |λ|^(2 lag) of λ uniform on a ring, ln of the rms norm of a wide LRU's start.

    E |λ|²ᵐ = (r_max²ᵐ⁺² − r_min²ᵐ⁺²) / ((m + 1)(r_max² − r_min²)) since |λ|² is uniform (Orvieto et
    al. 2023, lemma 3.2); 1/(m + 1) on the unit disk, a power law.

    Example:
        >>> from gradlab.theory.of_cells import ring_log_norm
        >>> round(ring_log_norm(0, 1, 99), 4)  # ln 1/10
        -2.3026
    """
    if lag == 0:
        return 0.0
    with np.errstate(divide="ignore"):
        edge = lag * float(np.log(r_max))
        if r_min == r_max:
            return edge
        ratio = 2 * np.log(r_min / r_max)
    # Of logarithms, because powers underflow and those of a thin ring cancel.
    shares = np.log(-np.expm1((lag + 1) * ratio)) - np.log(-np.expm1(ratio))
    return edge + 0.5 * float(shares - np.log(lag + 1))


def minimal_rnn_mean_field(
    gain: float, input_gain: float = 1.0, input_power: float = 1.0, bias: float = 0.0
) -> MeanField:
    """Return the mean field of a MinimalRNN with U_h ~ N(0, gain²/n), U_z ~ N(0, input_gain²/n).

        q = gain² p + input_gain² R,   p = R E(1 − u)² / (1 − E u²),   u = σ(bias + √q ξ)

        χ = E u² + gain² E(u (1 − u))² (p + R),   ξ ~ N(0, 1)

    p and R are the mean squares of h and of z, which has mean 0 and is independent at every step.
    Where several q fulfil this, as they may with a bias above 0, it is the smallest: the state that
    the network reaches from h = 0. The weights are taken to be drawn anew at every step, as in the
    theory of Chen, Pennington & Schoenholz 2018. The perturbation's growth χ follows from diag(u) +
    diag((h − z) u (1 − u)) U_h.

    Args:
        gain: √n times the standard deviation of U_h.
        input_gain: √n times the standard deviation of U_z.
        input_power: R, at least 0.
        bias: b_u of every unit.

    Example:
        >>> from gradlab.theory.of_cells import minimal_rnn_mean_field
        >>> round(minimal_rnn_mean_field(6.88, 1.39, input_power=0.46).chi, 1)
        1.0
    """

    def moments(q: float) -> tuple[float, float, float]:
        e = bias + np.sqrt(q) * NODES
        u, rest = expit(e), expit(-e)
        kept, written, slope = (float(WEIGHTS @ x**2) for x in (u, rest, u * rest))
        lost = float(WEIGHTS @ (rest * (1 + u)))  # 1 − kept, which rounds to 0 at a large bias
        return kept, input_power * written / lost, slope

    q = input_gain**2 * input_power
    # From below, iterates of a map that increases climb to its smallest fixed point.
    for _ in range(MOST_ITERATIONS):
        before, q = q, gain**2 * moments(q)[1] + input_gain**2 * input_power
        if abs(q - before) <= 1e-14 * q:
            break
    kept, p, slope = moments(q)
    chi = kept + gain**2 * slope * (p + input_power)
    return MeanField(q, chi, float(0.5 * np.log(chi)))


def mingru_log_factors(update: np.ndarray) -> np.ndarray:
    """Return ln(1 − z) of a minGRU's units, z = σ(update) (Feng et al. 2024, 3.1.3)."""
    return -np.logaddexp(0, update)


def minlstm_log_factors(forget: np.ndarray, write: np.ndarray) -> np.ndarray:
    """Return ln f/(f + i) of a minLSTM's units, f = σ(forget), i = σ(write) (ibid., 3.2.4)."""
    log_forget, log_write = -np.logaddexp(0, -forget), -np.logaddexp(0, -write)
    return log_forget - np.logaddexp(log_forget, log_write)


def mamba_log_factors(
    delta: Float[np.ndarray, "T n"], rates: Float[np.ndarray, "n states"]
) -> Float[np.ndarray, "T n*states"]:
    """Return Δ A of a selective state space's states, ln of the diagonal of its step Jacobians.

    h⁽ᵗ⁾ = exp(Δ A) ⊙ h⁽ᵗ⁻¹⁾ + … (Gu & Dao 2023, equations 2 and 4): `diagonal_log_norms` of them is
    the map. As A < 0, the longest memory is that of the largest A, exp(A Σ Δ).

    Args:
        delta: Δ of each channel at each step.
        rates: A of each channel's states.

    Example:
        >>> from gradlab.theory.of_cells import diagonal_log_norms, mamba_log_factors
        >>> steps, rates = np.full((5, 1), 0.1), -np.arange(1.0, 17.0)[None]
        >>> float(diagonal_log_norms(mamba_log_factors(steps, rates))[5, 0])
        -0.5
    """
    return (delta[..., None] * rates).reshape(len(delta), -1)


def delta_rule_jacobian(key: Vector, strength: float, values: int) -> Float[np.ndarray, "vn vn"]:
    """Return I ⊗ (I − β k kᵀ), the step Jacobian of a delta rule's matrix state, row after row.

    S⁽ᵗ⁾ = S⁽ᵗ⁻¹⁾ (I − β k kᵀ) + β v kᵀ acts on each row of S alone, whatever S and v are. The
    singular values of a row are 1, n − 1 times, and |1 − β ‖k‖²|. So the norm is exactly 1 for
    0 ≤ β ‖k‖² ≤ 2 and n ≥ 2, and the logs of the singular values add up to ln |1 − β ‖k‖²| for
    each row. (Yang et al. 2024, 3.3, print the last eigenvalue as 1 − β ‖k‖, which is the same at
    ‖k‖ = 1.)

    Args:
        key: k, of n numbers.
        strength: β.
        values: the number of rows of S.

    Example:
        >>> from gradlab.theory.of_cells import delta_rule_jacobian
        >>> jacobian = delta_rule_jacobian(np.array([0.6, 0.8]), 0.75, values=3)
        >>> np.linalg.svd(jacobian, compute_uv=False).round(2).tolist()
        [1.0, 1.0, 1.0, 0.25, 0.25, 0.25]
    """
    return np.kron(np.eye(values), np.eye(len(key)) - strength * np.outer(key, key))


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
        >>> from gradlab.theory.of_cells import leaky_jacobian_bound
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


def cornn_free_rate(dt: float, gamma: float, epsilon: float, damping: str = "explicit") -> float:
    """Return ln ρ of a step of one oscillator of a coRNN that nothing drives (W_h = W_z = 0).

    ρ is the spectral radius of the 2 × 2 step Jacobian, in which a velocity is multiplied by
    1 − Δt ε, or by 1/(1 + Δt ε) if its damping is implicit. If it oscillates, that factor is ρ².

    Args:
        dt, gamma, epsilon: Δt, γ and ε (Rusch & Mishra 2021, equation 3).
        damping: "explicit" or "implicit".

    Example:
        >>> from gradlab.theory.of_cells import cornn_free_rate
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
        >>> from gradlab.theory.of_cells import cornn_jacobian_bound
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
