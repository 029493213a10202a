"""The MinimalRNN: one gate between the state and an encoded input."""

from typing import Annotated

import jax
from flax import nnx
from jaxtyping import Array, Float, PyTree
from pydantic import Field

from gradlab.cells.base import VectorCell, check_name
from gradlab.cells.biases import takes_gate_biases
from gradlab.cells.elman import ACTIVATIONS, Activation, lecun, orthogonal, remove_bias
from gradlab.cells.gating import Gates, check_step_is_of, gates
from gradlab.cells.recurrence import AdjointRule, step_by_step, unroll

Gain = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Read = tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]


@takes_gate_biases
class MinimalRNN(VectorCell):
    """The MinimalRNN (Chen 2017; Chen, Pennington & Schoenholz 2018).

        z = φ(W x⁽ᵗ⁾ + b_z),   u = σ(U_h h⁽ᵗ⁻¹⁾ + U_z z + b_u),   h⁽ᵗ⁾ = u ⊙ h⁽ᵗ⁻¹⁾ + (1 − u) ⊙ z

    Each unit of h is a weighted mean of what z has been there, so it stays within φ's range, and

        ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ = diag(u) + diag((h⁽ᵗ⁻¹⁾ − z) ⊙ u ⊙ (1 − u)) U_h.

    The layers are `encoder` (W, b_z), `dense_i` (U_z, b_u; it reads z) and `dense_h` (U_h). Biases
    start at 0. The theory of 2018 draws U_h ~ N(0, σ_w²/n) and U_z ~ N(0, σ_v²/n), here by
    init=gaussian with init.gain = σ_w, and `input_gain` = σ_v. +network=minimal_rnn has σ_w = 6.88
    and σ_v = 1.39, which one implementation quotes from the paper, with R = 0.46: by
    `gradlab.theory.of_cells.minimal_rnn_mean_field` they are critical where z has that mean square.

    Example:
        >>> from gradlab.cells import MinimalRNN
        >>> minimal = MinimalRNN(3, 8, rngs=nnx.Rngs(0))
        >>> h, output = minimal(minimal.initialize_carry((3,)), jnp.ones(3))
        >>> bool((abs(h) < 1).all())  # within tanh's range
        True
    """

    blocks = ("forget",)  # the update gate keeps, as a forget gate does

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: Activation = "tanh",
        input_gain: Gain = 1.0,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights.

        Args:
            in_features: size of x.
            hidden_features: n, the size of h, of z and of u.
            activation: φ, one of "tanh", "relu", "sigmoid" (logistic) and "identity".
            input_gain: factor of U_z.
            use_bias: whether there are b_z and b_u; the weights drawn are the same without them.
            kernel_init: initialiser of W, and of U_z before its factor.
            recurrent_kernel_init: initialiser of U_h.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: the activation has another name.
        """
        check_name("activation", activation, ACTIVATIONS)
        self.in_features, self.hidden_features = in_features, hidden_features
        self.activation_fn = ACTIVATIONS[activation]
        self.encoder = nnx.Linear(in_features, hidden_features, kernel_init=kernel_init, rngs=rngs)
        self.dense_i = nnx.Linear(
            hidden_features,
            hidden_features,
            kernel_init=lambda *args: input_gain * kernel_init(*args),
            rngs=rngs,
        )
        self.dense_h = nnx.Linear(
            hidden_features,
            hidden_features,
            use_bias=False,
            kernel_init=recurrent_kernel_init,
            rngs=rngs,
        )
        if not use_bias:
            remove_bias(self.encoder)
            remove_bias(self.dense_i)

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
        """Return h⁽ᵗ⁾ twice: as the new carry and as the output."""
        h = self.advance(carry, self.read(inputs))
        return h, h

    def read(self, inputs: Float[Array, "*batch features"]) -> Read:
        """Return what a step takes from its input alone: z and U_z z + b_u."""
        z = self.activation_fn(self.encoder(inputs))
        return z, self.dense_i(z)

    def advance(self, h: Float[Array, "*batch n"], read: Read) -> Float[Array, "*batch n"]:
        """Return h⁽ᵗ⁾, given h⁽ᵗ⁻¹⁾ and what was read."""
        z, _ = read
        u = self.update_gate(h, read)
        return u * h + (1 - u) * z

    def update_gate(self, h: Float[Array, "*batch n"], read: Read) -> Float[Array, "*batch n"]:
        """Return u."""
        _, from_z = read
        return nnx.sigmoid(from_z + self.dense_h(h))


@gates.register
def _(cell: MinimalRNN, carry: Array, inputs: Array) -> Gates:
    check_step_is_of(MinimalRNN, cell, "advance")
    return {"update": cell.update_gate(carry, cell.read(inputs))}


@unroll.register
def _(
    cell: MinimalRNN,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Array]:
    """Read all inputs at once, so that a step waits for one product, U_h h, instead of three."""
    if on_adjoint is not None or type(cell).__call__ is not MinimalRNN.__call__:
        return step_by_step(cell, carry, inputs, on_adjoint)

    def step(h: Array, read: Read) -> tuple[Array, Array]:
        h = cell.advance(h, read)
        return h, h

    last, outputs = jax.lax.scan(step, carry, cell.read(inputs))
    return last, outputs
