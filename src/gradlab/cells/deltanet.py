"""DeltaNet: a matrix state that is corrected, key by key, with the delta rule."""

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab.cells.base import VectorCell, check_name
from gradlab.cells.biases import takes_no_gate_biases
from gradlab.cells.elman import orthogonal
from gradlab.cells.gating import Gates, check_step_is_of, gates
from gradlab.cells.recurrence import AdjointRule, unroll, unroll_input_first

Size = Annotated[int, Field(ge=1)]
KeyMap = Literal["silu", "elu"]
State = Float[Array, "*batch heads values keys"]
Vectors = Float[Array, "*batch heads size"]
small_glorot = nnx.initializers.variance_scaling(
    2**-5, "fan_avg", "uniform"
)  # Glorot's, times 2^(−5/2)
SMALLEST = 1e-6  # added to ‖k‖², so that a key of zeros stays one


@takes_no_gate_biases
class DeltaNet(VectorCell):
    """The delta rule of Schlag, Irie & Schmidhuber 2021 in the form of Yang et al. 2024 (2.2, 3.3).

        S⁽ᵗ⁾ = S⁽ᵗ⁻¹⁾ (I − β k kᵀ) + β v kᵀ,   y⁽ᵗ⁾ = S⁽ᵗ⁾ q

    for each head, with β = σ(w_β x⁽ᵗ⁾), v = SiLU(W_v x⁽ᵗ⁾), and k and q = SiLU(W x⁽ᵗ⁾) divided by
    their Euclidean norms: what S answers to the key k is moved by the share β from S k towards v.
    Outputs are those of all heads. The state is S alone, of (heads, n/heads, keys) numbers;
    measurements call it h.

    Everything but S is read from the input, so the Jacobian ∂S⁽ᵗ⁾/∂S⁽ᵗ⁻¹⁾ is I ⊗ (I − β k kᵀ)
    whatever the state is (`theory.of_cells.delta_rule_jacobian`): with keys of two or more
    dimensions its norm is exactly 1, and every step shrinks one direction, to |1 − β ‖k‖²| of it.
    ‖k‖ is 1 unless SiLU(W x) is as small as 10⁻³ (its square has 10⁻⁶ added to it); with "elu" ‖k‖²
    is from 1/keys to 1.

    Weights start as in the authors' code until March 2025 (fla), from Glorot's uniform distribution
    times 2^(−5/2), and there are no biases; later versions draw N(0, σ²) with a σ of the model's
    configuration. Their layer has more around this recurrence: short convolutions before the SiLU,
    queries divided by √keys, an RMS norm of each head's output, and an output projection. Where
    nothing gives x a constant part, as its embeddings and norms do there, take `use_bias=True`:
    small weights otherwise make v kᵀ almost the same for x and −x.

    Example:
        >>> from gradlab.cells import DeltaNet
        >>> delta = DeltaNet(3, 8, heads=2, rngs=nnx.Rngs(0))
        >>> state, output = delta(delta.initialize_carry((3,)), jnp.ones(3))
        >>> state.shape, output.shape
        ((2, 4, 4), (8,))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        heads: Size = 4,
        key_features: Size | None = None,
        key_map: KeyMap = "silu",
        negative_eigenvalues: bool = False,
        use_bias: bool = False,
        kernel_init: nnx.Initializer = small_glorot,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights; columns are those of q, k, v and β, each head after head.

        Args:
            in_features: size of x.
            hidden_features: n, the size of the output.
            heads: number of matrices S; divides n.
            key_features: size of each head's keys and queries; None: n/heads.
            key_map: of keys and queries: "silu" as above, or "elu", which makes them positive by
                ELU + 1 and divides them by their sums (the other choice of the authors' code).
            negative_eigenvalues: whether β is 2 σ(…), so that I − β k kᵀ can also reflect (Grazzi
                et al. 2025); its norm stays 1.
            use_bias: whether there are biases, which start at 0.
            kernel_init: initialiser of each of the four matrices on x.
            recurrent_kernel_init: not used: no weight is on the state.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: heads does not divide n, or the map of keys has another name.
        """
        del recurrent_kernel_init
        n = hidden_features
        if heads < 1 or n % heads:
            raise ValueError(f"heads must divide the number of outputs, {n}; got {heads}.")
        check_name("key_map", key_map, ("silu", "elu"))
        self.in_features, self.hidden_features, self.heads = in_features, n, heads
        self.key_features = n // heads if key_features is None else key_features
        self.key_map, self.negative_eigenvalues = key_map, negative_eigenvalues
        keys = heads * self.key_features
        self.widths = (keys, keys, n, heads)
        self.dense_i = nnx.Linear(
            in_features,
            sum(self.widths),
            use_bias=use_bias,
            kernel_init=side_by_side(kernel_init, self.widths),
            rngs=rngs,
        )

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> State:
        """Return zeros, as every sequence starts."""
        size = self.hidden_features // self.heads
        return jnp.zeros((*input_shape[:-1], self.heads, size, self.key_features))

    def __call__(
        self, carry: State, inputs: Float[Array, "*batch m"]
    ) -> tuple[State, Float[Array, "*batch n"]]:
        """Return S⁽ᵗ⁾ and the output y⁽ᵗ⁾."""
        return self.advance(carry, self.dense_i(inputs))

    def advance(
        self, carry: State, from_x: Float[Array, "*batch columns"]
    ) -> tuple[State, Float[Array, "*batch n"]]:
        """Return the same, given the input's part `dense_i(x)`."""
        q, k, v, strength = self.read(from_x)
        error = v - answer(carry, k)
        state = carry + (strength * error)[..., None] * k[..., None, :]
        outputs = answer(state, q)
        return state, outputs.reshape(*outputs.shape[:-2], self.hidden_features)

    def read(
        self, from_x: Float[Array, "*batch columns"]
    ) -> tuple[Vectors, Vectors, Vectors, Vectors]:
        """Return each head's query, key, value and β, which has an axis of size 1."""
        parts = split(from_x, self.widths)
        q, k, v, strength = (part.reshape(*part.shape[:-1], self.heads, -1) for part in parts)
        scale = 2.0 if self.negative_eigenvalues else 1.0
        return self.normalised(q), self.normalised(k), nnx.silu(v), scale * nnx.sigmoid(strength)

    def normalised(self, vectors: Vectors) -> Vectors:
        """Return keys or queries from their net inputs."""
        if self.key_map == "elu":
            positive = nnx.elu(vectors) + 1
            return positive / positive.sum(axis=-1, keepdims=True)
        mapped = nnx.silu(vectors)
        return mapped * jax.lax.rsqrt((mapped**2).sum(axis=-1, keepdims=True) + SMALLEST)


