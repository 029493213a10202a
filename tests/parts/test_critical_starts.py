"""Critical gains and mean fields of gated cells, against matrices and simulations in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab import lyapunov_exponents
from gradlab.cells import GRU, LSTM, Elman, Leaky
from gradlab.initialisers import gaussian
from gradlab.jacobian import step_jacobians
from gradlab.models import by_gate
from gradlab.theory import gated
from gradlab.theory.at_rest import AtRest, gru_at_rest, leaky_at_rest, lstm_at_rest
from gradlab.training.program import Program, hyperparameters_of

N, FEATURES = 6, 2
BIAS = st.floats(-3, 3, width=16)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def expected_eigenvalues(rest: AtRest, kernel: Any, size: int) -> np.ndarray:
    """Return kept + slope · eigenvalues of the candidate's weights, and zeros up to the size."""
    own = rest.kept + rest.slope * np.linalg.eigvals(np.asarray(kernel, np.float64))
    return np.concatenate([own, np.zeros(size - len(own))])


@settings(max_examples=6)
@given(biases=st.tuples(BIAS, BIAS, BIAS), gain=st.floats(0.25, 4, width=16))
def test_the_jacobian_at_rest_has_the_eigenvalues_of_the_form(
    biases: tuple[float, float, float], gain: float
) -> None:
    init = by_gate(lambda key, n: gaussian(key, n, gain))
    options: Any = {"recurrent_kernel_init": init, "rngs": nnx.Rngs(0)}
    gru, lstm = GRU(FEATURES, N, **options), LSTM(FEATURES, N, **options)
    gru.dense_i.bias[...] = jnp.repeat(jnp.array([biases[0], biases[1], 0.0]), N)
    lstm.dense_h.bias[...] = jnp.repeat(jnp.array([*biases[:2], 0.0, biases[2]]), N)
    alpha = float(sigmoid(np.float64(biases[0])))
    forms = [
        (Elman(FEATURES, N, **options), leaky_at_rest(), 0),
        (Leaky(FEATURES, N, alpha=alpha, **options), leaky_at_rest(alpha), 0),
        (gru, gru_at_rest(update_bias=biases[1], reset_bias=biases[0]), 2),
        (lstm, lstm_at_rest(biases[1], input_bias=biases[0], output_bias=biases[2]), 2),
    ]
    for cell, rest, block in forms:
        (jacobian,) = step_jacobians(cell, jnp.zeros((1, FEATURES)))
        kernel = cell.dense_h.kernel[...][:, block * N : (block + 1) * N]
        expected = expected_eigenvalues(rest, kernel, len(jacobian))
        # Sums of powers, which do not depend on an order and forgive defective zeros.
        for power in (1, 2, 3):
            trace = np.trace(np.linalg.matrix_power(np.asarray(jacobian, np.float64), power))
            assert trace == pytest.approx(np.sum(expected**power).real, rel=1e-4, abs=1e-4)


def built(composed: Compose, *words: str) -> tuple[Program, Any]:
    config = composed("wandb=disabled", *words)
    return Program(config), hyperparameters_of(config)


@pytest.mark.parametrize(
    ("network", "rest"),
    [
        ("model=rnn", leaky_at_rest()),
        ("+network=gru_critical", gru_at_rest()),
        ("+network=lstm_critical", lstm_at_rest(1.0)),
    ],
)
def test_networks_at_their_critical_gain(composed: Compose, network: str, rest: AtRest) -> None:
    program, hyperparameters = built(composed, network, "model.hidden_size=300")
    assert hyperparameters["init.gain"] == pytest.approx(rest.critical_gain, rel=1e-6)
    cell = program.merge(program.initialise(hyperparameters).parameters).cell
    (jacobian,) = step_jacobians(cell, jnp.zeros((1, cell.in_features)))
    eigenvalues, edge = np.linalg.eigvals(np.asarray(jacobian, np.float64)), 2 / np.sqrt(300)
    assert np.abs(eigenvalues).max() == pytest.approx(1, abs=edge * (1 - rest.kept))
    assert rest.rate(rest.critical_gain) == pytest.approx(0, abs=1e-12)
    below = hyperparameters | {"init.gain": hyperparameters["init.gain"] / 2}
    cell = program.merge(program.initialise(below).parameters).cell
    rate = lyapunov_exponents(cell, jnp.zeros((1500, cell.in_features)), count=1)[0]
    own = eigenvalues[np.abs(eigenvalues) > 1e-6]  # an LSTM's h takes n zeros
    halved = np.log(np.abs(rest.kept + (own - rest.kept) / 2).max())
    assert rate == pytest.approx(halved, abs=0.01)
    assert halved == pytest.approx(rest.rate(rest.critical_gain / 2), abs=edge)


