"""Flax cells that hold given weights, and the two cells of other libraries that Flax lacks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from gradlab.cells import Gates, gates

Carry = tuple[Float[Array, "*batch n"], Float[Array, "*batch m"]]
ZEROS = nnx.initializers.zeros_init()


class ProjectedLSTM(nnx.OptimizedLSTMCell):
    """An LSTM whose output is projected, h⁽ᵗ⁾ = P (o ⊙ tanh c⁽ᵗ⁾), and its carry (c, h).

    References:
        Sak, Senior & Beaufays 2014, Long short-term memory based recurrent neural network
        architectures for large vocabulary speech recognition; `proj_size` of PyTorch.
    """

    def __init__(
        self, in_features: int, hidden_features: int, *, output_features: int, **options: Any
    ) -> None:
        """Make an LSTM of n = hidden_features and P of (output_features, n), with Flax's options.

        Args:
            in_features: size of x.
            hidden_features: n, the size of c.
            output_features: size of h.
            options: of flax.nnx.OptimizedLSTMCell.
        """
        super().__init__(in_features, hidden_features, **options)
        self.output_features = output_features
        dtypes = {key: options[key] for key in ("dtype", "param_dtype") if key in options}
        rngs: nnx.Rngs = options["rngs"]
        self.dense_h = nnx.Linear(output_features, 4 * hidden_features, rngs=rngs, **dtypes)
        self.project = nnx.Linear(
            hidden_features, output_features, use_bias=False, rngs=rngs, **dtypes
        )

    def initialize_carry(
        self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None
    ) -> Carry:
        """Return zeros."""
        del rngs, carry_init
        sizes = (self.hidden_features, self.output_features)
        c, h = (jnp.zeros((*input_shape[:-1], size), self.param_dtype) for size in sizes)
        return c, h

    def __call__(
        self, carry: Carry, inputs: Float[Array, "*batch features"]
    ) -> tuple[Carry, Array]:
        """Return the new carry (c⁽ᵗ⁾, h⁽ᵗ⁾) and the output h⁽ᵗ⁾."""
        (c, unprojected), _ = super().__call__(carry, inputs)
        h = self.project(unprojected)
        return (c, h), h


class ResetBeforeGRU(nnx.GRUCell):
    """The GRU as Cho et al. 2014 print it, which resets h before the product:

    g = tanh(W x⁽ᵗ⁾ + b + U (r ⊙ h⁽ᵗ⁻¹⁾)); `reset_after=False` of Keras. The rest is Flax's cell.
    """

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Array, Array]:
        """Return h⁽ᵗ⁾ twice: as the new carry and as the output."""
        r, z, from_x = self.parts(carry, inputs)
        of_candidate = self.dense_h.kernel[...][:, -self.hidden_features :]
        h = (1.0 - z) * self.activation_fn(from_x + (r * carry) @ of_candidate) + z * carry
        return h, h

    def parts(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Array, Array, Array]:
        """Return the gates r and z, and the candidate's part from x."""
        from_x = jnp.split(self.dense_i(inputs), 3, axis=-1)
        from_h = jnp.split(self.dense_h(carry), 3, axis=-1)
        r, z = (self.gate_fn(x + h) for x, h in zip(from_x[:2], from_h, strict=False))
        return r, z, from_x[2]


@gates.register
def _(cell: ProjectedLSTM, carry: Carry, inputs: Array) -> Gates:
    i, f, _, o = jnp.split(cell.dense_i(inputs) + cell.dense_h(carry[1]), 4, axis=-1)
    preactivations = {"input": i, "forget": f, "output": o}
    return {name: cell.gate_fn(value) for name, value in preactivations.items()}


@gates.register
def _(cell: ResetBeforeGRU, carry: Array, inputs: Array) -> Gates:
    r, z, _ = cell.parts(carry, inputs)
    return {"reset": r, "update": z}


def cell_of(
    cell_class: type[nnx.RNNCellBase],
    kernel: Float[Array, "features columns"],
    recurrent_kernel: Float[Array, "m columns"],
    *,
    hidden_features: int,
    bias: Float[Array, "columns"] | None = None,
    recurrent_bias: Float[Array, "columns"] | None = None,
    **options: Any,
) -> Any:
    """Return a cell of Flax's that holds these weights, and computes in their precision.

    Args:
        cell_class: has layers `dense_i` on x and `dense_h` on h.
        kernel, bias: of `dense_i`; a bias that is None is left out.
        recurrent_kernel, recurrent_bias: of `dense_h`.
        hidden_features: n.
        options: of the class.
    """
    cell: Any = cell_class(
        kernel.shape[0],  # type: ignore[call-arg]  # as the classes have it, their base does not
        hidden_features,
        dtype=kernel.dtype,
        param_dtype=kernel.dtype,
        kernel_init=ZEROS,  # drawing an orthogonal matrix takes seconds for a large cell
        recurrent_kernel_init=ZEROS,
        rngs=nnx.Rngs(0),
        **options,
    )
    set_weights(cell.dense_i, kernel, bias)
    set_weights(cell.dense_h, recurrent_kernel, recurrent_bias)
    return cell


def set_weights(
    layer: nnx.Linear, kernel: Float[Array, "rows columns"], bias: Float[Array, "columns"] | None
) -> None:
    """Replace a layer's kernel and bias, in place; None: no bias."""
    layer.kernel = nnx.Param(kernel)
    layer.bias = nnx.data(None) if bias is None else nnx.Param(bias)
    layer.use_bias = bias is not None


def as_array(values: Any) -> Float[Array, "..."]:
    """Return a copy of a tensor or array: float64 if it is that and x64 is on, else float32."""
    if hasattr(values, "detach"):  # a tensor of PyTorch's, which NumPy need not know (bfloat16)
        tensor = values.detach().cpu()
        values = (tensor if str(tensor.dtype) == "torch.float64" else tensor.float()).numpy()
    array = np.asarray(values)
    wide = array.dtype == np.float64
    return jnp.array(array, jax.dtypes.canonicalize_dtype(np.float64 if wide else np.float32))
