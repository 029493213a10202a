"""Evaluation in parallel over time: Newton's method on the whole trajectory (DEER).

The states solve s⁽ᵗ⁾ − f_t(s⁽ᵗ⁻¹⁾) = 0 for all t together. A Newton step linearises every f_t about
the present guess of the trajectory at once, and a parallel scan of affine maps solves the linear
recurrence that results:

    r⁽ᵗ⁾ = s⁽ᵗ⁾ − f_t(s⁽ᵗ⁻¹⁾),    δ⁽ᵗ⁾ = J⁽ᵗ⁾ δ⁽ᵗ⁻¹⁾ − r⁽ᵗ⁾,    s⁽ᵗ⁾ ← f_t(s⁽ᵗ⁻¹⁾) + J⁽ᵗ⁾ δ⁽ᵗ⁻¹⁾,

the last of which is s⁽ᵗ⁾ + δ⁽ᵗ⁾ without the cancellation of a large s⁽ᵗ⁾. The states up to the
first wrong one are kept bit by bit, and that one becomes right, whatever the other guesses are: T
steps are enough, in floating-point numbers too.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradlab.jacobian.arguments import check_at_least_zero, numbers, whole_number
from gradlab.jacobian.carry import FlatState
from gradlab.jacobian.closure import is_read
from gradlab.jacobian.conditioning import Conditioning, conditioning
from gradlab.jacobian.double import as_float64, in_double_precision
from gradlab.jacobian.finite import check_finite
from gradlab.jacobian.flat_cell import FlatCell, StepFunction, flatten_cell
from gradlab.jacobian.lengths import checked_lengths
from gradlab.jacobian.prefixes import check_products_fit
from gradlab.jacobian.products import multiply, safe_log
from gradlab.jacobian.steps import jacobians_at, random_frame, stretch, trajectory
from gradlab.jacobian.transforms import in_float64


class ParallelEvaluation(NamedTuple):
    """A trajectory found by Newton's method, and how well conditioned its problem is.

    Attributes:
        states: [..., t − 1] is s⁽ᵗ⁾, after the last Newton step, float64; NaN past the end of a
            sequence.
        steps: the number of Newton steps until it converged; where it did not, the most allowed.
        converged: whether residual and error came below their tolerances. Only then are the states
            those of the network.
        residuals: [..., i] is the largest residual after i steps; inf where it is no number, NaN
            after the last step.
        error: the largest distance of the states from those of a run step by step, in float64.
        exponent: the largest Lyapunov exponent λ₁ of that run, in nats per step, as in
            `lyapunov_spectrum`.
        conditioning: of the equations that Newton's method solves.

    Example:
        >>> found = gradlab.parallel_evaluation(cell, x)
        >>> jax.tree.leaves(found.states)[0].shape, found.steps.shape
        ((4, 20, 8), (4,))
    """

    states: Float[Array, "*batch T n"]
    steps: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    residuals: Float[Array, "*batch most+1"]
    error: Float[Array, "*batch"]
    exponent: Float[Array, "*batch"]
    conditioning: Conditioning


class _Problem(NamedTuple):
    """The equations of one sample, and their solution."""

    flat: FlatCell
    inputs: Float[Array, "T features"]
    held: PyTree  # what the step from each state on takes besides its numbers
    within: Bool[Array, "T"]  # whether a step belongs to the sequence
    solution: Float[Array, "T n"]  # by a run step by step

    def guess(self) -> Float[Array, "T n"]:
        """Return the first guess: no state has moved yet."""
        return jnp.broadcast_to(self.flat.initial.vector, self.solution.shape)


class _Iterate(NamedTuple):
    """A guess of the trajectory."""

    states: Float[Array, "T n"]
    taken: Int[Array, ""]  # Newton steps
    residuals: Float[Array, "most+1"]
    error: Float[Array, ""]
    converged: Bool[Array, ""]
    is_last: Bool[Array, ""]


def parallel_evaluation(
    cell: nnx.RNNCellBase | StepFunction,
    inputs: Float[Array, "*batch T features"],
    *,
    initial_carry: PyTree | None = None,
    tolerance: float = 1e-10,
    accuracy: float = 1e-6,
    most: int | None = None,
    lengths: Int[Array, "*batch"] | None = None,
    memory_budget: int = 2**33,
) -> ParallelEvaluation:
    """Evaluate a network in parallel over time by Newton's method, and count the steps it takes.

    A network that forgets (λ₁ < 0) takes a few steps, whatever T; one that amplifies takes up to
    T, and is faster one step after the other. The first guess is the initial state at all times;
    guesses that are not finite after a step return to it. All is computed in float64.

    Residuals and distances are the largest over the numbers of a state, relative to the state's
    largest number where that is above 1. A small residual alone shows nothing: an amplifying
    network has wrong trajectories whose residuals are below any tolerance, so the states are also
    compared with those of a run step by step.

    In a chaotic network rounding decides whether that run is found. Where the step gives the same
    bits at all times at once as alone, as Flax's cells do on a CPU, it is found at any λ₁ T. Where
    it does not (a plain w @ h), two roundings in float64 are two trajectories, which from λ₁ T of
    about 22 on, ln(1e-6 / 2e-16), lie further apart than the accuracy: the residual becomes 0 on
    another trajectory, and `converged` is false.

    Args:
        cell: any flax.nnx.RNNCellBase, or any function step(carry, x) -> (carry, y). Complex
            numbers are solved for as pairs of real ones. Integers, booleans and keys in the carry
            must not depend on its numbers.
        inputs: (time, features) or (batch, time, features).
        initial_carry: s⁽⁰⁾ of one sample, shared by the batch, or of every sample, with the batch's
            leading axis; by default the cell's own.
        tolerance: of the residual |s⁽ᵗ⁾ − f_t(s⁽ᵗ⁻¹⁾)|.
        accuracy: of the states' distance from those of a run step by step.
        most: the number of Newton steps after which it has not converged; by default, and at most,
            the number of time steps, after which the residual is 0.
        lengths: T of each sample, the number of steps that are evaluated; by default all.
        memory_budget: bytes that the work arrays of one sample may take.

    Returns:
        What was found, for each sample.

    Raises:
        ValueError: an argument is invalid, or the cell has no run in float64 (it draws random
            numbers) or no equations of its numbers alone; the message names what is allowed.
        FloatingPointError: a state or Jacobian of the run step by step is not finite; the message
            names its step.

    References:
        Lim, Zhu, Selfridge & Kasim 2024, Parallelizing non-linear sequential models over the
        sequence length (DEER, arXiv:2309.12252).
        Gonzalez, Warrington, Smith & Linderman 2024, Towards scalable and stable parallelization of
        nonlinear RNNs (arXiv:2407.19115): T steps are enough, and guesses are reset.
        Gonzalez, Kozachkov, Zoltowski, Clarkson & Linderman 2025, Predictability enables
        parallelization of nonlinear state space models (arXiv:2508.16817): what λ₁ says of it.

    Example:
        >>> gru = nnx.GRUCell(3, 8, rngs=nnx.Rngs(0))
        >>> found = gradlab.parallel_evaluation(gru, jnp.ones((100, 3)))
        >>> bool(found.converged), bool(found.steps < 20), bool(found.exponent < 0)
        (True, True, True)
    """
    inputs = numbers("inputs", inputs)
    check_at_least_zero("tolerance", tolerance)
    check_at_least_zero("accuracy", accuracy)
    flat = flatten_cell(cell, inputs, initial_carry)
    *batch, length, _ = inputs.shape
    most = length if most is None else most
    most = whole_number("most", most, 1, length, "the number of time steps")
    check_products_fit(length, flat.form.size, memory_budget)
    measured = checked_lengths(jnp.full(batch, length) if lengths is None else lengths, inputs)
    _check_held(flat, inputs)
    exact = in_double_precision(cell, flat, inputs, jacobian=None)
    found, largest = in_float64(
        partial(_parallel_evaluation, most=most),
        replace(exact, has_batch=flat.has_batch),
        flat.initial,
        inputs,
        measured,
        (tolerance, accuracy),
        not_differentiable="a number of Newton steps has no derivative: differentiate λ₁, as "
        "lyapunov_exponents gives it.",
    )
    check_finite(largest, flat, inputs)
    return found


def _check_held(flat: FlatCell, inputs: Float[Array, "*batch T features"]) -> None:
    """Check that what derivatives hold fixed does not depend on the numbers of the state.

    Raises:
        ValueError: it does: the equations of the numbers alone would be others.
    """
    state = flat.example
    if not jax.tree.leaves(state.held):
        return
    x = jax.ShapeDtypeStruct(inputs.shape[-1:], inputs.dtype)

    def held(vector: Array, others: PyTree, parameters: PyTree, x: Array) -> PyTree:
        return flat.advance(parameters, FlatState(vector, others), x).held

    if is_read(held, state.vector, state.held, flat.parameters, x)[0]:
        raise ValueError(
            "the step computes integers, booleans or state of its own from the numbers of the "
            "carry (a spike, a running mean): such a network is not evaluated in parallel, which "
            "solves for the numbers alone."
        )


@partial(jax.jit, static_argnames="most")
def _parallel_evaluation(
    flat: FlatCell,
    initial: FlatState,
    inputs: Float[Array, "*batch T features"],
    lengths: Int[Array, "*batch"],
    tolerances: tuple[float, float],
    *,
    most: int,
) -> tuple[ParallelEvaluation, Float[Array, "*batch T"]]:
    """Return what was found, and the log of the largest number of each evaluated step.

    Args:
        flat: the cell in float64.
        initial: s⁽⁰⁾, of every sample, in the cell's own precision.
        inputs, lengths, most: those of the measurement.
        tolerances: of the residual and of the error.
    """

    def one_sample(
        flat: FlatCell, inputs: Float[Array, "T features"], length: Int[Array, ""]
    ) -> tuple[ParallelEvaluation, Float[Array, "T"]]:
        within = jnp.arange(len(inputs)) < length
        before, last = trajectory(flat, inputs)
        solution = jnp.concatenate([before.vector[1:], last.vector[None]])
        jacobians = jacobians_at(flat, before, inputs)
        problem = _Problem(flat, inputs, before.held, within, solution)
        limit = jnp.minimum(most, length)
        iterate = _solve(problem, limit, most, tolerances)
        exponent = _exponent(jacobians, length)
        found = ParallelEvaluation(
            jnp.where(within[:, None], iterate.states, jnp.nan),
            jnp.where(iterate.converged, iterate.taken, limit).astype(jnp.int32),
            iterate.converged,
            iterate.residuals.astype(jnp.float32),
            iterate.error.astype(jnp.float32),
            exponent.astype(jnp.float32),
            conditioning(jacobians, exponent, length),
        )
        sizes = jnp.maximum(_size(solution), jnp.max(jnp.abs(jacobians), axis=(1, 2)))
        return found, jnp.where(within, safe_log(sizes), -jnp.inf).astype(jnp.float32)

    flat = replace(flat, initial=as_float64(initial))
    return flat.map_samples(one_sample, as_float64(inputs), lengths.astype(jnp.int64))


def _solve(
    problem: _Problem, limit: Int[Array, ""], most: int, tolerances: tuple[float, float]
) -> _Iterate:
    """Return the last guess of Newton's method."""
    tolerance, accuracy = tolerances

    def advance(iterate: _Iterate) -> _Iterate:
        """Judge a guess, and return the next one, or the same if it is the last."""
        after, residual = _newton(problem, iterate.states)
        error = _distance(problem, iterate.states, problem.solution)
        converged = (residual <= tolerance) & (error <= accuracy)
        # A residual of exactly 0 is a fixed point. In a chaotic network it is another one than the
        # run step by step if the step alone has other rounding errors.
        is_last = converged | (iterate.taken == limit) | (residual == 0)
        return _Iterate(
            jnp.where(is_last, iterate.states, after),
            iterate.taken + jnp.where(is_last, 0, 1),
            iterate.residuals.at[iterate.taken].set(residual),
            error,
            converged,
            is_last,
        )

    start = _Iterate(
        problem.guess(),
        jnp.array(0),
        jnp.full(most + 1, jnp.nan),
        jnp.array(jnp.inf),
        jnp.array(False),
        jnp.array(False),
    )
    return jax.lax.while_loop(lambda iterate: ~iterate.is_last, advance, start)


