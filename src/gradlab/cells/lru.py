"""The linear recurrent unit: a diagonal recurrence of complex numbers, run by a parallel scan."""

import math
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Complex, Float, Key
from pydantic import Field

from gradlab.cells.base import VectorCell, check_name, then
from gradlab.cells.biases import takes_no_gate_biases
from gradlab.cells.elman import ACTIVATIONS, Activation, orthogonal
from gradlab.cells.recurrence import AdjointRule, step_by_step, unroll

Size = Annotated[int, Field(ge=1)]
Radius = Annotated[float, Field(ge=0, le=1)]
Phase = Annotated[float, Field(gt=0, le=2 * math.pi)]
Feedthrough = Literal["dense", "diagonal", "none"]
State = Complex[Array, "*batch s"]
normal = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")  # N(0, 1/fan-in)
SMALLEST = float(jnp.finfo(jnp.float32).eps)  # of numbers whose logarithms are weights


@takes_no_gate_biases
class LRU(VectorCell):
    """The linear recurrent unit of Orvieto et al. 2023 (section 3, appendix A).

        h⁽ᵗ⁾ = Λ h⁽ᵗ⁻¹⁾ + exp(γ) ⊙ B x⁽ᵗ⁾,   y⁽ᵗ⁾ = φ(Re(C h⁽ᵗ⁾) + D x⁽ᵗ⁾),
        Λ = diag λ,   λ = exp(−exp(ν) + i exp(θ))

    The state h is complex; ν, θ, γ and the real and imaginary parts of B and C are the weights, all
    real. |λ| = exp(−exp(ν)) stays below 1 whatever training does, and the Jacobian ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ is
    Λ^(t−k) for every input, with the norms of `theory.of_cells.diagonal_log_norm`.

    By default this is the published start: λ uniform on the unit disk (r_min = 0, r_max = 1, all
    phases), γ = ln √(1 − |λ|²) so that white input gives states of the size of B x, B and C
    normal, B of half the variance, as in the code of appendix A (section 3.2 halves C's too). The
    paper tunes r_max, up to 0.9999 (table 8: PathX, with max_phase π/10), and adds a gated linear
    unit, which is not part of this cell: with φ the identity a stack is a linear network.

    Example:
        >>> from gradlab.cells import LRU
        >>> lru = LRU(2, 4, r_min=0.9, r_max=0.999, rngs=nnx.Rngs(0))
        >>> radii = jnp.abs(lru.eigenvalues())
        >>> bool((radii > 0.899).all() and (radii < 1).all())
        True
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        state_features: Size | None = None,
        r_min: Radius = 0.0,
        r_max: Radius = 1.0,
        max_phase: Phase = 2 * math.pi,
        normalise: bool = True,
        feedthrough: Feedthrough | None = None,
        activation: Activation = "identity",
        kernel_init: nnx.Initializer = normal,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights.

        Args:
            in_features: m, the size of x.
            hidden_features: n, the size of the output y.
            state_features: s, the number of complex numbers in h; None: n.
            r_min: inner radius of the ring that λ is uniform on at the start.
            r_max: outer radius of the ring.
            max_phase: largest phase of λ at the start, radians; 2π is the whole ring.
            normalise: whether there is γ; without, B x enters as it is.
            feedthrough: "dense" (D is a matrix), "diagonal" (a vector, as published; needs m = n)
                or "none"; None: diagonal if m = n, else dense.
            activation: φ, one of "identity", "tanh", "relu" and "sigmoid".
            kernel_init: initialiser of a dense D, of the parts of C, and of those of B, which are
                divided by √2.
            recurrent_kernel_init: not used: Λ is diagonal and has a start of its own.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: an option has another name, or radii, phase or sizes do not fit.
        """
        if not (0 <= r_min <= r_max <= 1 and 0 < max_phase <= 2 * math.pi):
            raise ValueError(
                "the ring of eigenvalues must have 0 ≤ r_min ≤ r_max ≤ 1 and 0 < max_phase ≤ 2π; "
                f"got {r_min}, {r_max} and {max_phase}."
            )
        check_name("activation", activation, ACTIVATIONS)
        m, n, s = in_features, hidden_features, state_features or hidden_features
        self.in_features, self.hidden_features, self.state_features = m, n, s
        self.activation, self.activation_fn = activation, ACTIVATIONS[activation]
        gap = draw_gap(rngs.params(), s, r_min, r_max)
        self.nu_log = nnx.Param(jnp.log(-0.5 * jnp.log1p(-gap)))
        turns = jax.random.uniform(rngs.params(), (s,), minval=SMALLEST)
        self.theta_log = nnx.Param(jnp.log(max_phase * turns))
        self.gamma_log = nnx.Param(0.5 * jnp.log(gap)) if normalise else None
        b, c = (
            [kernel_init(rngs.params(), shape, jnp.float32) for _ in range(2)]
            for shape in ((m, s), (s, n))
        )
        self.b_re, self.b_im = (nnx.Param(part / math.sqrt(2)) for part in b)
        self.c_re, self.c_im = map(nnx.Param, c)
        self.d = _draw_feedthrough(feedthrough, m, n, kernel_init, rngs)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> State:
        """Return zeros, as every sequence starts."""
        return jnp.zeros((*input_shape[:-1], self.state_features), complex)

    def __call__(
        self, carry: State, inputs: Float[Array, "*batch m"]
    ) -> tuple[State, Float[Array, "*batch n"]]:
        """Return h⁽ᵗ⁾ and the output y⁽ᵗ⁾."""
        h = self.eigenvalues() * carry + self.drive(inputs)
        return h, self.read(h, inputs)

    def eigenvalues(self) -> Complex[Array, "s"]:
        """Return λ, the diagonal of Λ."""
        return jnp.exp(jax.lax.complex(-jnp.exp(self.nu_log[...]), jnp.exp(self.theta_log[...])))

    def drive(self, inputs: Float[Array, "*batch m"]) -> State:
        """Return exp(γ) ⊙ B x, what an input adds to the state."""
        added = jax.lax.complex(inputs @ self.b_re[...], inputs @ self.b_im[...])
        return added if self.gamma_log is None else jnp.exp(self.gamma_log[...]) * added

    def read(self, states: State, inputs: Float[Array, "*batch m"]) -> Float[Array, "*batch n"]:
        """Return the outputs of states and of the inputs that led to them."""
        outputs = states.real @ self.c_re[...] - states.imag @ self.c_im[...]
        if self.d is not None:
            d = self.d[...]
            outputs = outputs + (inputs @ d if d.ndim == 2 else d * inputs)
        return self.activation_fn(outputs)


