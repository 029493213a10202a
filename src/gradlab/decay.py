"""Summaries of a map of log norms: its profile by lag, decay rate, horizon and verdict.

Lags are in the map's own steps; for a map of stride s, a rate is to be divided and a horizon to be
multiplied by s.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

LogNormMap = Float[np.ndarray, "*samples T+1 T+1"]
Profile = Float[np.ndarray, "T+1"]

TENFOLD = np.log(10)
OTHER_RATES = {  # metrics to compare the decay rate with, and their labels
    "lyapunov/max": "λ₁",
    "theory/mean_field": "mean field",
    "theory/mean_log_forget": "E ln f",
}


def lag_profile(log_norms: LogNormMap) -> Profile:
    """Return the mean log norm (nats) at each lag t − k, over all samples and pairs.

    Args:
        log_norms: [..., t, k], −inf where k > t.

    Returns:
        (T + 1,), from lag 0 to T; −inf at a lag where any product is exactly zero.
    """
    length = log_norms.shape[-1]
    maps = np.asarray(log_norms, dtype=np.float64)
    return np.array([np.diagonal(maps, -lag, -2, -1).mean() for lag in range(length)])


def decay_rate(profile: Profile) -> float:
    """Return the least-squares slope of the profile against lag, in nats per step.

    A negative rate means vanishing, a positive one exploding gradients. Lag 0 (the identity) is
    left out, and so are lags at which a product is exactly zero. If one lag remains the rate is its
    log norm over the lag; if none does, −inf.
    """
    lags = np.flatnonzero(np.isfinite(profile))
    lags = lags[lags > 0]
    if lags.size == 0:
        return -np.inf
    if lags.size == 1:
        return float(profile[lags[0]] / lags[0])
    return float(np.polyfit(lags, profile[lags], 1)[0])


def horizon(profile: Profile) -> float:
    """Return the lag at which the mean norm has fallen to 1/e of its value at lag 0; inf if never.

    The mean is geometric, that of the log norms, and interpolated linearly between lags. Blocks
    whose norm is zero at lag 0 (∂h/∂c) are compared with their first lag that is not.
    """
    first = int(np.argmax(profile > -np.inf))
    below = profile - (profile[first] - 1)
    crossed = np.flatnonzero(below[first:] <= 0)
    if crossed.size == 0 or profile[first] == -np.inf:
        return np.inf
    lag = first + int(crossed[0])
    return float(lag - below[lag] / (below[lag] - below[lag - 1])) if below[lag] > -np.inf else lag


def verdict(rate: float, length: int) -> str:
    """Return the verdict on a decay rate (nats per step) over a sequence of `length` steps.

    "vanishing" or "exploding" if the mean norm falls or grows more than tenfold, else "stable".
    """
    if rate * length < -TENFOLD:
        return "vanishing"
    return "exploding" if rate * length > TENFOLD else "stable"


def verdict_sentence(metrics: Mapping[str, float], length: int) -> str:
    """Return the verdict and the numbers behind it as one line of text.

    Args:
        metrics: by their W&B names. The line shows the residual of the decay rate from every other
            rate among them.
        length: of the sequence, in steps.
    """
    rate = metrics["jacobian/decay_rate"]
    parts = [
        f"{verdict(rate, length)}: the log norm changes by {rate:+.3f} nats a step, "
        f"{rate * length:+.1f} over {length} steps"
    ]
    for name, label in OTHER_RATES.items():
        if np.isfinite(metrics.get(name, np.nan)) and np.isfinite(rate):
            parts.append(f"{label} {metrics[name]:+.3f} (residual {rate - metrics[name]:+.3f})")
    if "theory/bound" in metrics:
        bound = metrics["theory/bound"]
        parts.append(f"bound {bound:+.3f}" + (" rules growth out" if bound < 0 else ""))
    if metrics.get("jacobian/unresolved"):
        parts.append(f"{metrics['jacobian/unresolved']:.1%} of the entries are lost to rounding")
    return "; ".join(parts)