def _newton(
    problem: _Problem, states: Float[Array, "T n"]
) -> tuple[Float[Array, "T n"], Float[Array, ""]]:
    """Return the states after a Newton step, and the largest residual before it."""
    flat, inputs, within = problem.flat, problem.inputs, problem.within
    vectors = jnp.concatenate([flat.initial.vector[None], states[:-1]])
    before = FlatState(vectors, problem.held)
    images = jax.vmap(flat.step)(before, inputs).vector
    # Nothing is asked of steps past the end: whatever they return is left out.
    residual = jnp.where(within[:, None], states - images, 0)
    jacobians = jnp.where(within[:, None, None], jacobians_at(flat, before, inputs), 0)
    correction = _solve_recurrence(jacobians, -residual)
    earlier = jnp.concatenate([jnp.zeros_like(correction[:1]), correction[:-1]])
    after = images + _images(jacobians, earlier)
    is_finite = jnp.isfinite(after).all(axis=1) & within
    return jnp.where(is_finite[:, None], after, problem.guess()), _distance(problem, states, images)


def _solve_recurrence(
    jacobians: Float[Array, "T n n"], offsets: Float[Array, "T n"]
) -> Float[Array, "T n"]:
    """Return δ⁽ᵗ⁾ = J⁽ᵗ⁾ δ⁽ᵗ⁻¹⁾ + b⁽ᵗ⁾ from δ⁽⁰⁾ = 0, by a scan of affine maps."""

    def compose(before: tuple[Array, Array], after: tuple[Array, Array]) -> tuple[Array, Array]:
        (first, start), (then, offset) = before, after
        return multiply(then, first), _images(then, start) + offset

    _, solution = jax.lax.associative_scan(compose, (jacobians, offsets))
    return solution


