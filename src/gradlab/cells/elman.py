"""The simple recurrent network h⁽ᵗ⁾ = φ(W_xh x⁽ᵗ⁾ + W_hh h⁽ᵗ⁻¹⁾ + b), with φ by name."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Activation = Literal["tanh", "relu", "sigmoid", "identity"]
ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}
lecun, orthogonal = nnx.initializers.lecun_normal(), nnx.initializers.orthogonal()


class Elman(nnx.SimpleCell):
    """One layer of Elman 1990; Flax's SimpleCell with its activation by name."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: Activation = "tanh",
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw W_xh and W_hh; b starts at zero.

        Raises:
            ValueError: an activation of another name.
        """
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}."
            )
        super().__init__(
            in_features,
            hidden_features,
            activation_fn=ACTIVATIONS[activation],
            kernel_init=kernel_init,
            recurrent_kernel_init=recurrent_kernel_init,
            rngs=rngs,
        )
        self.activation = activation


class ConcatenatedElman(Elman):
    """The same network with one matrix on [x⁽ᵗ⁾; h⁽ᵗ⁻¹⁾], as many texts write it."""

    def __init__(self, in_features: int, hidden_features: int, **options: Any) -> None:
        """Draw what Elman draws, and put W_xh over W_hh in one kernel (rows: x, then h)."""
        super().__init__(in_features, hidden_features, **options)
        kernels = [self.dense_i.kernel[...], self.dense_h.kernel[...]]
        self.kernel = nnx.Param(jnp.concatenate(kernels))
        self.bias = self.dense_i.bias
        del self.dense_i, self.dense_h

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Array, Array]:
        """One step."""
        both = jnp.concatenate([inputs, carry], axis=-1)
        h = self.activation_fn(both @ self.kernel[...] + self.bias[...])  # type: ignore[index]
        return h, h
