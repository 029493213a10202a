"""Mamba's selective recurrence against its paper's equations in float64, in a loop and at once."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from step_checks import (
    FEATURES,
    STEPS,
    assert_batch_axes_are_free,
    assert_unrolls_as_its_steps,
    in_float64,
    random_carry,
    random_inputs,
    run,
    step_jacobian,
    with_random_weights,
)

from gradlab import jacobian_log_norms
from gradlab.cells import Mamba, gates, set_gate_biases
from gradlab.cells.mamba import looped_run, parallel_run
from gradlab.cells.recurrence import unroll
from gradlab.theory import of_cells
from gradlab.training.program import Program, hyperparameters_of

N, STATES = 4, 3
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "of the authors' code": {"discretisation": "euler"},
    "with a bias and a full rank": {"use_bias": True, "delta_rank": N},
}


class Halved(Mamba):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        return super().__call__(carry / 2, inputs)


def cell_of(kind: type[Mamba] = Mamba, **options: Any) -> Mamba:
    options = {"state_features": STATES} | options
    cell: Mamba = with_random_weights(kind(FEATURES, N, rngs=nnx.Rngs(0), **options))
    return cell


def selected(cell: Mamba, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return u, Δ, B and C of one input."""
    w = {
        name: np.asarray(getattr(cell, name).kernel[...], float)
        for name in ("dense_i", "dense_u", "dense_delta")
    }
    bias = 0.0 if cell.dense_i.bias is None else np.asarray(cell.dense_i.bias[...], float)
    net = np.asarray(x, float) @ w["dense_i"] + bias
    u = net / (1 + np.exp(-net))
    low, b, c = np.split(u @ w["dense_u"], [cell.delta_rank, cell.delta_rank + STATES])
    step_bias = np.asarray(cell.dense_delta.bias[...], float)
    return u, np.logaddexp(0, low @ w["dense_delta"] + step_bias), b, c


def rates(cell: Mamba) -> np.ndarray:
    return -np.exp(np.asarray(cell.a_log[...], float))


