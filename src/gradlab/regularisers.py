"""Terms added to the loss to keep its gradient from vanishing or exploding.

To add one: a class here with the weight and the two methods that `Omega` has, and a YAML in
conf/regulariser/.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gradlab.config import ConfigError, NonNegative

BOUND = 1e-20  # squared norm of an adjoint, below which the published code leaves a step out


def none() -> None:
    """The loss alone."""


@dataclass(frozen=True)
class Omega:
    """Pascanu, Mikolov & Bengio 2013, 3.3: adjoints should keep their norm from step to step.

    With v⁽ᵏ⁾ = ∂L/∂h⁽ᵏ⁾ and r⁽ᵏ⁾ = ‖v⁽ᵏ⁾ ∂h⁽ᵏ⁾/∂h⁽ᵏ⁻¹⁾‖ / ‖v⁽ᵏ⁾‖, for k = 1..T, it is published as

        eq9    mean over the batch of Σ_k (r⁽ᵏ⁾ − 1)²
        eq10   mean over the batch of Σ_k (r⁽ᵏ⁾² − 1)²  (written there for the state before φ)
        code   mean over samples and steps with ‖v⁽ᵏ⁾‖² ≥ 1e-20 of (r⁽ᵏ⁾² − 1)²

    The paper's weight is 4, its code's 2. Only the immediate derivative counts, by the W_hh in
    ∂h⁽ᵏ⁾/∂h⁽ᵏ⁻¹⁾: v and h are constants. Steps that no loss reaches (v⁽ᵏ⁾ = 0) are left out.
    """

    weight: NonNegative = 2.0
    form: Literal["eq9", "eq10", "code"] = "code"

    def check(self, cell: nnx.RNNCellBase, truncated: bool) -> None:
        """Refuse cells that have no W_hh of the paper's kind, and adjoints that are cut short.

        Raises:
            ConfigError: the cell is not one Elman layer, or the gradient is truncated.
        """
        if truncated:
            raise ConfigError(
                "regulariser=omega needs the adjoints of whole sequences: tbptt.window=null."
            )
        if not isinstance(cell, nnx.SimpleCell) or not hasattr(cell, "dense_h"):
            raise ConfigError(
                "regulariser=omega needs model=rnn with model.num_layers=1, whose W_hh it is "
                f"defined by; got {type(cell).__name__}."
            )

    def __call__(
        self,
        cell: Any,
        carry: Float[Array, "batch n"],
        inputs: Float[Array, "time batch features"],
        hidden: Float[Array, "time batch n"],
        loss: Callable[[Float[Array, "time batch n"]], Float[Array, ""]],
    ) -> Float[Array, ""]:
        """Ω, not yet weighted, of a batch; its gradient is the immediate derivative.

        Args:
            cell: an Elman layer.
            carry: h⁽⁰⁾.
            inputs: x⁽¹⁾ to x⁽ᵀ⁾.
            hidden: h⁽¹⁾ to h⁽ᵀ⁾.
            loss: L as a function of `hidden`.
        """
        w_hh = cell.dense_h.kernel[...].T
        hidden = jax.lax.stop_gradient(hidden)
        before = jnp.concatenate([carry[None], hidden[:-1]])
        slopes = _slopes(cell, inputs, before)
        adjoints = _adjoints(jax.grad(loss)(hidden), slopes, w_hh)
        slopes, adjoints = jax.lax.stop_gradient((slopes, adjoints))

        scale = jnp.max(jnp.abs(adjoints), axis=-1, keepdims=True)
        reached = scale[..., 0] > 0
        unit = adjoints / jnp.where(
            scale > 0, scale, 1
        )  # their squares neither under- nor overflow
        size = jnp.where(reached, jnp.sum(unit**2, axis=-1), 1)
        squared = jnp.where(reached, jnp.sum(((unit * slopes) @ w_hh) ** 2, axis=-1) / size, 1)
        if self.form == "eq9":
            positive = squared > 0
            ratio = jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
            return jnp.mean(jnp.sum((ratio - 1) ** 2, axis=0))
        terms = (squared - 1) ** 2
        if self.form == "eq10":
            return jnp.mean(jnp.sum(terms, axis=0))
        counted = reached & (size * scale[..., 0] ** 2 >= BOUND)
        return jnp.sum(terms * counted) / jnp.maximum(jnp.sum(counted), 1)


def _slopes(cell: nnx.SimpleCell, inputs: Array, before: Array) -> Float[Array, "time batch n"]:
    """φ′ of every unit at every step."""
    driven = cell.dense_i(inputs) + cell.dense_h(before)
    return jax.jvp(cell.activation_fn, (driven,), (jnp.ones_like(driven),))[1]


def _adjoints(direct: Array, slopes: Array, w_hh: Array) -> Float[Array, "time batch n"]:
    """∂L/∂h⁽ᵏ⁾ = ∂⁺L/∂h⁽ᵏ⁾ + ∂L/∂h⁽ᵏ⁺¹⁾ diag(φ′) W_hh, back from the last step."""

    def back(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        own, slope = step
        adjoint = own + later
        return (adjoint * slope) @ w_hh, adjoint

    return jax.lax.scan(back, jnp.zeros_like(direct[0]), (direct, slopes), reverse=True)[1]
