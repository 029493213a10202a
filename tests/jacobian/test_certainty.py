"""Certificates, very small singular values and numbers that are not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flax import nnx

from gradlab import (
    adjoint_log_norms,
    contribution_log_norms,
    jacobian_log_norms,
    log_singular_values,
    lyapunov_exponents,
    lyapunov_spectrum,
)
from gradlab.jacobian.certify import sample_pairs
from gradlab.jacobian.complex_norms import carry_log_norm_map
from gradlab.jacobian.products import ResolvedLogNorms

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
    def wrong(*args: Any, **options: Any) -> ResolvedLogNorms:
        measured = carry_log_norm_map(*args, **options)
        return measured._replace(value=1.01 * measured.value)

    monkeypatch.setattr(
        "gradlab.jacobian.maps.carry_log_norm_map", wrong
    )  # as measured, not as certified
    inputs = INPUTS[:36]  # a length that no other test compiles
    log_norms, certificate = jacobian_log_norms(cell(0.5), inputs, norm="frobenius", certify=True)
    excess = np.asarray(log_norms)[tuple(certificate.pairs.T)] * (1 - 1 / 1.01)
    expected = np.abs(np.expm1(excess))
    np.testing.assert_allclose(certificate.relative_error, expected, rtol=1e-2, atol=1e-5)
    assert certificate.largest_error == pytest.approx(expected.max(), rel=1e-3)


@pytest.mark.parametrize("norm", ["spectral", "rms"])
def test_a_certificate_of_a_block_in_strides_is_that_of_its_entries(norm: Any) -> None:
    lstm = cell(1.5, nnx.OptimizedLSTMCell)
    options: dict[str, Any] = {"norm": norm, "of": "h", "stride": 3, "certify": True}
    log_norms, certificate = jacobian_log_norms(lstm, INPUTS, **options)
    assert log_norms.shape == certificate.unresolved.shape == (13, 13)
    assert certificate.pairs.max() == LENGTH // 3
    assert certificate.largest_error < 1e-4


def test_pairs_of_a_certificate_have_every_scale_of_lag() -> None:
    for length, stride in ((1, 1), (100, 1), (100, 7)):
        t, k = sample_pairs(length, stride).T
        assert (k >= 0).all()
        assert (t <= length // stride).all()
        assert {1, min(2, length // stride), length // stride} <= set(t - k)


def test_a_certificate_knows_which_steps_lose_their_derivative() -> None:
    """Four units on their own and a counter; each case changes one input, at step 5 of 9."""

    def step(carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        a, b, c, d = carry["h"]
        h = [jnp.tanh(x[0] + a), jnp.tanh(x[1] * (b + 1)), jax.nn.relu(x[2] + c)]
        false = x[3] * (d - jax.lax.stop_gradient(d))  # 0, with a derivative that is not
        return {"h": jnp.stack([*h, 0.5 * d + false]), "n": carry["n"] + 1}, x

    carry = {"h": jnp.zeros(4), "n": jnp.array(0)}

    def certified(unit: int, value: float, steps: Any = 4) -> Any:
        inputs = np.tile(np.array([0, 0.5, 1, 0], np.float32), (9, 1))
        inputs[steps, unit] = value
        options: dict[str, Any] = {"norm": "frobenius", "stride": 3, "certify": True}
        return jacobian_log_norms(step, inputs, initial_carry=carry, **options)[1]

    t, k = np.indices((4, 4))
    across = (3 * t >= 5) & (3 * k < 5)
    ever, never = t > k, np.zeros((4, 4), bool)
    cases = [
        (certified(0, 0.0), never),
        (certified(0, 20.0), across),  # tanh, whose derivative rounds to 0
        (certified(0, 20.0, slice(None)), ever),  # at every step, but not at rest
        (certified(1, 20.0), across),  # zero at rest, but not at every step
        (certified(2, -100.0), never),  # the zero of a ReLU is exact
    ]
    for certificate, unresolved in cases:
        np.testing.assert_array_equal(certificate.unresolved, unresolved)
        assert np.isnan(certificate.largest_error) == (unresolved is ever)  # of no entry known
        assert not certificate.largest_error > 1e-5
        assert certificate.difference_error < 1e-5
    assert certified(3, 1.0, 8).difference_error > 1e-2


def test_a_derivative_lost_in_the_cells_own_precision_is_unresolved() -> None:
    """1 − tanh²(9) is 6e-8, which float32 rounds to 0; of 1 − tanh²(7.3) it keeps one digit."""
    for value in (9, 7.3):
        inputs = np.zeros((9, 1), np.float32)
        inputs[4] = value
        certificate = jacobian_log_norms(
            lambda h, x: (jnp.tanh(x + h), h), inputs, initial_carry=jnp.zeros(1), certify=True
        )[1]
        t, k = np.indices((10, 10))
        np.testing.assert_array_equal(certificate.unresolved, (t >= 5) & (k < 5))


@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_what_float32_products_do_not_resolve_is_unresolved(norm: Any) -> None:
    options: dict[str, Any] = {"norm": norm, "precision": "float32", "certify": True}

    # One part keeps its size, the other shrinks a thousandfold: its rows have a scale of their own.
    log_norms, certificate = jacobian_log_norms(
        lambda s, x: ((s[0], 1e-3 * s[1]), x),
        np.zeros((12, 1), np.float32),
        initial_carry=(jnp.ones(1), jnp.ones(1)),
        **{"of": "1", "wrt": "1"} | options,
    )
    lag = np.subtract.outer(np.arange(13), np.arange(13))
    assert not certificate.unresolved.any()
    expected = np.where(lag >= 0, lag * np.log(1e-3), -np.inf)
    np.testing.assert_allclose(log_norms, expected, rtol=1e-5)

    # Projections on two directions that are almost orthogonal, in steps 8 and 9 of 16.
    angles = np.array([0.5, 0.5 + np.pi / 2 - 1e-4])
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    inputs = np.tile(np.eye(2), (16, 1, 1))
    inputs[7:9] = directions[:, :, None] * directions[:, None, :]
    t, k = np.indices((17, 17))
    for precision, unresolved in (("float32", (t >= 9) & (k <= 7)), ("float64", t < 0)):
        _, certificate = jacobian_log_norms(
            lambda h, x: (x.reshape(2, 2) @ h, x),
            inputs.reshape(16, 4).astype(np.float32),
            initial_carry=jnp.zeros(2),
            **options | {"precision": precision},
        )
        np.testing.assert_array_equal(certificate.unresolved, unresolved)


def test_what_cancels_in_the_cells_own_precision_is_unresolved() -> None:
    """Only a·b goes on, which does not depend on z: the carry is read as a·e⁻³ᶻ and b·e³ᶻ."""

    def step(s: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        u = s["a"] * jnp.exp(-3 * s["z"]) * s["b"] * jnp.exp(s["z"]) * jnp.exp(2 * s["z"])
        after = {"a": jnp.tanh(x[0] + u), "b": jnp.tanh(x[1] - u), "z": 0.7 + 0 * s["z"]}
        return after | {"small": 1e-3 * s["small"]}, x

    def certified(part: str, wrt: str) -> Any:
        carry = {name: jnp.array(0.7) for name in ("a", "b", "z", "small")}
        options: dict[str, Any] = {"of": part, "wrt": wrt, "certify": True}
        return jacobian_log_norms(step, INPUTS[:4], initial_carry=carry, **options)

    log_norms, certificate = certified("a", "z")
    is_noise = np.isfinite(log_norms)
    assert is_noise.any()
    assert certificate.unresolved[is_noise].all()
    assert np.isnan(certificate.largest_error)  # of no entry known
    assert not certified("small", "small")[1].unresolved.any()  # it has one way

    def project(h: jax.Array, angle: jax.Array) -> tuple[jax.Array, jax.Array]:
        direction = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)])
        return direction * (direction @ h), h

    angles = np.float32([0.5, 0.5, 0.5 + np.pi / 2, 0.5 + np.pi / 2])[:, None]
    _, certificate = jacobian_log_norms(project, angles, initial_carry=jnp.ones(2), certify=True)
    t, k = np.indices((5, 5))
    np.testing.assert_array_equal(certificate.unresolved, (t > 2) & (k < 2))


def test_zeros_of_saturated_units_are_unresolved() -> None:
    """At gain 90, 1 − tanh² rounds to 0 in float32, where it is 1e-9 and smaller."""
    log_norms, certificate = jacobian_log_norms(cell(90.0), INPUTS, norm="frobenius", certify=True)
    lower = np.tril_indices(LENGTH + 1, -1)
    zero = np.isneginf(np.asarray(log_norms)[lower])
    assert zero.any()
    assert np.asarray(certificate.unresolved)[lower][zero].all()
    assert np.isnan(certificate.largest_error)  # every step has such a unit


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
    pairs = [(1, 0), (5, 2), (4, 4), (37, 0)]
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


def test_small_singular_values_that_lie_close_are_right() -> None:
    """Three of the product's are near 1e-14 of the largest."""
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(2, 3, 4, 4)))[0]
    steps = left * np.array([1, 2e-5, 1.6e-5, 1.2e-5]) @ right

    with jax.enable_x64(True):
        log_values = log_singular_values(
            lambda h, x: (x.reshape(4, 4) @ h, h),
            steps.reshape(3, 16),
            [(3, 0)],
            initial_carry=jnp.zeros(4),
        )
    with mpmath.workdps(50):
        product = mpmath.eye(4)
        for matrix in steps:
            product = mpmath.matrix(matrix.tolist()) * product
        logs = [float(mpmath.log(x)) for x in mpmath.svd_r(product, compute_uv=False)]
    np.testing.assert_allclose(log_values[0], logs, atol=1e-3)


