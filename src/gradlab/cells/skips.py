"""Ways around a layer of a stack: what a layer passes on, besides its own output."""

from flax import nnx
from jaxtyping import Array, Float

Values = Float[Array, "*batch n"]
lecun = nnx.initializers.lecun_normal()
CARRIED = -1.0  # b of a highway at its start


class Residual(nnx.Module):
    """A layer's output added to what it reads, y + x.

    As in He et al. 2016, Identity Mappings in Deep Residual Networks, nothing follows the sum;
    between LSTM layers: Wu et al. 2016.
    """

    def __call__(self, below: Values, output: Values) -> Values:
        """Return what the layer passes on.

        Args:
            below: x, what the layer reads.
            output: y, its own output.
        """
        return output + below


class Highway(nnx.Module):
    """A gate between a layer's output and what it reads, T ⊙ y + (1 − T) ⊙ x, T = σ(W x + b).

    b starts at −1, so that the network begins by passing x on (Srivastava, Greff & Schmidhuber
    2015, Training Very Deep Networks, 2.2). It joins layers at one step; the recurrent highway
    networks of Zilly et al. 2017 have such layers within one cell's step instead.
    """

    def __init__(self, features: int, rngs: nnx.Rngs, kernel_init: nnx.Initializer = lecun) -> None:
        """Draw W of (features, features)."""
        bias = nnx.initializers.constant(CARRIED)
        self.gate = nnx.Linear(
            features, features, kernel_init=kernel_init, bias_init=bias, rngs=rngs
        )

    def __call__(self, below: Values, output: Values) -> Values:
        """Return what the layer passes on, from x and its own output y."""
        share = nnx.sigmoid(self.gate(below))
        return share * output + (1 - share) * below
