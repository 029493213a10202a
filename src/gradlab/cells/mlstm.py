"""The mLSTM: a matrix memory with exponential gates, a normaliser and a stabiliser."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab.cells.base import VectorCell, check_name
from gradlab.cells.deltanet import answer, split
from gradlab.cells.elman import orthogonal
from gradlab.cells.gating import Gates, check_step_is_of, gates
from gradlab.cells.recurrence import AdjointRule, unroll, unroll_input_first
from gradlab.cells.slstm import LARGEST, small_normal

PerHead = Float[Array, "*batch heads"]
Vectors = Float[Array, "*batch heads d"]


class Memory(NamedTuple):
    """The memory, C and n, both divided by eᵐ."""

    c: Float[Array, "*batch heads d d"]
    n: Vectors


class Carry(NamedTuple):
    """The state after a step: the memory, which outputs are read from, and the stabiliser m."""

    h: Memory
    m: PerHead | None


class MLSTM(VectorCell):
    """The mLSTM of Beck et al. 2024 (xLSTM, equations 19 to 27).

        C⁽ᵗ⁾ = f C⁽ᵗ⁻¹⁾ + i v kᵀ,   n⁽ᵗ⁾ = f n⁽ᵗ⁻¹⁾ + i k,   y⁽ᵗ⁾ = o ⊙ C⁽ᵗ⁾ q / max(|n⁽ᵗ⁾ᵀ q|, 1)

    for each head, of d = n/heads units, with the numbers i = exp(w x⁽ᵗ⁾ + b) and f = σ(…) or
    exp(…), and the vectors q, k (divided by √d, its bias too), v and o = σ(…), each with its own
    weights. The stabiliser m⁽ᵗ⁾ = max(ln f + m⁽ᵗ⁻¹⁾, ln i) of equation 15, or ln i where nothing is
    stored yet, keeps e⁻ᵐC and e⁻ᵐn instead of C and n, with e⁻ᵐ in the place of 1.

    All gates read the input alone, and no output is read by a later step. So what measurements call
    h is the memory (its parts are c and n), and its Jacobian ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ is diagonal: Π f of each
    head, times exp(m⁽ᵏ⁾ − m⁽ᵗ⁾), which no output and no derivative of a loss of outputs depends on.
    Measure with `stabilise=False`, as model=mlstm is, for Π f itself. m is a constant to
    derivatives, which changes no gradient, because any m gives the same outputs; its own exponents
    are −∞.

    By default this is the start of the authors' code (NX-AI/xlstm): four heads; q, k and v from
    N(0, 2/(5 m)) for inputs of size m, and o too; gates that do not yet read the input, with biases
    from 3 to 6 over the heads for f, and from N(0, 0.01) for i; other biases 0. Their layer
    differs: x is first projected to twice its size; q, k and v read blocks of 4 of that, q and k
    after a causal convolution, so that their net inputs are smaller; the gates read q, k and v; in
    the place of o is SiLU of a second projection, after a norm and a skip.

    Example:
        >>> from gradlab.cells import MLSTM
        >>> mlstm = MLSTM(3, 8, heads=2, rngs=nnx.Rngs(0))
        >>> carry, output = mlstm(mlstm.initialize_carry((3,)), jnp.ones(3))
        >>> carry.h.c.shape, carry.h.n.shape, output.shape
        ((2, 4, 4), (2, 4), (8,))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        heads: Annotated[int, Field(ge=1)] = 4,
        forget_gate: Literal["sigmoid", "exponential"] = "sigmoid",
        stabilise: bool = True,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = small_normal,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights; columns are those of q, k, v and o, each head after head, of i and f.

        Args:
            in_features: size of x.
            hidden_features: n, the size of the output.
            heads: number of memories; divides n.
            forget_gate: f, "sigmoid" or "exponential".
            stabilise: whether there is m; without, i overflows above e⁸⁸, and an exponential f is
                at most e⁸⁰.
            use_bias: whether there is b; without, i starts at 1 and f at σ(0) or 1.
            kernel_init: initialiser of the matrices of q, k, v and o, side by side.
            recurrent_kernel_init: not used: no weight is on the state.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: heads does not divide n, or the forget gate has another name.
        """
        del recurrent_kernel_init
        n = hidden_features
        if heads < 1 or n % heads:
            raise ValueError(f"heads must divide the number of units, {n}; got {heads}.")
        check_name("forget_gate", forget_gate, ("sigmoid", "exponential"))
        self.in_features, self.hidden_features, self.heads = in_features, n, heads
        self.forget_gate, self.stabilise = forget_gate, stabilise
        self.widths = (n, n, n, n, heads, heads)
        self.dense_i = nnx.Linear(
            in_features, sum(self.widths), use_bias=use_bias, kernel_init=kernel_init, rngs=rngs
        )
        kernel: Any = self.dense_i.kernel
        kernel[...] = kernel[...].at[:, 4 * n :].set(0)
        if use_bias:
            bias: Any = self.dense_i.bias
            input_biases = 0.1 * jax.random.normal(rngs.params(), (heads,))
            start = jnp.concatenate([input_biases, jnp.linspace(3.0, 6.0, heads)])
            bias[...] = bias[...].at[4 * n :].set(start.astype(bias[...].dtype))

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> Carry:
        """Return zeros, as every sequence starts."""
        d = self.hidden_features // self.heads
        c = jnp.zeros((*input_shape[:-1], self.heads, d, d))
        return Carry(Memory(c, c[..., 0]), c[..., 0, 0] if self.stabilise else None)

    def __call__(
        self, carry: Carry, inputs: Float[Array, "*batch k"]
    ) -> tuple[Carry, Float[Array, "*batch n"]]:
        """Return the new carry and the output y⁽ᵗ⁾."""
        return self.advance(carry, self.dense_i(inputs))

    def advance(
        self, carry: Carry, from_x: Float[Array, "*batch columns"]
    ) -> tuple[Carry, Float[Array, "*batch n"]]:
        """Return the same, given the input's part `dense_i(x)`."""
        *blocks, log_i, f = split(from_x, self.widths)
        q, k, v, o = (x.reshape(*x.shape[:-1], self.heads, -1) for x in blocks)
        k = k * (k.shape[-1] ** -0.5)
        kept, added, m = self.scales(log_i, f, carry)
        written = (added[..., None] * v)[..., None] * k[..., None, :]
        c = kept[..., None, None] * carry.h.c + written
        n = kept[..., None] * carry.h.n + added[..., None] * k
        # Where the floor overflows, outputs are 0 to rounding.
        floor = 1.0 if m is None else jnp.exp(jnp.minimum(-m, LARGEST))
        size = jnp.maximum(jnp.abs((n * q).sum(axis=-1)), floor)
        outputs = nnx.sigmoid(o) * answer(c, q) / size[..., None]
        return Carry(Memory(c, n), m), outputs.reshape(*outputs.shape[:-2], self.hidden_features)

    def scales(
        self, log_i: PerHead, f: PerHead, carry: Carry
    ) -> tuple[PerHead, PerHead, PerHead | None]:
        """Return f and i as they act beside m, and the new m, from net inputs."""
        log_f = nnx.log_sigmoid(f) if self.forget_gate == "sigmoid" else f
        if carry.m is None:
            return jnp.exp(jnp.minimum(log_f, LARGEST)), jnp.exp(log_i), None
        log_kept = log_f + jax.lax.stop_gradient(carry.m)
        is_empty = (carry.h.n == 0).all(axis=-1)
        m = jnp.where(is_empty, log_i, jnp.maximum(log_kept, log_i))
        m = jax.lax.stop_gradient(m)
        # Where nothing is stored, f could overflow, and its product with 0 would be no number.
        return jnp.exp(jnp.minimum(log_kept - m, LARGEST)), jnp.exp(log_i - m), m


@unroll.register
def _(
    cell: MLSTM,
    carry: Carry,
    inputs: Float[Array, "time batch k"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[Carry, Float[Array, "time batch n"]]:
    """Read all inputs at once, then run the steps."""
    return unroll_input_first(cell, MLSTM, carry, inputs, on_adjoint)


@gates.register
def _(cell: MLSTM, carry: Carry, inputs: Array) -> Gates:
    """Return the output gates, and each head's forget gate if it is bounded; i is not."""
    check_step_is_of(MLSTM, cell, "advance", "scales")
    *_, o, _, f = split(cell.dense_i(inputs), cell.widths)
    bounded = {"forget": nnx.sigmoid(f)} if cell.forget_gate == "sigmoid" else {}
    return bounded | {"output": nnx.sigmoid(o)}
