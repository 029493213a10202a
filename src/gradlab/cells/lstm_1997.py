"""The memory cells of 1997, before the forget gate, with the truncated gradient of their paper."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab.cells.biases import uniform_within
from gradlab.cells.gating import Gates, check_step_is_of, gates

Size = Annotated[int, Field(ge=1)]
Limit = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Squash = Literal["centred", "sigmoid", "identity"]
CELL_INPUT: Mapping[str, Callable[[Array], Array]] = {
    "centred": lambda x: 4 * nnx.sigmoid(x) - 2,
    "sigmoid": nnx.sigmoid,
    "identity": lambda x: x,
}
CELL_OUTPUT = {**CELL_INPUT, "centred": lambda x: 2 * nnx.sigmoid(x) - 1}
lecun, orthogonal = nnx.initializers.lecun_normal(), nnx.initializers.orthogonal()


class Carry(NamedTuple):
    """The state of memory cells and gates after a step.

    Attributes:
        c: the cells' internal states, s in the paper.
        h: the output: the cells' activations and, with connections "below", the input.
        gates: activations of the input gates, then of the output gates.
    """

    c: Float[Array, "*batch n"]
    h: Float[Array, "*batch m"]
    gates: Float[Array, "*batch g"]


class LSTM1997(nnx.RNNCellBase):
    """Memory cells in blocks that share their gates (Hochreiter & Schmidhuber 1997).

        c⁽ᵗ⁾ = c⁽ᵗ⁻¹⁾ + i ⊙ g(net_c),   y⁽ᵗ⁾ = o ⊙ h(c⁽ᵗ⁾),   i = σ(net_i),   o = σ(net_o)

    There is no forget gate. Each net input is an affine function of the input x⁽ᵗ⁾ and of all
    cells' and gates' activations at t − 1 ("fully connected hidden layer"). By default the gradient
    is truncated as in the paper: no error flows from a net input back to those activations, so that
    ∂c⁽ᵗ⁾/∂c⁽ᵗ⁻¹⁾ is the identity and nothing else reaches an earlier step. What gradlab measures is
    then that truncated derivative; `truncate=False` gives the total one.

    Example:
        >>> from gradlab.cells import LSTM1997
        >>> memory = LSTM1997(8, 4, block_size=2, input_gate_bias=[-2.0, -4.0], rngs=nnx.Rngs(0))
        >>> weights = jax.tree.leaves(nnx.state(memory, nnx.Param))
        >>> sum(weight.size for weight in weights)  # of 156 in task 6a, with a readout's
        136
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        block_size: Size = 1,
        output_gate: bool = True,
        cell_input: Squash = "centred",
        cell_output: Squash = "centred",
        connections: Literal["full", "below"] = "full",
        input_gate_bias: list[float] | None = None,
        output_gate_bias: list[float] | None = None,
        bias_limit: Limit = 0.0,
        use_bias: bool = True,
        truncate: bool = True,
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights; columns are those of the cells, the input gates, the output gates.

        Args:
            in_features: size of x.
            hidden_features: number of memory cells, n.
            block_size: cells that share an input gate and an output gate; divides n.
            output_gate: whether there are output gates; without, o = 1.
            cell_input: g: "centred" 4σ(x) − 2, or "sigmoid", or "identity".
            cell_output: h: "centred" 2σ(x) − 1, or "sigmoid", or "identity".
            connections: "full", or "below": cells and gates read the input alone, and the output of
                the cell has the input beside the cells' activations (tasks 2a, 2b).
            input_gate_bias: one for each block; None: drawn.
            output_gate_bias: one for each block; None: drawn.
            bias_limit: biases are drawn uniformly within ± this.
            use_bias: whether net inputs have biases.
            truncate: whether the gradient is truncated.
            kernel_init: initialiser of the matrix on x.
            recurrent_kernel_init: initialiser of the square matrix on activations at t − 1.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: block sizes or numbers of biases do not fit.
        """
        if hidden_features % block_size:
            raise ValueError(
                f"block_size must divide the number of cells, {hidden_features}; got {block_size}."
            )
        self.in_features, self.hidden_features = in_features, hidden_features
        self.blocks, self.block_size = hidden_features // block_size, block_size
        self.output_gate, self.truncate = output_gate, truncate
        self.squash = CELL_INPUT[cell_input], CELL_OUTPUT[cell_output]
        self.gate_count = self.blocks * (1 + output_gate)
        columns = hidden_features + self.gate_count
        self.dense_i = nnx.Linear(
            in_features,
            columns,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=uniform_within(bias_limit),
            rngs=rngs,
        )
        self.dense_h = (
            nnx.Linear(
                columns, columns, use_bias=False, kernel_init=recurrent_kernel_init, rngs=rngs
            )
            if connections == "full"
            else None
        )
        self._set_biases("input_gate_bias", input_gate_bias, hidden_features)
        self._set_biases("output_gate_bias", output_gate_bias, hidden_features + self.blocks)

    def _set_biases(self, name: str, values: Sequence[float] | None, start: int) -> None:
        if values is None:
            return
        bias = self.dense_i.bias
        if len(values) != self.blocks or bias is None or start >= self.dense_i.out_features:
            raise ValueError(
                f"{name} must be {self.blocks} numbers, one for each block, of gates that have "
                f"biases; got {list(values)}."
            )
        bias[...] = bias[...].at[start : start + self.blocks].set(jnp.asarray(values))

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> Carry:
        """Return zeros, as every sequence starts."""
        sizes = self.hidden_features, self.output_features, self.gate_count
        return Carry(*(jnp.zeros((*input_shape[:-1], size)) for size in sizes))

    def __call__(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> tuple[Carry, Float[Array, "*batch m"]]:
        """Return the new carry and its h."""
        n, (g, h) = self.hidden_features, self.squash
        nets = self.net_inputs(carry, inputs)
        gates = nnx.sigmoid(nets[..., n:])
        c = carry.c + self._of_block(gates[..., : self.blocks]) * g(nets[..., :n])
        y = h(c)
        if self.output_gate:
            y = self._of_block(gates[..., self.blocks :]) * y
        output = y if self.dense_h is not None else jnp.concatenate([y, inputs], axis=-1)
        return Carry(c, output, gates), output

    @property
    def output_features(self) -> int:
        """The size of the output: n, and the input's beside it with connections "below"."""
        return self.hidden_features + (self.in_features if self.dense_h is None else 0)

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of one input, as Flax's cells define it."""
        return 1

    def net_inputs(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch columns"]:
        """Return the net inputs of the cells, the input gates and the output gates."""
        nets = self.dense_i(inputs)
        if self.dense_h is None:
            return nets
        sources = jnp.concatenate([carry.h, carry.gates], axis=-1)
        return nets + self.dense_h(jax.lax.stop_gradient(sources) if self.truncate else sources)

    def _of_block(self, gates: Float[Array, "*batch blocks"]) -> Float[Array, "*batch n"]:
        return jnp.repeat(gates, self.block_size, axis=-1)


@gates.register
def _(cell: LSTM1997, carry: Carry, inputs: Array) -> Gates:
    check_step_is_of(LSTM1997, cell)
    values = nnx.sigmoid(cell.net_inputs(carry, inputs)[..., cell.hidden_features :])
    names = ("input", "output")[: cell.gate_count // cell.blocks]
    return dict(zip(names, jnp.split(values, len(names), axis=-1), strict=True))
