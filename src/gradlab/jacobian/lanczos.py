"""Largest eigenvalues of many symmetric operators at once, by Lanczos steps.

The estimate is a Ritz value, so in exact arithmetic it never exceeds the true eigenvalue.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gradlab.jacobian.arrays import AnyArray, fori_loop, inner, library, put, while_loop

TOLERANCE = 1e-5  # Largest error, by the residual, over the eigenvalue …
GAIN = 3e-7  # … or what the last step may have added to it, with a residual below
ROUGH = 1e-2
CHECK_EVERY = 8  # Steps between checks, each of which takes as long as some steps.
NEAR = 1e-6  # relative to the eigenvalue: from a step as small, the next one would be 1e-18
ROOT_STEPS = 40  # at most, of Laguerre's method, which triples the digits in the end


class _Lanczos(NamedTuple):
    step: Any
    vector: Float[AnyArray, "*pairs n"]
    previous: Float[AnyArray, "*pairs n"]
    beta: Float[AnyArray, "*pairs"]
    alphas: Float[AnyArray, "steps *pairs"]
    betas: Float[AnyArray, "steps *pairs"]
    top: Float[AnyArray, "*pairs"]
    above: Float[AnyArray, "*pairs"]
    converged: Any


def top_eigenvalue(
    apply: Callable[[Float[AnyArray, "*pairs n"]], Float[AnyArray, "*pairs n"]],
    start: Float[AnyArray, "*pairs n"],
) -> Float[AnyArray, "*pairs"]:
    """Return the largest eigenvalues of many symmetric positive semi-definite operators at once.

    Args:
        apply: multiplies each vector by its operator, whose norm is at most 1.
        start: a unit vector for each operator.
    """
    xp, (*pairs, n) = library(start), start.shape
    steps = -(-n // CHECK_EVERY) * CHECK_EVERY
    eps, tiny = np.finfo(start.dtype).eps, np.finfo(start.dtype).tiny
    tolerance = max(TOLERANCE, 1000 * float(eps))

    def advance(_: Any, state: _Lanczos) -> _Lanczos:
        image = apply(state.vector) - state.beta[..., None] * state.previous
        alpha = inner(image, state.vector)
        image = image - alpha[..., None] * state.vector
        beta = xp.sqrt(inner(image, image))
        # A vanishing remainder means that the Krylov space is exhausted: continue with zeros.
        beta = xp.where(beta > eps * state.alphas[0], beta, 0)
        return state._replace(
            step=state.step + 1,
            vector=image * xp.where(beta > 0, 1 / xp.maximum(beta, tiny), 0)[..., None],
            previous=state.vector,
            beta=beta,
            alphas=put(state.alphas, state.step, alpha),
            betas=put(state.betas, state.step, beta),
        )

    def advance_and_check(state: _Lanczos) -> _Lanczos:
        state = fori_loop(0, CHECK_EVERY, advance, state, start)
        filled = state.step if xp is np else steps
        tables = state.alphas[:filled], state.betas[:filled]
        top, residual, gain = _top_of_tridiagonal(*tables, state.step, state.above)
        is_exact = residual <= tolerance * top
        is_settled = (gain <= GAIN * top) & (residual <= ROUGH * top)
        converged = xp.all(is_exact | is_settled)
        return state._replace(top=top, above=top + 2 * residual, converged=converged)

    zeros = xp.zeros(pairs, start.dtype)
    alphas, betas = (xp.zeros((steps, *pairs), start.dtype) for _ in range(2))
    initial = _Lanczos(
        step=xp.int32(0),
        vector=start,
        previous=xp.zeros_like(start),
        beta=zeros,
        alphas=alphas,
        betas=betas,
        top=zeros,
        above=zeros,
        converged=xp.array(False),
    )
    return while_loop(
        lambda state: (state.step < steps) & ~state.converged, advance_and_check, initial, start
    ).top


def _top_of_tridiagonal(
    alphas: Float[AnyArray, "steps *pairs"],
    betas: Float[AnyArray, "steps *pairs"],
    size: Any,
    above: Float[AnyArray, "*pairs"],
) -> tuple[Float[AnyArray, "*pairs"], Float[AnyArray, "*pairs"], Float[AnyArray, "*pairs"]]:
    """Return the largest eigenvalue θ of the leading `size` rows of a tridiagonal matrix T.

    Laguerre's method goes down to θ from `above`, if it is, or else from Gershgorin's bound: with x
    above all roots θᵢ of det(x − T), the pivots of x − T are positive, and Σ 1/(x − θᵢ) and
    Σ 1/(x − θᵢ)² are sums over them and their derivatives (Parlett 1964).

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

    def pivot(i: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, is_above, ratio, slope, curvature, total, total_of_squares = state
        d = x - alphas[i] - ratio
        is_above = is_above & (d > limits.eps)
        d = xp.where(d > limits.eps, d, 1)
        slope, curvature = (1 + ratio * slope) / d, ratio * (curvature - 2 * slope**2) / d
        total, total_of_squares = total + slope, total_of_squares + slope**2 - curvature
        return x, is_above, squares[i] / d, slope, curvature, total, total_of_squares

    def nearer(state: tuple[Any, ...]) -> tuple[Any, ...]:
        steps, x, last = state
        _, is_above, *_, total, of_squares = fori_loop(0, size, pivot, (x, *fresh), alphas)
        root = xp.sqrt(xp.maximum((count - 1) * (count * of_squares - total**2), 0))
        # What has arrived stays: below θ, where rounding may lead, pivots change their signs.
        step = xp.where(is_above & (last > NEAR * x), count / (total + root), 0)
        return steps + 1, xp.maximum(x - step, 0), step

    def component(back: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """Go from the last component, 1, to the first: the stable direction of the recursion."""
        d, square, length = state
        i = size - 2 - back
        square = square * d**2 / xp.maximum(squares[i], limits.tiny)
        d = xp.maximum(top - alphas[i] - squares[i] / d, limits.eps)
        return d, square, length + square

    ones = xp.ones_like(zero)
    fresh = (zero == 0, *(zero,) * 5)
    guess = above / scale
    _, is_above, *_ = fori_loop(0, size, pivot, (guess, *fresh), alphas)
    start = xp.where(is_above, xp.minimum(guess, 1), 1)
    _, top, _ = while_loop(
        lambda state: (state[0] < ROOT_STEPS) & xp.any(state[2] > NEAR * state[1]),
        nearer,
        (xp.int32(0), start, ones),
        alphas,
    )
    last = xp.maximum(top - alphas[size - 1], limits.eps)
    _, _, length = fori_loop(0, size - 1, component, (last, ones, ones), alphas)
    # Newton's step from there to the root of one row less.
    _, is_above, *_, total, _ = fori_loop(0, size - 1, pivot, (top, *fresh), alphas)
    gain = xp.where(is_above, 1 / total, 0)
    return scale * top, betas[size - 1] / xp.sqrt(length), scale * gain
