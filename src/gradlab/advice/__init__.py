"""Advice: what the measurements of a network say to do, each with its reason and its cost."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from gradlab.advice.growth import growth, profile
from gradlab.advice.points import point_advice
from gradlab.advice.reach import reach
from gradlab.advice.recommendation import Advice, Recommendation, Trial
from gradlab.advice.thresholds import checked_norms, clipping_threshold, present_norms
from gradlab.advice.windows import ByLag, truncation_window
from gradlab.cells.precision import InPrecision
from gradlab.jacobian import backpropagate
from gradlab.jacobian.adjoints import Loss, checked_targets
from gradlab.jacobian.arguments import check_at_least_zero, numbers, whole_number
from gradlab.jacobian.flat_cell import check_inputs
from gradlab.jacobian.initial import initial_state
from gradlab.jacobian.lengths import checked_lengths
from gradlab.jacobian.pure_step import pure_step

Arguments = dict[str, Any]

__all__ = ["Advice", "Recommendation", "Trial", "advise", "point_advice"]


@np.errstate(over="ignore")  # gradients beyond float32, which are measured in float64
def advise(
    cell: nnx.RNNCellBase | Callable[..., Any],
    inputs: Float[Array, "*batch T features"],
    loss: Loss,
    targets: PyTree,
    *,
    parameters: PyTree | None = None,
    initial_carry: PyTree | None = None,
    lengths: Int[Array, "*batch"] | None = None,
    lag: int | None = None,
    window: int | None = None,
    grad_norms: Float[Array, "updates"] | None = None,
    threshold: float | None = None,
) -> Advice:
    """Measure a network on sequences, and say what the measurements support doing.

    The topics are "truncation", the shortest window within 5 % of the full gradient; "clipping", a
    threshold from the gradient norms seen; "reach", whether the horizon is that of the task, and
    which start would have it; "growth", worst case against typical case and the largest Lyapunov
    exponent. All are of the present weights and these sequences. Where a measurement supports no
    change, `settings` is empty and the reason says why. A few sequences are enough.

    Args:
        cell, inputs, loss, targets, parameters, initial_carry, lengths: as in `backpropagate`.
        lag: the steps that the task demands between a cause and its answer, 1 to T − 1, such as 50
            for a copy of 50 steps. Without it no start is tried, no window is shortened where
            gradients vanish, and none is lengthened where they explode.
        window: of truncated BPTT, in steps, if one is in use.
        grad_norms: gradient norms of the updates of a run, as they were before clipping. Without
            them there is no threshold: the norms of one moment are not those of training, and those
            of single sequences spread more widely than those of a batch. What lags own of a cut
            is of the gradient of `loss`, summed over these sequences.
        threshold: of clipping by global norm, if one is in use.

    Returns:
        An `Advice`: a `Recommendation` for each topic, with settings, reason, cost and measured
        numbers; as text by `print`. The trials of "reach" hold the changed cells.

    Raises:
        ValueError: an argument is invalid; the message names the allowed values.
        FloatingPointError: a state, a Jacobian or the loss is not finite; the message says which.

    References:
        Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks,
        section 3.2: a threshold of half to ten times the average norm.
        Saxe, McClelland & Ganguli 2014, Exact solutions to the nonlinear dynamics of learning in
        deep linear neural networks: orthogonal weights.
        Tallec & Ollivier 2018, Can recurrent neural networks warp time?: chrono biases. They and
        forget biases are tried where the cell has gates; the forget bias of an LSTM starts at 0 as
        in Flax.
        Gonzalez, Kozachkov, Zoltowski, Clarkson & Linderman 2025, Predictability enables
        parallelization of nonlinear state space models: λ₁ < 0.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> advice = gradlab.advise(cell, x, loss, jnp.zeros((4, 20, 8)), lag=9)
        >>> list(advice)
        ['truncation', 'clipping', 'reach', 'growth']
        >>> advice["truncation"].settings
        {'tbptt.window': 10, 'tbptt.stride': 1}
        >>> print(advice["clipping"].name)
        clipping threshold
    """
    inputs = numbers("inputs", inputs)
    check_inputs(inputs)
    if not len(inputs):
        raise ValueError(f"inputs must hold a sequence or more; got shape {inputs.shape}.")
    targets = checked_targets(targets, inputs)
    if lengths is not None:
        lengths = checked_lengths(lengths, inputs)
    steps = inputs.shape[-2]
    longest = steps if lengths is None else int(lengths.max())
    if lag is not None:
        lag = whole_number("lag", lag, 1, longest - 1, "one less than the longest sequence")
        if isinstance(cell, InPrecision):
            raise ValueError(
                f"lag is for cells in float32, whose starts are advised; this one runs in "
                f"{cell.dtype}: leave lag out."
            )
    if window is not None:
        window = whole_number("window", window, 1, steps, "the number of steps")
    if threshold is not None:
        check_at_least_zero("threshold", threshold)
    sequences = _sequences(cell, inputs, targets, parameters, initial_carry, lengths)
    by_lag = [_by_lag(cell, loss, parameters, sequence) for sequence in sequences]
    total = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *by_lag)
    if grad_norms is None:
        clipping = present_norms(by_lag, total, threshold=threshold)
    else:
        clipping = clipping_threshold(checked_norms(grad_norms), total, threshold=threshold)
    step = cell if parameters is None else partial(cell, parameters)
    measure = partial(profile, inputs=inputs, initial_carry=initial_carry, lengths=lengths)
    worst, typical = (measure(step, norm=norm) for norm in ("spectral", "rms"))
    return Advice(
        {
            "truncation": truncation_window(total, worst, window=window, lag=lag),
            "clipping": clipping,
            "reach": reach(worst, total, lag=lag, cell=cell, measure=measure),
            "growth": growth(worst, typical, step, inputs, initial_carry, lengths),
        }
    )


def _by_lag(
    cell: nnx.RNNCellBase | Callable[..., Any], loss: Loss, parameters: PyTree, sequence: Arguments
) -> ByLag:
    """Return the sums by lag of the terms of BPTT on one sequence."""
    terms = backpropagate(cell, loss=loss, parameters=parameters, **sequence)
    scale = np.exp(float(terms.log_scale))
    return {name: np.asarray(sums) * scale for name, sums in terms.by_lag.items()}


def _sequences(
    cell: nnx.RNNCellBase | Callable[..., Any],
    inputs: Float[Array, "*batch T features"],
    targets: PyTree,
    parameters: PyTree | None,
    initial_carry: PyTree | None,
    lengths: Int[Array, "*batch"] | None,
) -> list[Arguments]:
    """Return the arguments of `backpropagate` for each sequence of a batch."""
    whole = {"inputs": inputs, "targets": targets}
    if lengths is not None:
        whole["lengths"] = lengths
    if inputs.ndim == 2:
        return [{**whole, "initial_carry": initial_carry}]
    x = jax.ShapeDtypeStruct(inputs.shape[-1:], inputs.dtype)
    pure = pure_step(cell, parameters)
    _, has_batch = initial_state(pure, x, len(inputs), initial_carry)
    if has_batch:
        whole["initial_carry"] = initial_carry
    shared = {} if has_batch else {"initial_carry": initial_carry}
    each = (jax.tree.map(lambda leaf, i=i: leaf[i], whole) for i in range(len(inputs)))
    return [{**shared, **own} for own in each]