def _images(
    matrices: Float[Array, "*batch n n"], vectors: Float[Array, "*batch n"]
) -> Float[Array, "*batch n"]:
    """Return matrix times vector; that of a zero vector is zero, though the matrix overflowed."""
    products = multiply(matrices, vectors[..., None])[..., 0]
    return jnp.where(jnp.any(vectors != 0, axis=-1, keepdims=True), products, 0)


def _size(states: Float[Array, "T n"]) -> Float[Array, "T"]:
    return jnp.max(jnp.abs(states), axis=1)


def _distance(
    problem: _Problem, states: Float[Array, "T n"], others: Float[Array, "T n"]
) -> Float[Array, ""]:
    """Return the largest distance between states and others; inf where one is not finite."""
    distances = _size(states - others) / jnp.maximum(1, _size(others))
    distances = jnp.where(jnp.isfinite(distances), distances, jnp.inf)
    return jnp.max(jnp.where(problem.within, distances, 0))


def _exponent(jacobians: Float[Array, "T n n"], length: Int[Array, ""]) -> Float[Array, ""]:
    """Return λ₁, as `lyapunov_spectrum` defines it, of the steps up to a length."""
    times = jnp.arange(len(jacobians))

    def advance(frame: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        jacobian, t = step
        frame, triangle, resolved = stretch(jacobian, frame)
        growth = safe_log(jnp.abs(triangle[0, 0]))
        growth = jnp.where(resolved[0] | (t < length // 2), growth, jnp.nan)
        return frame, jnp.where(t < length, growth, 0)

    _, growth = jax.lax.scan(advance, random_frame(jacobians.shape[-1], 1), (jacobians, times))
    return growth.sum() / length
