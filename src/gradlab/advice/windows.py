"""The truncation window: what truncated backpropagation through time loses of the gradient."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from gradlab import decay
from gradlab.advice.recommendation import Recommendation
from gradlab.jacobian import shortest_window, truncation
from gradlab.sentences import counted

TOLERANCE = 0.05  # of the relative error; 1 − cosine is then below 0.0013
NAME = "truncation window"
ByLag = Mapping[str, Float[np.ndarray, "T *weight"]]


def truncation_window(
    by_lag: ByLag,
    worst: Float[np.ndarray, "T+1"],
    *,
    window: int | None = None,
    lag: int | None = None,
) -> Recommendation:
    """Advise on the window of truncated backpropagation through time.

    Which lags own the gradient is the network's doing as well as the task's: one that vanishes
    leaves it to the short lags, one that explodes to the long ones. Without the task's lag no
    window is shortened where it vanishes, and none is lengthened for an explosion.

    Args:
        by_lag: sums of the terms by lag, as in `Backpropagation.by_lag`.
        worst: profile of the spectral norm.
        window: the one in use, in steps; None for none.
        lag: that the task demands, in steps; None if it is not known.
    """
    errors, steps = truncation(by_lag), len(next(iter(by_lag.values())))
    shortest = shortest_window(errors, TOLERANCE)
    if shortest is None:
        return Recommendation(NAME, {}, "the gradient is exactly zero: no lag carries any of it.")
    measured: dict[str, Any] = {
        "window": shortest,
        "relative_error": float(errors.relative_error[shortest - 1]),
        "cosine": float(errors.cosine[shortest - 1]),
    }
    sentences = [
        f"a window of {shortest} of {steps} steps is the shortest whose gradient stays within 5 % "
        f"of the full one at these weights (relative error {measured['relative_error']:.2g}, "
        f"cosine {measured['cosine']:.4f})"
    ]
    if window is not None:
        measured["lost"] = lost = losses(by_lag, window)
        weight = max(by_lag, key=lambda weight: lost[weight])
        sentences.append(
            f"a window of {window} loses {lost['all']:.2g} of the gradient's norm (cosine "
            f"{errors.cosine[window - 1]:.3f}), {lost[weight]:.2g} of that of {weight}"
        )
    needed, why = _needed(shortest, worst, window=window or steps, lag=lag)
    reason = "; ".join([*sentences, *why]) + "."
    settings, cost = _set(needed, steps, window)
    return Recommendation(NAME, settings, reason, cost, measured)


def _needed(
    shortest: int, worst: Float[np.ndarray, "T+1"], *, window: int, lag: int | None
) -> tuple[int, list[str]]:
    """Return the window that the measurement supports, and sentences on what else it rests on."""
    explodes = decay.verdict(worst) == "exploding"
    if lag is None and explodes and shortest > window:
        return window, [
            "gradients explode here, which leaves them to the longest lags, whatever the task "
            "needs: pass lag="
        ]
    if lag is None and decay.horizon(worst) < len(worst) and shortest < window:
        return window, [
            "gradients vanish here, which leaves them to the shortest lags, whatever the task "
            "needs: pass lag="
        ]
    if lag is None:
        return shortest, []
    if explodes:  # then the task decides, and no window is shortened for it
        needed = lag + 1 if window <= lag else window
        return needed, [
            f"gradients explode here, which leaves them to the longest lags; the task's lag of "
            f"{counted(lag, 'step')} needs {lag + 1}"
        ]
    if lag < shortest:
        return shortest, []
    return lag + 1, [f"the task's lag of {counted(lag, 'step')} needs {lag + 1}"]


def _set(needed: int, steps: int, window: int | None) -> tuple[Mapping[str, Any], str]:
    """Return the settings of a window that is needed, if it is another one, and what it costs."""
    if needed <= (window or 0) or (window is None and needed >= steps):
        return {}, ""
    if needed >= steps:
        times = f"{steps / (window or steps):.1f} times that of {window}"
        return {"tbptt.window": None}, f"the memory of all {steps} steps, {times}."
    cost = (
        f"with one update a segment (tbptt.update=segment), {needed} of {steps} steps are in "
        f"memory, {needed / steps:.0%}. A stride s above 1 takes 1/s of the work, and leaves each "
        f"loss {needed} − s + 1 to {needed} steps: lengthen the window by s − 1."
    )
    return {"tbptt.window": needed, "tbptt.stride": 1}, cost


def losses(by_lag: ByLag, window: int) -> dict[str, float]:
    """Return ‖g_K − g‖ / ‖g‖ of a window K for each weight array, and for "all" together."""
    parts = {"all": by_lag, **by_lag}
    return {name: float(truncation(x).relative_error[window - 1]) for name, x in parts.items()}
