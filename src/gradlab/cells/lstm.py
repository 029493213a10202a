"""The LSTM, with gates that can be pinned at a constant or left out, and with its variants."""

from typing import Annotated

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab.cells import lstm_variants as variants
from gradlab.cells.elman import remove_bias
from gradlab.cells.gating import Gates, check_step_is_of, gates

Pin = Annotated[float, Field(ge=0, le=1)] | None
Carry = tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]
lecun, orthogonal = nnx.initializers.lecun_normal(), nnx.initializers.orthogonal()
NORM_EPSILON = 1e-5  # added to variances, as in the code of Ba et al. 2016


class LSTM(nnx.OptimizedLSTMCell):
    """The LSTM of Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000.

        c⁽ᵗ⁾ = f ⊙ c⁽ᵗ⁻¹⁾ + i ⊙ g,   h⁽ᵗ⁾ = o ⊙ tanh c⁽ᵗ⁾

    with gates i, f, o = σ(W x⁽ᵗ⁾ + U h⁽ᵗ⁻¹⁾ + b) and candidate g = tanh(W x⁽ᵗ⁾ + U h⁽ᵗ⁻¹⁾ + b),
    each with weights of its own. This is Flax's OptimizedLSTMCell, except that each gate can be
    pinned at a constant from 0 to 1. A gate pinned at 1 is left out, as the forget gate was in
    1997. A pinned gate has no weights. The forget bias starts at 0 as in Flax; bias=forget starts
    it at 1.

    Options, which combine, change the step:

    - `peepholes`: the gates see the cell state, i and f by p ⊙ c⁽ᵗ⁻¹⁾ and o by p ⊙ c⁽ᵗ⁾, added to
      their net inputs (Gers & Schmidhuber 2000). Each p is a vector of n weights. Gradients pass
      through them, unlike in 2000. They start from N(0, 0.1²), the others as without the option.
    - `coupled`: i = 1 − f, and i has no weights (the CIFG of Greff et al. 2017).
    - `layer_norm`: W x⁽ᵗ⁾ + U h⁽ᵗ⁻¹⁾ + b becomes LN(W x⁽ᵗ⁾) + LN(U h⁽ᵗ⁻¹⁾) + b and tanh c⁽ᵗ⁾
      becomes tanh LN(c⁽ᵗ⁾) (Ba et al. 2016, eq. 20 to 22). An LN is over all gates together and
      starts from gain 1. Of the paper's three biases of a gate, whose sum alone counts, there is
      one. At h = 0, where a sequence starts, the derivative of LN(U h) is U / √ε less its mean over
      the gates, with ε = 10⁻⁵ added to variances: it is steeper than at any later step. Where the
      first inputs are zeros the state stays there, and ten of them take gradients past float32.
    - `refine_gate`: a further gate r = σ(W x⁽ᵗ⁾ + U h⁽ᵗ⁻¹⁾ + b) refines f to
      r (1 − (1 − f)²) + (1 − r) f², which takes its place (Gu et al. 2020). Their UR-LSTM is
      `refine_gate` with `coupled` and the biases of `gradlab.initialisers.uniform_gate`.

    Example:
        >>> from gradlab.cells import LSTM, gates
        >>> lstm = LSTM(3, 8, coupled=True, rngs=nnx.Rngs(0))  # i = 1 − f
        >>> carry = lstm.initialize_carry((3,), nnx.Rngs(0))
        >>> (c, h), output = lstm(carry, jnp.ones(3))
        >>> c.shape, h.shape, sorted(gates(lstm, carry, jnp.ones(3)))
        ((8,), (8,), ['forget', 'input', 'output'])
    """

    ORDER = ("input", "forget", "candidate", "output")
    norm_i: nnx.LayerNorm
    norm_h: nnx.LayerNorm
    norm_c: nnx.LayerNorm

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        input_gate: Pin = None,
        forget_gate: Pin = None,
        output_gate: Pin = None,
        peepholes: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        refine_gate: bool = False,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights of Flax's cell, drop those of pinned gates and add those of options.

        Args:
            in_features: size of x.
            hidden_features: n, the size of c and of h.
            input_gate: constant value of i, from 0 to 1; None: learned.
            forget_gate: constant value of f, from 0 to 1; None: learned.
            output_gate: constant value of o, from 0 to 1; None: learned.
            peepholes: whether the gates see the cell state.
            coupled: whether i is 1 − f.
            layer_norm: whether net inputs and the cell state are normalised.
            refine_gate: whether a further gate refines f.
            use_bias: whether there is b; the weights drawn are the same without it.
            kernel_init: initialiser of the four matrices on x, side by side.
            recurrent_kernel_init: initialiser of the four matrices on h, side by side.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: a pinned value is outside 0 to 1, or an option sets a pinned gate.
        """
        super().__init__(
            in_features,
            hidden_features,
            kernel_init=kernel_init,
            recurrent_kernel_init=recurrent_kernel_init,
            rngs=rngs,
        )
        pins = {"input": input_gate, "forget": forget_gate, "output": output_gate}
        for gate, pin in pins.items():
            if pin is not None and not 0 <= pin <= 1:
                raise ValueError(f"{gate}_gate must be None or from 0 to 1; got {pin}.")
        chosen = {
            "peepholes": peepholes,
            "coupled": coupled,
            "layer_norm": layer_norm,
            "refine_gate": refine_gate,
        }
        self.options = tuple(option for option, is_on in chosen.items() if is_on)
        variants.check_options(self.options, pins)
        self.pins = tuple((gate, pin) for gate, pin in pins.items() if pin is not None)
        self.learned = variants.learned_blocks(self.ORDER, self.options, pins)
        if refine_gate:
            variants.add_refine_gate(self, kernel_init, recurrent_kernel_init, rngs)
        if not set(self.ORDER) <= set(self.learned):
            self._keep_learned()
        if peepholes:
            variants.add_peepholes(self, rngs)
        if not use_bias or layer_norm:
            remove_bias(self.dense_h)
        if layer_norm:
            self._add_norms(use_bias, rngs)

    def activations(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> dict[str, Array]:
        """Return the gates and the candidate g at one step, by name."""
        c, h = carry
        from_x, from_h = self.dense_i(inputs), self.dense_h(h)
        if "layer_norm" in self.options:
            from_x, from_h = self.norm_i(from_x), self.norm_h(from_h)
        blocks = jnp.split(from_x + from_h, len(self.learned), axis=-1)
        net_inputs = dict(zip(self.learned, blocks, strict=True))
        if self.options:
            return variants.activations_of(self, net_inputs, c, variants.peepholes_of(self))
        learned = {
            gate: (self.activation_fn if gate == "candidate" else self.gate_fn)(block)
            for gate, block in net_inputs.items()
        }
        return learned | {gate: jnp.full_like(h, pin) for gate, pin in self.pins}

    def __call__(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> tuple[Carry, Array]:
        """Return the new carry (c⁽ᵗ⁾, h⁽ᵗ⁾) and the output h⁽ᵗ⁾."""
        a = self.activations(carry, inputs)
        c = a["forget"] * carry[0] + a["input"] * a["candidate"]
        h = a["output"] * self.activation_fn(self.norm_c(c) if "layer_norm" in self.options else c)
        return (c, h), h

    def _keep_learned(self) -> None:
        """Keep only the columns of learned gates in both kernels and in the bias."""
        n = self.hidden_features
        names = (*self.ORDER, *(name for name in self.learned if name not in self.ORDER))
        learned = [
            i * n + j for i, gate in enumerate(names) if gate in self.learned for j in range(n)
        ]
        columns = jnp.array(learned)
        for linear in (self.dense_i, self.dense_h):
            linear.kernel = nnx.Param(linear.kernel[...][:, columns])
            linear.out_features = len(learned)
        bias: nnx.Param = self.dense_h.bias  # type: ignore[assignment]
        self.dense_h.bias = nnx.Param(bias[...][columns])

    def _add_norms(self, use_bias: bool, rngs: nnx.Rngs) -> None:
        """Add the layer norms of both layers, the second with b, and that of the cell state."""
        columns, n = self.dense_h.out_features, self.hidden_features

        def norm(size: int, has_bias: bool) -> nnx.LayerNorm:
            # The fast variance loses its digits where the mean is large.
            return nnx.LayerNorm(
                size,
                epsilon=NORM_EPSILON,
                use_bias=has_bias,
                use_fast_variance=False,
                rngs=rngs,
            )

        self.norm_i, self.norm_h = norm(columns, has_bias=False), norm(columns, has_bias=use_bias)
        self.norm_c = norm(n, has_bias=True)


@gates.register
def _(cell: LSTM, carry: Carry, inputs: Array) -> Gates:
    check_step_is_of(LSTM, cell)
    activations = cell.activations(carry, inputs)
    names = ("input", "forget", "output", "refine")
    return {name: activations[name] for name in names if name in activations}