def answer(state: State, key: Vectors) -> Vectors:
    """Return S k of each head."""
    return jnp.einsum("...vk,...k->...v", state, key)


def split(columns: Float[Array, "*batch columns"], widths: tuple[int, ...]) -> list[Array]:
    """Return blocks of columns of these widths."""
    ends = [sum(widths[: i + 1]) for i in range(len(widths) - 1)]
    return jnp.split(columns, ends, axis=-1)


def side_by_side(initialiser: nnx.Initializer, widths: tuple[int, ...]) -> nnx.Initializer:
    """Return an initialiser of a matrix whose blocks of columns are drawn one by one."""

    def initialise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        keys = jax.random.split(key, len(widths))
        drawn = [
            initialiser(k, (shape[0], width), dtype) for k, width in zip(keys, widths, strict=True)
        ]
        return jnp.concatenate(drawn, axis=1)

    return initialise


@unroll.register
def _(
    cell: DeltaNet,
    carry: State,
    inputs: Float[Array, "time batch m"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[State, Float[Array, "time batch n"]]:
    """Read all inputs at once; S then needs two products with vectors a step.

    A parallel scan would multiply the matrices I − β k kᵀ instead, keys times as much work.
    """
    return unroll_input_first(cell, DeltaNet, carry, inputs, on_adjoint)


@gates.register
def _(cell: DeltaNet, carry: State, inputs: Array) -> Gates:
    """Return σ(w_β x) of each head, the strength with which it writes."""
    check_step_is_of(DeltaNet, cell, "advance", "read")
    return {"write": nnx.sigmoid(split(cell.dense_i(inputs), cell.widths)[-1])}
