"""Regularisers: terms added to the loss to keep its gradient from vanishing or exploding.

To add one, write a dataclass here or in your own package that has a `weight` and the two methods of
`Omega`, `check` and `__call__`, and a YAML in conf/regulariser/ whose `_target_` is its dotted
path.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gradlab.cells.elman import elman_activation
from gradlab.cells.precision import InPrecision
from gradlab.components import ConfigError
from gradlab.config import NonNegative

MIN_SQUARED_NORM = 1e-20  # the published code leaves out steps with a smaller adjoint


def none() -> None:
    """Return None: train on the loss without an added term.

    Example:
        >>> from gradlab.regularisers import none
        >>> none() is None
        True
    """


@dataclass(frozen=True)
class Omega:
    """Ω of Pascanu, Mikolov & Bengio 2013, 3.3: the adjoint should keep its norm at every step.

    With the adjoint v⁽ᵏ⁾ = ∂L/∂h⁽ᵏ⁾ and the ratio r⁽ᵏ⁾ = ‖v⁽ᵏ⁾ ∂h⁽ᵏ⁾/∂h⁽ᵏ⁻¹⁾‖ / ‖v⁽ᵏ⁾‖, k = 1 … T,
    three forms are published:

        eq9    mean over the batch of Σ_k (r⁽ᵏ⁾ − 1)²
        eq10   mean over the batch of Σ_k (r⁽ᵏ⁾² − 1)²  (in the paper for the state before φ)
        code   mean over samples and steps with ‖v⁽ᵏ⁾‖² ≥ 1e-20 of (r⁽ᵏ⁾² − 1)²

    Steps that no loss reaches (v⁽ᵏ⁾ = 0) are left out. The gradient of Ω is the immediate
    derivative with respect to the W_hh in ∂h⁽ᵏ⁾/∂h⁽ᵏ⁻¹⁾; v and h count as constants.

    Args:
        weight: of Ω in the training objective, at least 0; 4 in the paper, 2 in its code.
        form: which of the three, "eq9", "eq10" or "code".

    Example:
        >>> from gradlab.cells import Elman
        >>> from gradlab.regularisers import Omega
        >>> linear = Elman(3, 8, activation="identity", rngs=nnx.Rngs(0))  # W_hh is orthogonal
        >>> last = lambda hidden: hidden[-1].sum()
        >>> steps = x.swapaxes(0, 1)  # time first
        >>> omega = Omega()(linear, jnp.zeros((4, 8)), steps, jnp.zeros((20, 4, 8)), last)
        >>> float(omega) < 1e-9  # every step keeps the adjoint's norm
        True
    """

    weight: NonNegative = 2.0
    form: Literal["eq9", "eq10", "code"] = "code"

    def check(self, cell: nnx.RNNCellBase, truncated: bool) -> None:
        """Check that Ω is defined for a cell and its gradient.

        Args:
            cell: the network's cell.
            truncated: backpropagation through time is truncated.

        Raises:
            ConfigError: the cell is not one Elman layer, or the gradient is truncated.
        """
        if truncated:
            raise ConfigError(
                "regulariser=omega needs the adjoints of whole sequences: tbptt.window=null."
            )
        if isinstance(cell, InPrecision):
            raise ConfigError(f"regulariser=omega needs model.dtype=float32; got {cell.dtype}.")
        if elman_activation(cell) is None:
            raise ConfigError(
                "regulariser=omega needs model=rnn with model.num_layers=1, one layer of W_hh and "
                f"an activation, which it is defined by; got {type(cell).__name__}."
            )

    def __call__(
        self,
        cell: Any,
        carry: Float[Array, "batch n"],
        inputs: Float[Array, "time batch features"],
        hidden: Float[Array, "time batch n"],
        loss: Callable[[Float[Array, "time batch n"]], Float[Array, ""]],
    ) -> Float[Array, ""]:
        """Return Ω of a batch, without its weight.

        Args:
            cell: an Elman layer.
            carry: h⁽⁰⁾.
            inputs: x⁽¹⁾ to x⁽ᵀ⁾, time first.
            hidden: h⁽¹⁾ to h⁽ᵀ⁾, time first.
            loss: L as a function of `hidden`.
        """
        w_hh = cell.dense_h.kernel[...].T
        hidden = jax.lax.stop_gradient(hidden)
        previous = jnp.concatenate([carry[None], hidden[:-1]])
        slopes = _slopes(cell, inputs, previous)
        adjoints = _adjoints(jax.grad(loss)(hidden), slopes, w_hh)
        slopes, adjoints = jax.lax.stop_gradient((slopes, adjoints))

        scale = jnp.max(jnp.abs(adjoints), axis=-1, keepdims=True)
        reached = scale[..., 0] > 0
        # Scaled to a largest entry of 1, their squares neither under- nor overflow.
        scaled = adjoints / jnp.where(scale > 0, scale, 1)
        norm2 = jnp.where(reached, jnp.sum(scaled**2, axis=-1), 1)
        back = (scaled * slopes) @ w_hh
        ratio2 = jnp.where(reached, jnp.sum(back**2, axis=-1) / norm2, 1)
        if self.form == "eq9":
            positive = ratio2 > 0  # the derivative of the square root at 0 is infinite
            ratio = jnp.where(positive, jnp.sqrt(jnp.where(positive, ratio2, 1)), 0)
            return jnp.mean(jnp.sum((ratio - 1) ** 2, axis=0))
        terms = (ratio2 - 1) ** 2
        if self.form == "eq10":
            return jnp.mean(jnp.sum(terms, axis=0))
        counted = reached & (norm2 * scale[..., 0] ** 2 >= MIN_SQUARED_NORM)
        return jnp.sum(terms * counted) / jnp.maximum(jnp.sum(counted), 1)


def _slopes(cell: nnx.SimpleCell, inputs: Array, previous: Array) -> Float[Array, "time batch n"]:
    """Return φ′ of every unit at every step, given the states before the steps."""
    preactivations = cell.dense_i(inputs) + cell.dense_h(previous)
    return jax.jvp(cell.activation_fn, (preactivations,), (jnp.ones_like(preactivations),))[1]


def _adjoints(direct: Array, slopes: Array, w_hh: Array) -> Float[Array, "time batch n"]:
    """Return v⁽ᵏ⁾ = ∂⁺L/∂h⁽ᵏ⁾ + v⁽ᵏ⁺¹⁾ diag(φ′⁽ᵏ⁺¹⁾) W_hh for all k, from the direct ∂⁺L/∂h⁽ᵏ⁾."""

    def step_back(from_later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        step_direct, slope = step
        adjoint = step_direct + from_later
        return (adjoint * slope) @ w_hh, adjoint

    return jax.lax.scan(step_back, jnp.zeros_like(direct[0]), (direct, slopes), reverse=True)[1]
