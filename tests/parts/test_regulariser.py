"""Pascanu's Ω against explicit Jacobians in NumPy, and the settings that it refuses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx

from gradlab.cells import Elman
from gradlab.components import ConfigError
from gradlab.identity import program_key
from gradlab.regularisers import Omega
from gradlab.training.program import Program, hyperparameters_of

TIME, BATCH, FEATURES, HIDDEN = 6, 3, 2, 4
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(TIME, BATCH, FEATURES))
PULL = RNG.normal(size=(TIME, BATCH, HIDDEN))  # L = Σ pull · h: its direct gradient is `pull`
PULL[4:] = 0  # the last two steps have no loss after them
PULL[:, 2] *= 1e-12  # too small for the published code to count, in one sample


def network(activation: Any = "tanh") -> Elman:
    cell = Elman(FEATURES, HIDDEN, activation=activation, rngs=nnx.Rngs(0))
    for linear in (cell.dense_i, cell.dense_h):
        linear.dtype = jnp.result_type(float)
    return cell


def omega_of(cell: Elman, form: Any) -> jax.Array:
    carry, hidden = jnp.zeros((BATCH, HIDDEN)), []
    for x in INPUTS:
        hidden.append(cell(hidden[-1] if hidden else carry, x)[1])
    regulariser = Omega(1.0, form)
    return regulariser(
        cell, carry, jnp.asarray(INPUTS), jnp.stack(hidden), lambda h: jnp.sum(h * PULL)
    )


def by_hand(cell: Elman, form: str, w_in_jacobian: np.ndarray) -> float:
    """Return Ω with another W_hh in ∂h⁽ᵏ⁾/∂h⁽ᵏ⁻¹⁾; v and the slopes are those of the cell."""
    w_xh, w_hh, b = (
        np.asarray(x[...], np.float64)
        for x in (cell.dense_i.kernel, cell.dense_h.kernel, cell.dense_i.bias)
    )
    slope_of = {"tanh": lambda h: 1 - h**2, "sigmoid": lambda h: h * (1 - h)}[cell.activation]
    phi = {"tanh": np.tanh, "sigmoid": lambda a: 1 / (1 + np.exp(-a))}[cell.activation]
    sums, terms = [], []
    for sample in range(BATCH):
        h, slopes, jacobians, sample_terms = np.zeros(HIDDEN), [], [], []
        for x in INPUTS[:, sample]:
            h = phi(x @ w_xh + h @ w_hh + b)
            slopes.append(np.diag(slope_of(h)))
            jacobians.append(slopes[-1] @ w_hh.T)
        for k in range(TIME):
            v, product = np.zeros(HIDDEN), np.eye(HIDDEN)
            for t in range(k, TIME):
                product = jacobians[t] @ product if t > k else product
                v += PULL[t, sample] @ product
            if not v.any():
                continue
            ratio = np.linalg.norm(v @ slopes[k] @ w_in_jacobian.T) / np.linalg.norm(v)
            sample_terms.append((ratio - 1) ** 2 if form == "eq9" else (ratio**2 - 1) ** 2)
            if np.linalg.norm(v) >= 1e-10:
                terms.append((ratio**2 - 1) ** 2)
        sums.append(sum(sample_terms))
    return float(np.mean(terms) if form == "code" else np.mean(sums))


@pytest.mark.parametrize(
    ("form", "activation"), [("eq9", "tanh"), ("eq10", "sigmoid"), ("code", "tanh")]
)
def test_omega_and_its_immediate_derivative(form: str, activation: str) -> None:
    with jax.enable_x64(True):
        cell = network(activation)
        w_hh = np.asarray(cell.dense_h.kernel[...], np.float64)
        definition, parameters = nnx.split(cell)
        of_parameters = jax.value_and_grad(lambda p: omega_of(nnx.merge(definition, p), form))
        value, gradient = jax.jit(of_parameters)(parameters)
        assert value == pytest.approx(by_hand(cell, form, w_hh), rel=1e-9)
        gradient_cell = nnx.merge(definition, gradient)
        expected = np.zeros_like(w_hh)
        for index in np.ndindex(w_hh.shape):
            nudge = np.zeros_like(w_hh)
            nudge[index] = 1e-6
            up, down = (by_hand(cell, form, w_hh + sign * nudge) for sign in (1, -1))
            expected[index] = (up - down) / 2e-6
        np.testing.assert_allclose(
            gradient_cell.dense_h.kernel[...], expected, rtol=1e-5, atol=1e-7
        )
        assert not np.any(gradient_cell.dense_i.kernel[...])
        assert not np.any(gradient_cell.dense_i.bias[...])


@pytest.mark.parametrize(
    ("form", "expected"),
    [("eq9", 4 * 0.5**2), ("eq10", 4 * 0.75**2), ("code", 0.75**2)],
)
def test_a_scaled_rotation_has_the_same_ratio_at_every_step(form: str, expected: float) -> None:
    """Gain 1/2 without a non-linearity: r = 1/2 at the four steps that the loss reaches."""
    cell = network("identity")
    cell.dense_h.kernel[...] = 0.5 * cell.dense_h.kernel[...]
    assert omega_of(cell, form) == pytest.approx(expected, rel=1e-5)


SMALL = ("model.hidden_size=5", "task.length=4", "train.batch_size=6", "optim=sgd")


def test_a_weight_of_zero_is_the_loss_alone_and_weights_share_a_program(composed: Compose) -> None:
    def trained(*overrides: str) -> tuple[Any, Any]:
        config = composed(*SMALL, *overrides)
        program, hyperparameters = Program(config), hyperparameters_of(config)
        state, telemetry = program.advance(hyperparameters, program.initialise(hyperparameters), 3)
        return state.parameters, telemetry

    alone, telemetry = trained()
    assert telemetry.regulariser is None
    weight_0, _ = trained("regulariser=omega", "regulariser.weight=0")
    weight_10, telemetry = trained("regulariser=omega", "regulariser.weight=10")
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), alone, weight_0
    )
    change = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), weight_0, weight_10)
    assert jax.tree.leaves(change["cell"]["dense_h"]["kernel"])[0] > 1e-3
    assert (telemetry.regulariser > 0).all()
    keys = {
        program_key(composed(*SMALL, "regulariser=omega", f"regulariser.weight={w}")) for w in "12"
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("override", "part"),
    [("model=lstm", "model=rnn"), ("model.num_layers=2", "Stack"), ("tbptt.window=2", "whole")],
)
def test_omega_refuses_other_cells_stacks_and_truncation(
    composed: Compose, override: str, part: str
) -> None:
    with pytest.raises(ConfigError, match=part):
        Program(composed(*SMALL, "regulariser=omega", override))
