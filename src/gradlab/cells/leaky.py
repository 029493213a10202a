"""The leaky RNN: a continuous-time network in steps of Euler's method."""

from typing import Annotated, Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab.cells.affine import AffineForm, Blocks, affine_form, affine_form_of, two_layers
from gradlab.cells.base import VectorCell, check_name, inherits
from gradlab.cells.biases import takes_no_gate_biases
from gradlab.cells.elman import ACTIVATIONS, Activation, lecun, remove_bias
from gradlab.cells.recurrence import AdjointRule, unroll, unroll_input_first

Leak = Annotated[float, Field(gt=0, le=1)]
Form = Literal["rate", "current"]
gaussian = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")  # N(0, 1/n)


@takes_no_gate_biases
class Leaky(VectorCell):
    """The leaky RNN, with α = Δt/τ, the part of its state that a unit gives up in a step.

        rate:     h⁽ᵗ⁾ = (1 − α) ⊙ h⁽ᵗ⁻¹⁾ + α ⊙ φ(W_x x⁽ᵗ⁾ + W_h h⁽ᵗ⁻¹⁾ + b),   output h⁽ᵗ⁾
        current:  u⁽ᵗ⁾ = (1 − α) ⊙ u⁽ᵗ⁻¹⁾ + α ⊙ (W_x x⁽ᵗ⁾ + W_h φ(u⁽ᵗ⁻¹⁾) + b),   output φ(u⁽ᵗ⁾)

    The state of the rate form is a filtered firing rate: φ stands outside the sum, as in the
    leaky-integrator units of echo-state networks (Jaeger, Lukoševičius, Popovici & Siewert 2007)
    and in equation 2 of Miller & Fumarola 2012. The state of the current form is a potential, or
    input current, and the rate is a function of it: the network of Sompolinsky, Crisanti & Sommers
    1988, of Song, Yang & Wang 2016, and equation 1 of Miller & Fumarola. For one α and a constant
    input they are the same network, u⁽ᵗ⁾ = W_h h⁽ᵗ⁾ + W_x x + b. What measurements call h is the
    carry, so u in the current form; its output is no part of that, which probes of the loss need.

    There is no one published start. W_h ~ N(0, 1/n) is the critical coupling of Sompolinsky et
    al., and α = 0.2 is Δt = τ/5, the default of the code of Song et al. (pycog), which also takes
    φ = relu, no b and a W_h of spectral radius 1.1, or 1.5 with Dale's law. With α = 1,
    the rate form is the Elman network.

    Example:
        >>> from gradlab.cells import Leaky
        >>> leaky = Leaky(3, 4, alpha=[0.01, 1.0], rngs=nnx.Rngs(0))
        >>> print(leaky.alpha().round(2))
        [0.01 0.05 0.22 1.  ]
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        form: Form = "rate",
        alpha: Leak | list[Leak] = 0.2,
        learn_alpha: bool = False,
        activation: Activation = "tanh",
        use_bias: bool = True,
        kernel_init: nnx.Initializer = lecun,
        recurrent_kernel_init: nnx.Initializer = gaussian,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw W_h and W_x, and set b to 0 and α to its start.

        Args:
            in_features: size of x.
            hidden_features: n, the number of units.
            form: "rate" or "current".
            alpha: α = Δt/τ, above 0 and at most 1; or a pair of them, the ends of the range over
                which the units' α are spread, evenly in ln α (and so in the logarithm of τ).
            learn_alpha: whether every unit learns its α = σ(a), from that start; the time constant
                of a leaky unit is learned in Tallec & Ollivier 2018 too.
            activation: φ, one of "tanh", "relu", "sigmoid" (logistic) and "identity".
            use_bias: whether there is b; the weights drawn are the same without it.
            kernel_init: initialiser of W_x.
            recurrent_kernel_init: initialiser of W_h.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: an option has a value that is not allowed, or α = 1 is to be learned.
        """
        self.fixed_alpha = _checked_alpha(alpha, hidden_features)
        check_name("form", form, get_args(Form))
        check_name("activation", activation, ACTIVATIONS)
        if learn_alpha and np.max(self.fixed_alpha) == 1:
            raise ValueError(
                "learn_alpha needs an alpha below 1, which α = σ(a) reaches at no finite a; got "
                f"{alpha}."
            )
        self.in_features, self.hidden_features = in_features, hidden_features
        self.form, self.activation = form, activation
        self.activation_fn = ACTIVATIONS[activation]
        n = hidden_features
        self.dense_h = nnx.Linear(
            n, n, use_bias=False, kernel_init=recurrent_kernel_init, rngs=rngs
        )
        self.dense_i = nnx.Linear(in_features, n, kernel_init=kernel_init, rngs=rngs)
        if not use_bias:
            remove_bias(self.dense_i)
        self.leak = nnx.Param(_logits(self.fixed_alpha, n)) if learn_alpha else None

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
        """Return the new carry, h⁽ᵗ⁾ or u⁽ᵗ⁾, and the output, h⁽ᵗ⁾ or φ(u⁽ᵗ⁾)."""
        return self.advance(carry, self.dense_i(inputs))

    def advance(
        self, carry: Float[Array, "*batch n"], from_x: Float[Array, "*batch n"]
    ) -> tuple[Float[Array, "*batch n"], Float[Array, "*batch n"]]:
        """Return what a step returns, from W_x x⁽ᵗ⁾ + b."""
        alpha = self.alpha(carry.dtype)
        if self.form == "rate":
            h = (1 - alpha) * carry + alpha * self.activation_fn(from_x + self.dense_h(carry))
            return h, h
        u = (1 - alpha) * carry + alpha * (from_x + self.dense_h(self.activation_fn(carry)))
        return u, self.activation_fn(u)

    def alpha(self, dtype: Any = jnp.float32) -> Float[Array, "*n"]:
        """Return α: one number if it is fixed and the same for all units, else one for each.

        Args:
            dtype: type of fixed α; that of learned ones is their parameter's.
        """
        if self.leak is not None:
            return nnx.sigmoid(self.leak[...])
        return jnp.asarray(self.fixed_alpha, dtype)


