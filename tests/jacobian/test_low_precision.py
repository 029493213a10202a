"""Networks in bfloat16, float16 and float32, and what the precision makes of each entry."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import jacobian_log_norms
from gradlab.jacobian.flat_cell import flatten_cell
from gradlab.jacobian.precision import rounding

HIDDEN, LENGTH = 5, 7
RNG = np.random.default_rng(0)
W_HH = RNG.normal(size=(HIDDEN, HIDDEN))
INPUTS = RNG.normal(size=(LENGTH, HIDDEN)).astype(np.float32)
LAG = np.subtract.outer(np.arange(LENGTH + 1), np.arange(LENGTH + 1))
BELOW = LAG >= 0
EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23}


def products(jacobians: list[np.ndarray]) -> np.ndarray:
    """Return the Frobenius norms of all products, 0 where k > t."""
    norms = np.zeros((LENGTH + 1, LENGTH + 1))
    for k in range(LENGTH + 1):
        product = np.eye(HIDDEN)
        for t in range(k, LENGTH + 1):
            norms[t, k] = np.linalg.norm(product)
            if t < LENGTH:
                product = jacobians[t] @ product
    return norms


def certified(cell: Any, inputs: Any = INPUTS, **options: Any) -> Any:
    return jacobian_log_norms(cell, inputs, norm="frobenius", certify=True, **options)


def test_a_linear_network_whose_weights_are_exact_has_no_error() -> None:
    weights = np.round(W_HH * 4) / 8  # eighths, which bfloat16 holds exactly
    own = jnp.asarray(weights, jnp.bfloat16)
    start = jnp.ones(HIDDEN, jnp.bfloat16)
    log_norms, certificate = certified(lambda h, x: (own @ h, h), initial_carry=start)
    np.testing.assert_allclose(np.exp(log_norms), products([weights] * LENGTH), rtol=1e-6)
    for error in (certificate.precision_error, certificate.derivative_error):
        np.testing.assert_allclose(error, np.where(BELOW, 0, np.nan), atol=1e-6)


def test_a_rounded_weight_changes_a_product_by_a_power_of_its_rounding() -> None:
    cell: Any = nnx.SimpleCell(
        HIDDEN, HIDDEN, dtype=jnp.bfloat16, activation_fn=lambda x: x, rngs=nnx.Rngs(0)
    )
    cell.dense_h.kernel[...] = 0.3 * jnp.eye(HIDDEN)
    log_norms, certificate = certified(cell)
    rounded, exact = 0.30078125, float(np.float32(0.3))
    diagonal = np.log(HIDDEN) / 2 + LAG * np.log(rounded)
    np.testing.assert_allclose(log_norms[BELOW], diagonal[BELOW], atol=1e-5)
    expected = np.abs((rounded / exact) ** LAG - 1.0)[BELOW]
    for error in (certificate.precision_error, certificate.derivative_error):
        np.testing.assert_allclose(error[BELOW], expected, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize(
    ("dtype", "weights"), [*((dtype, "float32") for dtype in EPS), ("bfloat16", "bfloat16")]
)
def test_the_error_of_a_cell_is_that_against_its_run_in_float64(dtype: str, weights: str) -> None:
    cell: Any = nnx.SimpleCell(
        HIDDEN,
        HIDDEN,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(weights),
        recurrent_kernel_init=jax.nn.initializers.normal(0.5),
        rngs=nnx.Rngs(0),
    )
    log_norms, certificate = certified(cell)
    w_xh, b, w_hh = (
        np.asarray(x[...], np.float64)
        for x in (cell.dense_i.kernel, cell.dense_i.bias, cell.dense_h.kernel)
    )
    h, jacobians = np.zeros(HIDDEN), []
    for x in INPUTS.astype(np.float64):
        h = np.tanh(x @ w_xh + h @ w_hh + b)
        jacobians.append((1 - h[:, None] ** 2) * w_hh.T)
    exact = products(jacobians)
    expected = np.abs(np.exp(log_norms) / np.where(BELOW, exact, 1) - 1)
    error = np.asarray(certificate.precision_error)
    np.testing.assert_allclose(error[BELOW], expected[BELOW], rtol=1e-2, atol=1e-6)
    assert np.isnan(error[~BELOW]).all()
    assert EPS[dtype] / 8 < np.median(error[LAG > 0]) < 64 * EPS[dtype]
    if dtype == "float32":
        assert certificate.largest_error < 1e-4
        assert not certificate.unresolved.any()
    else:
        assert certificate.unresolved[LAG > 0].mean() > 0.5


def test_a_network_that_casts_by_itself_has_no_float64_run() -> None:
    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.tanh(h.astype(jnp.bfloat16) + x).astype(jnp.float32), h

    certificate = certified(step, initial_carry=jnp.zeros(HIDDEN))[1]
    assert np.isnan(certificate.precision_error).all()
    assert np.isnan(certificate.derivative_error).all()


def test_rounding_is_that_of_the_shortest_type_on_the_way_of_the_state() -> None:
    short = jnp.ones(HIDDEN, jnp.float16)

    def eps(step: Any) -> float:
        return rounding(flatten_cell(step, INPUTS, jnp.zeros(HIDDEN, jnp.float32)))

    assert eps(lambda h, x: (h * (2 * short), h)) == EPS["float32"]  # the weight's is another
    assert eps(lambda h, x: (h + jax.jit(lambda y: y * short)(x), h)) == EPS["float32"]
    assert eps(lambda h, x: (h.astype(jnp.float16) * short, h)) == EPS["float16"]
    assert eps(jax.jit(lambda h, x: (h + x.astype(jnp.bfloat16), h))) == EPS["bfloat16"]
