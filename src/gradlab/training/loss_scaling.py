"""Loss scaling: a factor of the loss that keeps float16's small gradients from becoming zero.

The gradient is divided by the factor in float32, before it is clipped (Micikevicius et al. 2018).
To add a rule, write a function here or in your own package that returns a
`LossScaling`, and a YAML in conf/train/loss_scale/ whose `_target_` is its dotted path.
"""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree
from pydantic import Field

from gradlab.components import ConfigError
from gradlab.config import Count

LARGEST = 2.0**24
Scale = Annotated[float, Field(ge=1, le=LARGEST)]


class ScaleState(NamedTuple):
    """The present factor, and the number of updates since it or an overflow last changed it."""

    scale: Float[Array, ""]
    good: Int[Array, ""]


class LossScaling(NamedTuple):
    """A factor of the loss.

    Attributes:
        initial: the first one.
        interval: updates without an overflow after which it doubles; None: it never changes.
    """

    initial: float
    interval: int | None

    def init(self) -> ScaleState:
        """Return the state before the first update."""
        return ScaleState(jnp.float32(self.initial), jnp.int32(0))

    def skips(self, state: ScaleState, loss: Float[Array, ""], gradient: PyTree) -> Bool[Array, ""]:
        """Return whether an update is skipped: scaling has made its gradient overflow.

        A loss that is not finite, or a gradient that is not though the factor is 1, is the
        network's own.
        """
        if self.interval is None:
            return jnp.array(False)
        finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(gradient)]
        return ~jnp.stack(finite).all() & jnp.isfinite(loss) & (state.scale > 1)

    def apply(
        self,
        state: ScaleState,
        loss: Float[Array, ""],
        gradient: PyTree,
        before: PyTree,
        after: PyTree,
    ) -> tuple[PyTree, ScaleState, Bool[Array, ""]]:
        """Return what an update leaves, the new state, and whether it was skipped.

        Args:
            state: before the update.
            loss: the update's.
            gradient: the update's, before and after clipping.
            before: what a skipped update leaves as it was.
            after: the same, changed.
        """
        skips = self.skips(state, loss, gradient)
        return (
            jax.tree.map(partial(jnp.where, skips), before, after),
            self.update(state, skips),
            skips,
        )

    def update(self, state: ScaleState, skips: Bool[Array, ""]) -> ScaleState:
        """Return the state after an update, from whether it was skipped."""
        if self.interval is None:
            return state
        grows = ~skips & (state.good + 1 == self.interval)
        scale = jnp.where(grows, 2 * state.scale, state.scale)
        scale = jnp.clip(jnp.where(skips, state.scale / 2, scale), 1, LARGEST)
        return ScaleState(scale, jnp.where(skips | grows, 0, state.good + 1))


def static(scale: Scale = 1024.0) -> LossScaling:
    """Multiply the loss by a constant; a gradient that overflows is a divergence.

    Args:
        scale: from 1 to 2²⁴; a power of two changes no digit of a gradient that neither under- nor
            overflows.

    Example:
        >>> from gradlab.training.loss_scaling import static
        >>> static(4096.0)
        LossScaling(initial=4096.0, interval=None)
    """
    return LossScaling(scale, None)


def dynamic(initial: Scale = 2.0**15, interval: Count = 2000) -> LossScaling:
    """Double the factor after `interval` updates without an overflow; halve it at each overflow.

    An update whose gradient overflows is skipped: weights, optimiser and clipping rule stay as they
    were. The factor stays within 1 and 2²⁴; an overflow at 1 is a divergence. A gradient that
    overflows before it is clipped does so too where `clip=adjoint` would bound it.

    Args:
        initial: the first factor, from 1 to 2²⁴.
        interval: updates; 2000 as in PyTorch's GradScaler, which starts at 2¹⁶ and has no bounds.

    Example:
        >>> from gradlab.training.loss_scaling import dynamic
        >>> rule = dynamic(initial=8.0, interval=1)
        >>> state = rule.init()
        >>> [float(rule.update(state, jnp.array(skips)).scale) for skips in (False, True)]
        [16.0, 4.0]
    """
    return LossScaling(initial, interval)


def check_loss_scaling(rule: Any) -> None:
    """Check what `train.loss_scale` builds.

    Raises:
        ConfigError: it is neither None nor a rule.
    """
    if rule is not None and not isinstance(rule, LossScaling):
        raise ConfigError(
            "train.loss_scale._target_ must return a gradlab.training.loss_scaling.LossScaling; it "
            f"returned a {type(rule).__name__}."
        )
