"""Largest eigenvalues of many symmetric operators at once, by Lanczos steps.

The estimate is a Ritz value, so in exact arithmetic it never exceeds the true eigenvalue.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradlab.jacobian.arrays import (
    AnyArray,
    fori_loop,
    in_threads,
    inner,
    library,
    pieces,
    put,
)
from gradlab.jacobian.tridiagonal import top_of_tridiagonal

Operator: TypeAlias = Callable[[Float[AnyArray, "*pairs n"]], Float[AnyArray, "*pairs n"]]

TOLERANCE = 1e-5  # Largest error, by the residual, over the eigenvalue …
GAIN = 3e-7  # … or what the last step may have added to it, with a residual below …
ROUGH = 1e-2
GAIN_ALONE = 1e-9  # … and for a pair that stops alone: others would take it past a standstill
CHECK_EVERY = 8  # Steps between checks, each of which takes as long as some steps.
FIRST_CHECK = 6  # of NumPy's: most have converged
FEW = 0.125  # share of a group whose matrices are worth forming, to spare the others more steps,
LARGEST = 16  # … as long as they have few rows: a smaller share of LARGEST / n in larger ones
TOGETHER = 8192  # of NumPy's are checked by one thread: for fewer, threads wait for the interpreter


class _Lanczos(NamedTuple):
    vector: Float[AnyArray, "*pairs n"]
    previous: Float[AnyArray, "*pairs n"]
    beta: Float[AnyArray, "*pairs"]
    alphas: Float[AnyArray, "steps *pairs"]
    betas: Float[AnyArray, "steps *pairs"]


class _Estimate(NamedTuple):
    top: Float[AnyArray, "*pairs"]
    above: Float[AnyArray, "*pairs"]
    has_converged: Bool[AnyArray, "*pairs"]


class _Group(NamedTuple):
    """Operators that advance together.

    Attributes:
        apply: multiplies each vector by its operator.
        state: the Lanczos vectors and coefficients of each operator.
        places: the index of each operator among those of all groups.
        left: the operators that have not converged, by their index in the group.
        above: for each of `left`, a number that is hardly ever below its eigenvalue.
        form: returns the matrices of the operators with these indices.
    """

    apply: Operator
    state: _Lanczos
    places: Int[np.ndarray, "pairs"]
    left: Int[np.ndarray, "left"]
    above: Float[AnyArray, "left"]
    form: Callable[[Int[np.ndarray, "few"]], Float[AnyArray, "few ..."]]


def top_eigenvalue(apply: Operator, start: Float[Array, "*pairs n"]) -> Float[Array, "*pairs"]:
    """Return the largest eigenvalues of many symmetric positive semi-definite operators at once.

    Args:
        apply: multiplies each vector by its operator, whose norm is at most 1.
        start: a unit vector for each operator.

    Returns:
        The eigenvalues, to a relative error of about `TOLERANCE`; NaN where a product is.
    """
    steps = _most_steps(start)

    def advance_and_check(state: tuple[Any, ...]) -> tuple[Any, ...]:
        done, lanczos, estimate = state
        lanczos = _advance(apply, lanczos, done)
        done = done + CHECK_EVERY
        return done, lanczos, _checked(lanczos.alphas, lanczos.betas, done, estimate.above, GAIN)

    zeros = jnp.zeros(start.shape[:-1], start.dtype)
    return jax.lax.while_loop(
        lambda state: (state[0] < steps) & ~jnp.all(state[2].has_converged),
        advance_and_check,
        (jnp.int32(0), _begin(start, steps), _Estimate(zeros, zeros + jnp.inf, zeros > 0)),
    )[2].top


def top_eigenvalues(
    operators: list[Operator],
    starts: list[Float[AnyArray, "pairs n"]],
    formed: list[Callable[[Int[np.ndarray, "few"]], Float[AnyArray, "few ..."]]],
    of_formed: Callable[[Float[AnyArray, "few ..."]], Operator],
) -> list[Float[AnyArray, "pairs"]]:
    """Return what `top_eigenvalue` does of several groups of operators, of arrays of NumPy.

    Groups advance in threads. The few of a group that take more steps than the others leave it,
    and go on together as formed matrices; not in float32, in which residuals tell too little for
    the others to stop alone. All groups are checked together: to NumPy a check is a thousand
    operations, which last as long for few pairs as for thousands.

    Args:
        operators: for each group, multiplies each vector by its operator, of norm at most 1.
        starts: for each group, a unit vector for each operator.
        formed: for each group, returns the matrices of the operators with these indices.
        of_formed: returns the operator of such matrices.

    Returns:
        The eigenvalues of each group.
    """
    ends = np.cumsum([len(start) for start in starts])
    tops = np.empty(ends[-1], starts[0].dtype)
    groups = [
        _Group(
            apply,
            _begin(start, 0),
            np.arange(end - len(start), end),
            np.arange(len(start)),
            np.full_like(start[:, 0], np.inf),
            form,
        )
        for apply, start, end, form in zip(operators, starts, ends, formed, strict=True)
    ]
    done, stop_alone = 0, tops.dtype == np.float64
    few_enough = min(FEW, LARGEST / starts[0].shape[-1])
    while groups and done < starts[0].shape[-1]:
        steps = CHECK_EVERY if done else FIRST_CHECK

        def advance(i: int, done: int = done, steps: int = steps) -> None:
            group = groups[i]  # noqa: B023 (threads end before it changes)
            state = _advance(group.apply, _with_room(group.state, steps), done, steps)
            groups[i] = group._replace(state=state)  # noqa: B023

        in_threads(advance, [(i,) for i in range(len(groups))])
        done += steps
        going_on, few = [], []
        for group, estimate in zip(groups, _checked_together(groups, stop_alone), strict=True):
            tops[group.places[group.left]] = estimate.top
            goes_on = ~estimate.has_converged
            goes_on |= goes_on.any() & (not stop_alone)
            left = group._replace(left=group.left[goes_on], above=estimate.above[goes_on])
            if len(left.left) > few_enough * len(group.places):
                going_on.append(left)
            elif len(left.left):
                few.append(left)
        groups = going_on + ([_joined(few, of_formed)] if few else [])
    return np.split(tops, ends[:-1])


def top_eigenvalues_of(
    matrices: Float[AnyArray, "N r n"], operator: Callable[[Float[AnyArray, "N r n"]], Operator]
) -> Float[AnyArray, "N"]:
    """Return the largest eigenvalue of the operator that each matrix makes, in NumPy's threads."""
    parts = [matrices[blocks] for blocks, _ in pieces(len(matrices), 1, matrices[0].nbytes)]
    starts = [random_start(part[:, 0]) for part in parts]
    formed = [part.__getitem__ for part in parts]
    return np.concatenate(top_eigenvalues([*map(operator, parts)], starts, formed, operator))


