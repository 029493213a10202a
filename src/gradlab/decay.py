"""How a Jacobian map falls with lag: its profile, decay rate, horizon and verdict."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

LogNormMap = Float[np.ndarray, "*samples T+1 T+1"]
Profile = Float[np.ndarray, "T+1"]

TENFOLD = np.log(10)
OTHER_RATES = {
    "lyapunov/max": "λ₁",
    "theory/mean_field": "mean field",
    "theory/mean_log_forget": "E ln f",
}


def lag_profile(log_norms: LogNormMap) -> Profile:
    """Mean log norm over all samples and all pairs of the same lag, in nats; [lag]."""
    length = log_norms.shape[-1]
    maps = np.asarray(log_norms, dtype=np.float64)
    return np.array([np.diagonal(maps, -lag, -2, -1).mean() for lag in range(length)])


def decay_rate(profile: Profile) -> float:
    """Least-squares slope of the profile against lag, in nats per step; negative: vanishing.

    Lag 0 (the identity) is left out, and lags at which the product is exactly zero; −inf where
    nothing remains but zeros, and the value at lag 1 where that is the only lag there is.
    """
    lags = np.flatnonzero(np.isfinite(profile))
    lags = lags[lags > 0]
    if lags.size == 0:
        return -np.inf
    if lags.size == 1:
        return float(profile[lags[0]] / lags[0])
    return float(np.polyfit(lags, profile[lags], 1)[0])


def horizon(profile: Profile) -> float:
    """The lag at which the mean norm has fallen to 1/e of its lag-0 value; inf if it never does.

    The mean is the geometric one (of the log norms), interpolated linearly between lags. Blocks
    that start at zero (∂h/∂c) are taken against their first non-zero lag.
    """
    first = int(np.argmax(profile > -np.inf))
    below = profile - (profile[first] - 1)
    crossed = np.flatnonzero(below[first:] <= 0)
    if crossed.size == 0 or profile[first] == -np.inf:
        return np.inf
    lag = first + int(crossed[0])
    return float(lag - below[lag] / (below[lag] - below[lag - 1])) if below[lag] > -np.inf else lag


def verdict(rate: float, length: int) -> str:
    """Name what happens over a whole sequence of `length` steps at a rate in nats per step.

    "vanishing" or "exploding" where the mean norm falls or grows more than tenfold, else "stable".
    """
    if rate * length < -TENFOLD:
        return "vanishing"
    return "exploding" if rate * length > TENFOLD else "stable"


def reasons(metrics: Mapping[str, float], length: int) -> str:
    """The verdict with its reasons in one line, from metrics by their W&B names.

    Each other rate that was measured stands beside the decay rate, with the residual.
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
