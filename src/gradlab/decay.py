"""Summaries of a map of log norms: its profile by lag, decay rate, horizon and verdict.

Functions of a map take a plain array (NumPy, JAX), whose rows and columns are one step apart, or an
xarray.DataArray, whose last coordinate says which steps they are: rates and horizons then count in
steps, whatever the stride. Those of a profile take either too; an array of one dimension is a
profile.

Exact zeros: the log norm of a product that is exactly zero is −inf (a ReLU whose pre-activation is
0 or less has slope 0), and one of them would make any mean −inf. Zeros are therefore counted,
by `zero_share`, and means are taken over the other pairs: profile, decay rate, horizon and verdict
are those of the gradients that arrive. NaN is a pair that was not measured, such as one beyond the
end of a sequence; it is left out everywhere.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias, overload

import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

LogNormMap = Float[np.ndarray, "*samples T+1 T+1"]
Profile = Float[np.ndarray, "T+1"]
MapOrProfile: TypeAlias = ArrayLike | xr.DataArray  # (..., T + 1, T + 1) or (T + 1,)

TENFOLD = np.log(10)  # nats in a decade


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
    zeros = np.count_nonzero(np.isneginf(log_norms) & pairs)
    return float(zeros / measured) if measured else np.nan


@overload
def lag_profile(log_norms: xr.DataArray) -> xr.DataArray: ...
@overload
def lag_profile(log_norms: ArrayLike) -> Profile: ...
def lag_profile(log_norms: ArrayLike | xr.DataArray) -> Profile | xr.DataArray:
    """Return the mean log norm (nats) at each lag t − k, over samples and pairs that are not zero.

    A lag at which all pairs are exactly zero is −inf if one of the products became zero there: the
    two products that are one step shorter are not. The network has forgotten by then, as a
    nilpotent one does. It is NaN if each of its pairs contains a shorter product that is zero: it
    shows nothing but what that shorter lag has shown. Where the first pixels of every image are
    black, each pair of the longest lags begins with a step at which a ReLU network has slope 0.

    Args:
        log_norms: [..., t, k], −inf where k > t, NaN where not measured.

    Returns:
        (T + 1,), from lag 0 to T; NaN at a lag where no pair was measured. Of a DataArray, a
        DataArray whose coordinate `lag` counts in steps.

    Raises:
        ValueError: it is no map.

    Example:
        >>> profile = gradlab.lag_profile(gradlab.jacobian_log_norms(cell, x))
        >>> profile.shape, float(profile[0])  # nats; lag 0 is the identity
        ((21,), 0.0)
    """
    maps, stride = map_and_stride(log_norms)
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
    if not isinstance(log_norms, xr.DataArray):
        return profile
    lags = xr.Variable("lag", stride * np.arange(len(profile)), {"units": "steps"})
    return xr.DataArray(profile, coords={"lag": lags}, dims="lag", attrs=log_norms.attrs)


def decay_rate(log_norms: MapOrProfile) -> float:
    """Return the least-squares slope of the lag profile against lag, in nats per step.

    A negative rate means vanishing, a positive one exploding gradients. Lag 0 (the identity) is
    left out, and so are lags at which every product is exactly zero or none was measured. If one
    lag remains the rate is its log norm over the lag; if none does, −inf, or NaN if no lag was
    measured.

    Args:
        log_norms: a map [..., t, k], or its `lag_profile`; nats.

    Raises:
        ValueError: it is neither.

    Example:
        >>> halving = np.log(0.5) * np.arange(11.0)  # a profile whose norm halves at each step
        >>> round(gradlab.decay_rate(halving), 3)  # nats per step: ln ½
        -0.693
        >>> gradlab.decay_rate(gradlab.jacobian_log_norms(cell, x, of="h", wrt="h")) < 0
        True
    """
    profile, stride = profile_and_stride(log_norms)
    lags = np.flatnonzero(np.isfinite(profile))
    lags = lags[lags > 0]
    if np.isposinf(profile).any():  # an overflow, which has no slope
        return np.nan
    if lags.size == 0:
        return -np.inf if np.isneginf(profile[1:]).any() else np.nan
    if lags.size == 1:
        return float(profile[lags[0]] / lags[0]) / stride
    return float(np.polyfit(lags, profile[lags], 1)[0]) / stride


def horizon(log_norms: MapOrProfile) -> float:
    """Return the lag at which the mean norm has fallen to 1/e of its value at lag 0; inf if never.

    The mean is geometric, that of the log norms, and interpolated linearly between lags; at a lag
    where every product is exactly zero the horizon is that lag. Blocks whose norm is zero at lag 0
    (∂h/∂c) are compared with their first lag that is not. Lags that were not measured (NaN) are
    left out; if none was, the horizon is NaN.

    Args:
        log_norms: a map [..., t, k], or its `lag_profile`; nats.

    Returns:
        The horizon, in steps.

    Raises:
        ValueError: it is neither.

    Example:
        >>> halving = np.log(0.5) * np.arange(11.0)  # a profile whose norm halves at each step
        >>> round(gradlab.horizon(halving), 3)  # steps: 1/ln 2
        1.443
        >>> gradlab.horizon(gradlab.jacobian_log_norms(cell, x, of="h", wrt="h")) < 20
        True
    """
    profile, stride = profile_and_stride(log_norms)
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
        return float(lags[i]) * stride
    gap = lags[i] - lags[i - 1]
    return float(lags[i] - gap * below[i] / (below[i] - below[i - 1])) * stride


def summary(log_norms: ArrayLike | xr.DataArray) -> dict[str, float | str]:
    """Return what a map says, under the names that runs log: jacobian/NAME is the same number.

    Args:
        log_norms: [..., t, k] in nats, −inf where k > t, NaN where not measured; leading axes are
            samples.

    Returns:
        "decay_rate" (nats per step), "horizon" (steps), "zero_share" (of the pairs k < t, those
        that are exactly zero), "log_norm/lag_1", "log_norm/lag_2", "log_norm/lag_4", … (mean log
        norms, nats) and "verdict" ("vanishing", "stable", "exploding" or "unmeasured").

    Raises:
        ValueError: it is no map.

    Example:
        >>> numbers = gradlab.summary(gradlab.jacobian_log_norms(cell, x, of="h", wrt="h"))
        >>> list(numbers)[:3], numbers["verdict"]
        (['decay_rate', 'horizon', 'zero_share'], 'vanishing')
    """
    return {**map_numbers(*map_and_stride(log_norms)), "verdict": verdict(log_norms)}


def map_numbers(maps: LogNormMap, stride: int = 1) -> dict[str, float]:
    """Return the numbers of `summary`, of a map whose rows are `stride` steps apart."""
    rate, reach, *lags = _profile_numbers(lag_profile(maps), stride).items()
    return dict([rate, reach, ("zero_share", zero_share(maps)), *lags])


def _profile_numbers(profile: Profile, stride: int) -> dict[str, float]:
    numbers = {"decay_rate": decay_rate(profile) / stride, "horizon": horizon(profile) * stride}
    for power in range((profile.size - 1).bit_length()):
        numbers[f"log_norm/lag_{2**power * stride}"] = float(profile[2**power])
    return numbers


def verdict(rate: float | MapOrProfile, length: int | None = None) -> str:
    """Return the verdict on a decay rate, or on a map, over a sequence.

    "vanishing" or "exploding" if the mean norm falls or grows more than tenfold, else "stable";
    "unmeasured" if the rate is NaN. A map is "vanishing" too if every product is exactly zero at a
    lag of at most half the sequence, whatever the slope of the shorter lags.

    Args:
        rate: nats per step; or a map [..., t, k], or its `lag_profile`, in nats.
        length: of the sequence, in steps; by default the longest lag of the map.

    Raises:
        ValueError: it is neither, a rate comes without a length, or the length is not above 0.

    Example:
        >>> gradlab.verdict(-0.05, length=20), gradlab.verdict(-0.05, length=100)
        ('stable', 'vanishing')
        >>> gradlab.verdict(gradlab.jacobian_log_norms(cell, x, of="h", wrt="h"))
        'vanishing'
    """
    if length is not None and not length > 0:
        raise ValueError(f"the length of a sequence is a number of steps above 0; got {length}.")
    if np.ndim(rate) > 0:
        profile, stride = profile_and_stride(rate)
        numbers = _profile_numbers(profile, stride)
        metrics = {f"jacobian/{name}": value for name, value in numbers.items()}
        return verdict_of(metrics, length or (len(profile) - 1) * stride)
    if length is None:
        raise ValueError("a rate's verdict needs the sequence's length: type verdict(-0.1, 50).")
    change = float(rate) * length  # type: ignore[arg-type]
    if np.isnan(change):
        return "unmeasured"
    if change < -TENFOLD:
        return "vanishing"
    return "exploding" if change > TENFOLD else "stable"


def map_and_stride(log_norms: Any) -> tuple[LogNormMap, int]:
    """Return a map as a float64 array, and the steps from one row to the next.

    Raises:
        ValueError: it is no map.
    """
    if isinstance(log_norms, xr.Dataset):
        raise ValueError(
            f"a map is one variable of {list(log_norms.data_vars)}: give it, as "
            "gradients['jacobian_log_norm']."
        )
    stride = 1
    if isinstance(log_norms, xr.DataArray):
        if log_norms.sizes.get("step", 1) > 1:
            raise ValueError(
                f"these are maps of {log_norms.sizes['step']} training steps: choose one, as "
                "maps.isel(step=-1)."
            )
        if {"t", "k"} <= set(log_norms.dims):
            log_norms = log_norms.transpose(..., "t", "k")
        stride = _stride_of_map(log_norms)
    maps = real_numbers(log_norms, "log norms")
    if maps.ndim < 2 or maps.shape[-1] != maps.shape[-2] or maps.shape[-1] < 2:
        raise ValueError(
            "a map of log norms has the shape (..., T + 1, T + 1), as jacobian_log_norms returns "
            f"it; got {maps.shape}."
        )
    if (maps[..., ~np.tri(maps.shape[-1], dtype=bool)] > -np.inf).any():
        raise ValueError(
            "a map of log norms [..., t, k] is −inf where k > t: these are norms instead of their "
            "logs, or t and k have changed places."
        )
    return maps, stride


def real_numbers(values: Any, what: str) -> Float[np.ndarray, "..."]:
    """Return values as a float64 array.

    Raises:
        ValueError: they are no real numbers; the sentence calls them `what`.
    """
    if np.iscomplexobj(values):
        raise ValueError(f"{what} are real numbers; got complex ones.")
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} are real numbers; got a {type(values).__name__}.") from None


def profile_and_stride(log_norms: Any) -> tuple[Profile, int]:
    """Return the profile of a map, or the profile itself, and the steps between its lags."""
    if np.ndim(log_norms) == 1 and np.size(log_norms):
        is_labelled = isinstance(log_norms, xr.DataArray)
        profile = real_numbers(log_norms, "log norms")
        return profile, _stride(log_norms) if is_labelled else 1
    maps, stride = map_and_stride(log_norms)
    return lag_profile(maps), stride


def _stride_of_map(log_norms: xr.DataArray) -> int:
    """Return the steps from one row of a labelled map to the next.

    Raises:
        ValueError: t and k are not the same steps, evenly spaced.
    """
    if set(log_norms.dims[-2:]) <= set(log_norms.coords):
        t, k = (log_norms[name] for name in log_norms.dims[-2:])
        gaps = np.diff(t)
        if not (np.array_equal(t, k) and (gaps > 0).all() and len(set(gaps)) <= 1):
            raise ValueError(
                "t and k of a map must be the same steps, evenly spaced: cut both alike, as "
                "maps.isel(t=slice(5, 20), k=slice(5, 20))."
            )
    return _stride(log_norms)


def _stride(log_norms: xr.DataArray) -> int:
    """Return the steps from one entry to the next along the last dimension; 1 if none are named."""
    steps = log_norms.coords.get(log_norms.dims[-1])
    return int(steps[1] - steps[0]) if steps is not None and steps.size > 1 else 1


def verdict_of(metrics: Mapping[str, float], length: int) -> str:
    """Return the verdict on a run's metrics, by their W&B names: that on its decay rate.

    If every product is exactly zero at a lag of at most half the sequence (a nilpotent network),
    the verdict is "vanishing", whatever the slope of the shorter lags.
    """
    rate = metrics["jacobian/decay_rate"]
    return "vanishing" if forgets(metrics, length) else verdict(rate, length)


def forgets(metrics: Mapping[str, float], length: int) -> bool:
    """Return whether every product is exactly zero at a lag of at most half the sequence."""
    return np.isfinite(metrics["jacobian/decay_rate"]) and 2 * forgotten_lag(metrics) <= length


def forgotten_lag(metrics: Mapping[str, float]) -> float:
    """Return the shortest logged lag at which every product is exactly zero; inf if none is."""
    prefix = "jacobian/log_norm/lag_"
    lags = [int(name.removeprefix(prefix)) for name in metrics if name.startswith(prefix)]
    return min((x for x in lags if np.isneginf(metrics[f"{prefix}{x}"])), default=np.inf)
