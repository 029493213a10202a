"""The noise of the gradient, against gradients of single sequences by jax.grad."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import Compose
from flax import nnx

from gradlab.probes import Measurement
from gradlab.probes.noise import noise_scale, trace_and_signal
from gradlab.training.program import Program, hyperparameters_of

SMALL = ("model.hidden_size=5", "task.length=8", "probe.schedule=ends")


def measure(composed: Compose, *overrides: str) -> tuple[Any, Any, Measurement]:
    config = composed(*SMALL, *overrides)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    network = program.merge(state.parameters, state.constants)
    return network, program.task.test, program.measure(hyperparameters, state)


def test_the_scale_is_that_of_each_sequences_gradient(composed: Compose) -> None:
    network, test, measured = measure(composed, "probe=noise", "probe.samples=6")
    graph, cell = nnx.split(network.cell)

    def loss(cell: Any, index: int) -> jax.Array:
        own, h = nnx.merge(graph, cell), jnp.zeros(5)
        for x in test.inputs[index]:
            h = own(h, x)[0]
        logits = network.readout(h)
        return optax.softmax_cross_entropy_with_integer_labels(logits, test.targets[index, -1])

    gradients = [
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.grad(loss)(cell, index))])
        for index in range(6)
    ]
    mean = np.mean(gradients, axis=0)
    spread = np.sum(np.var(gradients, axis=0, ddof=1))
    signal = mean @ mean - spread / 6
    expected = spread / signal if signal > 0 else np.inf
    assert measured.metrics["noise/scale"] == pytest.approx(expected, rel=1e-3)
    assert measured.metrics["noise/trace"] == pytest.approx(spread, rel=1e-3)
    assert measured.metrics["noise/signal"] == pytest.approx(signal, rel=1e-3)
    assert {"noise/scale/dense_h.kernel", "noise/scale/lag_0", "noise/scale/lag_4"} <= set(
        measured.metrics
    )
    by_lag = measured.arrays["noise_scale"]
    assert by_lag.dims == ("lag",)
    assert by_lag.sizes["lag"] == 8
    assert float(by_lag[4]) == pytest.approx(measured.metrics["noise/scale/lag_4"], rel=1e-5)


def scale_of(gradients: np.ndarray) -> float:
    return noise_scale(np.sum(gradients.sum(axis=0) ** 2), np.sum(gradients**2), len(gradients))


def test_a_known_covariance_is_found() -> None:
    rng = np.random.default_rng(0)
    mean, deviation = np.array([3.0, 0, 4]), np.array([1.0, 2, 2])
    gradients = mean + deviation * rng.normal(size=(20_000, 3))
    assert scale_of(gradients) == pytest.approx(9 / 25, rel=0.03)


def test_trace_and_signal_have_no_bias() -> None:
    """Of many sets of few gradients, the mean of the estimates is the truth."""
    rng = np.random.default_rng(1)
    gradients = np.array([1.0, 0.5]) + rng.normal(size=(20_000, 5, 2))
    sums = np.sum(gradients.sum(axis=1) ** 2, axis=1), np.sum(gradients**2, axis=(1, 2))
    estimates = [trace_and_signal(*each, 5) for each in zip(*sums, strict=True)]
    np.testing.assert_allclose(np.mean(estimates, axis=0), [2, 1.25], rtol=0.02)


def test_gradients_without_noise_or_without_signal() -> None:
    same = np.tile([1.0, 2.0], (4, 1))
    assert scale_of(same) == 0
    assert scale_of(np.concatenate([same, -same])) == np.inf
    assert np.isnan(scale_of(same[:1]))
    assert np.isnan(scale_of(0 * same))


def test_one_sequence_has_no_noise_scale(composed: Compose) -> None:
    _, _, measured = measure(composed, "probe=noise", "probe.samples=1")
    assert np.isnan(list(measured.metrics.values())).all()


def test_the_window_of_the_contributions_keeps_the_tolerance(composed: Compose) -> None:
    words = ("probe=contribution", "init.gain=0.2")
    for tolerance in (0.1, 0.01):
        _, _, measured = measure(composed, *words, f"+probe.contribution.tolerance={tolerance}")
        window = int(measured.metrics["contribution/window"])
        assert 1 <= window <= 8
        errors = measured.arrays["contribution_relative_error"]
        assert (errors[window - 1 :] <= tolerance).all()