Fields = tuple[list[float], list[float], list[float]]


def simulated_gru(
    gain: float, variance: float, biases: tuple[float, float], n: int, steps: int
) -> Fields:
    """Return variances of net inputs, squared Jacobians over n, and growths of a perturbation."""
    rng = np.random.default_rng(0)
    h, change = np.zeros(n), rng.normal(size=n)
    variances, squares, growths = [], [], []
    for step in range(steps):
        u_z, u_r, u_g = gain / np.sqrt(n) * rng.normal(size=(3, n, n))
        x = np.sqrt(variance) * rng.normal(size=(3, n))
        net = x[0] + u_z @ h
        z, r, a = sigmoid(biases[0] + net), sigmoid(biases[1] + x[1] + u_r @ h), u_g @ h
        g = np.tanh(x[2] + r * a)
        to_g = r[:, None] * u_g + (a * r * (1 - r))[:, None] * u_r
        jacobian = np.diag(z) + ((h - g) * z * (1 - z))[:, None] * u_z
        jacobian += ((1 - z) * (1 - g**2))[:, None] * to_g
        after = jacobian @ change
        if step >= steps // 3:
            variances.append(np.mean(net**2))
            squares.append(np.sum(jacobian**2) / n)
            growths.append(np.log(np.sum(after**2) / np.sum(change**2)))
        h, change = z * h + (1 - z) * g, after / np.linalg.norm(after)
    return variances, squares, growths


@pytest.mark.parametrize(
    ("gain", "variance", "biases", "scatter"),  # few units carry what a large gain makes
    [(4.35, 1.0, (3.0, 0.0), 0.01), (2.0, 0.3, (1.0, -0.5), 0.01), (8.0, 1.0, (0.0, 0.0), 0.05)],
)
def test_the_mean_field_of_a_gru_whose_weights_are_drawn_at_every_step(
    gain: float, variance: float, biases: tuple[float, float], scatter: float
) -> None:
    field = gated.gru_mean_field(gain, variance, *biases)
    variances, squares, growths = simulated_gru(gain, variance, biases, n=250, steps=240)
    assert np.mean(variances) == pytest.approx(field.q, rel=0.03)
    assert np.mean(squares) == pytest.approx(field.chi, rel=scatter)
    assert np.mean(growths) == pytest.approx(2 * field.rate, abs=2 * scatter)


def test_a_gru_without_inputs_is_at_rest() -> None:
    field = gated.gru_mean_field(1.5, input_variance=0.0, update_bias=1.0, reset_bias=-0.5)
    kept, slope = gru_at_rest(1.0, -0.5)
    assert field.q == 0
    assert field.chi == pytest.approx(kept**2 + (1.5 * slope) ** 2)


def test_an_lstm_without_inputs_is_at_rest() -> None:
    # With c = 0, δh = o δc, and δc grows by f² + gain² i² o².
    field = gated.lstm_mean_field(1.5, 0.0, forget_bias=1.0, input_bias=-0.5, output_bias=0.5)
    kept, slope = lstm_at_rest(1.0, -0.5, 0.5)
    assert field.q == 0
    assert field.chi == pytest.approx(kept**2 + (1.5 * slope) ** 2, rel=1e-6)


