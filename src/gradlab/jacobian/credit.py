"""Who owns the gradient: what lags contribute, what truncation loses, and what a clip cuts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree


class Truncation(NamedTuple):
    """What a window of K steps makes of the gradient; index K − 1, for K = 1..T."""

    relative_error: Float[np.ndarray, "T"]  # ‖g_K − g‖ / ‖g‖
    cosine: Float[np.ndarray, "T"]  # of g_K with g; nan where one of them is zero


class Credit(NamedTuple):
    """Lag by lag, in units that add up.

    `share` is ⟨c_j, g⟩/‖g‖², c_j the sum of all terms of lag j: it sums to 1, and is negative where
    a lag works against the whole. `cut` is what lag j owns of the global norm that the
    clip removed: its sum, and what other weights own, add up to norm − threshold.
    """

    share: Float[np.ndarray, "T"]
    cut: Float[np.ndarray, "T"]


def truncation(by_lag: PyTree) -> Truncation:
    """Error of the gradient truncated to a window, for every window in one pass.

    With window K each L⁽ᵗ⁾ reaches back over lags 0..K − 1 (K steps), as if the state that enters
    the window were a constant.

    Args:
        by_lag: arrays (T, …) of `Backpropagation.by_lag`, one weight array's or all.
    """
    terms = _rows(by_lag)
    whole = terms.sum(axis=0)
    size = np.linalg.norm(whole)
    left = np.zeros_like(whole)
    error, cosine = np.zeros(len(terms)), np.full(len(terms), np.nan)
    for lag in range(len(terms) - 1, -1, -1):  # from the far end: the smallest are added first
        kept = whole - left
        error[lag] = np.linalg.norm(left)
        lengths = size * np.linalg.norm(kept)
        cosine[lag] = kept @ whole / lengths if lengths > 0 else np.nan
        left = left + terms[lag]
    return Truncation(
        np.divide(error, size, out=np.full_like(error, np.nan), where=size > 0), cosine
    )


def credit(by_lag: PyTree, threshold: float = np.inf, other_norm: float = 0.0) -> Credit:
    """Which lags a gradient is made of and, when a clip acts, which own the norm that it cut.

    Args:
        by_lag: arrays (T, …) of `Backpropagation.by_lag`, in the gradient's own units.
        threshold: of a clip by global norm (Pascanu et al. 2013, 3.2).
        other_norm: norm of the gradient of weights that are not in `by_lag` (a readout's), which
            counts towards the global norm but has no lag.
    """
    terms = _rows(by_lag)
    whole = terms.sum(axis=0)
    along = terms @ whole
    square = max(float(whole @ whole), np.finfo(float).tiny)
    norm = np.hypot(np.sqrt(square), other_norm)
    coefficient = min(1.0, threshold / norm)
    return Credit(along / square, (1 - coefficient) * along / norm)


def long_range_share(log_norms: Float[Array, "*batch T+1 T+1"], lag: int) -> Float[Array, "*batch"]:
    """Σ of the norms of terms with t − k > lag over the Σ of all, from their log norms."""
    steps = jnp.arange(log_norms.shape[-1])
    far = steps[:, None] - steps[None, :] > lag
    total = jax.nn.logsumexp(log_norms, axis=(-2, -1))
    beyond = jax.nn.logsumexp(jnp.where(far, log_norms, -jnp.inf), axis=(-2, -1))
    return jnp.exp(beyond - total)


def _rows(by_lag: PyTree) -> Float[np.ndarray, "T weights"]:
    arrays = [np.asarray(x, np.float64) for x in jax.tree.leaves(by_lag)]
    return np.concatenate([x.reshape(len(x), -1) for x in arrays], axis=1)
