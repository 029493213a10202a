"""Products of a step Jacobian with vectors, J v and uᵀ J, which cost a few steps and never form J.

A state of n numbers has a step Jacobian of n² numbers, more than memory holds for wide networks;
its products with a few vectors take as many times the memory and the time of a step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, PyTree

from gradlab.jacobian.carry import FlatState
from gradlab.jacobian.closure import Closure, closure_convert
from gradlab.jacobian.flat_cell import FlatCell
from gradlab.jacobian.products import exceeds_rounding

PROBES = 2  # random vectors by which the size of a step Jacobian is estimated


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Directions:
    """The derivative of a cell's step along vectors, in the cell's own precision.

    Attributes:
        forward: J v from (parameters, s⁽ᵗ⁻¹⁾, x⁽ᵗ⁾, v).
        backward: uᵀ J from (parameters, s⁽ᵗ⁻¹⁾, x⁽ᵗ⁾, u); None if it is not needed.
    """

    forward: Closure
    backward: Closure | None

    def push(
        self, flat: FlatCell, state: FlatState, x: Array, rows: Float[Array, "*rows n"]
    ) -> Float[Array, "*rows n"]:
        """Return J v for every row v."""
        return _each_row(self.forward, flat, state, x, rows)

    def pull(
        self, flat: FlatCell, state: FlatState, x: Array, rows: Float[Array, "*rows n"]
    ) -> Float[Array, "*rows n"]:
        """Return uᵀ J for every row u."""
        assert self.backward is not None  # asked for where these were made
        return _each_row(self.backward, flat, state, x, rows)


def directions_of(
    flat: FlatCell, inputs: Float[Array, "*batch T features"], *, backward: bool = False
) -> Directions:
    """Return the derivative of a cell's step along vectors.

    Args:
        flat: the cell, as `flatten_cell` has just made it: JAX's compiled functions do not tell
            cells apart by their custom derivatives, which are applied here.
        inputs: those of the measurement.
        backward: whether uᵀ J is needed too.

    Raises:
        ValueError: the step has no derivative in reverse mode, and `backward` asks for it.
    """
    state = flat.example
    x = jax.ShapeDtypeStruct(inputs.shape[-1:], inputs.dtype)
    vector = jax.ShapeDtypeStruct(state.vector.shape, state.vector.dtype)

    def step_from(parameters: PyTree, state: FlatState, x: Array) -> Callable[[Array], Array]:
        return lambda vector: flat.advance(parameters, state._replace(vector=vector), x).vector

    def forward(parameters: PyTree, state: FlatState, x: Array, v: Array) -> Array:
        return _push(step_from(parameters, state, x), state.vector, v)

    def pull_back(parameters: PyTree, state: FlatState, x: Array, u: Array) -> Array:
        (row,) = jax.vjp(step_from(parameters, state, x), state.vector)[1](u)
        return row

    examples = (flat.parameters, state, x, vector)
    try:
        pulled = closure_convert(pull_back, *examples) if backward else None
    except ValueError as error:
        if "Reverse-mode" not in str(error):
            raise
        raise ValueError(
            "this measurement needs the step's derivative in reverse mode, which a "
            "jax.lax.while_loop, or a fori_loop whose length is not fixed, does not have: use "
            "jax.lax.scan in the cell, or jacobian_log_norms with norm='rms'."
        ) from error
    return Directions(closure_convert(forward, *examples), pulled)


def _push(step: Callable[[Array], Array], vector: Array, v: Array) -> Array:
    """Return J v in forward mode; by reverse mode twice if a jax.custom_vjp allows no other.

    u ↦ uᵀ J is linear, so that its own derivative in reverse mode is v ↦ J v.
    """
    try:  # of a batch, for of one vector JAX says only later that a rule is missing
        return jax.vmap(lambda v: jax.jvp(step, (vector,), (v,))[1])(v[None])[0]
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        pull = jax.vjp(step, vector)[1]
        return jax.vjp(lambda u: pull(u)[0], jnp.zeros_like(v))[1](v)[0]


def _each_row(
    product: Closure, flat: FlatCell, state: FlatState, x: Array, rows: Float[Array, "*rows n"]
) -> Float[Array, "*rows n"]:
    flat_rows = rows.reshape(-1, rows.shape[-1])
    together = jax.vmap(product, in_axes=(None, None, None, 0))
    products = together(flat.parameters, state, x, flat_rows).reshape(rows.shape)
    return jnp.where(flat.stays_finite(state, x), products, jnp.nan)


def stretch_along(
    flat: FlatCell,
    directions: Directions,
    state: FlatState,
    x: Array,
    frame: Float[Array, "n count"],
) -> tuple[Float[Array, "n count"], Float[Array, "count count"], Bool[Array, "count"], Array]:
    """Return Q and R of J · frame = Q R, whether rounding left some of each |Rᵢᵢ|, and J's size.

    As `steps.stretch`, without J. What cancels in the sums of J · frame leaves the rounding errors
    of the cell's own precision ε, at most ε‖J‖_F.
    """
    n, count = frame.shape
    rows = jnp.concatenate([frame.T, _probes(frame)]).astype(state.vector.dtype)
    images = directions.push(flat, state, x, rows).astype(frame.dtype)
    q, triangle = jnp.linalg.qr(images[:count].T)
    size = _size(images[count:])
    diagonal = jnp.abs(jnp.diagonal(triangle))
    return q, triangle, exceeds_rounding(diagonal, size, rows.dtype, n), size


def sizes_along(
    flat: FlatCell, directions: Directions, states: FlatState, inputs: Float[Array, "T features"]
) -> Float[Array, "T"]:
    """Return an estimate of every ‖J⁽ᵗ⁾‖_F; it is finite where all of J⁽ᵗ⁾ is."""

    def size(step: tuple[FlatState, Array]) -> Float[Array, ""]:
        state, x = step
        rows = _probes(state.vector).astype(state.vector.dtype)
        return _size(directions.push(flat, state, x, rows).astype(jnp.float64))

    return jax.lax.map(size, (states, inputs))


def _probes(like: Float[Array, "n *columns"]) -> Float[Array, "probes n"]:
    """Return a few random vectors w, the same at every call, for which E‖J w‖² = ‖J‖²_F."""
    return jnp.asarray(np.random.default_rng(0).standard_normal((PROBES, like.shape[0])))


def _size(images: Float[Array, "probes n"]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.mean(jnp.sum(jax.lax.stop_gradient(images) ** 2, axis=1)))
