"""The shortest window of truncated backpropagation that keeps the gradient's bias in bounds."""

import reprlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, PyTree

from gradlab.jacobian.arguments import check_at_least_zero, whole_number
from gradlab.jacobian.credit import lag_rows


class AdaptiveWindow(NamedTuple):
    """A window chosen by a bound on the bias of truncation.

    Attributes:
        window: K in steps; None if no window of at most T is known to keep the tolerance.
        bound: [K − 1] is an upper bound on ‖g_K − g‖ / ‖g‖; inf where there is none.
        log_rate: ln β, the fitted growth of the lags' norms in nats per step; NaN where fewer than
            two are left to fit.

    Example:
        >>> by_lag = 0.5 ** np.arange(10.0)[:, None]  # norms that halve from lag to lag
        >>> chosen = gradlab.adaptive_window(by_lag, tolerance=0.1)
        >>> chosen.window, round(float(chosen.log_rate), 3)  # ln ½
        (4, -0.693)
    """

    window: int | None
    bound: Float[np.ndarray, "T"]
    log_rate: float


def adaptive_window(
    by_lag: PyTree,
    tolerance: float = 0.1,
    *,
    decays_from: int | None = None,
    shares: Float[np.ndarray, "T"] | None = None,
) -> AdaptiveWindow:
    """Return the shortest window whose bias on a long stream is within a tolerance.

    After Aicher, Foti & Fox 2019: norms φ_j of what lag j adds to the gradient fall geometrically
    from some lag on, so what lies beyond the T lags that were measured adds up to
    R = φ_T / (1 − β), with φ_T and β those of a fitted line. The error of window K, lags 0 to
    K − 1, is at most E_K = Σ_{K≤j<T} φ_j + R; ‖g‖ is at least the largest of ‖g_K‖ − E_K; and their
    ratio bounds the relative bias. The paper's φ_j is the mean over sequences of
    ‖∂L⁽ᵗ⁾/∂h⁽ᵗ⁻ʲ⁾‖, which bounds what lag j adds up to a factor; here it is the norm ‖c_j‖ of that
    part of the gradient itself.

    The stream, such as a text, goes on before and after the T steps that were measured. With a loss
    at every step only T − j of these reach back by j, and by_lag[j] is their sum: `shares` takes
    that out. Where sequences end after T steps, `shortest_window` has the answer without a bound.

    Args:
        by_lag: `Backpropagation.by_lag`, or one of its arrays: (T, ...) by lag.
        tolerance: of the relative bias ‖g_K − g‖ / ‖g‖, at least 0; the paper tries 0.9, 0.5, 0.1.
        decays_from: the lag from which ln φ_j is fitted by a line, from 0 to T − 1; None: that of
            the largest φ_j.
        shares: [j] is the part of the loss's weight that lies at steps t > j, which have a term of
            lag j; for a loss at every step 1 − j/T. None: 1 each, as for a loss at the last step.

    Returns:
        An `AdaptiveWindow`.

    Raises:
        ValueError: an argument is invalid; the message says what it must be.

    References:
        Aicher, Foti & Fox 2019, Adaptively truncating backpropagation through time to control
        gradient bias, arXiv:1905.07473.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> terms = gradlab.backpropagate(cell, x, loss, jnp.zeros((4, 20, 8)))
        >>> gradlab.adaptive_window(terms.by_lag, shares=1 - np.arange(20) / 20).window  # in steps
        7
    """
    terms = lag_rows(by_lag)
    if shares is not None:
        terms = terms / _checked_shares(shares, len(terms))[:, None]
    check_at_least_zero("tolerance", tolerance)
    norms = np.linalg.norm(terms, axis=1)
    begin = int(np.argmax(norms))
    if decays_from is not None:
        limit = "the longest lag of by_lag"
        begin = whole_number("decays_from", decays_from, 0, len(norms) - 1, limit)
    log_rate, beyond = _tail(norms, begin)
    errors = np.append(np.cumsum(norms[::-1])[::-1], 0.0)[1:] + beyond  # E_K, K = 1 to T
    truncated = np.linalg.norm(np.cumsum(terms, axis=0), axis=1)
    least = np.max(truncated - errors)  # of ‖g‖
    bound = np.full(len(norms), np.inf)
    if least > 0:
        bound = errors / least
    (within,) = np.nonzero(bound <= tolerance)
    return AdaptiveWindow(int(within[0]) + 1 if len(within) else None, bound, log_rate)


def _checked_shares(shares: Float[np.ndarray, "T"], lags: int) -> Float[np.ndarray, "T"]:
    array = np.asarray(shares, float)
    if array.shape != (lags,) or not ((array > 0) & (array <= 1)).all():
        raise ValueError(
            f"shares must have a number above 0 and at most 1 for each of the {lags} lags of "
            f"by_lag; got {reprlib.repr(shares)}."
        )
    return array


def _tail(norms: Float[np.ndarray, "T"], begin: int) -> tuple[float, float]:
    """Return ln β of the lags from `begin` on, and the sum of the norms from lag T on."""
    # Smaller numbers of float32, in which gradients are mostly computed, have fewer digits.
    lags = begin + np.flatnonzero(norms[begin:] > np.finfo(np.float32).tiny)
    if len(lags) < 2:  # exactly 0 behind one lag, or one lag is all that is known
        return float("nan"), np.inf if norms[-1] > 0 else 0.0
    line = np.polynomial.Polynomial.fit(lags, np.log(norms[lags]), 1).convert()
    slope = float(line.coef[1]) if len(line.coef) > 1 else 0.0
    if not norms[len(norms) // 2 :].any():  # one alone may be: h⁽⁰⁾ is 0 and multiplies a kernel
        return slope, 0.0
    return slope, float(np.exp(line(len(norms))) / -np.expm1(slope)) if slope < 0 else np.inf
