"""Critical gains: where the state 0 of a network without input stops to be stable.

At rest, with biases that all units share, the step Jacobian is kept · I + slope · W with recurrent
weights W ~ N(0, gain²/n) of the candidate. Its largest eigenvalue tends to kept + slope · gain as
n → ∞ (Ginibre 1965). The forms are derived from the cells. Fioratti, Marcaccioli & Casola 2026
(arXiv:2605.10650, of which the abstract was at hand) give such a criterion for gated networks.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit


class AtRest(NamedTuple):
    """The largest eigenvalue of the step Jacobian at rest, kept + slope · gain.

    Attributes:
        kept: share of itself that a unit keeps.
        slope: weight of the recurrent input.
    """

    kept: float
    slope: float

    @property
    def critical_gain(self) -> float:
        """The gain at which the largest eigenvalue is 1."""
        return (1 - self.kept) / self.slope

    def rate(self, gain: float) -> float:
        """Return ln(kept + slope · gain), λ₁ in nats per step of a network that stays at rest.

        It does for a gain below `critical_gain`.
        """
        return float(np.log(self.kept + self.slope * gain))


def leaky_at_rest(alpha: float = 1.0) -> AtRest:
    """Return (1 − α, α) of a leaky tanh network, and with α = 1 of an Elman network.

    The critical gain is 1, whatever α (Sompolinsky, Crisanti & Sommers 1988).

    Example:
        >>> from gradlab.theory.at_rest import leaky_at_rest
        >>> round(float(leaky_at_rest(0.2).critical_gain), 6)
        1.0
    """
    return AtRest(1 - alpha, alpha)


def gru_at_rest(update_bias: float = 0.0, reset_bias: float = 0.0) -> AtRest:
    """Return (σ(b_z), (1 − σ(b_z)) σ(b_r)) of a GRU.

    The critical gain, 1/σ(b_r), does not depend on b_z.

    Args:
        update_bias: b_z of all units, in h⁽ᵗ⁾ = (1 − z) ⊙ g + z ⊙ h⁽ᵗ⁻¹⁾.
        reset_bias: b_r of all units.

    Example:
        >>> from gradlab.theory.at_rest import gru_at_rest
        >>> gru_at_rest().critical_gain
        2.0
    """
    return AtRest(float(expit(update_bias)), float(expit(-update_bias) * expit(reset_bias)))


def lstm_at_rest(
    forget_bias: float = 0.0, input_bias: float = 0.0, output_bias: float = 0.0
) -> AtRest:
    """Return (σ(b_f), σ(b_i) σ(b_o)) of an LSTM.

    The cell state keeps f ⊙ c, and i ⊙ tanh(W h) with h = o ⊙ c adds i o W c.

    Args:
        forget_bias, input_bias, output_bias: b_f, b_i and b_o of all units.

    Example:
        >>> from gradlab.theory.at_rest import lstm_at_rest
        >>> round(lstm_at_rest(forget_bias=1).critical_gain, 4)  # 4 (1 − σ(1))
        1.0758
    """
    return AtRest(float(expit(forget_bias)), float(expit(input_bias) * expit(output_bias)))
