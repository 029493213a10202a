"""Steps of complex numbers, and what their products are."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

T = 6
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(T, 2)), jnp.float32)
LAMBDA = np.array([0.9 * np.exp(0.3j), 0.5 * np.exp(1j), 0.2j])
RADII = np.abs(LAMBDA)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    """Return complex numbers in which both parts are normal, in single precision."""
    parts = np.random.default_rng(seed).normal(size=(2, *shape)) / np.sqrt(2 * shape[-1])
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


class LRU(nnx.RNNCellBase):
    """A linear recurrent unit (Orvieto et al. 2023), turned: z ← i (λ z + B x), y = Re(C z)."""

    def __init__(self) -> None:
        self.log_decay = nnx.Param(jnp.asarray(np.log(-np.log(RADII)), jnp.float32))
        self.phase = nnx.Param(jnp.asarray(np.angle(LAMBDA), jnp.float32))
        self.b, self.c = (nnx.Param(jnp.asarray(drawn(*s))) for s in ((3, 2), (2, 3)))
        dtype = jnp.complex64
        self.turn = nnx.Linear(3, 3, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
        self.turn.kernel[...] = 1j * jnp.eye(3)

    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        eigenvalues = jnp.exp(-jnp.exp(self.log_decay[...]) + 1j * self.phase[...])
        carry = self.turn(eigenvalues * carry + self.b[...] @ inputs)
        return carry, (self.c[...] @ carry).real

    def initialize_carry(self, *_: Any, **__: Any) -> Array:
        return jnp.zeros(3, jnp.complex64)


def diagonal(z: Array, x: Array) -> tuple[Array, Array]:
    return jnp.asarray(LAMBDA, jnp.complex64) * z + x[0], z.real


# A real h beside a complex z, which is also conjugated, and a counter between them:
# h ← W h + Re(C z),  z ← A z + B z̄ + D h.
W = 0.6 * np.eye(2)
A, B, C, D = (
    0.8 * drawn(*shape, seed=seed)
    for seed, shape in enumerate([(3, 3), (3, 3), (2, 3), (3, 2)], start=1)
)
MIXED = {"h": jnp.zeros(2), "n": jnp.array(0), "z": jnp.zeros(3, jnp.complex64)}


def mixed(carry: Any, x: Array) -> tuple[Any, Array]:
    h, z = carry["h"], carry["z"]
    after = W.astype(np.float32) @ h + (C @ z).real + x
    return {"h": after, "n": carry["n"] + 1, "z": A @ z + B @ z.conj() + D @ h}, h


def mixed_products(steps: int) -> list[dict[str, np.ndarray]]:
    """Return δh = S δh₀ + Re(U δz₀) and δz = P δz₀ + Q δz̄₀ + R δh₀ after each step."""
    p, q, r = np.eye(3, dtype=complex), np.zeros((3, 3), complex), np.zeros((3, 2), complex)
    s, u = np.eye(2), np.zeros((2, 3), complex)
    found = [{"S": s, "U": u, "P": p, "Q": q, "R": r}]
    for _ in range(steps):
        s, u, p, q, r = (
            W @ s + (C @ r).real,
            W @ u + C @ p + (C @ q).conj(),
            A @ p + B @ q.conj() + D @ u / 2,
            A @ q + B @ p.conj() + D @ u.conj() / 2,
            A @ r + B @ r.conj() + D @ s,
        )
        found.append({"S": s, "U": u, "P": p, "Q": q, "R": r})
    return found


def real_map(m: dict[str, np.ndarray], of: str | None, wrt: str | None) -> np.ndarray:
    """Return the matrix from (Re, Im) of `wrt` to (Re, Im) of `of`."""
    to_real = np.hstack([m["P"] + m["Q"], 1j * (m["P"] - m["Q"])])
    zz, zh = (np.vstack([x.real, x.imag]) for x in (to_real, m["R"]))
    hz = np.hstack([m["U"].real, -m["U"].imag])
    rows = {"h": {"h": m["S"], "z": hz}, "z": {"h": zh, "z": zz}}
    columns = [wrt] if wrt else ["h", "z"]
    return np.vstack([np.hstack([rows[i][j] for j in columns]) for i in ([of] if of else "hz")])
