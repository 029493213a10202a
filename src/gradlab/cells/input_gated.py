"""Cells whose gates read the input alone, so that all steps can be run at once.

Every step is an affine map of the state, h ↦ f ⊙ h + (1 − f) ⊙ h̃, whose coefficients are known
before the first step. Such maps compose associatively, so a parallel scan finds all states in
O(log T) rounds (Martin & Cundy 2018). minGRU and minLSTM of Feng et al. 2024 differ in f alone.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree

from gradlab.cells.base import VectorCell, inherits, then
from gradlab.cells.biases import uniform_within
from gradlab.cells.elman import orthogonal
from gradlab.cells.gating import Gates, check_step_is_of, gates
from gradlab.cells.recurrence import AdjointRule, step_by_step, unroll

AffineMap = tuple[Float[Array, "*steps n"], Float[Array, "*steps n"]]  # h ↦ f ⊙ h + v
within_root_of_inputs = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class InputGated(VectorCell):
    """A cell h⁽ᵗ⁾ = f ⊙ h⁽ᵗ⁻¹⁾ + (1 − f) ⊙ h̃ with f and h̃ functions of x⁽ᵗ⁾.

    ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ is diag(f). Subclasses name the blocks of `dense_i`, the candidate last, and make
    f of the others by `forget_logit`.
    """

    blocks: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        log_space: bool = True,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = within_root_of_inputs,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights of `dense_i`, and its biases from U(−1/√m, 1/√m), m the size of x.

        Args:
            in_features: size of x.
            hidden_features: n, the size of h.
            log_space: whether candidates are made positive by g, and parallel runs use logarithms.
            use_bias: whether there are biases; the weights drawn are the same without them.
            kernel_init: initialiser of the matrices on x, side by side, in the order of `blocks`.
            recurrent_kernel_init: not used.
            rngs: random streams that the weights are drawn from.
        """
        del recurrent_kernel_init
        self.in_features, self.hidden_features = in_features, hidden_features
        self.log_space = log_space
        self.dense_i = nnx.Linear(
            in_features,
            len(self.blocks) * hidden_features,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=uniform_within(in_features**-0.5),
            rngs=rngs,
        )

    def forget_logit(self, *gates: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """Return a with f = σ(a), given the gates' net inputs."""
        raise NotImplementedError

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
        """Return h⁽ᵗ⁾ twice: as the new carry and as the output."""
        f, written = self.step_map(inputs)
        h = f * carry + written
        return h, h

    def net_inputs(
        self, inputs: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
        """Return a, of which f is the σ, and the net input of the candidate."""
        *gate_inputs, candidate = jnp.split(self.dense_i(inputs), len(self.blocks), axis=-1)
        return self.forget_logit(*gate_inputs), candidate

    def step_map(self, inputs: Float[Array, "*batch features"]) -> AffineMap:
        """Return f and (1 − f) ⊙ h̃."""
        a, candidate = self.net_inputs(inputs)
        return nnx.sigmoid(a), nnx.sigmoid(-a) * (g(candidate) if self.log_space else candidate)


def g(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x + ½ for x ≥ 0, else σ(x): positive and continuous (Feng et al. 2024, B.3)."""
    return jnp.where(x >= 0, x + 0.5, nnx.sigmoid(x))


def log_g(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ln g(x); at 0 both have their derivative from the right."""
    return jnp.where(x >= 0, jnp.log(jnp.where(x >= 0, x, 0) + 0.5), jax.nn.log_sigmoid(x))


def parallel_states(
    cell: InputGated, carry: Float[Array, "batch n"], inputs: Float[Array, "time batch features"]
) -> Float[Array, "time batch n"]:
    """Return all states by a parallel scan, in log space if the cell's candidates are positive.

    h⁽ᵗ⁾ = A h⁽⁰⁾ + B, where A = ∏ f and B is the state from h⁽⁰⁾ = 0, both by one scan of ln A and
    ln B. So h⁽⁰⁾ may be 0 or negative, and nothing overflows. The paper's listing 5 subtracts
    cumulative sums instead (Heinsen 2023), which grow with time, and loses digits.
    """
    if not cell.log_space:
        kept, written = jax.lax.associative_scan(then, cell.step_map(inputs))
        return kept * carry + written
    a, candidate = cell.net_inputs(inputs)
    maps = jax.nn.log_sigmoid(a), jax.nn.log_sigmoid(-a) + log_g(candidate)
    log_kept, log_written = jax.lax.associative_scan(_then_in_log_space, maps)
    return jnp.exp(log_kept) * carry + jnp.exp(log_written)


def looped_states(
    cell: InputGated, carry: Float[Array, "batch n"], inputs: Float[Array, "time batch features"]
) -> Float[Array, "time batch n"]:
    """Return all states by a loop over steps that does no more than f ⊙ h + (1 − f) ⊙ h̃."""

    def step(h: Array, step_map: AffineMap) -> tuple[Array, Array]:
        f, written = step_map
        h = f * h + written
        return h, h

    return jax.lax.scan(step, carry, cell.step_map(inputs))[1]


def runs_in_parallel() -> bool:
    """Return whether the device runs many steps at once; a CPU does less work in a loop."""
    return jax.default_backend() != "cpu"


def _then_in_log_space(first: AffineMap, second: AffineMap) -> AffineMap:
    """Return what `then` does; a map is given as (ln f, ln v)."""
    return second[0] + first[0], jnp.logaddexp(second[0] + first[1], second[1])


@gates.register
def _(cell: InputGated, carry: PyTree, inputs: Array) -> Gates:
    check_step_is_of(InputGated, cell, "step_map")
    a, _ = cell.net_inputs(inputs)
    return {"forget": nnx.sigmoid(a), "input": nnx.sigmoid(-a)}


@unroll.register
def _(
    cell: InputGated,
    carry: PyTree,
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[PyTree, Array]:
    """Read all inputs at once, then find all states at once or, on a CPU, in a short loop."""
    is_known = inherits(cell, InputGated, "__call__", "step_map")
    if on_adjoint is not None or not is_known:
        return step_by_step(cell, carry, inputs, on_adjoint)
    states = (parallel_states if runs_in_parallel() else looped_states)(cell, carry, inputs)
    return states[-1], states
