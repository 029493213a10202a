"""Mamba's selective recurrence: a diagonal state whose step size each input chooses."""

import math
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key
from pydantic import Field

from gradlab.cells.base import VectorCell, check_name, inherits, then
from gradlab.cells.biases import takes_no_gate_biases, uniform_within
from gradlab.cells.elman import orthogonal
from gradlab.cells.gating import Gates, check_step_is_of, gates
from gradlab.cells.input_gated import runs_in_parallel, within_root_of_inputs
from gradlab.cells.recurrence import AdjointRule, step_by_step, unroll

Size = Annotated[int, Field(ge=1)]
State = Float[Array, "*batch n states"]
SHORTEST, LONGEST, FLOOR = 0.001, 0.1, 1e-4  # of Δ at the start, and its least value


class Selected(NamedTuple):
    """Numbers that a step reads from its input: u and Δ of each channel, B and C of each state."""

    u: Float[Array, "*batch n"]
    delta: Float[Array, "*batch n"]
    b: Float[Array, "*batch states"]
    c: Float[Array, "*batch states"]


@takes_no_gate_biases
class Mamba(VectorCell):
    """The selective recurrence (S6) of Gu & Dao 2023 (Mamba, algorithm 2 and section 3.6).

        h⁽ᵗ⁾ = exp(Δ A) ⊙ h⁽ᵗ⁻¹⁾ + (exp(Δ A) − 1)/A ⊙ B u,   y⁽ᵗ⁾ = Σ C ⊙ h⁽ᵗ⁾ + D ⊙ u

    Each of n channels, of input u = SiLU(W x⁽ᵗ⁾), has N states with rates A < 0 of its own. Its
    step size Δ = softplus(W_Δ W_r u + b), and B and C, which all channels share, are read from u.
    With `discretisation="euler"` the second factor is Δ, as the authors' code has it; the paper
    holds the input over the step (equation 4).

    Nothing but h is read from the past, so the Jacobian ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ is the diagonal exp(Δ A)
    (`theory.of_cells.mamba_log_factors`): a small Δ keeps the state, a large one replaces it. One
    state with A = −1 and B = 1 is a gated unit, 1 − σ(…) its forget gate (theorem 1).

    By default this is the authors' start (state-spaces/mamba): A = −1, …, −N in every channel,
    ln Δ uniform from ln 0.001 to ln 0.1 where u is 0, W_Δ from U(±1/√r), r its inputs, D = 1, and
    other weights from U(±1/√fan-in), as PyTorch's layers. So a channel's slowest state keeps 0.9
    to 0.999 of itself a step. The block around it, which this cell leaves out, has twice as many
    channels as inputs, a convolution before the SiLU, a gate and an output projection.

    Example:
        >>> from gradlab.cells import Mamba
        >>> mamba = Mamba(3, 8, state_features=4, rngs=nnx.Rngs(0))
        >>> state, output = mamba(mamba.initialize_carry((3,)), jnp.ones(3))
        >>> state.shape, output.shape
        ((8, 4), (8,))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        state_features: Size = 16,
        delta_rank: Size | None = None,
        discretisation: Literal["zero_order_hold", "euler"] = "zero_order_hold",
        use_bias: bool = False,
        kernel_init: nnx.Initializer = within_root_of_inputs,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights.

        Args:
            in_features: size of x.
            hidden_features: n, the number of channels, the size of the output.
            state_features: N, states of a channel.
            delta_rank: r, the number of combinations of u that Δ is read from; None: n/32, rounded
                up.
            discretisation: "zero_order_hold" as above, or "euler".
            use_bias: whether W x has a bias, which starts at 0; that of Δ is always there.
            kernel_init: initialiser of W and of the weights of W_r, B and C, side by side.
            recurrent_kernel_init: not used: A is diagonal and has a start of its own.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: the discretisation has another name.
        """
        del recurrent_kernel_init
        check_name("discretisation", discretisation, ("zero_order_hold", "euler"))
        n, states = hidden_features, state_features
        rank = -(-n // 32) if delta_rank is None else delta_rank
        self.in_features, self.hidden_features, self.state_features = in_features, n, states
        self.delta_rank, self.discretisation = rank, discretisation
        self.dense_i = nnx.Linear(
            in_features, n, use_bias=use_bias, kernel_init=kernel_init, rngs=rngs
        )
        self.dense_u = nnx.Linear(
            n, rank + 2 * states, use_bias=False, kernel_init=kernel_init, rngs=rngs
        )
        self.dense_delta = nnx.Linear(
            rank, n, kernel_init=uniform_within(rank**-0.5), bias_init=draw_steps, rngs=rngs
        )
        rates = jnp.arange(1, states + 1, dtype=jnp.float32)
        self.a_log = nnx.Param(jnp.tile(jnp.log(rates), (n, 1)))
        self.d = nnx.Param(jnp.ones(n))

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> State:
        """Return zeros, as every sequence starts."""
        return jnp.zeros((*input_shape[:-1], self.hidden_features, self.state_features))

    def __call__(
        self, carry: State, inputs: Float[Array, "*batch m"]
    ) -> tuple[State, Float[Array, "*batch n"]]:
        """Return h⁽ᵗ⁾ and the output y⁽ᵗ⁾."""
        selected = self.select(inputs)
        factors, drive = self.step_map(selected)
        state = factors * carry + drive
        return state, self.read(state, selected)

    def select(self, inputs: Float[Array, "*batch m"]) -> Selected:
        """Return u, Δ, B and C of inputs."""
        u = nnx.silu(self.dense_i(inputs))
        rank, states = self.delta_rank, self.state_features
        low, b, c = jnp.split(self.dense_u(u), [rank, rank + states], axis=-1)
        return Selected(u, nnx.softplus(self.dense_delta(low)), b, c)

    def step_map(self, selected: Selected) -> tuple[State, State]:
        """Return exp(Δ A), and what the input adds to the state."""
        u, delta, b, _ = selected
        a = -jnp.exp(self.a_log[...])
        rates = delta[..., None] * a
        held = delta[..., None] if self.discretisation == "euler" else jnp.expm1(rates) / a
        return jnp.exp(rates), held * u[..., None] * b[..., None, :]

    def read(self, states: State, selected: Selected) -> Float[Array, "*batch n"]:
        """Return the outputs of states and of the inputs that led to them."""
        outputs = jnp.einsum("...ns,...s->...n", states, selected.c)
        return outputs + self.d[...] * selected.u


def draw_steps(key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Draw biases whose softplus is uniform in its logarithm, from 0.001 to 0.1."""
    ends = math.log(SHORTEST), math.log(LONGEST)
    delta = jnp.exp(jax.random.uniform(key, shape, dtype, *ends)).clip(min=FLOOR)
    return delta + jnp.log(-jnp.expm1(-delta))


@unroll.register
def _(
    cell: Mamba,
    carry: State,
    inputs: Float[Array, "time batch m"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[State, Float[Array, "time batch n"]]:
    """Read all inputs at once, then find all states at once or, on a CPU, in a short loop."""
    if on_adjoint is not None or not inherits(cell, Mamba, "__call__"):
        return step_by_step(cell, carry, inputs, on_adjoint)
    run = parallel_run if runs_in_parallel() else looped_run
    return run(cell, carry, cell.select(inputs))


def parallel_run(
    cell: Mamba, carry: State, selected: Selected
) -> tuple[State, Float[Array, "time batch n"]]:
    """Return the last state and all outputs by a parallel scan."""
    kept, written = jax.lax.associative_scan(then, cell.step_map(selected))
    states = kept * carry + written
    return states[-1], cell.read(states, selected)


def looped_run(
    cell: Mamba, carry: State, selected: Selected
) -> tuple[State, Float[Array, "time batch n"]]:
    """Return the same by a loop over the steps, which keeps no map of all steps in memory."""

    def step(state: State, now: Selected) -> tuple[State, Array]:
        factors, drive = cell.step_map(now)
        state = factors * state + drive
        return state, cell.read(state, now)

    return jax.lax.scan(step, carry, selected)


@gates.register
def _(cell: Mamba, carry: State, inputs: Array) -> Gates:
    """Return the share exp(Δ A) of each state that a step keeps."""
    check_step_is_of(Mamba, cell, "select", "step_map", "read")
    factors, _ = cell.step_map(cell.select(inputs))
    return {"forget": factors.reshape(*factors.shape[:-2], -1)}
