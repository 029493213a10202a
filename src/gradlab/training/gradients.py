"""How an update gets its gradient: of a whole sequence, truncated or regularised, then clipped."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradlab.cells.recurrence import AdjointRule, unroll
from gradlab.models import Network
from gradlab.regularisers import Omega
from gradlab.tasks import Batch
from gradlab.training.losses import losses, weighted_mean
from gradlab.training.truncated import in_segments, in_window, run_window, unroll_truncated

Clip: TypeAlias = optax.GradientTransformation | AdjointRule


class ObjectiveAux(NamedTuple):
    """What an objective finds on its way."""

    loss: Float[Array, ""]
    regulariser: Float[Array, ""] | None  # its value, not yet weighted
    carry: PyTree  # the state that enters the next window; None between sequences


class Gradients(NamedTuple):
    """Of one update, before and after clipping."""

    raw: nnx.State
    clipped: nnx.State


# Of a network or of its parameters, and of what happens to adjoints on their way back.
Objective = Callable[[Any, AdjointRule | None], tuple[Float[Array, ""], ObjectiveAux]]


def sequence_objective(
    batch: Batch, regulariser: Omega | None, window: int, stride: int
) -> Objective:
    """The mean loss of whole sequences, its gradient truncated where the window is shorter."""
    inputs = batch.inputs.swapaxes(0, 1)

    def objective(
        network: Network, on_adjoint: AdjointRule | None
    ) -> tuple[Float[Array, ""], ObjectiveAux]:
        carry = network.initial_carry(batch.inputs)
        if window < len(inputs):
            hidden = unroll_truncated(
                network.cell, carry, inputs, on_adjoint, window=window, stride=stride
            )
        else:
            _, hidden = unroll(network.cell, carry, inputs, on_adjoint)
        loss = partial(_loss, network, batch=batch)
        value = loss(hidden)
        if regulariser is None:
            return value, ObjectiveAux(value, None, None)
        penalty = regulariser(network.cell, carry, inputs, hidden, loss)
        return value + regulariser.weight * penalty, ObjectiveAux(value, penalty, None)

    return objective


def segment_objective(
    batch: Batch, segment: Int[Array, ""], start: PyTree, window: int, stride: int
) -> Objective:
    """The mean loss of one segment of the sequences, by the window that ends with it.

    Args:
        batch: whole sequences.
        segment: which one, from 0.
        start: the state that enters the window; the first segment begins at s⁽⁰⁾ instead.
        window: h of `truncated`.
        stride: h′.
    """
    parts = Batch(*(in_segments(x.swapaxes(0, 1), stride) for x in batch))
    answers = Batch(*(x[segment].swapaxes(0, 1) for x in parts))

    def objective(
        network: Network, on_adjoint: AdjointRule | None
    ) -> tuple[Float[Array, ""], ObjectiveAux]:
        first = network.initial_carry(batch.inputs)
        begin = jax.tree.map(partial(jnp.where, segment == 0), first, start)
        numbers = in_window(segment, window // stride)
        carry, hidden = run_window(network.cell, begin, parts.inputs, numbers, on_adjoint)
        value = _loss(network, hidden, answers)
        return value, ObjectiveAux(value, None, carry)

    return objective


def gradients(
    objective: Objective, parameters: nnx.State, clip: Clip
) -> tuple[ObjectiveAux, Gradients]:
    """The gradient of an objective without and with a rule of `clipping`.

    A rule inside the backward pass has both from one forward pass and two backward ones, side by
    side.
    """
    if isinstance(clip, optax.GradientTransformation):
        (_, found), raw = jax.value_and_grad(objective, has_aux=True)(parameters, None)
        clipped, _ = clip.update(raw, clip.init(parameters), parameters)
        return found, Gradients(raw, clipped)

    def once(clips: Bool[Array, ""]) -> tuple[nnx.State, ObjectiveAux]:
        return jax.grad(objective, has_aux=True)(parameters, Partial(_applied, clips, clip))

    both, found = jax.vmap(once)(jnp.array([False, True]))
    raw, clipped = (jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1))
    return jax.tree.map(lambda x: x[0], found), Gradients(raw, clipped)


def _applied(applies: Array, rule: AdjointRule, adjoint: PyTree) -> PyTree:
    return jax.tree.map(partial(jnp.where, applies), rule(adjoint), adjoint)


def _loss(network: Network, hidden: Float[Array, "time batch n"], batch: Batch) -> Array:
    outputs = network.readout(hidden).swapaxes(0, 1)
    return weighted_mean(losses(outputs, batch.targets), batch)