def simulated_lstm(gain: float, variance: float, biases: tuple[float, ...], n: int) -> Fields:
    rng, steps = np.random.default_rng(0), 120
    c, h, dc, dh = np.zeros(n), np.zeros(n), *rng.normal(size=(2, n))
    variances, growths = [], []
    for step in range(steps):
        u = gain / np.sqrt(n) * rng.normal(size=(4, n, n))
        net, change = np.sqrt(variance) * rng.normal(size=(4, n)) + u @ h, u @ dh
        f, i, o = (sigmoid(net[k] + biases[k]) for k in range(3))
        g, before = np.tanh(net[3]), np.sum(dc**2) + np.sum(dh**2)
        dc = f * dc + f * (1 - f) * c * change[0] + i * (1 - i) * g * change[1]
        dc += i * (1 - g**2) * change[3]
        c = f * c + i * g
        dh = o * (1 - np.tanh(c) ** 2) * dc + o * (1 - o) * np.tanh(c) * change[2]
        h = o * np.tanh(c)
        after = np.sum(dc**2) + np.sum(dh**2)
        if step >= steps // 3:
            variances.append(np.mean(net[0] ** 2))
            growths.append(np.log(after / before))
        dc, dh = dc / np.sqrt(after), dh / np.sqrt(after)
    return variances, [], growths


@pytest.mark.parametrize(
    ("gain", "variance", "biases"), [(2.64, 1.0, (3.0, 0.0, 0.0)), (3.0, 0.5, (0.5, -1.0, 1.0))]
)
def test_the_mean_field_of_an_lstm_whose_weights_are_drawn_at_every_step(
    gain: float, variance: float, biases: tuple[float, float, float]
) -> None:
    field = gated.lstm_mean_field(gain, variance, *biases)
    variances, _, growths = simulated_lstm(gain, variance, biases, n=250)
    assert np.mean(variances) == pytest.approx(field.q, rel=0.03)
    assert np.mean(growths) == pytest.approx(2 * field.rate, abs=0.02)


@pytest.mark.parametrize("name", ["gru_critical_driven", "lstm_critical_driven"])
def test_networks_that_inputs_drive_are_critical(composed: Compose, name: str) -> None:
    """Steps of networks of different seeds: each is as if all weights were drawn anew."""
    program, own = built(composed, f"+network={name}", "model.hidden_size=300")
    features, steps = program.task.features, 100
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(steps, features))
    inputs *= np.sqrt(features / np.sum(inputs**2, axis=1, keepdims=True))  # mean square 1

    @jax.jit
    def advance(seed: Any, carry: Any, change: Any, x: Any) -> Any:
        cell = program.merge(program.initialise(own | {"seed": seed}).parameters).cell
        return jax.jvp(lambda carry: cell(carry, x)[0], (carry,), (change,))

    cell = program.merge(program.initialise(own).parameters).cell
    carry = cell.initialize_carry((features,), nnx.Rngs(0))
    change = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), carry)
    growths = []
    for seed, x in enumerate(inputs):
        carry, after = advance(jnp.uint32(seed), carry, change, jnp.asarray(x, jnp.float32))
        before, size = (sum(jnp.sum(x**2) for x in jax.tree.leaves(s)) for s in (change, after))
        growths.append(float(jnp.log(size / before)))
        change = jax.tree.map(lambda leaf: leaf / jnp.sqrt(size), after)  # noqa: B023
    assert np.mean(growths[30:]) == pytest.approx(0, abs=0.03)
    if name.startswith("gru"):  # the mean squared singular value of a step
        cell = program.merge(program.initialise(own | {"seed": jnp.uint32(999)}).parameters).cell
        last = jnp.asarray(inputs[-1:], jnp.float32)
        (jacobian,) = step_jacobians(cell, last, initial_carry=carry)
        assert float(jnp.sum(jacobian**2)) / 300 == pytest.approx(1, abs=0.04)
