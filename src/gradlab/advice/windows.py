"""The truncation window: what truncated backpropagation through time loses of the gradient."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from gradlab.advice.recommendation import Recommendation
from gradlab.jacobian import shortest_window, truncation

TOLERANCE = 0.05  # of the relative error; 1 − cosine is then below 0.0013
ByLag = Mapping[str, Float[np.ndarray, "T *weight"]]


def truncation_window(
    by_lag: ByLag,
    *,
    window: int | None = None,
    lag: int | None = None,
    horizon: float = np.inf,
) -> Recommendation:
    """Advise on the window of truncated backpropagation through time.

    Args:
        by_lag: sums of the terms by lag, as in `Backpropagation.by_lag`.
        window: the one in use, in steps; None for none.
        lag: that the task demands, in steps; None if it is not known.
        horizon: of the map, in steps.
    """
    errors, steps = truncation(by_lag), len(next(iter(by_lag.values())))
    shortest = shortest_window(errors, TOLERANCE)
    name = "truncation window"
    if shortest is None:
        return Recommendation(name, {}, "the gradient is exactly zero: no lag carries any of it.")
    error, cosine = (float(x[shortest - 1]) for x in errors)
    measured: dict[str, Any] = {
        "window": shortest,
        "relative_error": error,
        "cosine": cosine,
    }
    sentences = [
        f"a window of {shortest} of {steps} steps is the shortest whose gradient stays within 5 % "
        f"of the full one at these weights (relative error {error:.2g}, cosine {cosine:.4f})"
    ]
    if window is not None:
        lost = losses(by_lag, window)
        measured |= {"lost": lost}
        worst = max(by_lag, key=lambda weight: lost[weight])
        sentences.append(
            f"a window of {window} loses {lost['all']:.2g} of the gradient's norm (cosine "
            f"{errors.cosine[window - 1]:.3f}), {lost[worst]:.2g} of that of {worst}"
        )
    needed = shortest if lag is None else max(shortest, lag + 1)
    if needed > shortest:
        sentences.append(f"the task's lag of {lag} steps needs {needed}")
    if lag is None and horizon <= steps:
        sentences.append(
            "a start that vanishes needs short windows only, whatever the task needs: pass lag="
        )
    reason = "; ".join(sentences) + "."
    if window is not None and needed <= window:
        return Recommendation(name, {}, reason, measured=measured)
    if needed >= steps:
        if window is None:
            return Recommendation(name, {}, reason, measured=measured)
        cost = f"the memory of all {steps} steps, {steps / window:.1f} times that of {window}."
        return Recommendation(name, {"tbptt.window": None}, reason, cost, measured)
    cost = (
        f"with one update a segment (tbptt.update=segment), {needed} of {steps} steps are in "
        f"memory, {needed / steps:.0%}. A stride s above 1 takes 1/s of the work, and leaves each "
        f"loss {needed} − s + 1 to {needed} steps: lengthen the window by s − 1."
    )
    settings = {"tbptt.window": needed, "tbptt.stride": 1}
    return Recommendation(name, settings, reason, cost, measured)


def losses(by_lag: ByLag, window: int) -> dict[str, float]:
    """Return ‖g_K − g‖ / ‖g‖ of a window K for each weight array, and for "all" together."""
    parts = {"all": by_lag, **by_lag}
    return {name: float(truncation(x).relative_error[window - 1]) for name, x in parts.items()}
