"""Norms of somebody's gradients over many updates, without waiting for the device that has them."""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from gradlab.jacobian.arguments import first_line
from gradlab.training.telemetry import CLIP_ROUNDING

Clip: TypeAlias = optax.GradientTransformation | float | None


class Totals(NamedTuple):
    """Scalars over the updates since the last row, on the device that has the gradients.

    Means are over the updates whose gradient is finite.
    """

    finite: Any  # number of updates
    nonfinite: Any  # number of updates
    norm: Any  # mean
    clipped: Any  # mean of the norm after clipping
    largest_clipped: Any
    coefficient: Any  # mean of the norm after clipping over that before
    fraction: Any  # mean of whether clipping changed the gradient


class GradientNorms:
    """Sums up the gradients of all updates from one row of metrics to the next.

    Attributes:
        is_known: whether the clipping is.
        threshold: of clipping by global norm; inf without one.
        has_begun: whether a gradient has been taken in.
    """

    def __init__(self, clip: Clip) -> None:
        """Begin with no update.

        Args:
            clip: the clipping of the training loop: an optax transformation, or the threshold of
                clipping by global norm; None: none is known, and only the norm is kept.

        Raises:
            ValueError: it is neither.
        """
        is_rule = isinstance(clip, optax.GradientTransformation)
        self.is_known = clip is not None
        self.threshold = np.inf if is_rule or clip is None else _positive(clip)
        self._rule: Any = clip if is_rule else None
        self._totals: Totals | None = None
        self.has_begun = False
        self._clip_state: Any = None

    def add(self, grads: PyTree, params: PyTree) -> None:
        """Take an update's gradient in, without waiting for it.

        Args:
            grads: before clipping: a pytree of arrays, or torch tensors.
            params: the weights, for a `clip` that reads them; else None.

        Raises:
            ValueError: `clip` needs the weights, or cannot take such gradients; the first ones are
                empty, or weights.
        """
        grads = list(grads) if isinstance(grads, Iterator) else grads
        if not jax.tree.leaves(grads):
            if self.has_begun:
                return
            raise ValueError(
                "grads must hold the gradient of this update; got none. In PyTorch, call the "
                "watcher after loss.backward() and before optimizer.zero_grad(), with "
                "grads=[p.grad for p in model.parameters()]."
            )
        if tensors := _torch_tensors(grads):
            if self._rule:
                raise ValueError(
                    "clip is an optax transformation and the gradients are torch tensors: give the "
                    "threshold of clip_grad_norm_ instead, a number such as clip=1.0."
                )
            self._totals = _of_torch(self._totals, tensors, self.threshold)
        else:
            self._add_arrays(grads, params)
        self.has_begun = True

    def _add_arrays(self, grads: PyTree, params: PyTree) -> None:
        """Take an update's gradient in, of arrays of JAX or NumPy."""
        if self._rule and self._clip_state is None:
            self._clip_state = self._rule.init(grads if params is None else params)
        totals = self._totals or Totals(*jnp.zeros(len(Totals._fields)))
        weights = params if self._rule else None
        try:
            self._totals, self._clip_state = _of_jax(
                totals, grads, self._clip_state, weights, self.threshold, rule=self._rule
            )
        except ValueError as error:
            if params is not None:
                raise
            raise ValueError(
                f"clip cannot run on gradients alone ({first_line(error)}): give it the weights "
                "too, watcher(step, cell, grads=grads, params=weights)."
            ) from error

    def row(self) -> dict[str, float]:
        """Return the metrics of the updates since the last call, and begin anew.

        They are named as in a run of gradlab's, except that "train/nonfinite" counts the updates
        whose gradient was not finite.
        """
        if self._totals is None:
            return {}
        totals, self._totals = Totals(*map(float, self._totals)), None
        norm = totals.norm if totals.finite else float("nan")
        row = {"train/grad_norm": norm, "train/nonfinite": totals.nonfinite}
        if self.is_known and totals.finite:
            row |= {
                "train/grad_norm_clipped": totals.clipped,
                "train/grad_norm_clipped_max": totals.largest_clipped,
                "train/clip_coefficient": totals.coefficient,
                "train/clip_fraction": totals.fraction,
            }
        return row


