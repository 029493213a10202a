"""The sLSTM: exponential gates, a normaliser, a stabiliser and memory mixing within heads."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab.cells import affine
from gradlab.cells.base import VectorCell, check_name, inherits
from gradlab.cells.biases import takes_gate_biases, uniform_within
from gradlab.cells.elman import orthogonal
from gradlab.cells.gating import Gates, check_step_is_of, gates

State = Float[Array, "*batch n"]
LARGEST = 80.0  # of ln f′; float32 overflows beyond e⁸⁸
small_normal = nnx.initializers.variance_scaling(0.4, "fan_in", "normal")  # N(0, 2/(5 fan-in))


class Carry(NamedTuple):
    """The state after a step: c and n, both divided by eᵐ, the stabiliser m, and the output h."""

    c: State
    n: State
    m: State
    h: State


@takes_gate_biases
class SLSTM(VectorCell):
    """The sLSTM of Beck et al. 2024 (xLSTM, equations 8 to 17).

        c⁽ᵗ⁾ = f′ ⊙ c⁽ᵗ⁻¹⁾ + i′ ⊙ z,   n⁽ᵗ⁾ = f′ ⊙ n⁽ᵗ⁻¹⁾ + i′,   h⁽ᵗ⁾ = o ⊙ c⁽ᵗ⁾ / n⁽ᵗ⁾,
        f′ = exp(ln f + m⁽ᵗ⁻¹⁾ − m⁽ᵗ⁾),   i′ = exp(ln i − m⁽ᵗ⁾),   m⁽ᵗ⁾ = max(ln f + m⁽ᵗ⁻¹⁾, ln i)

    with i = exp(W x⁽ᵗ⁾ + R h⁽ᵗ⁻¹⁾ + b), f = σ(…) or exp(…), z = tanh(…) and o = σ(…), each with
    weights of its own. R is block-diagonal: units mix within a head. Where n⁽ᵗ⁻¹⁾ is 0, m⁽ᵗ⁾ is
    ln i, as in the authors' code (NX-AI/xlstm), so that afterwards n ≥ 1.

    m changes no output, no derivative of a loss of outputs and no ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾: only the ratio of
    eᵐc and eᵐn is read. Derivatives of the other parts depend on it: ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ has a factor
    exp(m⁽ᵏ⁾ − m⁽ᵗ⁾), and each unit has a direction (c, n, −1) in (c, n, m) that no output sees and
    that a step keeps while ln f + m is the maximum and removes otherwise. The whole carry thus has
    Lyapunov exponents of 0 or −∞ that say nothing about memory. Measure h, the default; or c with
    `stabilise=False`; or set `differentiate_m=False`: m is then a constant to derivatives, as in
    the authors' CUDA kernels (their PyTorch code differentiates it), and has none itself.

    By default this is the start of the authors' code: four heads, R = 0, W ~ N(0, 2/(5 k)) for
    inputs of size k, forget biases from 5 down to −7 by a power law over each head, other biases 0.
    Their layer differs in its inputs: W is block-diagonal by heads as R is, so that net inputs have
    1/heads of the variance, and i and f read a causal convolution of x.

    Example:
        >>> from gradlab.cells import SLSTM
        >>> slstm = SLSTM(3, 8, heads=2, rngs=nnx.Rngs(0))
        >>> carry, h = slstm(slstm.initialize_carry((3,)), jnp.ones(3))
        >>> bool((carry.n == 1).all())
        True
    """

    blocks = ("input", "forget", "candidate", "output")

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        heads: Annotated[int, Field(ge=1)] = 4,
        forget_gate: Literal["sigmoid", "exponential"] = "sigmoid",
        forget_bias: Literal["power", "linear", "zero"] = "power",
        depth: Annotated[float, Field(ge=0, le=1)] = 0.0,
        recurrent_start: Literal["zero", "uniform", "init"] = "zero",
        stabilise: bool = True,
        differentiate_m: bool = True,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = small_normal,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights.

        Args:
            in_features: size of x.
            hidden_features: number of units, the size of c, n, m and h.
            heads: number of blocks of R; divides the number of units.
            forget_gate: f, "sigmoid" or "exponential".
            forget_bias: the start of f's biases over the d units of a head: "power", 5 − 12 uᵖ with
                u from 0 to 1 and p = 0.3 + 1.3 depth; "linear", from 3 to 6; or "zero".
            depth: where the layer is in its network, from 0 (the first) to 1 (the last);
                model.num_layers gives all layers the same.
            recurrent_start: of R: "zero"; "uniform", within ±1/√units; or "init", by
                recurrent_kernel_init.
            stabilise: whether there is m; without, it stays 0, i overflows above e⁸⁸, and an
                exponential f is at most e⁸⁰.
            differentiate_m: whether derivatives pass through m.
            use_bias: whether there is b.
            kernel_init: initialiser of the four matrices on x, side by side.
            recurrent_kernel_init: initialiser of the (d, d) blocks of R, side by side.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: heads does not divide the units, or an option has another name.
        """
        n = hidden_features
        if heads < 1 or n % heads:
            raise ValueError(f"heads must divide the number of units, {n}; got {heads}.")
        d = n // heads
        u = np.arange(d) / max(d - 1, 1)
        biases = {"power": 5 - 12 * u ** (0.3 + 1.3 * depth), "linear": 3 + 3 * u, "zero": 0 * u}
        starts = {
            "zero": nnx.initializers.zeros_init(),
            "uniform": uniform_within(n**-0.5),
            "init": recurrent_kernel_init,
        }
        check_name("forget_gate", forget_gate, ("sigmoid", "exponential"))
        check_name("forget_bias", forget_bias, biases)
        check_name("recurrent_start", recurrent_start, starts)
        self.in_features, self.hidden_features, self.heads = in_features, n, heads
        self.forget_gate, self.differentiate_m = forget_gate, differentiate_m
        self.stabilise = stabilise
        self.dense_i = nnx.Linear(
            in_features, 4 * n, use_bias=use_bias, kernel_init=kernel_init, rngs=rngs
        )
        if use_bias:
            bias: Any = self.dense_i.bias
            values = jnp.asarray(np.tile(biases[forget_bias], heads), bias[...].dtype)
            bias[...] = bias[...].at[n : 2 * n].set(values)
        # Rows are the units of a head; columns are gates, in them heads, in them units.
        kernel = starts[recurrent_start](rngs.params(), (d, 4 * n), jnp.float32)
        self.recurrent_kernel = nnx.Param(kernel)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> Carry:
        """Return zeros, as every sequence starts."""
        return Carry(*[jnp.zeros((*input_shape[:-1], self.hidden_features))] * 4)

    def __call__(self, carry: Carry, inputs: Float[Array, "*batch k"]) -> tuple[Carry, State]:
        """Return the new carry and its h."""
        carry = self.update(self.preactivations(carry, inputs), carry)
        return carry, carry.h

    def preactivations(self, carry: Carry, inputs: Float[Array, "*batch k"]) -> affine.Blocks:
        """Return W x + R h + b of i, f, z and o."""
        sums = self.dense_i(inputs) + carry.h @ self.recurrent_matrix()
        return tuple(jnp.split(sums, 4, axis=-1))

    def scales(self, blocks: affine.Blocks, carry: Carry) -> tuple[State, State, State]:
        """Return f′, i′ and the new m, from preactivations and the carry before."""
        log_i, f = blocks[:2]
        before = carry.m if self.differentiate_m else jax.lax.stop_gradient(carry.m)
        log_kept = before + (nnx.log_sigmoid(f) if self.forget_gate == "sigmoid" else f)
        m = jnp.zeros_like(log_kept)
        if self.stabilise:
            m = jnp.where(carry.n == 0, log_i, jnp.maximum(log_kept, log_i))
        m = m if self.differentiate_m else jax.lax.stop_gradient(m)
        # Where n is 0, f′ could overflow, and its product with 0 would be no number.
        return jnp.exp(jnp.minimum(log_kept - m, LARGEST)), jnp.exp(log_i - m), m

    def update(self, blocks: affine.Blocks, carry: Carry) -> Carry:
        """Return the carry that follows from preactivations and the carry before."""
        kept, added, m = self.scales(blocks, carry)
        c, n = kept * carry.c + added * jnp.tanh(blocks[2]), kept * carry.n + added
        return Carry(c, n, m, nnx.sigmoid(blocks[3]) * c / n)

    def recurrent_matrix(self) -> Float[Array, "n 4*n"]:
        """Return R of the four gates side by side; rows are the units that it reads."""
        head = np.arange(self.hidden_features) // (self.hidden_features // self.heads)
        is_within = head[:, None] == np.tile(head, 4)
        return jnp.tile(self.recurrent_kernel[...], (self.heads, 1)) * is_within


@affine.affine_form_of(SLSTM)
def _form(cell: SLSTM) -> affine.AffineForm | None:
    methods = ("preactivations", "scales", "update", "recurrent_matrix")
    dense_i = affine.plain_layer(cell, "dense_i")
    if dense_i is None or not inherits(cell, SLSTM, *methods):
        return None
    kernel, bias = dense_i.kernel[...], affine.value_of(dense_i.bias)
    if not affine.fits((kernel, bias), cell.hidden_features, 4):
        return None
    return affine.AffineForm(kernel, bias, cell.recurrent_matrix(), cell.update)


@gates.register
def _(cell: SLSTM, carry: Carry, inputs: Array) -> Gates:
    """Return the shares of old and of new values in the average c/n of z, and the output gate.

    i and f have no bounds; the share f′ n⁽ᵗ⁻¹⁾/n⁽ᵗ⁾ that a step keeps does, and is free of m.
    """
    check_step_is_of(SLSTM, cell, "update")
    blocks = cell.preactivations(carry, inputs)
    kept, added, _ = cell.scales(blocks, carry)
    n = kept * carry.n + added
    return {"input": added / n, "forget": kept * carry.n / n, "output": nnx.sigmoid(blocks[3])}
