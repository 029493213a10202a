"""Cells as configured: initialisers, gates, stacks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx

from gradlab import initialisers
from gradlab.components import ConfigError
from gradlab.identity import program_key
from gradlab.models import Network, Readout, Stack, by_gate
from gradlab.training.program import Program, hyperparameters_of


def network(composed: Compose, *overrides: str) -> nnx.Module:
    config = composed(*overrides)
    program = Program(config)
    state = program.initialise(hyperparameters_of(config))
    return nnx.merge(program.definition, state.parameters, program.constants)


def test_gaussian_has_variance_gain_squared_over_n() -> None:
    matrix = np.asarray(initialisers.gaussian(jax.random.key(0), 400, gain=3.0))
    assert matrix.std() == pytest.approx(3 / np.sqrt(400), rel=0.02)
    assert np.abs(np.linalg.eigvals(matrix)).max() == pytest.approx(3, rel=0.1)


def test_orthogonal_has_every_singular_value_at_the_gain() -> None:
    matrix = np.asarray(initialisers.orthogonal(jax.random.key(0), 30, gain=0.7))
    np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False), 0.7, rtol=1e-5)


def test_identity_is_the_gain_on_the_diagonal() -> None:
    np.testing.assert_array_equal(initialisers.identity(jax.random.key(0), 3, 2.0), 2 * np.eye(3))


@pytest.mark.parametrize(
    ("rule", "variance"), [(initialisers.glorot, 1 / 300), (initialisers.lecun, 1 / 300)]
)
def test_glorot_and_lecun_have_variance_gain_squared_over_n(rule: Any, variance: float) -> None:
    matrix = np.asarray(rule(jax.random.key(0), 300, gain=2.0))
    assert matrix.var() == pytest.approx(4 * variance, rel=0.02)
    limit = {initialisers.glorot: np.sqrt(3), initialisers.lecun: 2 / 0.8796}[rule]
    assert np.abs(matrix).max() <= 2 * limit / np.sqrt(300) * 1.001


@pytest.mark.parametrize("n", [256, 400])
def test_rescaled_glorot_has_a_spectral_radius_below_the_gain(n: int) -> None:
    drawn = [np.asarray(initialisers.glorot_rescaled(jax.random.key(i), n, 2.0)) for i in range(5)]
    radii = [np.abs(np.linalg.eigvals(matrix)).max() for matrix in drawn]
    assert all(1.7 < radius < 2 for radius in radii)
    # As the authors' code has it: a factor of the variance.
    gamma = np.log(n / (2 * np.pi * np.log(n) ** 2))
    gumbel = np.euler_gamma + np.pi / np.sqrt(6)
    factor = (1 + np.sqrt(gamma / (4 * n)) + gumbel / np.sqrt(4 * gamma * n)) ** -2
    assert np.var(drawn) == pytest.approx(4 * factor / n, rel=0.02)


def test_rescaled_glorot_is_a_law_of_wide_networks(composed: Compose) -> None:
    assert np.isfinite(initialisers.glorot_rescaled(jax.random.key(0), 164)).all()
    for n in (1, 2, 7, 32, 163):
        with pytest.raises(ConfigError, match=f"at least 164 units, .* model.hidden_size is {n}"):
            Program(composed("init=glorot_rescaled", f"model.hidden_size={n}"))


def test_small_normal_is_not_scaled_by_n() -> None:
    matrix = np.asarray(initialisers.normal(jax.random.key(0), 300, std=0.01))
    assert matrix.std() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("n", [10, 50])
def test_sparse_has_few_incoming_weights_and_the_spectral_radius(n: int) -> None:
    kernel = np.asarray(initialisers.sparse(jax.random.key(1), n, 0.95, incoming=15))
    assert (np.count_nonzero(kernel, axis=0) == min(n, 15)).all()  # a column is a unit, as in Flax
    assert np.abs(np.linalg.eigvals(kernel)).max() == pytest.approx(0.95, rel=2e-3)


def test_weights_that_are_not_recurrent_have_their_own_deviation(composed: Compose) -> None:
    size = ("model.hidden_size=400", "task=temporal_order", "init=normal", "init.std=0.1")
    drawn = network(composed, *size, "model.other_std=0.02")
    default = network(composed, *size)
    recurrent = drawn.cell.dense_h.kernel[...]
    np.testing.assert_array_equal(recurrent, default.cell.dense_h.kernel[...])
    for layer in (drawn.cell.dense_i, drawn.readout):
        assert np.std(layer.kernel[...]) == pytest.approx(0.02, rel=0.1)
    assert np.std(default.cell.dense_i.kernel[...]) == pytest.approx(1 / np.sqrt(6), rel=0.1)


def test_gate_biases() -> None:
    key = jax.random.key(0)
    assert initialisers.zero_bias(key, 4) == {}
    np.testing.assert_array_equal(initialisers.forget_bias(key, 4, 2.0)["forget"], 2)
    biases = initialisers.chrono(key, 4000, longest=100.0)
    np.testing.assert_array_equal(biases["input"], -biases["forget"])
    times = np.exp(np.asarray(biases["forget"]))
    assert times.min() >= 1
    assert times.max() <= 99
    assert times.mean() == pytest.approx(50, rel=0.03)


@pytest.mark.parametrize("n", [1, 2, 4000])
def test_uniform_gates_are_uniform(n: int) -> None:
    biases = initialisers.uniform_gate(jax.random.key(0), n)
    for gate in ("input", "refine"):
        np.testing.assert_array_equal(biases[gate], -biases["forget"])
    open_by = 1 / (1 + np.exp(-np.asarray(biases["forget"], np.float64)))
    edge = 1 / max(n, 2)
    assert open_by.min() >= edge - 1e-6
    assert open_by.max() <= 1 - edge + 1e-6
    if n > 2:
        shares, _ = np.histogram(open_by, bins=10, range=(0, 1))
        np.testing.assert_allclose(shares / n, 0.1, atol=0.02)


def test_biases_are_configured(composed: Compose) -> None:
    cell = network(composed, "model=lstm", "bias=forget", "bias.value=3").cell
    np.testing.assert_array_equal(cell.dense_h.bias[32:64], 3)
    np.testing.assert_array_equal(cell.dense_h.bias[:32], 0)
    pinned = network(composed, "model=lstm", "+model.cell.forget_gate=0.5", "bias=chrono").cell
    assert pinned.dense_h.bias.shape == (96,)
    assert network(composed, "+model.cell.activation=relu", "bias=chrono").cell.activation == "relu"


def test_each_gate_draws_its_own_square_matrix() -> None:
    kernel = by_gate(lambda key, n: initialisers.orthogonal(key, n, 2.0))(
        jax.random.key(0), (4, 12)
    )
    gates = np.split(np.asarray(kernel), 3, axis=1)
    for gate in gates:
        np.testing.assert_allclose(gate @ gate.T, 4 * np.eye(4), atol=1e-5)
    assert not np.allclose(gates[0], gates[1])


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_gain_scales_the_recurrent_weights_and_nothing_else(composed: Compose, model: str) -> None:
    plain, doubled = (
        nnx.to_flat_state(nnx.state(network(composed, f"model={model}", f"init.gain={gain}")))
        for gain in (1, 2)
    )
    scaled = 0
    for (path, first), (_, second) in zip(plain, doubled, strict=True):
        if not np.array_equal(first[...], second[...]):
            np.testing.assert_allclose(second[...], 2 * first[...], rtol=1e-6, err_msg=str(path))
            scaled += first[...].size
    n = 32
    assert scaled == n * n * {"rnn": 1, "lstm": 4, "gru": 3}[model]


def test_a_stack_is_its_layers_one_after_the_other() -> None:
    rngs = nnx.Rngs(0)
    layers = [nnx.SimpleCell(3, 4, rngs=rngs), nnx.OptimizedLSTMCell(4, 4, rngs=rngs)]
    stack = Stack(layers)
    carry = stack.initialize_carry((3,), rngs)
    below, above = (layer.initialize_carry((4,), rngs) for layer in layers)
    for x in np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32):
        carry, output = stack(carry, x)
        below, y = layers[0](below, x)
        above, y = layers[1](above, y)
        np.testing.assert_allclose(output, y, rtol=1e-6)
    np.testing.assert_allclose(carry["layer0"].h, below, rtol=1e-6)
    np.testing.assert_allclose(carry["layer1"][0], above[0], rtol=1e-6)


def test_layers_are_configured(composed: Compose) -> None:
    stack = network(composed, "model=gru", "model.num_layers=3", "model.hidden_size=6").cell
    assert [layer.in_features for layer in stack.layers] == [8, 6, 6]


def takes_the_key_alone(key: Any) -> Any:
    return key


def draws_a_row(key: Any, n: int) -> Any:
    return jax.random.normal(key, (n,))


def draws_nothing(key: Any, n: int) -> None:
    return None


def takes_a_rate(learning_rate: float = 0.1, threshold: float = 1.0) -> float:
    return learning_rate * threshold


@pytest.mark.parametrize(
    ("section", "function", "sentence"),
    [
        ("init", takes_the_key_alone, r"init._target_ must be a function of \(key, n\) that retu"),
        ("init", draws_a_row, r"an \(n, n\) matrix .*here \(5, 5\); .*float32 of shape \(5,\)"),
        ("init", draws_nothing, r"init._target_ must return an \(n, n\) matrix .*a NoneType"),
        (
            "bias",
            draws_nothing,
            r"bias._target_ must return a dictionary of n biases by gate.*None",
        ),
        ("bias", takes_the_key_alone, r"bias._target_ must be a function of \(key, n\).*TypeError"),
        (
            "optim",
            takes_a_rate,
            r"optim._target_ must return an optax.GradientTransformation; .*fl",
        ),
        ("clip", takes_a_rate, r"clip._target_ must .*, or a function of the adjoint; .* a "),
    ],
)
def test_functions_that_are_none_of_what_the_config_calls(
    composed: Compose, section: str, function: Any, sentence: str
) -> None:
    config = composed("model.hidden_size=5", "task.length=4")
    changed = {section: {"_target_": f"test_models.{function.__name__}"}}
    with pytest.raises(ConfigError, match=sentence):
        Program(dataclasses.replace(config, **changed))


def diagonal(key: Any, shape: tuple[int, int], dtype: Any, scale: float = 3.0) -> Any:
    return scale * jnp.eye(*shape, dtype=dtype)


class Diagonal:
    def __init__(self, scale: float = 2.0) -> None:
        self.scale = scale

    def __call__(self, key: Any, shape: tuple[int, int], dtype: Any) -> Any:
        return diagonal(key, shape, dtype, self.scale)


SCALED = jax.nn.initializers.orthogonal(2.0)
FLAX: dict[str, tuple[dict[str, float], Any]] = {
    "jax.nn.initializers.orthogonal": ({"scale": 0.7}, jax.nn.initializers.orthogonal(0.7)),
    "jax.nn.initializers.constant": ({"value": 0.7}, jax.nn.initializers.constant(0.7)),
    "jax.nn.initializers.zeros": ({}, jax.nn.initializers.zeros),
    "flax.nnx.initializers.glorot_normal": ({}, jax.nn.initializers.glorot_normal()),
    "test_models.SCALED": ({}, SCALED),
    "test_models.diagonal": ({"scale": 0.5}, lambda key, shape: 0.5 * np.eye(*shape)),
    "test_models.Diagonal": ({}, lambda key, shape: 2 * np.eye(*shape)),
}


@pytest.mark.parametrize("target", FLAX)
def test_initialisers_in_flaxs_style_are_taken(composed: Compose, target: str) -> None:
    arguments, initialiser = FLAX[target]
    words = [f"+init.{name}={value}" for name, value in arguments.items()]
    section = composed(f"init._target_={target}", "init.gain=3", *words).init
    drawn = initialisers.draw_matrix(section, jax.random.key(1), 5)
    np.testing.assert_array_equal(drawn, 3.0 * initialiser(jax.random.key(1), (5, 5)))


def test_a_gain_scales_what_flax_draws_in_one_program(composed: Compose) -> None:
    words = ("init._target_=jax.nn.initializers.orthogonal", "model=lstm", "task.length=4")
    assert program_key(composed(*words, "init.gain=2")) == program_key(composed(*words))
    kernels = network(composed, *words, "init.gain=2").cell.dense_h.kernel[...]
    gates = np.split(np.asarray(kernels), 4, axis=1)
    for gate in gates:
        np.testing.assert_allclose(gate @ gate.T, 4 * np.eye(32), atol=1e-5)
    assert not np.allclose(gates[0], gates[1])


def test_an_output_of_another_size_than_said_is_told_in_a_sentence() -> None:
    cell = nnx.SimpleCell(3, 8, rngs=nnx.Rngs(0))
    network = Network(cell, Readout(4, 2, rngs=nnx.Rngs(1)))
    with pytest.raises(ConfigError, match=r"output of size 4, .* output_features; it has 8"):
        network(jnp.ones((2, 5, 3)))
