"""JANET: the LSTM with a forget gate and nothing else."""

from typing import Annotated

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab.cells.affine import AffineForm, Blocks, affine_form_of, has_own, two_layers
from gradlab.cells.base import VectorCell, inherits
from gradlab.cells.biases import takes_gate_biases
from gradlab.cells.gating import Gates, check_step_is_of, gates

Real = Annotated[float, Field(allow_inf_nan=False)]
glorot = nnx.initializers.glorot_uniform()


@takes_gate_biases
class JANET(VectorCell):
    """Just Another NETwork (van der Westhuizen & Lasenby 2018, section 3).

        h⁽ᵗ⁾ = σ(s) ⊙ h⁽ᵗ⁻¹⁾ + (1 − σ(s − β)) ⊙ g

    with s = W_f x⁽ᵗ⁾ + U_f h⁽ᵗ⁻¹⁾ + b_f and g = tanh(W_g x⁽ᵗ⁾ + U_g h⁽ᵗ⁻¹⁾ + b_g). The state c of
    the LSTM is the output h here. β > 0 lets in more than is forgotten: the two coefficients add up
    to more than 1, and |h| stays below e^β, not below 1.

    The paper starts b_f at ln U(1, T_max − 1), as Tallec & Ollivier 2018 do, and b_g at 0: take
    bias=chrono with bias.longest = T_max, as +network=janet does (the authors' code has ln U(1,
    T_max)). Without it b_f is `forget_bias`: 1, the value of their code without chrono, which its
    JANET always has. Its weights are Glorot's over the matrices of both blocks together.

    Example:
        >>> from gradlab.cells import JANET
        >>> janet = JANET(3, 8, rngs=nnx.Rngs(0))
        >>> h, output = janet(janet.initialize_carry((3,)), jnp.ones(3))
        >>> h.shape
        (8,)
    """

    blocks = ("forget", "candidate")

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        beta: Real = 1.0,
        forget_bias: Real = 1.0,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = glorot,
        recurrent_kernel_init: nnx.Initializer = glorot,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights; columns are those of the forget gate, then of the candidate.

        Args:
            in_features: size of x.
            hidden_features: n, the size of h.
            beta: β; 0 couples the two coefficients to 1.
            forget_bias: every b_f at the start, unless a bias rule sets them; b_g is 0.
            use_bias: whether there are b_f and b_g; the weights drawn are the same without them.
            kernel_init: initialiser of the two matrices on x, side by side.
            recurrent_kernel_init: initialiser of the two matrices on h, side by side.
            rngs: random streams that the weights are drawn from.
        """
        self.in_features, self.hidden_features, self.beta = in_features, hidden_features, beta
        columns = len(self.blocks) * hidden_features
        self.dense_h = nnx.Linear(
            hidden_features,
            columns,
            use_bias=False,
            kernel_init=recurrent_kernel_init,
            rngs=rngs,
        )
        self.dense_i = nnx.Linear(
            in_features,
            columns,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=lambda key, shape, dtype: (
                jnp.zeros(shape, dtype).at[:hidden_features].set(forget_bias)
            ),
            rngs=rngs,
        )

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
        """Return h⁽ᵗ⁾ twice: as the new carry and as the output."""
        h = _next_state(self.net_inputs(carry, inputs), carry, self.beta)
        return h, h

    def net_inputs(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
        """Return the net inputs of the forget gate, s, and of the candidate."""
        forget, candidate = jnp.split(self.dense_i(inputs) + self.dense_h(carry), 2, axis=-1)
        return forget, candidate


def _next_state(blocks: Blocks, h: Array, beta: float) -> Array:
    forget, candidate = blocks
    # σ(β − s) is 1 − σ(s − β), without the rounding of a difference.
    return nnx.sigmoid(forget) * h + nnx.sigmoid(beta - forget) * jnp.tanh(candidate)


@gates.register
def _(cell: JANET, carry: Array, inputs: Array) -> Gates:
    check_step_is_of(JANET, cell)
    forget, _ = cell.net_inputs(carry, inputs)
    return {"forget": nnx.sigmoid(forget), "input": nnx.sigmoid(cell.beta - forget)}


@affine_form_of(JANET)
def _form(cell: JANET) -> AffineForm | None:
    if not (inherits(cell, JANET, "net_inputs") and has_own(cell, "beta", int | float)):
        return None
    beta = cell.beta
    return two_layers(cell, len(JANET.blocks), lambda blocks, h: _next_state(blocks, h, beta))
