"""Recurrent layers whose matrix is orthogonal and stays so while it trains: expRNN and scoRNN."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.linalg import expm
from jaxtyping import Array, Float, Key
from pydantic import Field

from gradlab.cells.affine import AffineForm, Blocks, affine_form_of, plain_layer
from gradlab.cells.base import VectorCell, check_name
from gradlab.cells.biases import takes_no_gate_biases, uniform_within

Map = Literal["exponential", "cayley"]
Start = Literal["henaff", "cayley"]
Activation = Literal["modrelu", "tanh", "relu"]
Share = Annotated[float, Field(ge=0, le=1)]
Matrix = Float[Array, "n n"]
BIAS_LIMIT = 0.01
he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
orthogonal = nnx.initializers.orthogonal()


def cayley(skew: Matrix) -> Matrix:
    """Return (I + A)⁻¹ (I − A), which is orthogonal and has no eigenvalue −1."""
    identity = jnp.eye(len(skew), dtype=skew.dtype)
    return jnp.linalg.solve(identity + skew, identity - skew)


def modrelu(net: Float[Array, "*batch n"], bias: Float[Array, "n"] | float) -> Array:
    """Return sign(z) relu(|z| + b), of slope 1 where |z| + b > 0 and 0 elsewhere; at z = 0, 0."""
    return jnp.sign(net) * jax.nn.relu(jnp.abs(net) + bias)


# JAX's expm scales a matrix down to an L1 norm of 7.9, where float32 needs 3.9. Its result is
# orthogonal all the same, and right to 1e-5 for rotations by up to 5 rad a step. Training can go
# beyond, where the angles are less exact.
MAPS: Mapping[Map, Callable[[Matrix], Matrix]] = {"exponential": expm, "cayley": cayley}
ACTIVATIONS: Mapping[Activation, Callable[[Array, Any], Array]] = {
    "modrelu": modrelu,
    "tanh": lambda net, bias: jnp.tanh(net + bias),
    "relu": lambda net, bias: jax.nn.relu(net + bias),
}


def henaff_angles(key: Key[Array, ""], pairs: int) -> Float[Array, "pairs"]:
    """Draw s ~ U(−π, π) (Henaff, Szlam & LeCun 2016)."""
    return jax.random.uniform(key, (pairs,), minval=-jnp.pi, maxval=jnp.pi)


def cayley_angles(key: Key[Array, ""], pairs: int) -> Float[Array, "pairs"]:
    """Draw s = −√((1 − cos u)/(1 + cos u)) = −tan(u/2), u ~ U(0, π/2) (Helfrich et al. 2018).

    The Cayley transform of a block with s is a rotation by u.
    """
    return -jnp.tan(jax.random.uniform(key, (pairs,), minval=0.0, maxval=jnp.pi / 2) / 2)


STARTS: Mapping[Start, Callable[..., Array]] = {"henaff": henaff_angles, "cayley": cayley_angles}


@takes_no_gate_biases
class ExpRNN(VectorCell):
    """A layer with an orthogonal recurrent matrix (Lezcano-Casado & Martínez-Rubio 2019).

        h⁽ᵗ⁾ = φ(W h⁽ᵗ⁻¹⁾ + T x⁽ᵗ⁾),   W = exp(A),   A = −Aᵀ

    with φ the modReLU sign(z) relu(|z| + b) and its bias b. Its weights are the n(n − 1)/2 entries
    of A above the diagonal, so that W is a rotation whatever training does. The step Jacobian is
    diag(φ′) W; with the modReLU its singular values are 1 for each unit with |z| + b > 0 and 0
    for the others. At z = 0 exactly, before the first input that is not 0, no gradient passes.

    `map="cayley"` is the scoRNN of Helfrich, Willmott & Ye 2018, W = (I + A)⁻¹ (I − A) D. D is
    diagonal and not trained, with ±1; `negative_share` says how many are −1. Without any, as here
    by default, W has no eigenvalue −1.

    The published start is that of a cell with the default arguments: A has blocks
    [[0, s], [−s, 0]] on its diagonal with s ~ U(−π, π), "henaff", as for copying and speech in the
    authors' code (for digits "cayley"); T is N(0, 2/features), b ~ U(−0.01, 0.01), h⁽⁰⁾ = 0. The
    authors train A at a tenth of the learning rate of the other weights.

    W is computed once for a batch of sequences where `recurrence.unroll` runs the cell, and at
    every step where it runs by its own steps, as it does in bfloat16 and float16, at several times
    the cost.

    Example:
        >>> from gradlab.cells import ExpRNN
        >>> w = ExpRNN(3, 8, rngs=nnx.Rngs(0)).recurrent_matrix()
        >>> float(jnp.abs(w @ w.T - jnp.eye(8)).max()) < 1e-5
        True
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        map: Map = "exponential",
        start: Start = "henaff",
        negative_share: Share = 0.0,
        activation: Activation = "modrelu",
        use_bias: bool = True,
        kernel_init: nnx.Initializer = he_normal,
        recurrent_kernel_init: nnx.Initializer = orthogonal,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw A, T and b.

        Args:
            in_features: size of x.
            hidden_features: n, the size of h, at least 2.
            map: "exponential" or "cayley".
            start: how A is drawn, "henaff" or "cayley".
            negative_share: share of −1 in D, from 0 to 1; the last entries. With "cayley" only.
            activation: φ, "modrelu", or "tanh" or "relu" of z + b.
            use_bias: whether there is b; a modReLU without it is the identity.
            kernel_init: initialiser of T.
            recurrent_kernel_init: not used, since A is skew-symmetric: `start` says how it is
                drawn.
            rngs: random streams that the weights are drawn from.

        Raises:
            ValueError: n is 1, an option has a value that is not allowed, or there is a D with
                "exponential".
        """
        del recurrent_kernel_init
        if hidden_features < 2:
            raise ValueError(f"a rotation needs at least 2 units; got {hidden_features}.")
        check_name("map", map, MAPS)
        check_name("start", start, STARTS)
        check_name("activation", activation, ACTIVATIONS)
        if not 0 <= negative_share <= 1:
            raise ValueError(f"negative_share must be from 0 to 1; got {negative_share}.")
        if negative_share and map != "cayley":
            raise ValueError(
                f"negative_share={negative_share} needs map=cayley: exp(A) has no matrix D."
            )
        self.in_features, self.hidden_features = in_features, hidden_features
        self.map, self.activation = map, activation
        self.negatives = round(negative_share * hidden_features)
        self.dense_i = nnx.Linear(
            in_features, hidden_features, use_bias=False, kernel_init=kernel_init, rngs=rngs
        )
        self.skew = nnx.Param(_drawn_skew(start, rngs.params(), hidden_features))
        self.bias: nnx.Param | None = (
            nnx.Param(uniform_within(BIAS_LIMIT)(rngs.params(), (hidden_features,)))
            if use_bias
            else nnx.data(None)
        )

    def skew_matrix(self) -> Matrix:
        """Return A."""
        upper = jnp.zeros((self.hidden_features, self.hidden_features), self.skew[...].dtype)
        upper = upper.at[np.triu_indices(self.hidden_features, 1)].set(self.skew[...])
        return upper - upper.T

    def recurrent_matrix(self) -> Matrix:
        """Return W, which acts on h from the left."""
        skew = self.skew_matrix()
        # JAX factorises no matrix of half-precision numbers.
        wide = skew.astype(jnp.promote_types(skew.dtype, jnp.float32))
        w = MAPS[self.map](wide).astype(skew.dtype)
        signs = np.repeat([1, -1], [self.hidden_features - self.negatives, self.negatives])
        return w * jnp.asarray(signs, w.dtype) if self.negatives else w

    def __call__(
        self, carry: Float[Array, "*batch n"], inputs: Float[Array, "*batch features"]
    ) -> tuple[Array, Array]:
        """Return h⁽ᵗ⁾ twice: as the new carry and as the output."""
        net = self.dense_i(inputs) + carry @ self.recurrent_matrix().T
        h = ACTIVATIONS[self.activation](net, 0.0 if self.bias is None else self.bias[...])
        return h, h


@affine_form_of(ExpRNN)
def _form(cell: ExpRNN) -> AffineForm | None:
    dense_i, n = plain_layer(cell, "dense_i"), cell.hidden_features
    if dense_i is None or dense_i.bias is not None or dense_i.kernel.shape[1:] != (n,):
        return None
    activation = ACTIVATIONS[cell.activation]
    own = () if cell.bias is None else (cell.bias[...],)

    def rule(blocks: Blocks, h: Array, bias: Array | float = 0.0) -> Array:
        return activation(blocks[0], bias)

    return AffineForm(dense_i.kernel[...], None, cell.recurrent_matrix().T, rule, rule_weights=own)


def _drawn_skew(start: Start, key: Key[Array, ""], n: int) -> Float[Array, "entries"]:
    """Return the entries of A above the diagonal, row by row: blocks of 2 × 2, the others 0."""
    rows, columns = np.triu_indices(n, 1)
    in_blocks = np.flatnonzero((columns == rows + 1) & (rows % 2 == 0))
    drawn = STARTS[start](key, n // 2).astype(jnp.float32)
    return jnp.zeros(len(rows), jnp.float32).at[in_blocks].set(drawn)
