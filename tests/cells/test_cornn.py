"""The coRNN against its equations in float64, its closed forms and its published start."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from step_checks import (
    BATCH,
    FEATURES,
    HIDDEN,
    STEPS,
    assert_batch_axes_are_free,
    assert_unrolls_as_its_steps,
    configured,
    in_float64,
    loss_after,
    random_carry,
    random_inputs,
    run,
    step_jacobian,
    weights_of,
    with_random_weights,
)

from gradlab.cells import CoRNN, set_gate_biases
from gradlab.cells.cornn import Carry
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.jacobian import jacobian_log_norms
from gradlab.theory import of_cells

DAMPINGS = ("explicit", "implicit")


def cell_of(**options: Any) -> CoRNN:
    return with_random_weights(CoRNN(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **options))


def by_the_equations(
    cell: CoRNN, carry: Carry, inputs: np.ndarray, damping: str, constants: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the last y and z, and every y, by equation 3 of the paper.

    As in the authors' code, one matrix acts on x, z and y.
    """
    dt, gamma, epsilon = constants
    (w_x, b), (w_y, _), (w_z, _) = map(weights_of, (cell.dense_i, cell.dense_h, cell.dense_z))
    joined = np.concatenate([w_x, w_z, w_y], axis=1)
    y, z = np.asarray(carry.h, float), np.asarray(carry.z, float)
    positions = []
    for x in inputs:
        force = np.tanh(np.concatenate([x, z, y], axis=-1) @ joined.T + b)
        new = z + dt * force - dt * gamma * y
        z = new - dt * epsilon * z if damping == "explicit" else new / (1 + dt * epsilon)
        y = y + dt * z
        positions.append(y)
    return y, z, np.stack(positions)