def _joined(
    groups: list[_Group], of_formed: Callable[[Float[AnyArray, "few ..."]], Operator]
) -> _Group:
    """Return what is left of some groups as one of formed matrices."""
    matrices = np.concatenate([group.form(group.left) for group in groups])
    states = [
        [*(x[group.left] for x in group.state[:3]), *(x[:, group.left] for x in group.state[3:])]
        for group in groups
    ]
    state = _Lanczos(
        *(
            np.concatenate(parts, axis=axis)
            for parts, axis in zip(zip(*states, strict=True), (0, 0, 0, 1, 1), strict=True)
        )
    )
    return _Group(
        of_formed(matrices),
        state,
        np.concatenate([group.places[group.left] for group in groups]),
        np.arange(len(matrices)),
        np.concatenate([group.above for group in groups]),
        matrices.__getitem__,
    )


def _with_room(state: _Lanczos, steps: int) -> _Lanczos:
    """Return the state with rows for the steps to the next check."""
    room = np.empty((steps, *state.beta.shape), state.beta.dtype)
    alphas, betas = (np.concatenate([x, room]) for x in (state.alphas, state.betas))
    return state._replace(alphas=alphas, betas=betas)


def _checked_together(groups: list[_Group], stop_alone: bool) -> list[_Estimate]:
    """Return the estimates of what is left of each group, of which a pair may stop alone."""
    gain = GAIN_ALONE if stop_alone else GAIN
    alphas, betas = (
        np.concatenate([group.state[i][:, group.left] for group in groups], axis=1)
        for i in (-2, -1)
    )
    bounds = np.concatenate([group.above for group in groups])
    estimate = _Estimate(np.empty_like(bounds), np.empty_like(bounds), np.empty(bounds.shape, bool))

    def check(part: slice) -> None:
        checked = _checked(alphas[:, part], betas[:, part], len(alphas), bounds[part], gain)
        for target, value in zip(estimate, checked, strict=True):
            target[part] = value

    in_threads(check, [(slice(i, i + TOGETHER),) for i in range(0, len(bounds), TOGETHER)])
    ends = np.cumsum([len(group.left) for group in groups])[:-1]
    return [_Estimate(*x) for x in zip(*(np.split(x, ends) for x in estimate), strict=True)]


