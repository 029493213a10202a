"""Scalars recorded at every update, and the row of metrics that summarises several updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradlab.training.gradients import Gradients, ObjectiveAux

CLIP_ROUNDING = 1e-5  # a gradient changed by less, relative to its norm, was not clipped


class Telemetry(NamedTuple):
    """Scalars of each update; entries of update 0 stand for none, since the point had ended.

    `nonfinite` counts an update's non-finite numbers among its loss, its gradient's norm and
    entries, and the new parameters; it is 1 where these are finite but their norm is not. An update
    diverges if there is any.
    """

    update: Int[Array, "steps"]  # counts from 1; 0: none was made
    loss: Float[Array, "steps"]
    regulariser: Float[Array, "steps"] | None
    grad_norm: Float[Array, "steps"]
    grad_norm_clipped: Float[Array, "steps"]
    clipped: Bool[Array, "steps"]
    nonfinite: Int[Array, "steps"]
    loss_scale: Float[Array, "steps"] | None = None  # of train.loss_scale
    skipped: Bool[Array, "steps"] | None = None  # since the scaled gradient overflowed


def observe(
    update: Int[Array, ""],
    aux: ObjectiveAux,
    gradients: Gradients,
    parameters: PyTree,
    loss_scale: Float[Array, ""] | None = None,
    skipped: Bool[Array, ""] | None = None,
) -> Telemetry:
    """Return the telemetry of one update.

    An update diverges where the type of the weights no longer holds its loss, its gradient or the
    new weights, nor the squares of these weights, as float32 cannot beyond 1.8e19: what a learning
    rate of 1e30 does, while saturated units hide it from the loss.

    The update counts as clipped if clipping changed its gradient by more than rounding errors.

    Args:
        update: its number, from 1.
        aux: its loss and regulariser.
        gradients: its gradient before and after clipping.
        parameters: the new parameters.
        loss_scale: the factor of the loss, if there is one.
        skipped: whether its gradient overflows by that factor; then it has not diverged.
    """
    raw, clipped = gradients
    norm = optax.tree.norm(raw)
    change = optax.tree.norm(optax.tree.sub(clipped, raw))
    numbers = jax.tree.leaves((aux.loss, norm, raw, parameters))
    nonfinite = jnp.sum(jnp.stack([jnp.sum(~jnp.isfinite(x)) for x in numbers]))
    telemetry = Telemetry(
        update,
        aux.loss,
        aux.regulariser,
        norm,
        optax.tree.norm(clipped),
        change > CLIP_ROUNDING * norm,
        jnp.maximum(nonfinite, overflows(parameters)),
        loss_scale,
        skipped,
    )
    if skipped is None:
        return telemetry
    return telemetry._replace(nonfinite=jnp.where(skipped, 0, telemetry.nonfinite))


def overflows(parameters: PyTree) -> Bool[Array, ""]:
    """Return whether weights, or their squares, are not finite in their own type."""
    return ~jnp.isfinite(optax.tree.norm(parameters))


def training_row(step: int, telemetry: Telemetry) -> dict[str, float]:
    """Summarise the updates since the last row, by W&B names.

    Most entries are means over the updates. The clipped gradient norm also has its maximum, since a
    mean cannot show whether a threshold was ever exceeded. An update that diverged is left out of
    both, and one that was skipped, whose gradient overflowed, of all that is said of gradients;
    "diverged/update", "diverged/loss" and "diverged/grad_norm" describe it.

    Args:
        step: the number of updates made so far.
        telemetry: that of the updates since the last row.
    """
    telemetry = jax.tree.map(np.asarray, telemetry)
    telemetry = jax.tree.map(lambda x: x[telemetry.update > 0], telemetry)
    finite = jax.tree.map(lambda x: x[telemetry.nonfinite == 0], telemetry)
    made = finite
    if finite.skipped is not None:
        made = jax.tree.map(lambda x: x[~finite.skipped], finite)
    norm, clipped = made.grad_norm, made.grad_norm_clipped
    coefficient = np.divide(clipped, norm, out=np.ones_like(norm), where=norm > 0)
    row = {
        "train/step": step,
        "train/loss": _mean(finite.loss),
        "train/grad_norm": _mean(norm),
        "train/grad_norm_clipped": _mean(clipped),
        "train/grad_norm_clipped_max": float(np.max(clipped, initial=0.0)),
        "train/clip_coefficient": _mean(coefficient),
        "train/clip_fraction": _mean(made.clipped),
        "train/nonfinite": float(telemetry.nonfinite[-1]),
    }
    if telemetry.skipped is not None and telemetry.loss_scale is not None:
        row["train/loss_scale"] = float(telemetry.loss_scale[-1])
        row["train/skipped"] = _mean(np.asarray(telemetry.skipped))
    if finite.regulariser is not None:
        row["train/regulariser"] = _mean(finite.regulariser)
    if row["train/nonfinite"]:
        row["diverged/update"] = int(telemetry.update[-1])
        row["diverged/loss"] = float(telemetry.loss[-1])
        row["diverged/grad_norm"] = float(telemetry.grad_norm[-1])
    return row


def diverged_row(update: int, loss: float) -> dict[str, float]:
    """Return the entries of a row for a network that has diverged without an update that did.

    Args:
        update: the number of updates made.
        loss: the network's loss on the held-out sequences.
    """
    return {"diverged/update": update, "diverged/loss": loss}


def worsened_row(update: int, loss: float, before: float, worst: float) -> dict[str, float]:
    """Return the entries of the last row of a network that training has driven off its task.

    It has if its loss is beyond that of the worst answers among the targets, and was less before
    training: a network whose states grow so from the start has not diverged.

    Args:
        update: the number of updates made.
        loss: the network's loss on the held-out sequences.
        before: that before training.
        worst: from `losses.worst_loss`.

    Returns:
        Nothing if it has not.
    """
    if not loss > max(before, worst):
        return {}
    return diverged_row(update, loss) | {"diverged/loss_before": before, "diverged/worst": worst}


def divergence(row: dict[str, float]) -> str | None:
    """Describe in one clause how a row's network diverged; None if it did not."""
    if "diverged/update" not in row:
        return None
    update, loss = row["diverged/update"], row["diverged/loss"]
    if "diverged/worst" in row:
        return (
            f"the loss on the held-out sequences is {loss:.6g} after update {update:.0f}, beyond "
            f"{row['diverged/worst']:.6g}, that of the worst answers among the task's targets, and "
            f"was {row['diverged/loss_before']:.6g} before training"
        )
    if "diverged/grad_norm" not in row:
        return (
            f"the loss on the held-out sequences ({loss:.6g}) or the squares of the weights were "
            f"not finite after update {update:.0f}"
        )
    return (
        f"the loss, its gradient or the new weights were not finite at update {update:.0f} "
        f"(loss {loss:.6g}, gradient norm {row['diverged/grad_norm']:.6g})"
    )


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else np.nan
