"""The LSTM, with gates that may be pinned at a value or left out."""

from typing import Annotated

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

Pin = Annotated[float, Field(ge=0, le=1)] | None
Carry = tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]
lecun, orthogonal = nnx.initializers.lecun_normal(), nnx.initializers.orthogonal()


class LSTM(nnx.OptimizedLSTMCell):
    """Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000.

    Flax's OptimizedLSTMCell, but each gate may be pinned at a constant from 0 to 1; pinned at 1 it
    is left out, as the forget gate was in 1997. A pinned gate has no weights.
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
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights that Flax's cell draws and drop those of pinned gates.

        Args:
            in_features: size of an input.
            hidden_features: n, of c and of h.
            input_gate: the value that it is pinned at; None: learned.
            forget_gate: likewise.
            output_gate: likewise.
            kernel_init: of the four matrices on x, side by side.
            recurrent_kernel_init: of the four matrices on h, side by side.
            rngs: what they are drawn from.

        Raises:
            ValueError: a pin that is not from 0 to 1.
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

    def activations(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> dict[str, Array]:
        """The three gates and the candidate g at one step, by name."""
        _, h = carry
        parts = jnp.split(self.dense_i(inputs) + self.dense_h(h), len(self.learned), axis=-1)
        squashed = {
            gate: (self.activation_fn if gate == "candidate" else self.gate_fn)(part)
            for gate, part in zip(self.learned, parts, strict=True)
        }
        return squashed | {gate: jnp.full_like(h, pin) for gate, pin in self.pins}

    def __call__(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> tuple[Carry, Array]:
        """One step: c⁽ᵗ⁾ = f c⁽ᵗ⁻¹⁾ + i g, h⁽ᵗ⁾ = o tanh c⁽ᵗ⁾."""
        a = self.activations(carry, inputs)
        c = a["forget"] * carry[0] + a["input"] * a["candidate"]
        h = a["output"] * self.activation_fn(c)
        return (c, h), h

    def _drop_pinned(self) -> None:
        n = self.hidden_features
        kept = [
            i * n + j for i, gate in enumerate(self.ORDER) if gate in self.learned for j in range(n)
        ]
        columns = jnp.array(kept)
        for linear in (self.dense_i, self.dense_h):
            linear.kernel = nnx.Param(linear.kernel[...][:, columns])
            linear.out_features = len(kept)
        bias: nnx.Param = self.dense_h.bias  # type: ignore[assignment]
        self.dense_h.bias = nnx.Param(bias[...][columns])
