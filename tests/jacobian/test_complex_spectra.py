"""Exponents and singular values of steps of complex numbers, and which steps are holomorphic."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from complex_steps import (
    LAMBDA,
    LRU,
    MIXED,
    RADII,
    X,
    drawn,
    mixed,
    mixed_products,
    real_map,
)
from jax import Array

import gradlab
from gradlab.jacobian import step_jacobians
from gradlab.jacobian.flat_cell import flatten_cell


def unitary(n: int) -> np.ndarray:
    return np.linalg.qr(drawn(n, n, seed=5).astype(complex))[0]


def linear(matrix: np.ndarray) -> Callable[[Array, Array], tuple[Array, Array]]:
    constant = jnp.asarray(matrix, jnp.complex64)
    return lambda z, x: (constant @ z, x)


def test_exponents_of_a_holomorphic_step_are_the_logs_of_its_eigenvalues() -> None:
    u = unitary(3)
    inputs, carry = jnp.zeros((1000, 1)), jnp.zeros(3, jnp.complex64)
    for step in (linear(u * LAMBDA @ u.conj().T), linear(np.diag(LAMBDA))):
        exponents, error = gradlab.lyapunov_spectrum(step, inputs, initial_carry=carry)
        np.testing.assert_allclose(exponents, np.log(RADII), atol=5e-3)
        assert error.shape == (3,)
    largest = gradlab.lyapunov_exponents(step, inputs, initial_carry=carry, count=1)
    np.testing.assert_allclose(largest, np.log(0.9), atol=5e-3)
    with pytest.raises(ValueError, match="from 1 to the size of the carry, 3; got 4"):
        gradlab.lyapunov_exponents(step, inputs, initial_carry=carry, count=4)
    exponents = gradlab.lyapunov_exponents(LRU(), inputs[:, [0, 0]])
    np.testing.assert_allclose(exponents, np.log(RADII), atol=5e-3)


def test_exponents_of_a_step_that_is_not_holomorphic_are_those_of_its_real_numbers() -> None:
    """z ← (a Re z, b Im z) has ln a and ln b; a conjugate in the step has each twice."""
    inputs, carry = jnp.zeros((1000, 1)), jnp.ones(1, jnp.complex64)
    stretched = lambda z, x: (0.9 * z.real + 0.3j * z.imag, x)  # noqa: E731
    exponents = gradlab.lyapunov_exponents(stretched, inputs, initial_carry=carry)
    np.testing.assert_allclose(exponents, np.log([0.9, 0.3]), atol=5e-3)
    conjugated = lambda z, x: (0.5j * z.conj(), x)  # noqa: E731
    exponents = gradlab.lyapunov_exponents(conjugated, inputs, initial_carry=carry)
    np.testing.assert_allclose(exponents, np.log([0.5, 0.5]), atol=5e-3)
    exponents = gradlab.lyapunov_exponents(mixed, X, initial_carry=MIXED)
    determinants = np.linalg.slogdet(np.asarray(step_jacobians(mixed, X, initial_carry=MIXED)))[1]
    assert exponents.shape == (8,)
    assert float(exponents.sum()) == pytest.approx(determinants.mean(), rel=1e-5)


def test_singular_values_of_all_sizes() -> None:
    """Those of a normal matrix are the powers of |λ|: here down to e⁻³⁰⁰ of the largest."""
    u, pairs = unitary(3), [(200, 0), (200, 150), (7, 7)]
    inputs, carry = jnp.zeros((200, 1)), jnp.zeros(3, jnp.complex64)
    measured = gradlab.log_singular_values(
        linear(np.diag(LAMBDA)), inputs, pairs, initial_carry=carry
    )
    expected = np.outer([200, 50, 0], np.log(RADII))
    np.testing.assert_allclose(measured, expected, rtol=1e-6, atol=1e-6)
    matrix = (u * LAMBDA @ u.conj().T).astype(np.complex64)
    measured = gradlab.log_singular_values(linear(matrix), inputs, pairs, initial_carry=carry)
    np.testing.assert_allclose(measured, expected, atol=2e-4)  # its entries are rounded
    matrix = drawn(3, 3, seed=2)
    (measured,) = gradlab.log_singular_values(
        linear(matrix), inputs, [(200, 60)], initial_carry=carry
    )
    with mpmath.workdps(200):
        power = mpmath.matrix(matrix.astype(complex).tolist()) ** 140
        values = mpmath.svd_c(power, compute_uv=False)
        expected = [float(mpmath.log(value)) for value in values]
    assert expected[0] - expected[2] > 100
    np.testing.assert_allclose(measured, expected, rtol=1e-6)


def test_singular_values_of_blocks_and_of_steps_that_are_not_holomorphic() -> None:
    product = mixed_products(3)[3]
    for of, wrt in ((None, None), ("z", "z"), ("h", "z"), ("z", None)):
        (measured,) = gradlab.log_singular_values(
            mixed, X, [(3, 0)], initial_carry=MIXED, of=of, wrt=wrt
        )
        expected = np.linalg.svd(real_map(product, of, wrt), compute_uv=False)
        np.testing.assert_allclose(measured, np.log(expected), atol=1e-5)
    matrix = drawn(5, 5, seed=4)
    split = lambda s, x: (dict(zip("ab", jnp.split(matrix @ jnp.concatenate(  # noqa: E731
        [s["a"], s["b"]]), [2]), strict=True)), x)  # fmt: skip
    carry = {"a": jnp.zeros(2, jnp.complex64), "b": jnp.zeros(3, jnp.complex64)}
    (measured,) = gradlab.log_singular_values(
        split, X, [(2, 0)], initial_carry=carry, of="a", wrt="b"
    )
    expected = np.linalg.svd((matrix.astype(complex) @ matrix)[:2, 2:], compute_uv=False)
    np.testing.assert_allclose(measured, np.log(expected), atol=1e-5)


# Each is what remains of a complex-linear derivative, or what breaks it.
MAPS: dict[str, Callable[[Array], Array]] = {
    "mul": lambda z: (0.5 + 1j) * z + 1,
    "matrix": lambda z: jnp.asarray(drawn(4, 4)) @ z,
    "tanh": jnp.tanh,
    "powers": lambda z: z**3 + z**2.5 + jnp.exp(z) / (1 + jnp.sqrt(z)),
    "fft": lambda z: jnp.fft.ifft(jnp.exp(1j * jnp.arange(4.0)) * jnp.fft.fft(z)),
    "chosen": lambda z: jnp.where(jnp.abs(z) > 0.5, z, 2j * z),
    "branches": lambda z: jax.lax.cond(z[0].real > 0, lambda z: z, lambda z: 2j * z, z),
    "scan": lambda z: jax.lax.scan(lambda c, u: (c * u + 1, c), z[0], z)[1],
    "nested": lambda z: jax.vmap(jax.jit(jax.checkpoint(lambda u: jnp.sin(u) * u)))(z),
    "moved": lambda z: jnp.roll(z[::-1], 1).at[0].set(z[2])[jnp.array([3, 0, 1, 2])],
    "scaled by a constant modulus": lambda z: jax.lax.stop_gradient(jnp.abs(z)) * z,
    "triangular solve": lambda z: jax.scipy.linalg.solve_triangular(2 * jnp.eye(4), z),
    "conjugate": jnp.conj,
    "real": lambda z: z.real + 0j,
    "imaginary": lambda z: 1j * z.imag + z,
    "modulus": lambda z: jnp.abs(z) * z,
    "modReLU": lambda z: z * jax.nn.relu(jnp.abs(z) - 0.1) / jnp.abs(z),
    "split tanh": lambda z: jnp.tanh(z.real) + 1j * jnp.tanh(z.imag),
    "normalised": lambda z: z / jnp.linalg.norm(z),
    "scan of conjugates": lambda z: jax.lax.scan(
        lambda c, u: ((c[1], jnp.conj(u)), c[0]), (z[0], z[1]), z
    )[1],
    "one branch": lambda z: jax.lax.cond(z[0].real > 0, jnp.conj, lambda z: z, z),
    "real inverse FFT": lambda z: jnp.fft.irfft(z[:3]) + 0j,
}


def test_holomorphic_steps_are_told_from_others() -> None:
    """By the Cauchy–Riemann equations at a point."""
    z = jnp.asarray(drawn(4, seed=1)) + 1
    for name, step in MAPS.items():
        flat = flatten_cell(lambda z, x, step=step: (step(z), x), X, z)
        v = jnp.concatenate([z.real, z.imag])
        jacobian = np.asarray(
            jax.jacfwd(
                lambda v, f=step: jnp.stack([*_parts(f(jax.lax.complex(*jnp.split(v, 2))))])
            )(v)
        ).reshape(2, 4, 2, 4)
        satisfies = np.allclose(jacobian[0, :, 0], jacobian[1, :, 1], atol=1e-5) and np.allclose(
            jacobian[0, :, 1], -jacobian[1, :, 0], atol=1e-5
        )
        assert flat.is_holomorphic == satisfies, name
    # What cannot be known from the operations alone counts as real numbers.
    rewritten = lambda z, x: (jax.lax.complex(z.real, z.imag), x)  # noqa: E731
    assert not flatten_cell(rewritten, X, z).is_holomorphic
    assert not flatten_cell(mixed, X, MIXED).is_holomorphic


def _parts(z: Array) -> tuple[Array, Array]:
    return z.real, z.imag