def draw_gap(key: Key[Array, ""], s: int, r_min: float, r_max: float) -> Float[Array, "s"]:
    """Draw 1 − |λ|² of s eigenvalues, uniform on a ring: |λ|² is uniform (lemma 3.2).

    1 − |λ|² of a rounded |λ| near 1 would have few digits. It is kept from being 0 or 1.
    """
    share = jax.random.uniform(key, (s,))
    gap = (1 - r_max**2) + share * (r_max**2 - r_min**2)
    return jnp.clip(gap, SMALLEST, 1 - SMALLEST)


def _draw_feedthrough(
    kind: Feedthrough | None, m: int, n: int, kernel_init: nnx.Initializer, rngs: nnx.Rngs
) -> nnx.Param | None:
    """Draw D; None if there is none."""
    kind = kind or ("diagonal" if m == n else "dense")
    if kind == "dense":
        return nnx.Param(kernel_init(rngs.params(), (m, n), jnp.float32))
    if kind == "diagonal" and m == n:
        return nnx.Param(jax.random.normal(rngs.params(), (n,)))
    if kind != "none":
        raise ValueError(
            f"feedthrough must be dense, none or, if m = n, diagonal; got {kind!r}, with m = {m} "
            f"inputs and n = {n} outputs."
        )
    return None


@unroll.register
def _(
    cell: LRU,
    carry: State,
    inputs: Float[Array, "time batch m"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[State, Float[Array, "time batch n"]]:
    """Run all steps at once by an associative scan, or one by one if a rule needs each adjoint.

    A step h ↦ a h + b, then a step h ↦ a′ h + b′, are such a step too: h ↦ a′ a h + (a′ b + b′).
    """
    drive = cell.drive(inputs)
    fits = drive.ndim == 3 and (carry.shape, carry.dtype) == (drive.shape[1:], drive.dtype)
    if on_adjoint is not None or not fits or type(cell).__call__ is not LRU.__call__:
        return step_by_step(cell, carry, inputs, on_adjoint)
    eigenvalues = cell.eigenvalues()
    drive = drive.at[0].add(eigenvalues * carry)  # h⁽⁰⁾ enters with the first input
    factors = jnp.tile(eigenvalues, (len(inputs), 1, 1))
    _, states = jax.lax.associative_scan(then, (factors, drive))
    return states[-1], cell.read(states, inputs)
