"""Worst case against typical case, and what the largest Lyapunov exponent says."""

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from gradlab import decay
from gradlab.advice.recommendation import Recommendation
from gradlab.jacobian import jacobian_log_norms, lyapunov_spectrum
from gradlab.jacobian.flat_cell import StepFunction
from gradlab.jacobian.pairs import Norm
from gradlab.sentences import per_step

Profile = Float[np.ndarray, "T+1"]
SURE = 2  # standard errors
VERDICTS = {
    -1: "perturbations shrink, gradients vanish in the long run, and the sequence can be evaluated "
    "in parallel over time (parallel_evaluation counts the Newton steps)",
    1: "perturbations grow, gradients explode in the long run (chaos, where the states stay "
    "bounded), and evaluation in parallel over time would take up to as many Newton steps as time "
    "steps",
    0: "not told from 0 by two standard errors, so these sequences do not show which of the two",
}


def profile(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    norm: Norm,
    initial_carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | None = None,
) -> Profile:
    """Measure the mean log norm of ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ by lag, s the whole carry, in nats.

    The whole carry, since the memory of an LSTM is c: ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ loses most of its norm in the
    first step, where h enters c, however long c lasts.
    """
    log_norms = jacobian_log_norms(
        cell, inputs, norm=norm, initial_carry=initial_carry, lengths=lengths
    )
    return decay.lag_profile(np.asarray(log_norms))


def growth(
    worst: Profile,
    typical: Profile,
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    initial_carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | None = None,
) -> Recommendation:
    """Compare the worst case with the typical case, and judge λ₁ by its standard error.

    Args:
        worst, typical: profiles of the spectral and of the RMS norm.
        cell, inputs, initial_carry, lengths: that they are of.

    λ₁ < 0: perturbations shrink, gradients vanish, and Newton's method evaluates the network in
    parallel over time in a few steps (Gonzalez et al. 2025). λ₁ > 0: they grow, and gradients
    explode (Mikhaeil, Monfared & Durstewitz 2022).
    """
    rates = [decay.decay_rate(profile) for profile in (worst, typical)]
    exponent, error = largest_exponent(cell, inputs, initial_carry, lengths)
    sign = 0 if not abs(exponent) > SURE * error else int(np.sign(exponent))
    parallel = {1: False, -1: True, 0: None}[sign]
    numbers = {
        "decay_rate/spectral": rates[0],
        "decay_rate/rms": rates[1],
        "lyapunov_max": exponent,
        "standard_error": error,
        "parallelisable": parallel,
    }
    change = (
        f"the log norm changes by {per_step(rates[0])} decades a step in the worst case (spectral) "
        f"and by {per_step(rates[1])} in the typical case (RMS)"
    )
    if not np.isfinite(exponent):
        verdict = "the largest Lyapunov exponent is lost to exact zeros or to rounding"
    elif not np.isfinite(error):
        verdict = f"λ₁ = {per_step(exponent)} decades a step, of one step, which shows no error"
    else:
        shown = f"{per_step(exponent)} ± {error / decay.TENFOLD:.4f}"
        verdict = f"λ₁ = {shown} decades a step: {VERDICTS[sign]}"
    return Recommendation("growth", {}, f"{change}; {verdict}.", measured=numbers)


def largest_exponent(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    initial_carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | None = None,
) -> tuple[float, float]:
    """Return the mean of λ₁ over the sequences and its standard error, in nats per step.

    The error is the larger one of that within sequences (over intervals of time) and that between
    them. Sequences of one step, which have no error, are left out where others are longer.
    """
    spectrum = lyapunov_spectrum(
        cell, inputs, initial_carry=initial_carry, count=1, lengths=lengths
    )
    exponents, errors = (np.atleast_1d(np.asarray(x, float)[..., 0]) for x in spectrum)
    if not np.isfinite(exponents).all():
        return float(exponents.mean()), np.nan
    if np.isfinite(errors).any():
        exponents, errors = exponents[np.isfinite(errors)], errors[np.isfinite(errors)]
    count = len(exponents)
    within = float(np.sqrt(np.sum(errors**2)) / count)
    between = float(np.std(exponents, ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    return float(exponents.mean()), float(np.maximum(within, between))