@affine_form_of(Leaky)
def _(cell: Leaky) -> AffineForm | None:
    """Return the form of rate equations; where α are learned, they are weights of the rule."""
    if not inherits(cell, Leaky, "advance", "alpha") or cell.form != "rate":
        return None
    fixed_alpha, activation = cell.fixed_alpha, cell.activation_fn
    learned = () if cell.leak is None else (cell.alpha(),)

    def rule(blocks: Blocks, h: Array, *weights: Array) -> Array:
        alpha = weights[0] if weights else jnp.asarray(fixed_alpha, h.dtype)
        return (1 - alpha) * h + alpha * activation(blocks[0])

    form = two_layers(cell, 1, rule)
    return form and form._replace(rule_weights=learned)


@unroll.register
def _(
    cell: Leaky,
    carry: Float[Array, "batch n"],
    inputs: Float[Array, "time batch features"],
    on_adjoint: AdjointRule | None = None,
) -> tuple[Array, Array]:
    """Run in affine form; where there is none, take W_x x + b of all steps in one product."""
    if affine_form(cell) is not None:
        return unroll.dispatch(object)(cell, carry, inputs, on_adjoint)
    return unroll_input_first(cell, Leaky, carry, inputs, on_adjoint)


def _checked_alpha(alpha: float | list[float], n: int) -> float | tuple[float, ...]:
    """Return the α of all units, or that of each, if there is a range.

    Raises:
        ValueError: it is neither.
    """
    ends = list(alpha) if isinstance(alpha, list | tuple) else [alpha]
    if len(ends) > 2 or not ends or not all(0 < end <= 1 for end in ends):
        raise ValueError(
            "alpha must be a number above 0 and at most 1, or two of them, between which the units "
            f"are spread; got {alpha}."
        )
    return float(ends[0]) if len(ends) == 1 else tuple(np.geomspace(ends[0], ends[1], n).tolist())


def _logits(alpha: float | tuple[float, ...], n: int) -> Float[Array, "n"]:
    values = np.broadcast_to(np.asarray(alpha, np.float64), n)
    return jnp.asarray(np.log(values) - np.log1p(-values), jnp.float32)
