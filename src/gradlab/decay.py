"""Summaries of a map of log norms: its profile by lag, decay rate, horizon and verdict.

Lags are in the map's own steps; for a map of stride s, a rate is to be divided and a horizon to be
multiplied by s.

Exact zeros: the log norm of a product that is exactly zero is −inf (a ReLU whose pre-activation is
0 or less has slope 0), and one of them would make any mean −inf. Zeros are therefore counted,
by `zero_share`, and means are taken over the other pairs: profile, decay rate, horizon and verdict
are those of the gradients that arrive. NaN is a pair that was not measured, such as one beyond the
end of a sequence; it is left out everywhere.
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


def mean_log_norm(log_norms: Float[np.ndarray, "..."], axis: int | None = None) -> np.ndarray:
    """Return the mean of the log norms that are neither NaN (not measured) nor −inf (exact zeros).

    Args:
        log_norms: nats.
        axis: of the mean; None for all entries.

    Returns:
        Means, of the type of the log norms; −inf where all that were measured are −inf, NaN where
        none was.
    """
    nonzero = log_norms > -np.inf
    if nonzero.all():
        return np.asarray(log_norms.mean(axis))
    count = nonzero.sum(axis)
    total = np.where(nonzero, log_norms, 0).sum(axis)
    without = np.where(np.isneginf(log_norms).any(axis), -np.inf, np.nan)
    means = np.where(count > 0, total / np.maximum(count, 1), without)
    return means.astype(log_norms.dtype)


def zero_share(log_norms: LogNormMap) -> float:
    """Return the share of the measured pairs k < t whose product is exactly zero.

    Args:
        log_norms: [..., t, k] in nats; NaN where not measured, and then no share (NaN if all are).
    """
    pairs = np.tri(log_norms.shape[-1], k=-1, dtype=bool)
    measured = np.count_nonzero(~np.isnan(log_norms) & pairs)
    return np.count_nonzero(np.isneginf(log_norms) & pairs) / measured if measured else np.nan


def lag_profile(log_norms: LogNormMap) -> Profile:
    """Return the mean log norm (nats) at each lag t − k, over samples and pairs that are not zero.

    A lag at which all pairs are exactly zero is −inf if one of the products became zero there: the
    two products that are one step shorter are not. The network has forgotten by then, as a
    nilpotent one does. It is NaN if each of its pairs contains a shorter product that is zero: it
    shows nothing but what that shorter lag has shown. Where the first pixels of every image are
    black, each pair of the longest lags begins with a step at which a ReLU network has slope 0.

    Args:
        log_norms: [..., t, k], −inf where k > t, NaN where not measured.

    Returns:
        (T + 1,), from lag 0 to T; NaN at a lag where no pair was measured.
    """
    maps = np.asarray(log_norms, dtype=np.float64)
    profile = np.full(maps.shape[-1], np.nan)
    before = np.zeros((*maps.shape[:-2], maps.shape[-1] + 1))  # lag −1: nothing is zero yet
    gone = False
    for lag in range(len(profile)):
        pairs = np.diagonal(maps, -lag, -2, -1)
        profile[lag] = mean_log_norm(pairs)
        if np.isneginf(profile[lag]):
            shorter = np.minimum(before[..., :-1], before[..., 1:])  # (t − 1, k) and (t, k + 1)
            gone = gone or bool((np.isneginf(pairs) & (shorter > -np.inf)).any())
            profile[lag] = -np.inf if gone else np.nan
        else:
            gone = False
        before = pairs
    return profile


def decay_rate(profile: Profile) -> float:
    """Return the least-squares slope of the profile against lag, in nats per step.

    A negative rate means vanishing, a positive one exploding gradients. Lag 0 (the identity) is
    left out, and so are lags at which every product is exactly zero or none was measured. If one
    lag remains the rate is its log norm over the lag; if none does, −inf, or NaN if no lag was
    measured.
    """
    lags = np.flatnonzero(np.isfinite(profile))
    lags = lags[lags > 0]
    if np.isposinf(profile).any():  # an overflow, which has no slope
        return np.nan
    if lags.size == 0:
        return -np.inf if np.isneginf(profile[1:]).any() else np.nan
    if lags.size == 1:
        return float(profile[lags[0]] / lags[0])
    return float(np.polyfit(lags, profile[lags], 1)[0])


def horizon(profile: Profile) -> float:
    """Return the lag at which the mean norm has fallen to 1/e of its value at lag 0; inf if never.

    The mean is geometric, that of the log norms, and interpolated linearly between lags; at a lag
    where every product is exactly zero the horizon is that lag. Blocks whose norm is zero at lag 0
    (∂h/∂c) are compared with their first lag that is not. Lags that were not measured (NaN) are
    left out; if none was, the horizon is NaN.
    """
    lags = np.flatnonzero(~np.isnan(profile))
    if lags.size == 0:
        return np.nan
    values = profile[lags]
    if np.isneginf(values).all():
        return np.inf
    first = int(np.argmax(values > -np.inf))
    below = values - (values[first] - 1)
    crossed = np.flatnonzero(below[first:] <= 0)
    if crossed.size == 0:
        return np.inf
    i = first + int(crossed[0])
    if below[i] == -np.inf:
        return float(lags[i])
    gap = lags[i] - lags[i - 1]
    return float(lags[i] - gap * below[i] / (below[i] - below[i - 1]))


def verdict(rate: float, length: int) -> str:
    """Return the verdict on a decay rate (nats per step) over a sequence of `length` steps.

    "vanishing" or "exploding" if the mean norm falls or grows more than tenfold, else "stable";
    "unmeasured" if the rate is NaN.
    """
    if np.isnan(rate):
        return "unmeasured"
    if rate * length < -TENFOLD:
        return "vanishing"
    return "exploding" if rate * length > TENFOLD else "stable"


def verdict_of(metrics: Mapping[str, float], length: int) -> str:
    """Return the verdict on a run's metrics, by their W&B names: that on its decay rate.

    If every product is exactly zero at a lag of at most half the sequence (a nilpotent network),
    the verdict is "vanishing", whatever the slope of the shorter lags.
    """
    rate = metrics["jacobian/decay_rate"]
    return "vanishing" if _forgets(metrics, length) else verdict(rate, length)


def verdict_sentence(metrics: Mapping[str, float], length: int) -> str:
    """Return the verdict and the numbers behind it as one line of text.

    Args:
        metrics: by their W&B names. The line shows the share of the pairs that are exactly zero, if
            any is, and the residual of the decay rate from every other rate among them.
        length: of the sequence, in steps.
    """
    rate = metrics["jacobian/decay_rate"]
    change, zeros = _change(rate, length), _zeros(metrics)
    parts = [zeros, f"of the others {change}"] if _forgets(metrics, length) else [change, zeros]
    parts = [part for part in parts if part]
    parts[0] = f"{verdict_of(metrics, length)}: {parts[0]}"
    for name, label in OTHER_RATES.items():
        if np.isfinite(metrics.get(name, np.nan)) and np.isfinite(rate):
            parts.append(f"{label} {metrics[name]:+.3f} (residual {rate - metrics[name]:+.3f})")
    if "theory/bound" in metrics:
        bound = metrics["theory/bound"]
        parts.append(f"bound {bound:+.3f}" + (" rules growth out" if bound < 0 else ""))
    if metrics.get("jacobian/unresolved"):
        parts.append(f"{metrics['jacobian/unresolved']:.1%} of the entries are lost to rounding")
    return "; ".join(parts)


def _change(rate: float, length: int) -> str:
    if np.isnan(rate):
        return "no lag was measured"
    if np.isneginf(rate):
        return "the gradient is exactly zero at every lag"
    change = f"the log norm changes by {rate:+.3f} nats a step"
    return f"{change}, {rate * length:+.1f} over {length} steps"


def _zeros(metrics: Mapping[str, float]) -> str:
    """Say which share of the pairs is exactly zero, and the lag at which all are; "" if none is."""
    share, lag = metrics.get("jacobian/zero_share", 0), _forgotten_lag(metrics)
    if not share > 0 or np.isneginf(metrics["jacobian/decay_rate"]):
        return ""
    percent = f"{share:.1%}" if share >= 0.001 else "less than 0.1%"
    all_at = f", all at lag {lag}" if lag < np.inf else ""
    return f"{percent} of the pairs are exactly zero{all_at}"


def _forgets(metrics: Mapping[str, float], length: int) -> bool:
    return np.isfinite(metrics["jacobian/decay_rate"]) and 2 * _forgotten_lag(metrics) <= length


def _forgotten_lag(metrics: Mapping[str, float]) -> float:
    """Return the shortest logged lag at which every product is exactly zero; inf if none is."""
    prefix = "jacobian/log_norm/lag_"
    lags = [int(name.removeprefix(prefix)) for name in metrics if name.startswith(prefix)]
    return min((x for x in lags if np.isneginf(metrics[f"{prefix}{x}"])), default=np.inf)
