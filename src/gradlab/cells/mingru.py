"""The minimal GRU: an update gate that reads the input alone."""

from jaxtyping import Array, Float

from gradlab.cells.biases import takes_gate_biases
from gradlab.cells.input_gated import InputGated


@takes_gate_biases
class MinGRU(InputGated):
    """The minGRU of Feng et al. 2024 ("Were RNNs All We Needed?", 3.1.3).

        h⁽ᵗ⁾ = (1 − z) ⊙ h⁽ᵗ⁻¹⁾ + z ⊙ h̃,   z = σ(W_z x⁽ᵗ⁾ + b_z),   h̃ = g(W_h x⁽ᵗ⁾ + b_h)

    with g(x) = x + ½ for x ≥ 0, else σ(x), in log space (appendix B, as their experiments and code
    run it); without, g is the identity (appendix A). ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ is exactly diag(1 − z).

    The weights are those of the forget gate f = 1 − z, (−W_z, −b_z), so that a bias rule opens it
    as it does an LSTM's. Weights and biases start from U(−1/√m, 1/√m), m the size of x, as the
    paper's listings have it (PyTorch's Linear). h⁽⁰⁾ is 0 here, and g(0) = ½ in the listing in
    log space. No weight is on h, so the recurrent initialiser (`init`) has nothing to draw.

    Example:
        >>> from gradlab.cells import MinGRU
        >>> mingru = MinGRU(3, 8, rngs=nnx.Rngs(0))
        >>> h, output = mingru(mingru.initialize_carry((3,)), jnp.ones(3))
        >>> h.shape
        (8,)
    """

    blocks = ("forget", "candidate")

    def forget_logit(self, *gates: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """Return the net input of f = 1 − z."""
        (forget,) = gates
        return forget