def test_the_largest_singular_value_is_the_spectral_norm_of_the_map() -> None:
    lstm = cell(1.0, nnx.OptimizedLSTMCell)
    norms = jacobian_log_norms(lstm, INPUTS, of="h", wrt="c")
    log_values = log_singular_values(lstm, INPUTS, [(30, 4), (9, 8)], of="h", wrt="c")
    assert log_values.shape == (2, HIDDEN)
    np.testing.assert_allclose(log_values[:, 0], [norms[30, 4], norms[9, 8]], atol=1e-3)


def test_singular_values_of_a_part_down_to_rounding() -> None:
    """In float32, values below 1e-6 of the largest are not told from its rounding."""

    def step(s: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        scales = jnp.array([1, 1e-3, 1e-5, 1e-7])
        return {"a": rotation @ (scales * s["a"]), "b": 0 * s["b"], "c": s["a"] - s["b"]}, x

    rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (4, 4)))[0]
    carry = {"a": jnp.ones(4), "b": jnp.ones(1), "c": jnp.ones(4)}

    def values(of: str, wrt: str) -> np.ndarray:
        pairs = [(1, 0), (2, 0)]
        return np.asarray(
            log_singular_values(step, INPUTS[:2], pairs, initial_carry=carry, of=of, wrt=wrt)
        )

    np.testing.assert_allclose(values("a", "a")[0, :3], np.log([1, 1e-3, 1e-5]), atol=1e-2)
    assert np.isnan(values("a", "a")[0, 3])
    assert np.isneginf(values("b", "b")).all()  # a block of zeros
    assert np.isneginf(values("a", "b")).all()


