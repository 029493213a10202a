"""The objective of an update, on whole sequences or on one segment, and its clipped gradient."""

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
from gradlab.training.truncated import (
    run_window,
    split_segments,
    unroll_truncated,
    window_segments,
)

Clip: TypeAlias = optax.GradientTransformation | AdjointRule


class ObjectiveAux(NamedTuple):
    """Auxiliary outputs of an objective, next to the value that is differentiated."""

    loss: Float[Array, ""]
    regulariser: Float[Array, ""] | None  # before its weight is applied
    carry: PyTree  # the state that enters the next window; None for whole sequences
    outputs: Float[Array, "batch time o"]


class Gradients(NamedTuple):
    """The gradient of one update, before and after clipping."""

    raw: nnx.State
    clipped: nnx.State


# A function of a network (or its parameters) and of a rule that is applied to the adjoint at each
# step of the backward pass; None applies no rule.
Objective = Callable[[Any, AdjointRule | None], tuple[Float[Array, ""], ObjectiveAux]]
Scale = Callable[[Batch, int], Float[Array, ""] | float]  # of a batch and a number of outputs


def one(batch: Batch, outputs: int) -> float:
    """Leave the mean loss as it is."""
    del batch, outputs
    return 1.0


def sequence_objective(
    batch: Batch, regulariser: Omega | None, window: int, stride: int, scale: Scale = one
) -> Objective:
    """Return the objective of an update on whole sequences: their mean loss and the regulariser.

    Args:
        batch: whole sequences.
        regulariser: an additional term, or None.
        window: of BPTT(h; h′), in steps; the gradient is truncated if it is shorter than T.
        stride: h′ of BPTT(h; h′), in steps.
        scale: factor of the mean loss, such as `losses.half_sum`.
    """
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
        outputs = _outputs(network, hidden)
        mean_loss = _loss(outputs, batch)
        value = mean_loss * scale(batch, outputs.shape[-1])
        if regulariser is None:
            return value, ObjectiveAux(mean_loss, None, None, outputs)
        penalty = regulariser(
            network.cell,
            carry,
            inputs,
            hidden,
            lambda hidden: _loss(_outputs(network, hidden), batch),
        )
        aux = ObjectiveAux(mean_loss, penalty, None, outputs)
        return value + regulariser.weight * penalty, aux

    return objective


def segment_objective(
    batch: Batch,
    segment: Int[Array, ""],
    start: PyTree,
    window: int,
    stride: int,
    scale: Scale = one,
) -> Objective:
    """Return the objective of an update on one segment: the segment's mean loss.

    The network runs over the window that ends with the segment.

    Args:
        batch: whole sequences.
        segment: the segment's index, from 0.
        start: the state that enters the window; the first segment starts from s⁽⁰⁾ instead.
        window: of BPTT(h; h′), in steps.
        stride: h′ of BPTT(h; h′), in steps.
        scale: factor of the mean loss, such as `losses.half_sum`.
    """
    segments = Batch(*(split_segments(x.swapaxes(0, 1), stride) for x in batch))
    target_segment = Batch(*(x[segment].swapaxes(0, 1) for x in segments))

    def objective(
        network: Network, on_adjoint: AdjointRule | None
    ) -> tuple[Float[Array, ""], ObjectiveAux]:
        initial = network.initial_carry(batch.inputs)
        entering = jax.tree.map(partial(jnp.where, segment == 0), initial, start)
        indices = window_segments(segment, window // stride)
        carry, hidden = run_window(network.cell, entering, segments.inputs, indices, on_adjoint)
        outputs = _outputs(network, hidden)
        mean_loss = _loss(outputs, target_segment)
        value = mean_loss * scale(target_segment, outputs.shape[-1])
        return value, ObjectiveAux(mean_loss, None, carry, outputs)

    return objective


def clip_memory(clip: Clip, parameters: nnx.State) -> PyTree:
    """Return a clipping rule's initial state; None for a rule that acts on adjoints."""
    return clip.init(parameters) if isinstance(clip, optax.GradientTransformation) else None


def gradients(
    objective: Objective,
    parameters: nnx.State,
    clip: Clip,
    memory: PyTree,
    scale: Float[Array, ""] | None = None,
) -> tuple[ObjectiveAux, Gradients, PyTree]:
    """Differentiate an objective, without and with clipping.

    A rule that clips adjoints acts inside the backward pass. Then one forward pass is shared by two
    backward passes, one with the rule and one without, which run side by side.

    Args:
        objective: a function of the parameters.
        parameters: where to differentiate.
        clip: a rule of `gradlab.clipping`.
        memory: what it knows of earlier updates; see `clip_memory`.
        scale: factor of the objective while it is differentiated, which the gradients (and the
            adjoints that a rule sees) are divided by; None: 1.

    Returns:
        The objective's auxiliary outputs, both gradients, and the new memory.
    """
    if scale is not None:
        objective = _scaled(objective, scale)
    if isinstance(clip, optax.GradientTransformation):
        (_, aux), raw = jax.value_and_grad(objective, has_aux=True)(parameters, None)
        raw = _divided(raw, scale)
        clipped, memory = clip.update(raw, memory, parameters)
        return aux, Gradients(raw, clipped), memory

    def gradient(clips: Bool[Array, ""]) -> tuple[nnx.State, ObjectiveAux]:
        return jax.grad(objective, has_aux=True)(parameters, Partial(_apply_if, clips, clip))

    both, aux = jax.vmap(gradient)(jnp.array([False, True]))
    both = _divided(both, scale)
    raw, clipped = (jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1))
    return jax.tree.map(lambda x: x[0], aux), Gradients(raw, clipped), memory


def _scaled(objective: Objective, scale: Float[Array, ""]) -> Objective:
    """Return a multiple of an objective, whose rule sees the adjoints of the objective itself."""

    def scaled(
        parameters: nnx.State, rule: AdjointRule | None
    ) -> tuple[Float[Array, ""], ObjectiveAux]:
        own = None if rule is None else Partial(_on_unscaled, rule, scale)
        value, aux = objective(parameters, own)
        return value * scale, aux

    return scaled


def _on_unscaled(rule: AdjointRule, scale: Float[Array, ""], adjoint: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x * scale, rule(_divided(adjoint, scale)))


def _divided(tree: PyTree, scale: Float[Array, ""] | None) -> PyTree:
    return tree if scale is None else jax.tree.map(lambda x: x / scale, tree)


def _apply_if(condition: Array, rule: AdjointRule, adjoint: PyTree) -> PyTree:
    return jax.tree.map(partial(jnp.where, condition), rule(adjoint), adjoint)


def _outputs(network: Network, hidden: Float[Array, "time batch n"]) -> Array:
    return network.readout(hidden).swapaxes(0, 1)


def _loss(outputs: Float[Array, "batch time o"], batch: Batch) -> Array:
    return weighted_mean(losses(outputs, batch.targets), batch)
