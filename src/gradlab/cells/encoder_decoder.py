"""Two cells that share one state: an encoder that reads a sequence, a decoder that answers."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PyTree


class EncoderDecoder(nnx.RNNCellBase):
    """The encoder-decoder of Cho et al. 2014 and Sutskever et al. 2014 seen as one cell.

    The last input feature is 0 where the encoder acts and 1 where the decoder does; neither is
    shown it. Both act on the one carry, so ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ reaches across from decoder to encoder.
    """

    def __init__(self, encoder: nnx.RNNCellBase, decoder: nnx.RNNCellBase) -> None:
        """Join two cells whose carries and outputs have one form."""
        self.encoder = encoder
        self.decoder = decoder

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> PyTree:
        """The encoder's own initial carry."""
        return self.encoder.initialize_carry((*input_shape[:-1], input_shape[-1] - 1), rngs)

    def __call__(
        self, carry: PyTree, inputs: Float[Array, "*batch features"]
    ) -> tuple[PyTree, Array]:
        """One step of the cell that the flag picks."""
        encoded, decoded = (cell(carry, inputs[..., :-1]) for cell in (self.encoder, self.decoder))
        return jax.tree.map(partial(jnp.where, decoding(inputs)), decoded, encoded)

    @property
    def num_feature_axes(self) -> int:
        """Axes of one input that are features, as of Flax's own cells."""
        return 1


def decoding(inputs: Float[Array, "*batch features"]) -> Bool[Array, "*batch 1"]:
    """Whether the decoder acts."""
    return inputs[..., -1:] > 0.5
