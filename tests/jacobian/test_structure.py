"""What a function's results depend on is read off its operations, never too little of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab.jacobian.closure import closure_convert
from gradlab.jacobian.structure import Moving, dependence

N = 6
RNG = np.random.default_rng(0)
MATRIX, GIVEN = RNG.normal(size=(2, N, N)).astype(np.float32)
LOWER = np.tril(MATRIX).astype(np.float32)
BATCH = RNG.normal(size=(2, 3, 3)).astype(np.float32)

# Functions of a vector and of arrays that are only known by their shapes; what is found is exact.
EXACT: dict[str, Any] = {
    "elementwise": lambda v, w, m: jnp.tanh(v) * w + jnp.exp(-v) / (1 + w**2),
    "by one element": lambda v, w, m: v[2] * w + v,
    "by rows": lambda v, w, m: (w[:2, None] * v.reshape(2, 3) + v[:2, None]).ravel(),
    "moved": lambda v, w, m: jnp.roll(v.reshape(2, 3).T[::-1].reshape(-1), 1),
    "split": lambda v, w, m: jnp.concatenate([x * v[i] for i, x in enumerate(jnp.split(v, 3))]),
    "repeated": lambda v, w, m: jnp.tile(v[:3], 2) * jnp.stack([*v.reshape(3, 2).T]).reshape(N),
    "padded": lambda v, w, m: jnp.pad(v, (1, 2))[:N] + jax.lax.pad(v, 0.0, [(-1, 1, 0)]),
    "spread out": lambda v, w, m: jax.lax.pad(v[:3], w[0], [(0, 1, 1)]),
    "triangular": lambda v, w, m: LOWER @ v,
    "triangular from the right": lambda v, w, m: v @ (2 * LOWER.T),
    "masked": lambda v, w, m: (m * (MATRIX > 0.5)) @ v,
    "masked after": lambda v, w, m: (w > 0) * (m @ v) * np.eye(N, dtype=np.float32)[2],
    "unknown matrix": lambda v, w, m: jnp.concatenate([m[:1] @ v, v[1:]]),
    "batch of matrices": lambda v, w, m: jnp.einsum("bij,bj->bi", BATCH, v.reshape(2, 3)).ravel(),
    "outer": lambda v, w, m: jnp.einsum("i,j->ij", v[:2], v[3:]).ravel(),
    "both sides": lambda v, w, m: (v.reshape(2, 3) @ v.reshape(3, 2)).ravel(),
    "sums": lambda v, w, m: jnp.stack([v[:2].sum(), v[2:].max(), v.reshape(3, 2).prod(1)[1]]),
    "condition": lambda v, w, m: jax.lax.cond(w[0] > 0, lambda v: v, lambda v: v[::-1], v),
    "chosen": lambda v, w, m: jnp.where(w > 0, v, v[::-1]),
    "switched by itself": lambda v, w, m: jax.nn.relu(v) + w * (v > v.mean()),
    "complex": lambda v, w, m: jnp.imag((v[:3] + 1j * v[3:]) * jnp.exp(1j * w[:3])),
    "called": lambda v, w, m: jax.checkpoint(jax.jit(lambda v: LOWER @ v))(v),
    "stopped": lambda v, w, m: v + jax.lax.stop_gradient(MATRIX @ v),
    "nothing": lambda v, w, m: w * 2,
    "integers": lambda v, w, m: w[jnp.argsort(v)],
}
# For these, more is found than there is.
MORE: dict[str, Any] = {
    "sorted": lambda v, w, m: jnp.sort(v),
    "looped": lambda v, w, m: jax.lax.scan(lambda c, x: (c + x, c), 0.0, v)[1],
    "accumulated": lambda v, w, m: jnp.cumsum(v),
    "placed": lambda v, w, m: v.at[2].set(w[0]),
    "gathered": lambda v, w, m: v[np.array([3, 1, 2])],
    "convolved": lambda v, w, m: jnp.convolve(v, w[:3], mode="same"),
    "softmax": lambda v, w, m: nnx.softmax(v),
    "inverted": lambda v, w, m: jnp.linalg.solve(m + 9 * jnp.eye(N), v),
}


def found(function: Any) -> np.ndarray:
    like = jax.ShapeDtypeStruct((N,), np.float32), jax.ShapeDtypeStruct((N, N), np.float32)
    closure = closure_convert(lambda *a: (function(*a), 1), np.zeros(N, np.float32), *like)
    return dependence(closure, Moving(N), *like)


def seen(function: Any) -> np.ndarray:
    """Return which derivatives are not zero at one of a few random points."""
    points = RNG.normal(size=(40, N)).astype(np.float32)
    weights = RNG.normal(size=(40, N)).astype(np.float32)
    jacobian = jax.jit(jax.vmap(jax.jacobian(function), (0, 0, None)))
    return np.asarray(jacobian(points, weights, GIVEN) != 0).any(axis=0)


@pytest.mark.parametrize("name", EXACT)
def test_what_a_function_depends_on_is_found(name: str) -> None:
    np.testing.assert_array_equal(found(EXACT[name]), seen(EXACT[name]))


@pytest.mark.parametrize("name", MORE)
def test_what_is_not_known_is_taken_to_depend_on_all(name: str) -> None:
    depends = found(MORE[name])
    assert depends.all()
    assert (depends >= seen(MORE[name])).all()


def test_a_matrix_with_few_zeros_counts_as_whole_and_with_many_as_it_is() -> None:
    nonzero = np.ones((30, N), bool)
    nonzero[0, 0] = nonzero[:10, 1] = False
    depends = dependence(closure_convert(lambda v: nonzero.T * 1.0 @ v, np.zeros(30)), Moving(30))
    np.testing.assert_array_equal(depends[0], np.ones(30))
    np.testing.assert_array_equal(depends[1:], nonzero.T[1:])
