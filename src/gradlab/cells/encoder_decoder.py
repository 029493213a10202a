"""An encoder that reads a sequence and a decoder that answers it, as one recurrent cell."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PyTree

from gradlab.cells.gating import Gates, gates


class EncoderDecoder(nnx.RNNCellBase):
    """The encoder-decoder of Cho et al. 2014 and Sutskever et al. 2014 as one cell.

    The last input feature selects the cell that acts at a step: 0 the encoder, 1 the decoder. The
    cells themselves do not receive it. They share one carry, so ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ reaches from the
    decoder back to the encoder.

    Example:
        >>> from gradlab.cells import EncoderDecoder
        >>> both = EncoderDecoder(cell, nnx.SimpleCell(3, 8, rngs=nnx.Rngs(1)))
        >>> flag = jnp.concatenate([jnp.zeros((4, 10, 1)), jnp.ones((4, 10, 1))], axis=1)
        >>> gradlab.jacobian_log_norms(both, jnp.concatenate([x, flag], axis=-1)).shape
        (4, 21, 21)
    """

    def __init__(self, encoder: nnx.RNNCellBase, decoder: nnx.RNNCellBase) -> None:
        """Join two cells whose carries and outputs have the same shapes.

        Args:
            encoder: acts where the flag is 0.
            decoder: acts where the flag is 1.
        """
        self.encoder = encoder
        self.decoder = decoder

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Any = None,
    ) -> PyTree:
        """Return the encoder's initial carry."""
        return self.encoder.initialize_carry((*input_shape[:-1], input_shape[-1] - 1), rngs)

    def __call__(
        self, carry: PyTree, inputs: Float[Array, "*batch features"]
    ) -> tuple[PyTree, Array]:
        """Return the new carry and the output of the cell that the flag selects."""
        encoded, decoded = (cell(carry, inputs[..., :-1]) for cell in (self.encoder, self.decoder))
        return jax.tree.map(partial(jnp.where, decoding(inputs)), decoded, encoded)

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of one input, as Flax's cells define it."""
        return 1


def decoding(inputs: Float[Array, "*batch features"]) -> Bool[Array, "*batch 1"]:
    """Return whether the decoder acts, by the last input feature."""
    return inputs[..., -1:] > 0.5


@gates.register
def _(cell: EncoderDecoder, carry: PyTree, inputs: Array) -> Gates:
    """Return the gates of the cell that acts."""
    encoder, decoder = (
        gates(half, carry, inputs[..., :-1]) for half in (cell.encoder, cell.decoder)
    )
    return {name: jnp.where(decoding(inputs), decoder[name], encoder[name]) for name in encoder}