def random_start(like: Float[AnyArray, "*batch n"]) -> Float[AnyArray, "*batch n"]:
    """Return a random unit vector, the same for all: it hardly ever misses a top eigenvector.

    It is drawn with NumPy: a JAX generator would take longer to compile than all else.
    """
    direction = np.random.default_rng(0).standard_normal(like.shape[-1])
    direction /= np.linalg.norm(direction)
    xp = library(like)
    return xp.broadcast_to(xp.asarray(direction, like.dtype), like.shape)


def _most_steps(start: Float[AnyArray, "*pairs n"]) -> int:
    return -(-start.shape[-1] // CHECK_EVERY) * CHECK_EVERY


def _begin(start: Float[AnyArray, "*pairs n"], steps: int) -> _Lanczos:
    xp, pairs = library(start), start.shape[:-1]
    alphas, betas = (xp.zeros((steps, *pairs), start.dtype) for _ in range(2))
    return _Lanczos(start, xp.zeros_like(start), xp.zeros(pairs, start.dtype), alphas, betas)


def _advance(apply: Operator, state: _Lanczos, done: Any, steps: int = CHECK_EVERY) -> _Lanczos:
    """Return the state after some steps from `done` on."""
    xp, limits = library(state.vector), np.finfo(state.vector.dtype)

    def advance(step: Any, state: _Lanczos) -> _Lanczos:
        image = apply(state.vector) - state.beta[..., None] * state.previous
        alpha = inner(image, state.vector)
        image = image - alpha[..., None] * state.vector
        square = inner(image, image)
        beta = xp.sqrt(square)
        # A vanishing remainder, or one whose square has lost digits below the smallest float, means
        # that the Krylov space is exhausted: continue with zeros.
        least = limits.eps * xp.where(step > 0, state.alphas[0], alpha)
        beta = xp.where((beta > least) & (square > limits.tiny / limits.eps), beta, 0)
        scale = xp.where(beta > 0, 1 / xp.maximum(beta, limits.tiny), 0)
        return _Lanczos(
            vector=image * scale[..., None],
            previous=state.vector,
            beta=beta,
            alphas=put(state.alphas, step, alpha),
            betas=put(state.betas, step, beta),
        )

    return fori_loop(done, done + steps, advance, state, state.vector)


def _checked(
    alphas: Float[AnyArray, "steps *pairs"],
    betas: Float[AnyArray, "steps *pairs"],
    size: Any,
    above: Float[AnyArray, "*pairs"],
    least_gain: float,
) -> _Estimate:
    """Return the estimates after `size` steps, given bounds that are hardly ever below."""
    top, residual, gain = top_of_tridiagonal(alphas, betas, size, above)
    top = top + 0 * alphas[0]  # of what is not finite neither is the estimate
    tolerance = max(TOLERANCE, 1000 * float(np.finfo(alphas.dtype).eps))
    is_exact = residual <= tolerance * top
    is_settled = (gain <= least_gain * top) & (residual <= ROUGH * top)
    return _Estimate(top, top + 2 * residual, is_exact | is_settled | (top != top))
