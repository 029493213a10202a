"""The largest eigenvalue of many symmetric tridiagonal matrices at once."""

from typing import Any

import numpy as np
from jaxtyping import Float

from gradlab.jacobian.arrays import AnyArray, fori_loop, library, while_loop

NEAR = 1e-6  # relative to the eigenvalue: from a step as small, the next one would be 1e-18
ROOT_STEPS = 40  # at most, of Laguerre's method, which triples the digits in the end


def top_of_tridiagonal(
    alphas: Float[AnyArray, "steps *pairs"],
    betas: Float[AnyArray, "steps *pairs"],
    size: Any,
    above: Float[AnyArray, "*pairs"],
) -> tuple[Float[AnyArray, "*pairs"], Float[AnyArray, "*pairs"], Float[AnyArray, "*pairs"]]:
    """Return the largest eigenvalue θ of the leading `size` rows of a tridiagonal matrix T.

    Laguerre's method goes down to θ from Samuelson's bound or from `above`, if they are, or else
    from Gershgorin's: with x above all roots θᵢ of det(x − T), the pivots of x − T are positive,
    and Σ 1/(x − θᵢ) and Σ 1/(x − θᵢ)² are sums over them and their derivatives (Parlett 1964).

    Returns:
        θ, its residual, |β_size| · |last component of θ's unit eigenvector| – some eigenvalue of
        the whole operator is that close to θ (Parlett 1998, 13.2) –, and what the last row has
        added to θ.
    """
    xp, zero = library(alphas), library(alphas).zeros_like(alphas[0])
    limits, count = np.finfo(alphas.dtype), xp.asarray(size, alphas.dtype)

    def gershgorin(i: Any, bound: AnyArray) -> AnyArray:
        left, right = xp.where(i > 0, betas[i - 1], 0), xp.where(i < size - 1, betas[i], 0)
        return xp.maximum(bound, alphas[i] + left + right)

    scale = fori_loop(0, size, gershgorin, zero, alphas)
    scale = xp.where(scale > 0, scale, 1)  # squares of tiny numbers would underflow
    alphas, squares = alphas / scale, (betas / scale) ** 2
    # The largest root is furthest above the mean if all others are equal (Samuelson 1968).
    mean = xp.sum(alphas, 0) / count
    mean_square = (xp.sum(alphas**2, 0) + 2 * (xp.sum(squares, 0) - squares[size - 1])) / count
    spread = xp.sqrt(xp.maximum((count - 1) * (mean_square - mean**2), 0))
    start = xp.minimum(xp.minimum(above / scale, 1), (1 + NEAR) * (mean + spread))

    def pivot(i: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, smallest, ratio, slope, curvature, total, total_of_squares = state
        d = x - alphas[i] - ratio
        smallest, d = xp.minimum(smallest, d), xp.maximum(d, limits.eps)
        slope, curvature = (1 + ratio * slope) / d, ratio * (curvature - 2 * slope**2) / d
        total, total_of_squares = total + slope, total_of_squares + slope**2 - curvature
        return x, smallest, squares[i] / d, slope, curvature, total, total_of_squares

    def nearer(state: tuple[Any, ...]) -> tuple[Any, ...]:
        steps, x, last = state
        _, smallest, *_, total, of_squares = fori_loop(0, size, pivot, (x, *fresh), alphas)
        root = xp.sqrt(xp.maximum((count - 1) * (count * of_squares - total**2), 0))
        # What has arrived stays: below θ, where rounding may lead, pivots change their signs.
        is_above = smallest > limits.eps
        step = xp.where(is_above & (last > NEAR * x), count / (total + root), 0)
        is_below = ~is_above & (steps == 0)
        x, last = xp.where(is_below, 1, xp.maximum(x - step, 0)), xp.where(is_below, 1, step)
        return steps + 1, x, last

    def component(back: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """Go from the last component, 1, to the first: the stable direction of the recursion."""
        d, square, length = state
        i = size - 2 - back
        square = square * d**2 / xp.maximum(squares[i], limits.tiny)
        d = xp.maximum(top - alphas[i] - squares[i] / d, limits.eps)
        return d, square, length + square

    ones = xp.ones_like(zero)
    fresh = (ones, *(zero,) * 5)
    _, top, _ = while_loop(
        lambda state: (state[0] < ROOT_STEPS) & xp.any(state[2] > NEAR * state[1]),
        nearer,
        (xp.int32(0), start, ones),
        alphas,
    )
    last = xp.maximum(top - alphas[size - 1], limits.eps)
    _, _, length = fori_loop(0, size - 1, component, (last, ones, ones), alphas)
    # Newton's step from there to the root of one row less.
    _, smallest, *_, total, _ = fori_loop(0, size - 1, pivot, (top, *fresh), alphas)
    gain = xp.where(smallest > limits.eps, 1 / total, 0)
    return scale * top, betas[size - 1] / xp.sqrt(length), scale * gain
