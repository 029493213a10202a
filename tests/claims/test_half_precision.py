"""The study of half precision: its backward pass, its formats and its fits against plain NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab.cells import Elman
from gradlab.cells.precision import InPrecision
from gradlab.studies import half_precision


class Keeps(nnx.RNNCellBase):
    """A cell that keeps a share of its state."""

    def __init__(self, share: float) -> None:
        self.share = nnx.Param(jnp.array([share]))

    def initialize_carry(self, input_shape: Any, rngs: Any = None, carry_init: Any = None) -> Any:
        return jnp.ones(1)

    def __call__(self, carry: Any, inputs: Any) -> Any:
        h = self.share[...] * carry
        return h, h


def gradients(cell: Any, dtype: str, steps: int, scale: float = 1.0) -> np.ndarray:
    with jax.enable_x64(dtype == "float64"):
        inputs = jnp.asarray(np.random.default_rng(0).normal(size=(steps, 3)), jnp.float32)
        parts = nnx.split(InPrecision(cell, dtype))
        return np.asarray(half_precision._gradients(*parts, inputs, scale), float)


def test_the_backward_pass_is_that_of_an_elman_network_in_numpy() -> None:
    cell = Elman(3, 5, rngs=nnx.Rngs(0))
    inputs = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32).astype(float)
    w_x, w_h = (np.asarray(w.kernel[...], float) for w in (cell.dense_i, cell.dense_h))
    states = [np.zeros(5)]
    for x in inputs:
        states.append(np.tanh(x @ w_x + states[-1] @ w_h))
    adjoint = np.asarray(jax.random.normal(jax.random.key(0), (5,), jnp.float32) / 5, float)
    expected = []
    for h in states[:0:-1]:
        adjoint = w_h @ ((1 - h**2) * adjoint)
        expected.append(np.abs(adjoint).max())
    # The draw of the loss is in float32, and its last bit depends on how it was compiled.
    np.testing.assert_allclose(gradients(cell, "float64", 7), expected, rtol=1e-6)
    np.testing.assert_allclose(gradients(cell, "float16", 7), expected, rtol=0.02)


@pytest.mark.parametrize(("share", "end"), [(0.6, 2.0**-24), (0.4, 0.0)])
def test_float16_stops_at_its_smallest_number_where_more_than_half_is_kept(
    share: float, end: float
) -> None:
    assert gradients(Keeps(share), "float16", 120)[-1] == end
    assert 0 < gradients(Keeps(share), "float64", 120)[-1] < 2.0**-48


def test_the_formats_are_numpys_and_a_power_law_has_its_exponent() -> None:
    limits = np.finfo(np.float16)
    assert half_precision.FORMATS["float16"].smallest == limits.smallest_subnormal
    assert 2.0 ** -half_precision.FORMATS["float16"].digits == limits.eps / 2
    lags = np.arange(1, 101)
    assert half_precision._exponent(lags, 3e-4 * lags**0.7) == pytest.approx(0.7, abs=1e-3)
    assert np.isnan(half_precision._exponent(lags, 0.0 * lags))


def test_means_over_a_lag_leave_zero_norms_out() -> None:
    values = np.array([[0, np.nan, np.nan], [1, 0, np.nan], [-np.inf, 3, 0]])
    np.testing.assert_array_equal(half_precision._by_lag(values), [0, 2, np.nan])
