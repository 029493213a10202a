"""The error surface of one unit: its gradient, its wall, and descent at the wall."""

import numpy as np
import pytest

from gradlab.studies.error_surface import (
    BIASES,
    WEIGHTS,
    error_surface_figure,
    error_surface_table,
    mesh,
)
from gradlab.studies.one_unit import Descent, descend, unit_error, wall, wall_slope


def test_the_gradient_of_one_unit_is_that_of_finite_differences() -> None:
    weight, bias, h = np.array([4.2, 5.0, 5.5]), np.array([-2.0, -2.2, -3.5]), 1e-6
    unit = unit_error(weight, bias)
    by_weight = unit_error(weight + h, bias).error - unit_error(weight - h, bias).error
    by_bias = unit_error(weight, bias + h).error - unit_error(weight, bias - h).error
    np.testing.assert_allclose(unit.by_weight, by_weight / (2 * h), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(unit.by_bias, by_bias / (2 * h), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("weight", [4.5, 5.0, 5.5, 6.0])
def test_the_wall_is_where_the_start_is_the_unstable_fixed_point(weight: float) -> None:
    bias = np.linspace(-4, -1.5, 250_001)
    steepest = bias[np.argmax(unit_error(weight, bias).grad_norm)]
    assert steepest == pytest.approx(float(wall(weight)), abs=0.005)


@pytest.mark.parametrize("weight", [4.5, 5.0, 6.0])
def test_the_slope_on_the_wall_is_that_of_its_closed_form(weight: float) -> None:
    # Central differences; h is far smaller than the wall is thick.
    at, h = float(wall(weight)), 1e-11
    by_bias = float(unit_error(weight, at + h).error - unit_error(weight, at - h).error) / (2 * h)
    activation = 1 / (1 + np.exp(-0.5))
    slope = abs(by_bias) * np.hypot(1, activation)
    assert float(wall_slope(weight)) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("cells", [10, 41])
def test_the_mesh_covers_the_surface_and_its_rows_run_along_the_wall(cells: int) -> None:
    w, b = mesh(cells)
    assert (np.diff(b, axis=0) > 0).all()
    np.testing.assert_allclose(b[[0, -1]], np.repeat(np.transpose([BIASES]), cells, axis=1))
    np.testing.assert_allclose(w[0, [0, -1]], WEIGHTS)
    beside = b[[cells // 2 - 1, cells // 2]]
    np.testing.assert_allclose(beside - wall(w[0]), np.repeat([[-1e-3], [1e-3]], cells, axis=1))
    high, low = unit_error(w[:2], beside).error[:, w[0] >= 5]
    assert (high > 0.3).all()
    assert (low < 0.07).all()


def test_clipping_keeps_descent_at_the_wall_small_and_reaches_the_valley() -> None:
    starts = [(5.0, -2.45)]
    free = descend(starts, learning_rate=0.01, threshold=np.inf, updates=3000)
    clipped = descend(starts, learning_rate=0.01, threshold=1.0, updates=3000)

    def largest(path: Descent) -> float:
        steps = np.hypot(np.diff(path.weight[0]), np.diff(path.bias[0]))
        assert path.largest_step[0, -1] == pytest.approx(steps.max())
        return float(steps.max())

    assert largest(clipped) <= 0.01 * (1 + 1e-12)
    assert largest(free) > 1
    assert clipped.error[0, -1] < 1e-3
    assert free.error[0, -1] > 0.05


def test_the_surface_and_both_paths_are_one_table() -> None:
    table = error_surface_table(updates=5, cells=11)
    assert table["part"].value_counts().to_dict() == {"surface": 121, "clipped": 6, "unclipped": 6}
    surface = table[table["part"] == "surface"]
    again = unit_error(surface["weight"].to_numpy(), surface["bias"].to_numpy())
    np.testing.assert_array_equal(surface["error"], again.error)
    assert error_surface_figure(table).table is table