@partial(jax.jit, static_argnames="rule", donate_argnums=0)
def _of_jax(
    totals: Totals,
    grads: PyTree,
    state: PyTree,
    params: PyTree,
    threshold: Any,
    *,
    rule: optax.GradientTransformation | None,
) -> tuple[Totals, PyTree]:
    """Return the totals with one more update, and the state of the clipping rule after it."""
    norm = _norm(grads)
    if rule is None:
        return _with(jnp, totals, norm, *_by_global_norm(jnp, norm, threshold)), state
    after, state = rule.update(grads, state, params)
    was_clipped = _norm(optax.tree.sub(after, grads)) > CLIP_ROUNDING * norm
    return _with(jnp, totals, norm, _norm(after), was_clipped), state


def _norm(tree: PyTree) -> Float[Array, ""]:
    """Return the norm of a pytree, of arrays in half precision as float32."""

    def widened(array: Any) -> Any:
        is_half = jnp.issubdtype(array.dtype, jnp.floating) and jnp.finfo(array.dtype).bits < 32
        return array.astype(jnp.float32) if is_half else array

    return optax.tree.norm(jax.tree.map(widened, tree))


def _of_torch(totals: Totals | None, grads: list[Any], threshold: float) -> Totals:
    """Return the totals with one more update, of a training loop in PyTorch."""
    torch = sys.modules["torch"]
    with torch.no_grad():
        norm = torch.linalg.vector_norm(torch.stack(_norms(torch, grads)))
        totals = totals or Totals(*torch.zeros(len(Totals._fields), device=norm.device))
        limit = norm.new_tensor(threshold)
        return _with(torch, totals, norm, *_by_global_norm(torch, norm, limit))


def _norms(torch: Any, grads: list[Any]) -> list[Any]:
    """Return the norm of each tensor, of those in half precision as float32."""
    halves = [grad for grad in grads if grad.dtype in (torch.float16, torch.bfloat16)]
    others = [grad for grad in grads if grad.dtype not in (torch.float16, torch.bfloat16)]
    norms = list(torch._foreach_norm(others)) if others else []
    return norms + (list(torch._foreach_norm(halves, 2, torch.float32)) if halves else [])


def _by_global_norm(xp: Any, norm: Any, threshold: Any) -> tuple[Any, Any]:
    """Return the norm after clipping by global norm, and whether that changed the gradient."""
    return xp.minimum(norm, threshold), norm > threshold * (1 + CLIP_ROUNDING)


def _with(xp: Any, totals: Totals, norm: Any, clipped: Any, was_clipped: Any) -> Totals:
    """Return the totals with one more update; `xp` is jax.numpy or torch."""
    is_finite = xp.isfinite(norm)
    finite = totals.finite + is_finite
    count = xp.where(is_finite, finite, xp.ones_like(finite))

    def mean(before: Any, value: Any) -> Any:  # a running mean: float32 sums would lose digits
        return xp.where(is_finite, before + (value - before) / count, before)

    kept = xp.where(is_finite, clipped, xp.zeros_like(clipped))
    return Totals(
        finite,
        totals.nonfinite + ~is_finite,
        mean(totals.norm, norm),
        mean(totals.clipped, clipped),
        xp.maximum(totals.largest_clipped, kept),
        mean(totals.coefficient, xp.where(norm > 0, clipped / norm, xp.ones_like(norm))),
        mean(totals.fraction, 1.0 * was_clipped),
    )


def _torch_tensors(grads: PyTree) -> list[Any]:
    """Return the tensors of gradients that torch has computed; none if they are not torch's.

    Raises:
        ValueError: they are weights.
    """
    torch, leaves = sys.modules.get("torch"), jax.tree.leaves(grads)
    if torch is None or not isinstance(leaves[0], torch.Tensor | torch.nn.Module):
        return []
    if any(isinstance(leaf, torch.nn.Parameter | torch.nn.Module) for leaf in leaves):
        raise ValueError(
            "grads must be gradients; got weights: give grads=[p.grad for p in model.parameters()]."
        )
    # Of a sparse gradient (an embedding's) the entries that it stores.
    return [leaf.coalesce().values() if leaf.is_sparse else leaf for leaf in leaves]


def _positive(clip: Any) -> float:
    """Return a threshold.

    Raises:
        ValueError: it is none.
    """
    if isinstance(clip, bool) or not isinstance(clip, int | float) or not clip > 0:
        raise ValueError(
            "clip must be an optax transformation, such as optax.clip_by_global_norm(1.0), or a "
            f"threshold above 0; got {clip!r:.80}."
        )
    return float(clip)
