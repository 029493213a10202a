"""The LSTM, with gates that can be pinned at a constant or left out."""

from typing import Annotated

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab.cells.elman import remove_bias
from gradlab.cells.gating import Gates, check_step_is_of, gates

Pin = Annotated[float, Field(ge=0, le=1)] | None
Carry = tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]
lecun, orthogonal = nnx.initializers.lecun_normal(), nnx.initializers.orthogonal()


class LSTM(nnx.OptimizedLSTMCell):
    """The LSTM of Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000.

        c⁽ᵗ⁾ = f ⊙ c⁽ᵗ⁻¹⁾ + i ⊙ g,   h⁽ᵗ⁾ = o ⊙ tanh c⁽ᵗ⁾

    with gates i, f, o = σ(W x⁽ᵗ⁾ + U h⁽ᵗ⁻¹⁾ + b) and candidate g = tanh(W x⁽ᵗ⁾ + U h⁽ᵗ⁻¹⁾ + b),
    each with weights of its own. This is Flax's OptimizedLSTMCell, except that each gate can be
    pinned at a constant from 0 to 1. A gate pinned at 1 is left out, as the forget gate was in
    1997. A pinned gate has no weights.
    """

    ORDER = ("input", "forget", "candidate", "output")

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        input_gate: Pin = None,
        forget_gate: Pin = None,
        output_gate: Pin = None,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights of Flax's cell, then drop those of pinned gates.

        Args:
            in_features: size of x.
            hidden_features: n, the size of c and of h.
            input_gate: constant value of i, from 0 to 1; None: learned.
            forget_gate: constant value of f, from 0 to 1; None: learned.
            output_gate: constant value of o, from 0 to 1; None: learned.
            use_bias: whether there is b; the weights drawn are the same without it.
            kernel_init: initialiser of the four matrices on x, side by side.
            recurrent_kernel_init: initialiser of the four matrices on h, side by side.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: a pinned value is outside 0 to 1.
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
        self.pins = tuple((gate, pin) for gate, pin in pins.items() if pin is not None)
        self.learned = tuple(gate for gate in self.ORDER if pins.get(gate) is None)
        if self.pins:
            self._drop_pinned()
        if not use_bias:
            remove_bias(self.dense_h)

    def activations(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> dict[str, Array]:
        """Return the three gates and the candidate g at one step, by name."""
        _, h = carry
        blocks = jnp.split(self.dense_i(inputs) + self.dense_h(h), len(self.learned), axis=-1)
        learned = {
            gate: (self.activation_fn if gate == "candidate" else self.gate_fn)(block)
            for gate, block in zip(self.learned, blocks, strict=True)
        }
        return learned | {gate: jnp.full_like(h, pin) for gate, pin in self.pins}

    def __call__(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> tuple[Carry, Array]:
        """Return the new carry (c⁽ᵗ⁾, h⁽ᵗ⁾) and the output h⁽ᵗ⁾."""
        a = self.activations(carry, inputs)
        c = a["forget"] * carry[0] + a["input"] * a["candidate"]
        h = a["output"] * self.activation_fn(c)
        return (c, h), h

    def _drop_pinned(self) -> None:
        """Keep only the columns of learned gates in both kernels and in the bias."""
        n = self.hidden_features
        learned = [
            i * n + j for i, gate in enumerate(self.ORDER) if gate in self.learned for j in range(n)
        ]
        columns = jnp.array(learned)
        for linear in (self.dense_i, self.dense_h):
            linear.kernel = nnx.Param(linear.kernel[...][:, columns])
            linear.out_features = len(learned)
        bias: nnx.Param = self.dense_h.bias  # type: ignore[assignment]
        self.dense_h.bias = nnx.Param(bias[...][columns])


@gates.register
def _(cell: LSTM, carry: Carry, inputs: Array) -> Gates:
    check_step_is_of(LSTM, cell)
    activations = cell.activations(carry, inputs)
    return {name: activations[name] for name in ("input", "forget", "output")}
