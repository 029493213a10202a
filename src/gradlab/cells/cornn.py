"""The coRNN: coupled, damped and driven oscillators in steps of time."""

from typing import Annotated, Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab.cells.base import VectorCell, check_name
from gradlab.cells.biases import takes_no_gate_biases, uniform_within
from gradlab.cells.elman import lecun, orthogonal, remove_bias
from gradlab.cells.recurrence import AdjointRule, unroll, unroll_input_first

TimeStep = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Constant = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Damping = Literal["explicit", "implicit"]
Start = Literal["published", "init"]


class Carry(NamedTuple):
    """The state of the oscillators.

    Attributes:
        h: their positions, y in the paper, which are read out.
        z: their velocities.
    """

    h: Float[Array, "*batch n"]
    z: Float[Array, "*batch n"]


@takes_no_gate_biases
class CoRNN(VectorCell):
    """The coupled oscillatory network of Rusch & Mishra 2021.

        z⁽ᵗ⁾ = z⁽ᵗ⁻¹⁾ + Δt (tanh(W_h h⁽ᵗ⁻¹⁾ + W_z z⁽ᵗ⁻¹⁾ + W_x x⁽ᵗ⁾ + b) − γ h⁽ᵗ⁻¹⁾ − ε z*)
        h⁽ᵗ⁾ = h⁽ᵗ⁻¹⁾ + Δt z⁽ᵗ⁾

    This discretises h″ = tanh(W_h h + W_z h′ + W_x x + b) − γ h − ε h′ (their y is h here). The
    position moves with the new velocity. The damping acts on the old velocity, z* = z⁽ᵗ⁻¹⁾
    ("explicit", as in the authors' code), or on the new one, z* = z⁽ᵗ⁾ ("implicit"), of which the
    paper's equation 3 has both.

    The default constants are those that the authors chose for sequential MNIST. In their code they
    are Δt, γ, ε = 0.076, 0.4, 8 for the permuted one and 0.06, 66, 15 for the adding problem.
    The published start is the default of the linear layer of PyTorch on [x; z; h], which the
    authors' code keeps: all weights and b uniform within ± 1/√(d + 2n), d the size of x. It is not
    that of their models for IMDB and CIFAR-10, which have a layer on x and others on h and z.

    Example:
        >>> from gradlab.cells import CoRNN
        >>> oscillators = CoRNN(3, 4, rngs=nnx.Rngs(0))
        >>> carry, output = oscillators(oscillators.initialize_carry((3,)), jnp.ones(3))
        >>> carry._fields, output is carry.h
        (('h', 'z'), True)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        dt: TimeStep = 0.042,
        gamma: Constant = 2.7,
        epsilon: Constant = 4.7,
        damping: Damping = "explicit",
        start: Start = "published",
        use_bias: bool = True,
        kernel_init: nnx.Initializer | None = None,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights.

        Args:
            in_features: d, the size of x.
            hidden_features: n, the number of oscillators.
            dt: Δt, the length of a step, above 0.
            gamma: γ, the square of an uncoupled oscillator's frequency, at least 0.
            epsilon: ε, the damping, at least 0.
            damping: "explicit" or "implicit".
            start: "published", or "init": W_h and W_z as `recurrent_kernel_init` draws them (which
                nothing else uses), W_x of variance 1/d, and b = 0.
            use_bias: whether there is b; the weights drawn are the same without it.
            kernel_init: initialiser of W_x; None: that of the start.
            recurrent_kernel_init: initialiser of W_h and of W_z, for `start="init"`.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: an option has a value that is not allowed.
        """
        check_name("damping", damping, get_args(Damping))
        check_name("start", start, get_args(Start))
        if dt <= 0 or gamma < 0 or epsilon < 0:
            raise ValueError(
                "dt must be above 0, and gamma and epsilon at least 0; got "
                f"{dt}, {gamma} and {epsilon}."
            )
        self.in_features, self.hidden_features = in_features, hidden_features
        self.dt, self.gamma, self.epsilon, self.damping = dt, gamma, epsilon, damping
        n = hidden_features
        is_published = start == "published"
        published = uniform_within((in_features + 2 * n) ** -0.5)
        on_x = kernel_init or (published if is_published else lecun)
        on_state = published if is_published else recurrent_kernel_init
        on_one = published if is_published else nnx.initializers.zeros_init()
        self.dense_h = nnx.Linear(n, n, use_bias=False, kernel_init=on_state, rngs=rngs)
        self.dense_z = nnx.Linear(n, n, use_bias=False, kernel_init=on_state, rngs=rngs)
        self.dense_i = nnx.Linear(in_features, n, kernel_init=on_x, bias_init=on_one, rngs=rngs)
        if not use_bias:
            remove_bias(self.dense_i)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> Carry:
        """Return zeros: oscillators at rest."""
        shape = (*input_shape[:-1], self.hidden_features)
        return Carry(jnp.zeros(shape), jnp.zeros(shape))

    def __call__(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> tuple[Carry, Float[Array, "*batch n"]]:
        """Return the new carry and its h."""
        return self.advance(carry, self.dense_i(inputs))

    def advance(
        self, carry: Carry, from_x: Float[Array, "*batch n"]
    ) -> tuple[Carry, Float[Array, "*batch n"]]:
        """Return what a step returns, from W_x x⁽ᵗ⁾ + b."""
        h, z = carry
        force = jnp.tanh(from_x + self.dense_h(h) + self.dense_z(z)) - self.gamma * h
        if self.damping == "explicit":
            z = z + self.dt * (force - self.epsilon * z)
        else:
            z = (z + self.dt * force) / (1 + self.dt * self.epsilon)
        h = h + self.dt * z
        return Carry(h, z), h


@unroll.register
def _(
    cell: CoRNN,
    carry: Carry,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[Carry, Array]:
    """Take W_x x + b of all steps in one product."""
    return unroll_input_first(cell, CoRNN, carry, inputs, on_adjoint)
