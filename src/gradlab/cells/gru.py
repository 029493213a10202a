"""The GRU, with or without biases."""

from flax import nnx

from gradlab.cells.elman import lecun, orthogonal, remove_bias


class GRU(nnx.GRUCell):
    """The gated recurrent unit of Cho et al. 2014: Flax's GRUCell.

        h⁽ᵗ⁾ = (1 − z) ⊙ g + z ⊙ h⁽ᵗ⁻¹⁾,   g = tanh(W x⁽ᵗ⁾ + b + r ⊙ U h⁽ᵗ⁻¹⁾)

    with gates r, z = σ(W x⁽ᵗ⁾ + U h⁽ᵗ⁻¹⁾ + b), each with weights of its own.

    Example:
        >>> from gradlab.cells import GRU
        >>> gru = GRU(3, 8, rngs=nnx.Rngs(0))
        >>> h, output = gru(gru.initialize_carry((3,), nnx.Rngs(0)), jnp.ones(3))
        >>> h.shape
        (8,)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights of Flax's cell.

        Args:
            in_features: size of x.
            hidden_features: n, the size of h.
            use_bias: whether there is b; the weights drawn are the same without it.
            kernel_init: initialiser of the three matrices on x, side by side.
            recurrent_kernel_init: initialiser of the three matrices on h, side by side.
            rngs: random streams that the weights are drawn from.
        """
        super().__init__(
            in_features,
            hidden_features,
            kernel_init=kernel_init,
            recurrent_kernel_init=recurrent_kernel_init,
            rngs=rngs,
        )
        if not use_bias:
            remove_bias(self.dense_i)
