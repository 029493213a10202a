"""Bounds on how well conditioned it is to solve for a whole trajectory at once.

The residuals r⁽ᵗ⁾ = s⁽ᵗ⁾ − f_t(s⁽ᵗ⁻¹⁾), t = 1..T, have a block bidiagonal Jacobian, with identities
on the diagonal and −J⁽ᵗ⁾ below it. Its inverse L is block lower triangular, with the blocks
∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ = J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾, 1 ≤ k ≤ t. The merit function ½‖r‖² has the Polyak-Łojasiewicz constant
μ = inf σ_min², over all guesses, with σ_min = 1/‖L‖ the smallest singular value of the Jacobian.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gradlab.jacobian.products import Scaled, multiply, rescale


class Conditioning(NamedTuple):
    """The log of σ_min of the residuals' Jacobian: 0 at best, far below 0 if ill-conditioned.

    Attributes:
        lower, upper: bounds on it at the network's own trajectory, from all products along it.
            Since μ is an infimum, ½ log μ is at most `upper`; `lower` does not bound it.
        from_exponent: log (e^λ₁ − 1) / (e^(λ₁T) − 1), an estimate from λ₁ and T alone. If at all
            guesses every product of k step Jacobians has a norm of at most a e^(λ₁k), then ½ log μ
            is at least this − log a (Gonzalez et al. 2025, arXiv:2508.16817, theorem 2, equations
            10 and 11). No measurement along one trajectory gives a.
    """

    lower: Float[Array, "*batch"]
    upper: Float[Array, "*batch"]
    from_exponent: Float[Array, "*batch"]


def conditioning(
    jacobians: Float[Array, "T n n"], exponent: Float[Array, ""], length: Int[Array, ""]
) -> Conditioning:
    """Return the log of σ_min of a sequence's residuals, as float32.

    The Gram matrix of block row t of L is G⁽ᵗ⁾ = Σ_k P Pᵀ of its products P, and that of the row
    before it taken one step further: G⁽ᵗ⁾ = J⁽ᵗ⁾ G⁽ᵗ⁻¹⁾ J⁽ᵗ⁾ᵀ + I, G⁽¹⁾ = I. So

        max_t λ_max(G⁽ᵗ⁾) ≤ ‖L‖² ≤ Σ_t tr G⁽ᵗ⁾,    λ_max(G) ≥ ‖G‖²_F / tr G.

    Args:
        jacobians: the step Jacobians along the trajectory, of which the first is not needed.
        exponent: λ₁ of the steps up to the length.
        length: T of the sequence.
    """
    identity = jnp.eye(jacobians.shape[-1])
    times = jnp.arange(len(jacobians))

    def advance(gram: Scaled, jacobian: Array) -> tuple[Scaled, tuple[Array, Array]]:
        moved = multiply(multiply(jacobian, gram.unit), jacobian.T)
        unit, log_scale = rescale(moved, gram.log_scale)
        above = jnp.maximum(log_scale, 0)
        gram = rescale(unit * jnp.exp(log_scale - above) + identity * jnp.exp(-above), above)
        trace = jnp.log(jnp.trace(gram.unit))
        return gram, (gram.log_scale + trace, gram.log_scale - trace)

    start = Scaled(jnp.zeros_like(identity), jnp.array(-jnp.inf))
    _, (traces, largest) = jax.lax.scan(advance, start, jacobians)
    within = times < length
    lower = -0.5 * jax.nn.logsumexp(jnp.where(within, traces, -jnp.inf))
    upper = -0.5 * jnp.max(jnp.where(within, largest, 0))  # that of the first row is at least 0
    # Of −inf, the sum is that of lag 0.
    rates = jnp.where(times == 0, 0, times * exponent)
    from_exponent = -jax.nn.logsumexp(jnp.where(within, rates, -jnp.inf))
    return Conditioning(*(x.astype(jnp.float32) for x in (lower, upper, from_exponent)))