def by_the_paper(cell: Mamba, h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the last state and all outputs by equations 2 and 4, number after number."""
    a, d = rates(cell), np.asarray(cell.d[...], float)
    h, outputs = np.array(h, float), np.zeros((len(x), N))
    for t, now in enumerate(x):
        u, delta, b, c = selected(cell, now)
        for channel in range(N):
            for s in range(STATES):
                product = delta[channel] * a[channel, s]
                held = (np.exp(product) - 1) / product * delta[channel]
                held = delta[channel] if cell.discretisation == "euler" else held
                h[channel, s] = np.exp(product) * h[channel, s] + held * b[s] * u[channel]
            outputs[t, channel] = h[channel] @ c + d[channel] * u[channel]
    return h, outputs


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_are_those_of_the_papers_equations(name: str) -> None:
    cell = cell_of(**VARIANTS[name])
    carry, x = random_carry(cell), random_inputs(12)
    state, outputs = by_the_paper(cell, np.asarray(carry), np.asarray(x))
    found_state, found = run(cell, carry, x)
    np.testing.assert_allclose(found_state, state, atol=1e-5)
    np.testing.assert_allclose(found, outputs, atol=1e-5)


def test_any_leading_axes() -> None:
    assert_batch_axes_are_free(cell_of())


def test_all_steps_at_once_and_in_a_loop_are_the_steps() -> None:
    assert_unrolls_as_its_steps(cell_of())
    with jax.enable_x64(True):
        cell = in_float64(cell_of())
        carry = random_carry(cell, 2, dtype=jnp.float64)
        x = random_inputs(STEPS, 2, dtype=jnp.float64)
        runs = [partial(way, cell) for way in (parallel_run, looped_run)]
        at_once, loop = (jax.vjp(way, carry, cell.select(x)) for way in runs)
        expected = run(cell, carry, x)
        for (values, pull), (_, other) in ((at_once, loop), (loop, at_once)):
            np.testing.assert_allclose(values[0], expected[0], atol=1e-12)
            np.testing.assert_allclose(values[1], expected[1], atol=1e-12)
            ones = jax.tree.map(jnp.ones_like, values)
            for found, same in zip(*map(jax.tree.leaves, (pull(ones), other(ones))), strict=True):
                np.testing.assert_allclose(found, same, atol=1e-10)
    own = cell_of(Halved)
    carry, x = random_carry(own, 2), random_inputs(STEPS, 2)
    np.testing.assert_allclose(unroll(own, carry, x)[1], run(own, carry, x)[1], atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_step_jacobian_is_the_closed_form_and_that_of_finite_differences(name: str) -> None:
    with jax.enable_x64(True):
        cell = in_float64(cell_of(**VARIANTS[name]))
        x = random_inputs(dtype=jnp.float64)
        found = step_jacobian(cell, random_carry(cell, dtype=jnp.float64), x)
        _, delta, _, _ = selected(cell, np.asarray(x))
        logs = of_cells.mamba_log_factors(delta[None], rates(cell))
    np.testing.assert_allclose(found, np.diag(np.exp(logs[0])), atol=1e-12)


def test_the_map_is_the_closed_form() -> None:
    cell, x = cell_of(), random_inputs(STEPS)
    delta = np.stack([selected(cell, now)[1] for now in np.asarray(x)])
    expected = of_cells.diagonal_log_norms(of_cells.mamba_log_factors(delta, rates(cell)))
    np.testing.assert_allclose(jacobian_log_norms(cell, x), expected, atol=2e-5)


def test_one_state_is_a_gated_unit() -> None:
    """Theorem 1: with A = −1 and B = 1, h⁽ᵗ⁾ = (1 − g) h⁽ᵗ⁻¹⁾ + g u, g = σ(net input of Δ)."""
    cell = cell_of(state_features=1)
    cell.a_log[...] = jnp.zeros_like(cell.a_log[...])
    x, h = random_inputs(), random_carry(cell)
    u, delta, _, c = cell.select(x)
    factors, drive = cell.step_map(cell.select(x)._replace(b=jnp.ones(1)))
    g = 1 - np.exp(-np.asarray(delta, float))
    expected = (1 - g) * np.asarray(h)[:, 0] + g * np.asarray(u)
    np.testing.assert_allclose((factors * h + drive)[:, 0], expected, atol=1e-6)
    assert c.shape == (1,)


def test_the_start_is_that_of_the_authors_code() -> None:
    many = 4000
    cell = Mamba(9, many, rngs=nnx.Rngs(0))
    assert (cell.state_features, cell.delta_rank, cell.dense_i.bias) == (16, 125, None)
    np.testing.assert_allclose(rates(cell)[7], -np.arange(1, 17), rtol=1e-6)
    np.testing.assert_array_equal(cell.d[...], 1)
    for layer, inputs in ((cell.dense_i, 9), (cell.dense_delta, 125), (cell.dense_u, many)):
        kernel = np.asarray(layer.kernel[...])
        assert np.abs(kernel).max() <= inputs**-0.5
        assert kernel.std() == pytest.approx((3 * inputs) ** -0.5, rel=0.03)
    steps = np.sort(np.logaddexp(0, np.asarray(cell.dense_delta.bias[...], float)))
    assert 0.00099 < steps[0] < steps[-1] < 0.1001
    quantiles = np.log(steps / 0.001) / np.log(100)
    assert np.abs(quantiles - (np.arange(many) + 0.5) / many).max() < 0.04  # Kolmogorov
    assert Mamba(1, 33, rngs=nnx.Rngs(0)).delta_rank == 2


def test_its_gates_are_what_a_step_keeps() -> None:
    cell, x = cell_of(), random_inputs()
    carry = random_carry(cell)
    _, delta, _, _ = selected(cell, np.asarray(x))
    expected = np.exp(delta[:, None] * rates(cell)).ravel()
    np.testing.assert_allclose(gates(cell, carry, x)["forget"], expected, rtol=1e-5)
    with pytest.raises(TypeError, match="knows no gates of Halved"):
        gates(cell_of(Halved), carry, x)
    before = np.asarray(cell.dense_delta.bias[...])
    set_gate_biases(cell, {"forget": jnp.ones(N)})
    np.testing.assert_array_equal(cell.dense_delta.bias[...], before)


def test_options_that_do_not_fit_are_refused() -> None:
    make: Any = partial(Mamba, 2, 6, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="must be one of zero_order_hold, euler; got 'bilinear'"):
        make(discretisation="bilinear")


def test_it_learns_an_echo_from_its_published_start(composed: Compose) -> None:
    config = composed(
        *("model=mamba", "model.hidden_size=16", "task=echo", "task.length=10", "task.delay=1"),
        *("optim.learning_rate=0.02", "task.test_size=100", "probe=[spectral,statistics,theory]"),
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, telemetry = program.advance(hyperparameters, program.initialise(hyperparameters), 200)
    assert not telemetry.nonfinite.any()
    assert program.evaluate(state)["eval/loss"] < 0.7 * program.task.baseline
    metrics = program.measure(hyperparameters, state).metrics
    assert -1 < metrics["jacobian/log_norm/lag_1"] < 0
    assert metrics["theory/mean_log_forget"] < 0
