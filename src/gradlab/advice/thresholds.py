"""The clipping threshold, from the gradient norms of a run's updates."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from gradlab.advice.recommendation import Recommendation
from gradlab.advice.windows import ByLag
from gradlab.jacobian import credit
from gradlab.jacobian.arguments import real_numbers

RARE = 10  # times the median: a norm that is rare and large
NAME = "clipping threshold"
Norms = Float[np.ndarray, "updates"]


def checked_norms(grad_norms: Any) -> Norms:
    """Return the gradient norms of updates in float64.

    Raises:
        ValueError: there are none, or one is below 0, as logarithms are.
    """
    norms = np.asarray(real_numbers("grad_norms", grad_norms), float).ravel()
    if not norms.size or (norms < 0).any():
        got = f"{norms.min():.3g} among them" if norms.size else "none"
        raise ValueError(
            f"grad_norms must be the norms of a run's updates, none of them negative; got {got}."
        )
    return norms


def threshold_of(norms: Norms) -> float:
    """Return half the average norm, the largest 1 % left out, as the threshold of a global norm.

    Thresholds from half to ten times the average let networks learn (Pascanu, Mikolov & Bengio
    2013, section 3.2). This is the lower end of that range: a threshold that is too small costs
    time, one that is too large the run. The largest norms are left out because they are the ones
    to clip, and one explosion decides the average of a thousand updates.
    """
    return 0.5 * float(np.mean(norms[norms <= np.quantile(norms, 0.99)]))


def clipping_threshold(
    norms: Norms, by_lag: ByLag, *, threshold: float | None = None
) -> Recommendation:
    """Advise on the threshold of clipping by global norm.

    Args:
        norms: of the gradients of updates; those that are not finite count as exploded.
        by_lag: sums of the terms by lag of the present gradient, in the same units.
        threshold: the one in use; None for none.
    """
    finite = norms[np.isfinite(norms)]
    if not finite.any():
        return Recommendation(NAME, {}, f"none of the {len(norms)} norms is finite and above 0.")
    average, median, largest = (float(f(finite)) for f in (np.mean, np.median, np.max))
    exploded = len(norms) - len(finite)
    measured: dict[str, Any] = {"average": average, "median": median, "largest": largest}
    sentences = [
        f"the gradient norms of {len(norms)} updates are {median:.3g} in the median, "
        f"{average:.3g} on average and {largest:.3g} at most"
        + (f", and {exploded} are not finite" if exploded else "")
    ]
    if threshold is not None:
        measured["clipped"] = float(np.mean(~(norms <= threshold)))
        sentences.append(
            f"a threshold of {threshold:.3g}, {threshold / average:.2g} times the average, clips "
            f"{measured['clipped']:.1%} of them"
        )
    advised = threshold_of(finite)
    exploding = largest > RARE * median or exploded > 0
    if not exploding or (threshold is not None and threshold <= 2 * advised):
        sentences.append(
            "it is low enough for the largest"
            if exploding
            else f"none is above {RARE} times the median: there is no explosion to clip"
        )
        if threshold is not None:
            measured["cut"] = credit(by_lag, threshold).cut
            sentences += cut_by_lag(measured["cut"], threshold)
        return Recommendation(NAME, {}, "; ".join(sentences) + ".", "", measured)
    measured["cut"] = credit(by_lag, advised).cut
    is_clipped = ~(norms <= advised)
    measured["quantile"] = 1 - float(is_clipped.mean())
    measured["coefficient"] = float(np.mean(advised / np.maximum(finite, advised)))
    sentences.append(
        f"half the average, without the largest 1 %, is the {measured['quantile']:.0%} quantile"
    )
    cost = (
        f"{is_clipped.mean():.1%} of these updates would be shortened, and all be "
        f"{measured['coefficient']:.0%} as long on average. Up to ten times the average is usual, "
        "and clips fewer."
    )
    sentences += cut_by_lag(measured["cut"], advised)
    settings = {"clip": "global_norm", "clip.threshold": advised}
    return Recommendation(NAME, settings, "; ".join(sentences) + ".", cost, measured)


def present_norms(
    by_sequence: list[ByLag], total: ByLag, *, threshold: float | None = None
) -> Recommendation:
    """Describe the gradient norms of one moment, from which no threshold follows."""
    norms = np.array([gradient_norm(by_lag) for by_lag in by_sequence])
    sentences = [
        f"the gradient of these sequences has the norm {gradient_norm(total):.3g}, and of one of "
        f"them alone {np.median(norms):.3g} in the median and {norms.max():.3g} at most"
    ]
    measured: dict[str, Any] = {"norms": norms, "norm": gradient_norm(total)}
    if threshold is not None:
        measured["cut"] = credit(total, threshold).cut
        sentences += cut_by_lag(measured["cut"], threshold)
    sentences.append("a threshold follows from the norms of updates: pass grad_norms=")
    return Recommendation(NAME, {}, "; ".join(sentences) + ".", "", measured)


def cut_by_lag(cut: Float[np.ndarray, "T"], threshold: float) -> list[str]:
    """Say which lags own what a threshold cuts off the present gradient, if it cuts any."""
    if not cut.sum() > 0:
        return []
    half = int(np.argmax(np.cumsum(cut) >= cut.sum() / 2))
    return [
        f"a threshold of {threshold:.3g} cuts {cut.sum():.3g} off the norm of the gradient of "
        f"these sequences, half of which lags up to {half} own"
    ]


def gradient_norm(by_lag: ByLag) -> float:
    """Return the norm of the gradient of all weights that have terms by lag."""
    squares = [float(np.sum(np.abs(x.sum(axis=0)) ** 2)) for x in jax.tree.leaves(by_lag)]
    return float(np.sqrt(sum(squares)))
