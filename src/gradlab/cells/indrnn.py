"""The IndRNN: units that are independent of each other in time."""

from typing import Annotated, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key
from pydantic import Field

from gradlab.cells.base import VectorCell, check_name
from gradlab.cells.biases import takes_no_gate_biases
from gradlab.cells.elman import ACTIVATIONS, lecun, orthogonal, remove_bias
from gradlab.cells.recurrence import AdjointRule, unroll, unroll_input_first

Steps = Annotated[int, Field(ge=1)]
Growth = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Start = Literal["uniform", "long", "init"]
# The authors' code for the adding problem takes 0.9 for ten steps' worth of φ'.
MEAN_SLOPES = {"relu": 1.0, "tanh": 0.9**0.1}


@takes_no_gate_biases
class IndRNN(VectorCell):
    """The independently recurrent network of Li, Li, Cook, Zhu & Gao 2018.

        h⁽ᵗ⁾ = φ(W x⁽ᵗ⁾ + u ⊙ h⁽ᵗ⁻¹⁾ + b)

    A unit reads its own last state only, so that its step Jacobian is diagonal, u ⊙ φ'; layers mix
    the units. Over T steps a gradient grows at most γ times if |u| ≤ γ^(1/T) and φ = relu; for
    tanh, the bound is divided by a mean slope.

    The published start draws u uniformly from 0 to the bound (from ± the bound for tanh) and sets b
    to 0. In the last of several layers, whose last output alone is read, the authors also draw it
    from γ^(−1/T) to γ^(1/T): `start="long"`, which model.num_layers gives
    to all layers; with tanh it is not published. Their code for the adding problem has γ = 2 and
    draws W from N(0, 0.001²); in other tasks they normalise over the batch, which this cell does
    not.

    The authors clip u to the bound before every update. Here the step takes the u that is
    clipped, and the gradient passes to the weight as if it were not, which may then be outside.

    Example:
        >>> from gradlab.cells import IndRNN
        >>> round(IndRNN(3, 4, longest=100, rngs=nnx.Rngs(0)).bound, 5)  # 2^(1/100)
        1.00696
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: Literal["relu", "tanh"] = "relu",
        longest: Steps | None = None,
        growth: Growth = 2.0,
        constrain: bool = True,
        start: Start = "uniform",
        use_bias: bool = True,
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw W and u, and set b to 0.

        Args:
            in_features: size of x.
            hidden_features: n, the number of units.
            activation: φ, "relu" or "tanh".
            longest: T, the steps of the longest sequence; None: unknown, T → ∞, with a bound of 1
                or, for tanh, 1.0106.
            growth: γ, at least 1.
            constrain: whether u is clipped to the bound.
            start: "uniform" and "long" draw u as described above; "init" takes the diagonal of the
                matrix that `recurrent_kernel_init` draws, which nothing else uses.
            use_bias: whether there is b; the weights drawn are the same without it.
            kernel_init: initialiser of W.
            recurrent_kernel_init: initialiser of an (n, n) matrix, for `start="init"`.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: an option has a value that is not allowed.
        """
        check_name("activation", activation, MEAN_SLOPES)
        check_name("start", start, get_args(Start))
        if growth < 1 or (longest is not None and longest < 1):
            raise ValueError(
                f"growth must be at least 1, and longest None or at least 1; got {growth} and "
                f"{longest}."
            )
        self.in_features, self.hidden_features = in_features, hidden_features
        self.activation, self.constrain = activation, constrain
        self.activation_fn = ACTIVATIONS[activation]
        exponent = 0.0 if longest is None else 1 / longest
        self.bound = growth**exponent / MEAN_SLOPES[activation]
        if start == "init":
            square = recurrent_kernel_init(rngs.params(), (hidden_features,) * 2, jnp.float32)
            self.u = nnx.Param(jnp.diagonal(square))
        else:
            least = growth**-exponent if start == "long" else 0.0
            self.u = nnx.Param(self._published(rngs.params(), least))
        self.dense_i = nnx.Linear(in_features, hidden_features, kernel_init=kernel_init, rngs=rngs)
        if not use_bias:
            remove_bias(self.dense_i)

    def _published(self, key: Key[Array, ""], least: float) -> Float[Array, "n"]:
        if self.activation == "tanh" and least == 0:
            least = -self.bound
        shape = (self.hidden_features,)
        return jax.random.uniform(key, shape, jnp.float32, least, self.bound)

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
        """Return h⁽ᵗ⁾ twice: as the new carry and as the output."""
        return self.advance(carry, self.dense_i(inputs))

    def advance(
        self, carry: Float[Array, "*batch n"], from_x: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
        """Return what a step returns, from W x⁽ᵗ⁾ + b."""
        h = self.activation_fn(from_x + self.recurrent_weights() * carry)
        return h, h

    def recurrent_weights(self) -> Float[Array, "n"]:
        """Return the u of a step, within the bound if it is constrained."""
        u = self.u[...]
        if not self.constrain:
            return u
        # A gradient of 0 outside would leave a weight there for ever.
        return u + jax.lax.stop_gradient(jnp.clip(u, -self.bound, self.bound) - u)


@unroll.register
def _(
    cell: IndRNN,
    carry: Float[Array, "batch n"],
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[Array, Array]:
    """Take W x + b of all steps in one product; what is left of a step has none."""
    return unroll_input_first(cell, IndRNN, carry, inputs, on_adjoint)
