"""The forward pass of linear recurrent units against quadrature, NumPy and the exact variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from gradlab.studies import lru_forward


@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 0.9), (0.9, 0.999), (0.5, 0.5)])
def test_expected_gain_is_the_mean_over_the_ring(r_min: float, r_max: float) -> None:
    width = max(r_max - r_min, 1e-6)  # a density 2r/(r_max² − r_min²) of radii
    area = (r_min + width) ** 2 - r_min**2
    mean, _ = quad(lambda r: 2 * r / (1 - r**2) / area, r_min, r_min + width, epsabs=1e-12)
    assert lru_forward.expected_gain(r_min, r_max) == pytest.approx(mean, rel=1e-5)


def test_eigenvalues_are_uniform_on_the_ring() -> None:
    layer = lru_forward.draw_layer(jax.random.key(0), (0.6, 0.8), 20_000, 1, np.pi / 10, True)
    radii, phases = np.abs(layer.eigenvalues), np.angle(np.asarray(layer.eigenvalues))
    assert radii.min() >= 0.6 - 1e-6
    assert radii.max() <= 0.8 + 1e-6
    # Areas inside a radius are uniform: the share below √((0.6² + 0.8²)/2) is a half.
    assert np.mean(radii < np.sqrt(0.5)) == pytest.approx(0.5, abs=0.02)
    assert phases.min() >= 0
    assert phases.max() <= np.pi / 10 + 1e-6
    np.testing.assert_allclose(layer.scale, np.sqrt(1 - radii**2), rtol=1e-5)
    assert np.mean(np.abs(layer.input_weights) ** 2) == pytest.approx(1, abs=0.05)


def test_gain_of_a_constant_input_is_that_of_the_fixed_point() -> None:
    layer = lru_forward.draw_layer(jax.random.key(1), (0.3, 0.8), 32, 4)
    measured = lru_forward.gain(jax.random.key(2), layer, "constant", 200)
    drive = np.asarray(layer.input_weights, complex) @ np.asarray(
        jax.random.normal(jax.random.key(2), (4,))
    )
    at_rest = drive / (1 - np.asarray(layer.eigenvalues, complex))
    expected = np.sum(np.abs(at_rest) ** 2) / np.sum(np.abs(drive) ** 2)
    assert float(measured) == pytest.approx(expected, rel=1e-3)


def test_gain_of_white_noise_is_the_stationary_variance() -> None:
    eigenvalues = jnp.asarray([0.9 * np.exp(0.7j), 0.5, -0.2j], jnp.complex64)
    layer = lru_forward.Layer(eigenvalues, jnp.eye(3, dtype=jnp.complex64), jnp.ones(3))
    measured = lru_forward.gain(jax.random.key(0), layer, "white", 20_000)
    expected = np.mean([1 / (1 - r**2) for r in (0.9, 0.5, 0.2)])
    assert float(measured) == pytest.approx(expected, rel=0.1)


def test_the_table_has_a_row_for_each_layer() -> None:
    table = lru_forward.measure(
        [(0.0, 0.5)], [(0.0, 0.5)], 4, 2, 20, (0.1, 0.5), 40, 8, seeds=3, reach_seeds=2
    )
    forward, reach = (table[table["part"] == part] for part in ("forward", "reach"))
    assert len(forward) == 4 * 3
    np.testing.assert_allclose(reach["gain"], reach["expected"], rtol=1e-5)
