"""Mean fields of wide GRUs and LSTMs that inputs drive.

Weights are taken to be drawn anew at every step, N(0, gain²/n) for each gate, and inputs to add
independent N(0, input_variance) to each gate's net input. Such theories are those of Chen,
Pennington & Schoenholz 2018 (arXiv:1806.05394) and Gilboa et al. 2019 (arXiv:1901.08987), of which
the abstracts were at hand: the equations here are derived from the cells. Weights that stay the
same are correlated with the states. Networks of 400 to 500 units then grow by 0.01 to 0.08 nats per
step where χ is 1 (input_variance 1, biases of the kept state from 0 to 3).
"""

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from gradlab.theory import MeanField

# The trapezoidal rule: σ of a wide Gaussian is too steep for Gauss and Hermite's.
NODES = np.linspace(-8, 8, 401)
WEIGHTS = np.exp(-(NODES**2) / 2)
WEIGHTS /= WEIGHTS.sum()
MOST_ITERATIONS = 20_000
POPULATION, STEPS = 4000, 400  # of the LSTM's cell states


def gru_mean_field(
    gain: float,
    input_variance: float = 1.0,
    update_bias: float = 0.0,
    reset_bias: float = 0.0,
) -> MeanField:
    """Return the mean field of a GRU.

        q = gain² p + R,   p = E(1 − z)² E g² / E(1 − z²),   v = R + gain² p r²

        χ = E z² + gain² {(p + E g²) E[z (1 − z)]²
            + E(1 − z)² (E[r² g′²] + E[r (1 − r)]² a² g′²)}

    with z = σ(b_z + √q ξ), r = σ(b_r + √q ξ), g = tanh of N(0, v) given r, and a, the recurrent net
    input of the candidate, N(0, gain² p). p is the mean square of h, R `input_variance`, and χ the
    mean squared singular value of the step Jacobian. It is the state that the network comes to from
    h = 0: without inputs that is rest, also above the critical gain.

    Args:
        gain: √n times the standard deviation of the recurrent weights of each gate, at least 0.
        input_variance: R, at least 0.
        update_bias, reset_bias: b_z and b_r of every unit.

    Returns:
        χ, and q of the net inputs of the gates z and r.

    Raises:
        ValueError: the gain or the variance is negative.

    Example:
        >>> from gradlab.theory.gated import gru_mean_field
        >>> round(gru_mean_field(4.35, update_bias=3).chi, 2)  # of +network=gru_critical_driven
        1.0
    """
    _check_not_negative(gain, input_variance)
    p = 0.0
    for _ in range(MOST_ITERATIONS):
        before, q = p, gain**2 * p + input_variance
        z, r = (expit(bias + np.sqrt(q) * NODES) for bias in (update_bias, reset_bias))
        v = input_variance + r**2 * gain**2 * p
        net = np.sqrt(v)[:, None] * NODES
        square = float(WEIGHTS @ (np.tanh(net) ** 2 @ WEIGHTS))
        p = float(WEIGHTS @ (1 - z) ** 2) * square / float(WEIGHTS @ (1 - z**2))
        if abs(p - before) <= 1e-14:
            break
    slopes = np.cosh(np.minimum(np.abs(net), 300.0)) ** -4.0
    written = float(WEIGHTS @ (1 - z) ** 2)
    by_candidate = float(WEIGHTS @ (r**2 * (slopes @ WEIGHTS)))
    recurrent = _recurrent_square(net, r, gain**2 * p, v)
    by_reset = float(WEIGHTS @ ((r * (1 - r)) ** 2 * ((slopes * recurrent) @ WEIGHTS)))
    by_update = (p + square) * float(WEIGHTS @ (z * (1 - z)) ** 2)
    chi = float(WEIGHTS @ z**2) + gain**2 * (by_update + written * (by_candidate + by_reset))
    return MeanField(q, chi, float(0.5 * np.log(chi)))


def _check_not_negative(gain: float, input_variance: float) -> None:
    for name, value in (("gain", gain), ("input_variance", input_variance)):
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0; got {value}.")


def _recurrent_square(
    net: Float[np.ndarray, "r nodes"],
    r: Float[np.ndarray, "r"],
    s: float,
    v: Float[np.ndarray, "r"],
) -> Float[np.ndarray, "r nodes"]:
    """Return E a² given r and the candidate's net input w + r a, with a ~ N(0, s)."""
    share = np.divide(r * s, v, out=np.zeros_like(v), where=v > 0)
    return (share[:, None] * net) ** 2 + (s - share * r * s)[:, None]


def lstm_mean_field(
    gain: float,
    input_variance: float = 1.0,
    forget_bias: float = 0.0,
    input_bias: float = 0.0,
    output_bias: float = 0.0,
    seed: int = 0,
) -> MeanField:
    """Return the mean field of an LSTM, of a population of cell states.

    Net inputs of all gates are N(0, q), q = gain² E h² + R. A perturbation has the mean squares u
    of each δc and d of δh,

        u⁽ᵗ⁾ = f² u⁽ᵗ⁻¹⁾ + gain² d⁽ᵗ⁻¹⁾ (f′² c² + i′² g² + i² g′²)

        d⁽ᵗ⁾ = E[o² tanh′(c⁽ᵗ⁾)² u⁽ᵗ⁾] + gain² d⁽ᵗ⁻¹⁾ E o′² E tanh²(c⁽ᵗ⁾)

    and χ is the growth of E u + d in a step. The cell state is not Gaussian, so c and u are those
    of 4000 units over 400 steps from rest, the first quarter left out: χ has a standard error of at
    most about 0.001.

    Args:
        gain: √n times the standard deviation of the recurrent weights of each gate, at least 0.
        input_variance: R, at least 0.
        forget_bias, input_bias, output_bias: b_f, b_i and b_o of every unit.
        seed: of the population.

    Raises:
        ValueError: the gain or the variance is negative.

    Example:
        >>> from gradlab.theory.gated import lstm_mean_field
        >>> round(lstm_mean_field(2.64, forget_bias=3).chi, 2)  # of +network=lstm_critical_driven
        1.0
    """
    _check_not_negative(gain, input_variance)
    rng = np.random.default_rng(seed)
    c, u, d, power = np.zeros(POPULATION), np.ones(POPULATION), 1.0, 0.0
    variances, growths = [], []
    for _ in range(STEPS):
        variances.append(gain**2 * power + input_variance)
        net = np.sqrt(variances[-1]) * rng.normal(size=(4, POPULATION))
        f = expit(net[0] + forget_bias)
        i = expit(net[1] + input_bias)
        o = expit(net[2] + output_bias)
        g = np.tanh(net[3])
        moved = (f * (1 - f) * c) ** 2 + (i * (1 - i) * g) ** 2 + (i * (1 - g**2)) ** 2
        u = f**2 * u + gain**2 * d * moved
        c = f * c + i * g
        h = np.tanh(c)
        by_output = gain**2 * d * (o * (1 - o) * h) ** 2
        d = float(np.mean((o * (1 - h**2)) ** 2 * u + by_output))
        power = float(np.mean((o * h) ** 2))
        size = float(np.mean(u)) + d
        growths.append(np.log(size))
        u, d = u / size, d / size
    settled = STEPS // 4
    rate = float(np.mean(growths[settled:])) / 2
    return MeanField(float(np.mean(variances[settled:])), float(np.exp(2 * rate)), rate)
