"""The Elman network h⁽ᵗ⁾ = φ(W_xh x⁽ᵗ⁾ + W_hh h⁽ᵗ⁻¹⁾ + b), with φ chosen by name."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gradlab.cells.base import check_name

Activation = Literal["tanh", "relu", "sigmoid", "identity"]
ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}
lecun, orthogonal = nnx.initializers.lecun_normal(), nnx.initializers.orthogonal()


class Elman(nnx.SimpleCell):
    """One layer h⁽ᵗ⁾ = φ(W_xh x⁽ᵗ⁾ + W_hh h⁽ᵗ⁻¹⁾ + b) of Elman 1990: Flax's SimpleCell.

    Example:
        >>> from gradlab.cells import Elman
        >>> relu = Elman(3, 8, activation="relu", rngs=nnx.Rngs(0))
        >>> h, output = relu(relu.initialize_carry((3,), nnx.Rngs(0)), jnp.ones(3))
        >>> h.shape, output is h
        ((8,), True)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: Activation = "tanh",
        use_bias: bool = True,
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw W_xh and W_hh, and set b to 0.

        Args:
            in_features: size of x.
            hidden_features: n, the size of h.
            activation: φ, one of "tanh", "relu", "sigmoid" (logistic) and "identity".
            use_bias: whether there is b; the weights drawn are the same without it.
            kernel_init: initialiser of W_xh.
            recurrent_kernel_init: initialiser of W_hh.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: the activation has another name.
        """
        check_name("activation", activation, ACTIVATIONS)
        super().__init__(
            in_features,
            hidden_features,
            activation_fn=ACTIVATIONS[activation],
            kernel_init=kernel_init,
            recurrent_kernel_init=recurrent_kernel_init,
            rngs=rngs,
        )
        self.activation = activation
        if not use_bias:
            remove_bias(self.dense_i)


class ConcatenatedElman(Elman):
    """The Elman network with one matrix on [x⁽ᵗ⁾; h⁽ᵗ⁻¹⁾], as many texts write it.

    Example:
        >>> from gradlab.cells import ConcatenatedElman, Elman
        >>> one, two = (cls(3, 8, rngs=nnx.Rngs(0)) for cls in (ConcatenatedElman, Elman))
        >>> h = jnp.zeros(8)
        >>> bool(jnp.allclose(one(h, jnp.ones(3))[0], two(h, jnp.ones(3))[0], atol=1e-6))
        True
    """

    def __init__(self, in_features: int, hidden_features: int, **options: Any) -> None:
        """Draw the weights of `Elman`, and stack W_xh and W_hh in one kernel (rows: x, then h).

        Args:
            in_features: size of x.
            hidden_features: n, the size of h.
            options: the others of `Elman`, rngs among them.
        """
        super().__init__(in_features, hidden_features, **options)
        kernels = [self.dense_i.kernel[...], self.dense_h.kernel[...]]
        self.kernel = nnx.Param(jnp.concatenate(kernels))
        self.bias = nnx.data(self.dense_i.bias)
        del self.dense_i, self.dense_h

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Array, Array]:
        """Return h⁽ᵗ⁾ twice: as the new carry and as the output."""
        x_and_h = jnp.concatenate([inputs, carry], axis=-1)
        preactivation = x_and_h @ self.kernel[...]
        if self.bias is not None:
            preactivation += self.bias[...]
        h = self.activation_fn(preactivation)
        return h, h


def remove_bias(layer: nnx.Linear) -> None:
    """Leave a layer's bias out, in place."""
    layer.bias, layer.use_bias = nnx.data(None), False


def elman_activation(cell: Any) -> Activation | None:
    """Return the name of φ if a cell is one layer φ(W_xh x + W_hh h + b); None if it is not.

    A residual cell, or one with its own step, other layers or another φ, is not.
    """
    is_layer = (
        isinstance(cell, nnx.SimpleCell)
        and type(cell).__call__ is nnx.SimpleCell.__call__
        and not cell.residual
        and type(cell.dense_i) is type(cell.dense_h) is nnx.Linear
    )
    for name in get_args(Activation):
        if is_layer and cell.activation_fn is ACTIVATIONS[name]:
            return name
    return None