@settings(max_examples=15)
@given(
    damping=st.sampled_from(DAMPINGS),
    constants=st.tuples(st.floats(0.001, 0.5), st.floats(0, 10), st.floats(0, 10)),
    use_bias=st.booleans(),
)
def test_steps_are_those_of_the_equations(
    damping: Any, constants: tuple[float, float, float], use_bias: bool
) -> None:
    dt, gamma, epsilon = constants
    cell = cell_of(damping=damping, dt=dt, gamma=gamma, epsilon=epsilon, use_bias=use_bias)
    carry, inputs = random_carry(cell, BATCH), random_inputs(STEPS, BATCH)
    y, z, positions = by_the_equations(cell, carry, np.asarray(inputs, float), damping, constants)
    last, outputs = run(cell, carry, inputs)
    scale = max(1.0, np.abs(positions).max(), np.abs(z).max())
    for found, expected in ((last.h, y), (last.z, z), (outputs, positions)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("constants", [(0.042, 2.7, 4.7), (0.06, 66.0, 15.0), (0.5, 1.0, 3.0)])
def test_the_step_jacobian_has_its_closed_form_and_bound(
    damping: Any, constants: tuple[float, float, float]
) -> None:
    dt, gamma, epsilon = constants
    with jax.enable_x64(True):
        cell = in_float64(cell_of(damping=damping, dt=dt, gamma=gamma, epsilon=epsilon))
        carry, x = random_carry(cell, dtype=jnp.float64), random_inputs(dtype=jnp.float64)
        jacobian = step_jacobian(cell, carry, x)
    (w_x, b), (w_h, _), (w_z, _) = map(weights_of, (cell.dense_i, cell.dense_h, cell.dense_z))
    a = w_x @ np.asarray(x) + b + w_h @ np.asarray(carry.h) + w_z @ np.asarray(carry.z)
    slopes, one = 1 - np.tanh(a)[:, None] ** 2, np.eye(HIDDEN)
    by_h, by_z = dt * (slopes * w_h - gamma * one), one + dt * slopes * w_z
    if damping == "explicit":
        by_z -= dt * epsilon * one
    else:
        by_h, by_z = by_h / (1 + dt * epsilon), by_z / (1 + dt * epsilon)
    expected = np.block([[one + dt * by_h, dt * by_z], [by_h, by_z]])
    np.testing.assert_allclose(jacobian, expected, atol=1e-12)
    assert np.linalg.det(jacobian) == pytest.approx(np.linalg.det(by_z))
    bound = of_cells.cornn_jacobian_bound(w_h, w_z, dt, gamma, epsilon, damping)
    assert np.log(np.linalg.norm(jacobian, 2)) <= bound + 1e-12


@settings(max_examples=50)
@given(
    damping=st.sampled_from(DAMPINGS),
    dt=st.floats(0.001, 0.5),
    gamma=st.floats(0, 20),
    epsilon=st.floats(0, 20),
)
def test_the_bound_is_that_of_uncoupled_oscillators_or_above(
    damping: str, dt: float, gamma: float, epsilon: float
) -> None:
    constants, nothing = (dt, gamma, epsilon, damping), np.zeros((2, 2))
    bound = of_cells.cornn_jacobian_bound(nothing, nothing, *constants)
    assert of_cells.cornn_free_rate(*constants) <= bound + 1e-12


@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("constants", [(0.042, 2.7, 4.7), (0.1, 1.0, 0.5)])
def test_undriven_oscillators_decay_at_the_closed_forms_rate(
    damping: Any, constants: tuple[float, float, float]
) -> None:
    dt, gamma, epsilon = constants
    cell = cell_of(damping=damping, dt=dt, gamma=gamma, epsilon=epsilon)
    for layer in (cell.dense_h, cell.dense_z):
        layer.kernel[...] = jnp.zeros_like(layer.kernel[...])
    length = 600
    log_norms = np.asarray(jacobian_log_norms(cell, random_inputs(length)))
    rate = of_cells.cornn_free_rate(dt, gamma, epsilon, damping)
    # An oscillating norm has no limit, only a mean rate.
    assert (log_norms[length, 0] - log_norms[length // 3, 0]) / (length - length // 3) == (
        pytest.approx(rate, abs=2e-3)
    )


def test_the_rate_of_an_oscillation_is_that_of_its_damping_alone() -> None:
    assert of_cells.cornn_free_rate(0.1, 9.0, 0.5) == pytest.approx(0.5 * np.log(1 - 0.05))
    assert of_cells.cornn_free_rate(0.1, 9.0, 0.5, "implicit") == pytest.approx(-0.5 * np.log(1.05))
    assert of_cells.cornn_free_rate(0.1, 9.0, 0.0) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="damping must be explicit or implicit; got 'none'"):
        of_cells.cornn_free_rate(0.1, 1.0, 1.0, "none")


@pytest.mark.parametrize("damping", DAMPINGS)
def test_it_unrolls_as_its_steps(damping: Any) -> None:
    assert_unrolls_as_its_steps(cell_of(damping=damping))


def test_batch_axes_are_free() -> None:
    assert_batch_axes_are_free(cell_of())


class Negated(CoRNN):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        new, output = super().__call__(carry, inputs)
        return new, -output


def test_a_subclass_runs_by_its_own_step() -> None:
    cell = Negated(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    carry, inputs = random_carry(cell, BATCH), random_inputs(STEPS, BATCH)
    fast, slow = (way(cell, carry, inputs)[1] for way in (unroll, step_by_step))
    np.testing.assert_allclose(fast, slow, atol=1e-6)
    np.testing.assert_allclose(fast, run(cell, carry, inputs)[1], atol=1e-6)


def test_its_start_is_that_of_the_authors_linear_layer(composed: Compose) -> None:
    n = 60
    for cell, features in (
        (CoRNN(FEATURES, n, rngs=nnx.Rngs(1)), FEATURES),
        (configured(composed, "model=cornn", f"model.hidden_size={n}", "init.gain=9"), 8),
    ):
        limit = 1 / np.sqrt(features + 2 * n)
        assert (cell.dt, cell.gamma, cell.epsilon) == (0.042, 2.7, 4.7)
        layers = (cell.dense_i, cell.dense_h, cell.dense_z)
        drawn = [p for layer in layers for p in jax.tree.leaves(nnx.state(layer))]
        assert [p.shape for p in drawn] == [(n,), (features, n), (n, n), (n, n)]
        for values in drawn:
            values = np.asarray(values, float).ravel()
            assert np.abs(values).max() <= limit * (1 + 1e-6)
            assert kstest(values / limit / 2 + 0.5, "uniform").pvalue > 1e-3
        assert not np.allclose(cell.dense_h.kernel[...], cell.dense_z.kernel[...])


def test_its_start_may_be_that_of_the_config(composed: Compose) -> None:
    cell = configured(
        composed,
        *("model=cornn", "model.cell.start=init", "init=orthogonal", "init.gain=0.5"),
        *("model.other_std=0.02", "model.hidden_size=50"),
    )
    for layer in (cell.dense_h, cell.dense_z):
        w, _ = weights_of(layer)
        np.testing.assert_allclose(w @ w.T, 0.25 * np.eye(50), atol=1e-5)
    assert np.std(cell.dense_i.kernel[...]) == pytest.approx(0.02, rel=0.15)
    np.testing.assert_array_equal(cell.dense_i.bias[...], 0)


def test_its_parts_are_h_and_z() -> None:
    product = np.eye(2 * HIDDEN)
    with jax.enable_x64(True):
        exact = in_float64(cell_of(dt=0.1))
        carry = exact.initialize_carry((FEATURES,))
        for x in random_inputs(STEPS, dtype=jnp.float64):
            product = step_jacobian(exact, carry, x) @ product
            carry, _ = exact(carry, x)
    cell, inputs = cell_of(dt=0.1), random_inputs(STEPS)
    parts = {"h": slice(HIDDEN), "z": slice(HIDDEN, None)}
    for of, rows in parts.items():
        for wrt, columns in parts.items():
            expected = np.log(np.linalg.norm(product[rows, columns], 2))
            found = jacobian_log_norms(cell, inputs, of=of, wrt=wrt)[STEPS, 0]
            assert found == pytest.approx(expected, abs=1e-4)


def test_rules_for_gates_leave_it_as_it_is() -> None:
    cell = cell_of()
    before = np.asarray(cell.dense_i.bias[...])
    set_gate_biases(cell, {"forget": jnp.ones(HIDDEN)})
    np.testing.assert_array_equal(cell.dense_i.bias[...], before)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"damping": "none"}, "damping must be one of explicit, implicit; got 'none'"),
        ({"start": "uniform"}, "start must be one of published, init; got 'uniform'"),
        ({"dt": 0.0}, "dt must be above 0, and gamma and epsilon at least 0; got 0.0, 2.7 and 4.7"),
        ({"gamma": -1.0}, "gamma and epsilon at least 0; got 0.042, -1.0 and 4.7"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CoRNN(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("damping", DAMPINGS)
def test_it_learns(composed: Compose, damping: str) -> None:
    options = ("dt=0.5", "gamma=1", "epsilon=1", f"damping={damping}")
    settings = [f"model.cell.{option}" for option in options]
    assert loss_after(composed, 150, "model=cornn", *settings) < 0.6
