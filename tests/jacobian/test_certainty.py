"""Certificates, very small singular values and numbers that are not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flax import nnx

from gradlab import jacobian_log_norms, log_singular_values, lyapunov_spectrum

FEATURES, HIDDEN, LENGTH = 3, 8, 37
INPUTS = np.random.default_rng(1).normal(size=(LENGTH, FEATURES)).astype(np.float32)


def cell(gain: float, kind: Any = nnx.SimpleCell) -> nnx.RNNCellBase:
    kernel = jax.nn.initializers.normal(gain / np.sqrt(HIDDEN))
    return kind(FEATURES, HIDDEN, recurrent_kernel_init=kernel, rngs=nnx.Rngs(0))


def test_a_correct_map_has_a_certificate_with_small_errors() -> None:
    log_norms, certificate = jacobian_log_norms(cell(1.5), INPUTS, norm="frobenius", certify=True)
    plain = jacobian_log_norms(cell(1.5), INPUTS, norm="frobenius")
    np.testing.assert_array_equal(log_norms, plain)
    assert certificate.largest_error < 1e-4
    assert certificate.difference_error < 1e-5
    assert not certificate.unresolved.any()
    assert certificate.pairs.shape == (len(certificate.relative_error), 2)


def test_a_certificate_reveals_a_wrong_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradlab.jacobian import pairs

    with_diagonal = pairs._with_diagonal
    monkeypatch.setattr(pairs, "_with_diagonal", lambda *args: with_diagonal(*args) * 1.01)
    inputs = INPUTS[:36]  # a length that no other test compiles
    _, certificate = jacobian_log_norms(cell(0.5), inputs, norm="frobenius", certify=True)
    assert certificate.largest_error > 1e-2


def test_zeros_of_saturated_units_are_unresolved() -> None:
    """At gain 90, 1 − tanh² rounds to 0 in float32, where it is 1e-9 and smaller."""
    log_norms, certificate = jacobian_log_norms(cell(90.0), INPUTS, norm="frobenius", certify=True)
    lower = np.tril_indices(LENGTH + 1, -1)
    zero = np.isneginf(np.asarray(log_norms)[lower])
    assert zero.any()
    assert np.asarray(certificate.unresolved)[lower][zero].all()
    assert certificate.largest_error < 1e-2  # of resolved entries


def test_exact_zeros_are_resolved() -> None:
    def shift(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.concatenate([jnp.zeros(1, h.dtype), h[:-1]]) + 0 * x.sum(), h

    log_norms, certificate = jacobian_log_norms(
        shift, INPUTS, initial_carry=jnp.zeros(HIDDEN), norm="frobenius", certify=True
    )
    assert np.isneginf(log_norms[-1, 0])
    assert certificate.largest_error < 1e-6
    assert not certificate.unresolved.any()


@pytest.mark.parametrize("gain", [0.3, 1.5])
def test_singular_values_are_right_below_the_range_of_floats(gain: float) -> None:
    """The reference is an SVD of the product in 400 digits."""
    recurrent = cell(gain)
    pairs = [(1, 0), (5, 2), (37, 0)]
    log_values = np.asarray(log_singular_values(recurrent, INPUTS, pairs))
    from gradlab.jacobian import step_jacobians

    jacobians = np.asarray(step_jacobians(recurrent, INPUTS), np.float64)
    with mpmath.workdps(400):
        for (t, k), values in zip(pairs, log_values, strict=True):
            product = mpmath.eye(HIDDEN)
            for jacobian in jacobians[k:t]:
                product = mpmath.matrix(jacobian.tolist()) * product
            exact = mpmath.svd_r(product, compute_uv=False)
            logs = [float(mpmath.log(value)) for value in exact]
            np.testing.assert_allclose(values, logs, rtol=1e-6, atol=1e-4)
    assert log_values[-1, -1] < -60


def test_the_largest_singular_value_is_the_spectral_norm_of_the_map() -> None:
    lstm = cell(1.0, nnx.OptimizedLSTMCell)
    norms = jacobian_log_norms(lstm, INPUTS, of="h", wrt="c")
    log_values = log_singular_values(lstm, INPUTS, [(30, 4), (9, 8)], of="h", wrt="c")
    assert log_values.shape == (2, HIDDEN)
    np.testing.assert_allclose(log_values[:, 0], [norms[30, 4], norms[9, 8]], atol=1e-3)
    with pytest.raises(ValueError, match=r"pairs must be .t, k. with 0 ≤ k ≤ t ≤ 37; got .*3, 9"):
        log_singular_values(lstm, INPUTS, [(3, 9)])


def test_the_standard_error_of_the_exponents_is_that_of_a_mean() -> None:
    """For independent Gaussian factors the fluctuation of a mean over T steps is known (Newman)."""

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x.reshape(HIDDEN, HIDDEN) @ h, h

    rng = np.random.default_rng(0)
    for length in (400, 6400):
        inputs = rng.normal(size=(length, HIDDEN**2)).astype(np.float32) / np.sqrt(HIDDEN)
        spectrum = lyapunov_spectrum(step, inputs, initial_carry=jnp.zeros(HIDDEN), count=1)
        expected = 0.5 * np.sqrt(float(mpmath.psi(1, HIDDEN / 2)) / length)
        assert 0.4 < float(spectrum.standard_error[0]) / expected < 2
        exact = 0.5 * (np.log(2 / HIDDEN) + float(mpmath.psi(0, HIDDEN / 2)))
        assert abs(float(spectrum.exponents[0]) - exact) < 5 * expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("inputs", r"the input is not finite at step 8 \(sample 1\)"),
        ("weights", "the weights dense_h.kernel hold a number that is not finite"),
    ],
)
def test_a_number_that_is_not_finite_is_reported_with_its_step(where: str, message: str) -> None:
    recurrent: Any = cell(1.0)
    inputs = np.stack([INPUTS, INPUTS])
    if where == "inputs":
        inputs[1, 7] = np.nan
    else:
        recurrent.dense_h.kernel[...] = recurrent.dense_h.kernel[...].at[2, 3].set(jnp.nan)
    with pytest.raises(FloatingPointError, match=message):
        jacobian_log_norms(recurrent, inputs, norm="frobenius")


def test_a_state_that_overflows_is_reported_with_its_step() -> None:
    def square(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return 10 * h**2 + 0 * x.sum(), h  # 10^(2^t − 1): past float32 from t = 6 on

    with pytest.raises(FloatingPointError, match="the state is not finite at step 7"):
        jacobian_log_norms(square, INPUTS, initial_carry=jnp.ones(HIDDEN), norm="frobenius")
