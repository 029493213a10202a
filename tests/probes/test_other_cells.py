"""Probes of cells whose carry, output or activation are not those of gradlab's own cells."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from jax import Array

from gradlab.cells import Elman
from gradlab.cells.elman import elman_activation
from gradlab.components import ConfigError
from gradlab.probes import Measurement
from gradlab.regularisers import Omega
from gradlab.training.program import Program, hyperparameters_of

SMALL = ("task.length=8", "model.hidden_size=5", "probe.samples=2", "wandb=disabled")


class Swapped(nnx.OptimizedLSTMCell):
    """An LSTM whose carry is (h, c): the second part is not the output. It counts its steps."""

    def __call__(self, carry: Any, inputs: Array) -> tuple[Any, Array]:
        count, h, c = carry
        (c, h), y = super().__call__((c, h), inputs)
        return (count + 1, h, c), y

    def initialize_carry(self, *arguments: Any, **options: Any) -> Any:
        c, h = super().initialize_carry(*arguments, **options)
        return jnp.array(2**24 + 1), h, c


class Doubled(nnx.GRUCell):
    """A GRU whose output is twice its state."""

    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        h, _ = super().__call__(carry, inputs)
        return h, 2 * h


def measure(composed: Compose, *overrides: str) -> tuple[Any, Any, Measurement]:
    program = Program(config := composed(*SMALL, *overrides))
    hyperparameters = hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    network = nnx.merge(program.definition, state.parameters, state.constants)
    return network, program.task.test, program.measure(hyperparameters, state)


def cell(name: str) -> tuple[str, str]:
    return f"model.cell._target_=test_other_cells.{name}", "model.name=mine"


def test_the_loss_is_that_of_the_output_wherever_it_lies(composed: Compose) -> None:
    network, test, measurement = measure(
        composed, *cell("Swapped"), "probe=[adjoint,statistics]", "probe.adjoint.wrt='2'"
    )
    x, labels = test.inputs[:2], test.targets[:2, -1]

    def loss(c: Array) -> Array:
        carry = (jnp.array(0), jnp.zeros((2, 5)), c)
        for t in range(8):
            carry, y = network.cell(carry, x[:, t])
        logits = jax.nn.log_softmax(network.readout(y))
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))

    expected = np.log(np.linalg.norm(jax.grad(loss)(jnp.zeros((2, 5))), axis=1))
    measured = measurement.arrays["adjoint_log_norm"].values[:, 0]
    np.testing.assert_allclose(measured, expected, atol=1e-4)
    parts = {name.split("/")[1] for name in measurement.metrics if name.endswith("/norm")}
    assert parts == {"1", "2"}
    h, c = network.cell((jnp.array(0), jnp.zeros((2, 5)), jnp.zeros((2, 5))), x[:, 0])[0][1:]
    for part, values in (("1", h), ("2", c)):
        norms = measurement.arrays[f"statistics_{part}_norm"].values[:, 0]
        np.testing.assert_allclose(norms, np.linalg.norm(values, axis=1), rtol=1e-5)


class Rotating(nnx.GRUCell):
    """z ← λ z + B x, a complex state."""

    def __init__(self, in_features: int, hidden_features: int, **options: Any) -> None:
        super().__init__(in_features, hidden_features, **options)
        self.eigenvalue = nnx.Param(jnp.array(0.9 * np.exp(0.5j), jnp.complex64))
        self.kernel = nnx.Param(jnp.full((hidden_features, in_features), 3 + 4j, jnp.complex64))

    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        carry = self.eigenvalue[...] * carry + inputs @ self.kernel[...].T
        return carry, carry.real

    def initialize_carry(self, *arguments: Any, **options: Any) -> Array:
        return super().initialize_carry(*arguments, **options).astype(jnp.complex64)


def test_a_complex_state_has_the_moduli_of_its_numbers(composed: Compose) -> None:
    network, test, measurement = measure(
        composed, *cell("Rotating"), "probe=[spectral,statistics,lyapunov]"
    )
    z, norms, flat = jnp.zeros((2, 5), jnp.complex64), [], []
    for t in range(8):
        z = network.cell(z, test.inputs[:2, t])[0]
        norms.append(np.linalg.norm(z, axis=1))
        flat.append(np.mean(np.abs(z) > 0.95))
    arrays, metrics = measurement.arrays, measurement.metrics
    np.testing.assert_allclose(arrays["statistics_h_norm"].values.T, norms, rtol=1e-5)
    assert metrics["statistics/h/flat"] == pytest.approx(np.mean(flat))
    assert metrics["jacobian/decay_rate"] == pytest.approx(np.log(0.9), abs=1e-5)
    np.testing.assert_allclose(arrays["lyapunov_exponent"], np.full((2, 5), np.log(0.9)), atol=1e-5)


def test_an_output_that_is_no_part_of_the_carry_has_no_adjoint(composed: Compose) -> None:
    _, _, measurement = measure(composed, *cell("Doubled"), "probe=spectral")
    assert np.isfinite(measurement.metrics["jacobian/decay_rate"])
    with pytest.raises(ConfigError, match="leave out the probes adjoint and contribution"):
        measure(composed, *cell("Doubled"), "probe=[spectral,adjoint]")


def test_a_layer_is_told_by_what_it_does() -> None:
    rngs = nnx.Rngs(0)
    relu = nnx.SimpleCell(2, 3, activation_fn=jax.nn.relu, rngs=rngs)
    assert elman_activation(relu) == "relu"
    assert elman_activation(nnx.SimpleCell(2, 3, rngs=rngs)) == "tanh"
    assert elman_activation(Elman(2, 3, activation="identity", rngs=rngs)) == "identity"
    residual = nnx.SimpleCell(2, 3, residual=True, rngs=rngs)
    other_activation = nnx.SimpleCell(2, 3, activation_fn=lambda x: x**3, rngs=rngs)
    for unknown in (residual, other_activation, nnx.GRUCell(2, 3, rngs=rngs)):
        assert elman_activation(unknown) is None
        with pytest.raises(ConfigError, match="one layer of W_hh and an activation"):
            Omega().check(unknown, truncated=False)
