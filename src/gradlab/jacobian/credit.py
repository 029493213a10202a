"""The gradient by lag: each lag's share of it, the error of truncation, and what clipping removes.

Input are the sums by lag c_j of `Backpropagation.by_lag`: the gradient is g = Σ_j c_j.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.arguments import check_at_least_zero, numbers, real_numbers
from gradlab.jacobian.carry import described


class Truncation(NamedTuple):
    """Error of the gradient g_K of truncation window K against the full gradient g.

    Attributes:
        relative_error: [K − 1] is ‖g_K − g‖ / ‖g‖; nan where g is zero.
        cosine: [K − 1] is that of the angle between g_K and g; nan where one of them is zero.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> terms = gradlab.backpropagate(cell, x, loss, jnp.zeros((4, 20, 8)))
        >>> errors = gradlab.truncation(terms.by_lag)
        >>> len(errors.cosine), round(float(errors.cosine[-1]), 3)
        (20, 1.0)
    """

    relative_error: Float[np.ndarray, "T"]
    cosine: Float[np.ndarray, "T"]


class Credit(NamedTuple):
    """Parts of the gradient by lag j, which add up.

    Attributes:
        share: [j] is ⟨c_j, g⟩ / ‖g‖². It sums to 1, and is negative where lag j opposes the
            gradient.
        cut: [j] is lag j's part of the norm that clipping removed. Together with the part of
            weights that have no lag it sums to norm − threshold; 0 where nothing was clipped.

    Example:
        >>> by_lag = np.array([[3.0, 0.0], [1.0, 0.0]])  # two lags, two weights: g = (4, 0)
        >>> gradlab.credit(by_lag, threshold=2.0)
        Credit(share=array([0.75, 0.25]), cut=array([1.5, 0.5]))
    """

    share: Float[np.ndarray, "T"]
    cut: Float[np.ndarray, "T"]


def truncation(by_lag: PyTree) -> Truncation:
    """Return the error of truncated backpropagation through time, for every window at once.

    With window K, each L⁽ᵗ⁾ is differentiated through K steps, lags 0 to K − 1, and the state that
    enters the window is held constant: g_K = Σ_{j<K} c_j, with c_j the sum of all terms of lag j.

    Args:
        by_lag: `Backpropagation.by_lag`, or one of its arrays: (T, ...) by lag.

    Returns:
        A `Truncation`: relative error and cosine for K = 1..T, at index K − 1.

    Raises:
        ValueError: `by_lag` is not such.

    References:
        Tallec & Ollivier 2017, Unbiased online recurrent optimization: the bias of truncation.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> terms = gradlab.backpropagate(cell, x, loss, jnp.zeros((4, 20, 8)))
        >>> errors = gradlab.truncation(terms.by_lag)
        >>> errors.relative_error.shape, bool(errors.relative_error[-1] < 1e-6)  # window T is exact
        ((20,), True)
    """
    terms = lag_rows(by_lag)
    gradient = terms.sum(axis=0)
    norm = np.linalg.norm(gradient)
    omitted = np.zeros_like(gradient)
    error, cosine = np.zeros(len(terms)), np.full(len(terms), np.nan)
    for lag in range(len(terms) - 1, -1, -1):  # the longest lags, usually the smallest, first
        truncated = gradient - omitted
        error[lag] = np.linalg.norm(omitted)
        norms = norm * np.linalg.norm(truncated)
        cosine[lag] = truncated @ gradient / norms if norms > 0 else np.nan
        omitted = omitted + terms[lag]
    return Truncation(
        np.divide(error, norm, out=np.full_like(error, np.nan), where=norm > 0), cosine
    )


def shortest_window(errors: Truncation, tolerance: float) -> int | None:
    """Return the shortest window from which on the truncated gradient stays near the full one.

    Args:
        errors: of `truncation`.
        tolerance: of the relative error, at least 0. An error of ε leaves a cosine of √(1 − ε²) or
            more.

    Returns:
        K such that the relative error of K and of all longer windows is at most `tolerance`; None
        if the gradient is zero.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> terms = gradlab.backpropagate(cell, x, loss, jnp.zeros((4, 20, 8)))
        >>> gradlab.shortest_window(gradlab.truncation(terms.by_lag), tolerance=0.1)  # steps
        4
    """
    far = ~(errors.relative_error <= tolerance)
    return None if far[-1] else 1 + int(np.flatnonzero(far).max(initial=-1)) + 1


def credit(by_lag: PyTree, threshold: float = np.inf, other_norm: float = 0.0) -> Credit:
    """Return each lag's share of the gradient, and of the norm that clipping removes from it.

    With g = Σ_j c_j and c_j the sum of all terms of lag j, the share is ⟨c_j, g⟩ / ‖g‖². Clipping
    multiplies the gradient by min(1, threshold / norm), norm the global one √(‖g‖² + other_norm²),
    and lag j loses (1 − min(1, threshold / norm)) ⟨c_j, g⟩ / norm.

    Args:
        by_lag: `Backpropagation.by_lag` times exp(log_scale): (T, ...) by lag, in the units of the
            gradient.
        threshold: of clipping by global norm; inf for none.
        other_norm: norm of the gradient of weights that are not in `by_lag` (a readout's), which
            counts towards the global norm but has no lag.

    Returns:
        A `Credit`: share and cut, each (T,) by lag.

    Raises:
        ValueError: an argument is invalid; the message says what it must be.

    References:
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks,
        section 3.2: clipping by global norm.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> terms = gradlab.backpropagate(cell, x, loss, jnp.zeros((4, 20, 8)))
        >>> by_lag = {name: c * np.exp(terms.log_scale) for name, c in terms.by_lag.items()}
        >>> shares, cuts = gradlab.credit(by_lag, threshold=1.0)
        >>> shares.shape, round(float(shares.sum()), 3)
        ((20,), 1.0)
    """
    terms = lag_rows(by_lag)
    check_at_least_zero("threshold", threshold)
    check_at_least_zero("other_norm", other_norm)
    gradient = terms.sum(axis=0)
    along = terms @ gradient
    square = max(float(gradient @ gradient), np.finfo(float).tiny)
    norm = np.hypot(np.sqrt(square), other_norm)
    coefficient = min(1.0, threshold / norm)
    return Credit(along / square, (1 - coefficient) * along / norm)


def long_range_share(log_norms: Float[Array, "*batch T+1 T+1"], lag: int) -> Float[Array, "*batch"]:
    """Return the share of the terms with t − k > lag in the sum of the norms of all terms.

        Σ_{t−k>lag} ‖term(t, k)‖ / Σ_{t,k} ‖term(t, k)‖

    Args:
        log_norms: [..., t, k] in nats, of one weight array, from `contribution_log_norms`.
        lag: in steps.

    Returns:
        A number from 0 to 1 for each sample; NaN where every term is exactly zero.

    Raises:
        ValueError: an argument is invalid; the message says what it must be.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> terms = gradlab.contribution_log_norms(cell, x, loss, jnp.zeros((4, 20, 8)))
        >>> share = gradlab.long_range_share(terms["dense_h.kernel"], lag=5)
        >>> share.shape, bool((share < 0.5).all())
        ((4,), True)
    """
    log_norms = real_numbers("log_norms", log_norms)
    if log_norms.ndim < 2 or log_norms.shape[-1] != log_norms.shape[-2]:
        raise ValueError(
            "log_norms must be those of one weight array, (..., T + 1, T + 1), as "
            f"contribution_log_norms(...)['dense_h.kernel']; got shape {log_norms.shape}."
        )
    check_at_least_zero("lag", lag)
    steps = jnp.arange(log_norms.shape[-1])
    far = steps[:, None] - steps[None, :] > lag
    total = jax.nn.logsumexp(log_norms, axis=(-2, -1))
    beyond = jax.nn.logsumexp(jnp.where(far, log_norms, -jnp.inf), axis=(-2, -1))
    return jnp.exp(beyond - total)


def lag_rows(by_lag: PyTree) -> Float[np.ndarray, "T weights"]:
    """Return sums by lag as vectors of all weights together, in float64.

    Raises:
        ValueError: they are none.
    """
    given = [(x, numbers("by_lag", x)) for x in jax.tree.leaves(by_lag)]
    # NumPy's float64 stays float64, which JAX would round.
    leaves = [np.asarray(x if isinstance(x, np.ndarray) else checked) for x, checked in given]
    lengths = {leaf.shape[:1] for leaf in leaves}
    if len(lengths) != 1 or not all(leaf.ndim and leaf.size for leaf in leaves):
        raise ValueError(
            "by_lag must be the by_lag of backpropagate(...) or one of its arrays, (T, ...) each "
            f"with T ≥ 1; got {described(by_lag) if leaves else 'no array'}."
        )
    # Complex weights have an inner product ⟨c_j, g⟩ of real and imaginary parts.
    parts = [y for x in leaves for y in ((x.real, x.imag) if np.iscomplexobj(x) else (x,))]
    return np.concatenate([x.reshape(len(x), -1) for x in parts], axis=1, dtype=np.float64)
