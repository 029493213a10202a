"""What every update saw, and the row of metrics that a stretch of updates makes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from gradlab.training.gradients import Gradients, ObjectiveAux

CLIP_ROUNDING = 1e-5  # a gradient changed by less, relative to its norm, was not clipped


class Telemetry(NamedTuple):
    """What updates saw; after one that diverged, all repeat it.

    `nonfinite` counts the numbers of an update that were not finite: its loss, its gradient's norm
    and entries, and the weights it would have made.
    """

    update: Int[Array, "steps"]  # from 1
    loss: Float[Array, "steps"]
    regulariser: Float[Array, "steps"] | None
    grad_norm: Float[Array, "steps"]
    grad_norm_clipped: Float[Array, "steps"]
    clipped: Bool[Array, "steps"]
    nonfinite: Int[Array, "steps"]


def observe(
    update: Int[Array, ""], found: ObjectiveAux, gradients: Gradients, parameters: PyTree
) -> Telemetry:
    """What one update saw, on its way to new parameters.

    It was clipped if the rule changed its gradient by more than rounding, whatever the rule.
    """
    raw, clipped = gradients
    norm = optax.tree.norm(raw)
    change = optax.tree.norm(optax.tree.sub(clipped, raw))
    numbers = jax.tree.leaves((found.loss, norm, raw, parameters))
    return Telemetry(
        update,
        found.loss,
        found.regulariser,
        norm,
        optax.tree.norm(clipped),
        change > CLIP_ROUNDING * norm,
        jnp.sum(jnp.stack([jnp.sum(~jnp.isfinite(x)) for x in numbers])),
    )


def training_row(step: int, seen: Telemetry) -> dict[str, float]:
    """Means over the updates since the last row; norms are of the whole gradient, not of a batch.

    Of the clipped norm there is the largest too: what no update may exceed shows in no mean.

    An update that diverged is left out of the means: its number, loss and gradient norm stand on
    their own, as "diverged/update", "diverged/loss" and "diverged/grad_norm".

    Args:
        step: the number of updates that the state has behind it.
        seen: what the updates since the last row saw.
    """
    seen = jax.tree.map(np.asarray, seen)
    good = jax.tree.map(lambda x: x[seen.nonfinite == 0], seen)
    norm, clipped = good.grad_norm, good.grad_norm_clipped
    coefficient = np.divide(clipped, norm, out=np.ones_like(norm), where=norm > 0)
    row = {
        "train/step": step,
        "train/loss": _mean(good.loss),
        "train/grad_norm": _mean(norm),
        "train/grad_norm_clipped": _mean(clipped),
        "train/grad_norm_clipped_max": float(np.max(clipped, initial=0.0)),
        "train/clip_coefficient": _mean(coefficient),
        "train/clip_fraction": _mean(good.clipped),
        "train/nonfinite": float(seen.nonfinite[-1]),
    }
    if good.regulariser is not None:
        row["train/regulariser"] = _mean(good.regulariser)
    if row["train/nonfinite"]:
        row["diverged/update"] = int(seen.update[-1])
        row["diverged/loss"] = float(seen.loss[-1])
        row["diverged/grad_norm"] = float(seen.grad_norm[-1])
    return row


def divergence(row: dict[str, float]) -> str | None:
    """One sentence on a row whose last update diverged."""
    if "diverged/update" not in row:
        return None
    return (
        f"the loss, its gradient or the new weights were not finite at update "
        f"{row['diverged/update']:.0f} (loss {row['diverged/loss']:.6g}, gradient norm "
        f"{row['diverged/grad_norm']:.6g})"
    )


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else np.nan
