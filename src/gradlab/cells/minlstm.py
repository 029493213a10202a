"""The minimal LSTM: forget and input gates that read the input alone and add up to 1."""

import jax
from jaxtyping import Array, Float

from gradlab.cells.biases import takes_gate_biases
from gradlab.cells.input_gated import InputGated


@takes_gate_biases
class MinLSTM(InputGated):
    """The minLSTM of Feng et al. 2024 ("Were RNNs All We Needed?", 3.2.4).

        h⁽ᵗ⁾ = f′ ⊙ h⁽ᵗ⁻¹⁾ + i′ ⊙ h̃,   f′ = f/(f + i),   i′ = i/(f + i)

    with gates f, i = σ(W x⁽ᵗ⁾ + b) and candidate h̃ = g(W x⁽ᵗ⁾ + b), each with weights of its own,
    and g(x) = x + ½ for x ≥ 0, else σ(x), in log space (appendix B, as their experiments and code
    run it); without, g is the identity (appendix A). ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ is exactly diag(f′).

    f′ is at most 1/(1 + i), however far f opens: bias=forget alone, which leaves i near ½, keeps at
    most 2/3 of h a step. bias=chrono, which also closes i to 1 − f, makes f′ = f.

    Weights and biases start from U(−1/√m, 1/√m), m the size of x, as the paper's listings have it
    (PyTorch's Linear). h⁽⁰⁾ is 0 here, and g(0) = ½ in the listing in log space. No weight is on h,
    so the recurrent initialiser (`init`) has nothing to draw. The gates that are measured are f′
    and i′.

    Example:
        >>> from gradlab.cells import MinLSTM
        >>> minlstm = MinLSTM(3, 8, rngs=nnx.Rngs(0))
        >>> h, output = minlstm(minlstm.initialize_carry((3,)), jnp.ones(3))
        >>> h.shape
        (8,)
    """

    blocks = ("forget", "input", "candidate")

    def forget_logit(self, *gates: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """Return ln f − ln i: f/(f + i) is its σ, also where both gates are 0 to rounding."""
        forget, write = gates
        return jax.nn.log_sigmoid(forget) - jax.nn.log_sigmoid(write)