def test_exact_zeros_among_singular_values_are_minus_infinity() -> None:
    """Each step shifts by one place and doubles: n − lag values are 2^lag, the others 0."""

    def shift(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return 2 * jnp.concatenate([jnp.zeros(1, h.dtype), h[:-1]]), h

    lags = [0, 1, 3, 4, 6]
    pairs = [(6, 6 - lag) for lag in lags]
    log_values = log_singular_values(shift, INPUTS[:6], pairs, initial_carry=jnp.zeros(4))
    for lag, values in zip(lags, log_values, strict=True):
        count = max(0, 4 - lag)
        np.testing.assert_allclose(values[:count], lag * np.log(2), atol=1e-6)
        assert np.isneginf(values[count:]).all()


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
        inputs[1, 7, 1] = np.nan
    else:
        recurrent.dense_h.kernel[...] = recurrent.dense_h.kernel[...].at[2, 3].set(jnp.nan)
    with pytest.raises(FloatingPointError, match=message):
        jacobian_log_norms(recurrent, inputs, norm="frobenius")


def test_a_state_that_overflows_is_reported_with_its_step() -> None:
    def square(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return 10 * h**2 + 0 * x.sum(), h  # 10^(2^t − 1): past float32 from t = 6 on

    with pytest.raises(FloatingPointError, match="the state is not finite at step 6"):
        jacobian_log_norms(square, INPUTS, initial_carry=jnp.ones(HIDDEN), norm="frobenius")


def by_every_measurement(step: Any, loss: Any, h: jax.Array) -> dict[str, Any]:
    """Return each measurement of step(w, h, x), w = 1, with one unit, as a function to call."""
    inputs, alone, targets = np.zeros((3, 1), np.float32), lambda h, x: step(1.0, h, x), np.ones(3)
    start: dict[str, Any] = {"initial_carry": h}
    return {
        "map": lambda: jacobian_log_norms(alone, inputs, norm="frobenius", **start),
        "exponents": lambda: lyapunov_exponents(alone, inputs, **start),
        "singular values": lambda: log_singular_values(alone, inputs, [(1, 0)], **start),
        "adjoints": lambda: adjoint_log_norms(alone, inputs, loss, targets, **start),
        "terms": lambda: contribution_log_norms(
            step, inputs, loss, targets, parameters=jnp.ones(()), **start
        ),
    }


@pytest.mark.parametrize("measured", ["map", "exponents", "singular values", "adjoints", "terms"])
def test_a_derivative_that_is_not_finite_is_reported_by_every_measurement(measured: str) -> None:
    """The root's slope at 0 is infinite, and its value is not."""
    root = lambda w, h, x: (w * jnp.sqrt(h), h)  # noqa: E731
    measure = by_every_measurement(root, lambda h, target: h.sum(), jnp.zeros(1))[measured]
    with pytest.raises(FloatingPointError, match="the step Jacobian is not finite at step 1"):
        measure()


@pytest.mark.parametrize("measured", ["adjoints", "terms"])
def test_a_loss_that_is_not_finite_is_reported(measured: str) -> None:
    keep = lambda w, h, x: (w * h, h)  # noqa: E731
    measure = by_every_measurement(keep, lambda h, target: jnp.sqrt(h).sum(), jnp.zeros(1))
    with pytest.raises(FloatingPointError, match="the loss or its gradient is not finite"):
        measure[measured]()
