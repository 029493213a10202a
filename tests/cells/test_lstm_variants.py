"""The options of the LSTM against their papers' equations, written out in float64."""

from functools import partial
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from test_recurrence import assert_same, in_float64, problem, with_gradients, with_random_biases

from gradlab import theory
from gradlab.cells import LSTM, gates, lstm_variants, set_gate_biases
from gradlab.cells.affine import affine_form
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.initialisers import uniform_gate
from gradlab.training.program import Program, hyperparameters_of

FEATURES, HIDDEN, STEPS, BATCH = 3, 4, 5, 2
OPTIONS = ("peepholes", "coupled", "layer_norm", "refine_gate")
AFFINE = tuple(option for option in OPTIONS if option != "layer_norm")
SETS = st.sets(st.sampled_from(OPTIONS), min_size=1)


def make(*options: str, **pins: float) -> Any:
    chosen: Any = dict.fromkeys(options, True) | pins
    return with_random_biases(LSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **chosen))


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*shape, FEATURES))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def values(layer: Any, name: str) -> np.ndarray:
    return np.asarray(getattr(layer, name)[...], np.float64)


def normalised(z: np.ndarray, layer: nnx.LayerNorm) -> np.ndarray:
    """Ba et al. 2016, eq. 15 and 16 of the supplement, with the ε of their code."""
    mean = z.mean(-1, keepdims=True)
    deviation = np.sqrt(((z - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
    shift = 0 if layer.bias is None else values(layer, "bias")
    return (z - mean) / deviation * values(layer, "scale") + shift


def by_the_papers(cell: Any, x: np.ndarray) -> list[np.ndarray]:
    """Return h at every step; a gate that a cell has pinned is not known here."""
    names = [
        name
        for name in ("input", "forget", "candidate", "output", "refine")
        if not (name == "input" and "coupled" in cell.options)
        and not (name == "refine" and "refine_gate" not in cell.options)
    ]
    w, u = values(cell.dense_i, "kernel"), values(cell.dense_h, "kernel")
    c, h, outputs = np.zeros(HIDDEN), np.zeros(HIDDEN), []
    for now in x:
        if "layer_norm" in cell.options:
            net = normalised(now @ w, cell.norm_i) + normalised(h @ u, cell.norm_h)
        else:
            net = now @ w + h @ u + values(cell.dense_h, "bias")
        nets = dict(zip(names, np.split(net, len(names), -1), strict=True))

        def gate(name: str, seen: np.ndarray, nets: Any = nets) -> np.ndarray:
            sees = "peepholes" in cell.options and name != "refine"
            p = values(cell, f"peephole_{name}") if sees else 0
            return sigmoid(nets[name] + p * seen)

        f = gate("forget", c)
        if "refine_gate" in cell.options:
            r = gate("refine", c)
            f = 2 * r * f + (1 - 2 * r) * f**2  # as the pseudo-code of Gu et al. 2020 has it
        i = 1 - f if "coupled" in cell.options else gate("input", c)
        c = f * c + i * np.tanh(nets["candidate"])
        squashed = normalised(c, cell.norm_c) if "layer_norm" in cell.options else c
        h = gate("output", c) * np.tanh(squashed)
        outputs.append(h)
    return outputs


@settings(max_examples=12, derandomize=True)
@given(options=SETS)
def test_outputs_are_those_of_the_papers(options: set[str]) -> None:
    cell, x = make(*options), inputs(STEPS)
    carry = cell.initialize_carry((1, FEATURES), nnx.Rngs(0))
    for run in (unroll, step_by_step):
        _, outputs = run(cell, carry, jnp.asarray(x[:, None], jnp.float32))
        np.testing.assert_allclose(outputs[:, 0], by_the_papers(cell, x), atol=1e-5)


@settings(max_examples=6, derandomize=True)
@given(options=SETS)
def test_the_step_jacobian_is_that_of_differences(options: set[str]) -> None:
    with jax.enable_x64(True):
        cell, x = in_float64(make(*options)), jnp.asarray(inputs())
        state = jnp.asarray(np.random.default_rng(2).normal(size=2 * HIDDEN))

        @jax.jit
        def step(state: Any) -> Any:
            return jnp.concatenate(cell(tuple(jnp.split(state, 2)), x)[0])

        size = 1e-6
        differences = [
            (step(state + d) - step(state - d)) / (2 * size) for d in size * np.eye(2 * HIDDEN)
        ]
        jacobian = jax.jacobian(step)(state)
        np.testing.assert_allclose(jacobian, np.stack(differences, axis=1), atol=1e-7)


@pytest.mark.parametrize("options", [("coupled",), ("refine_gate",), AFFINE[1:]])
def test_without_recurrent_weights_the_cell_state_keeps_its_gate(options: tuple[str, ...]) -> None:
    cell, x = make(*options), jnp.asarray(inputs(), jnp.float32)
    cell.dense_h.kernel[...] = jnp.zeros_like(cell.dense_h.kernel[...])
    c, h = np.random.default_rng(2).normal(size=(2, HIDDEN)).astype(np.float32)
    jacobian = jax.jacobian(lambda c: cell((c, h), x)[0][0])(c)
    np.testing.assert_allclose(jacobian, np.diag(gates(cell, (c, h), x)["forget"]), atol=1e-6)


@pytest.mark.parametrize("options", [x for k in (1, 2, 3) for x in combinations(AFFINE, k)])
def test_the_fast_path_has_the_values_and_gradients_of_the_steps(options: tuple[str, ...]) -> None:
    pins = {"output_gate": 0.9} if len(options) == 2 else {}
    cell = make(*options, **pins)
    assert affine_form(cell) is not None
    args = problem(cell, jnp.float32)
    assert_same(
        with_gradients(unroll, cell)(*args), with_gradients(step_by_step, cell)(*args), 1e-5
    )
    if len(options) == 3:
        with jax.enable_x64(True):
            cell, rule = in_float64(make(*options)), partial(jax.tree.map, jnp.tanh)
            args = problem(cell, jnp.float64)
            expected = with_gradients(step_by_step, cell, rule)(*args)
            assert_same(with_gradients(unroll, cell, rule)(*args), expected, 1e-12)


def test_what_the_affine_form_does_not_know_runs_by_its_own_steps() -> None:
    assert affine_form(make("layer_norm")) is None
    cell = make("peepholes")
    cell.peephole_forget = nnx.Param(jnp.array([0.3]))  # the same for all units
    assert affine_form(cell) is None
    cell = make("coupled")
    own = cell.activations
    object.__setattr__(cell, "activations", lambda c, x: own(c, x) | {"input": jnp.ones(HIDDEN)})
    assert affine_form(cell) is None


def test_an_option_leaves_the_other_weights_as_they_are_drawn() -> None:
    plain = LSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    for option in OPTIONS:
        cell = LSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **{option: True})  # type: ignore[arg-type]
        for layer, other in ((cell.dense_i, plain.dense_i), (cell.dense_h, plain.dense_h)):
            first = 1 if option == "coupled" else 0  # the input gate's block
            blocks = np.split(np.asarray(layer.kernel[...]), len(cell.learned), axis=1)
            known = np.split(np.asarray(other.kernel[...]), 4, axis=1)[first:]
            np.testing.assert_array_equal(blocks[: len(known)], known)
            assert layer.kernel.shape[1] == layer.out_features


@pytest.mark.parametrize(
    ("options", "vectors", "blocks"),
    [
        (("peepholes",), 3, 4),
        (("coupled",), 0, 3),
        (("peepholes", "coupled"), 2, 3),
        (("refine_gate",), 0, 5),
        (("refine_gate", "coupled"), 0, 4),  # as many as those of the LSTM (Gu et al. 2020)
        (("layer_norm",), 2 * 4 + 2, 4),  # a gain for each layer's columns, gain and bias of c
    ],
)
def test_numbers_of_weights(options: tuple[str, ...], vectors: int, blocks: int) -> None:
    weights = jax.tree.leaves(nnx.state(make(*options), nnx.Param))
    expected = blocks * HIDDEN * (FEATURES + HIDDEN + 1) + vectors * HIDDEN
    assert sum(x.size for x in weights) == expected


@pytest.mark.parametrize("options", [x for k in (1, 4) for x in combinations(OPTIONS, k)])
def test_gates_explain_the_next_state(options: tuple[str, ...]) -> None:
    cell, x = make(*options), jnp.asarray(inputs(), jnp.float32)
    c, h = np.random.default_rng(2).normal(size=(2, HIDDEN)).astype(np.float32)
    found = {name: np.asarray(gate) for name, gate in gates(cell, (c, h), x).items()}
    refined = ["refine"] if "refine_gate" in options else []
    assert list(found) == ["input", "forget", "output", *refined]
    candidate = np.asarray(cell.activations((c, h), x)["candidate"])
    (new_c, new_h), _ = cell((c, h), x)
    expected = found["forget"] * c + found["input"] * candidate
    np.testing.assert_allclose(new_c, expected, rtol=1e-5, atol=1e-6)
    seen = np.asarray(cell.norm_c(new_c) if "layer_norm" in options else new_c)
    np.testing.assert_allclose(new_h, found["output"] * np.tanh(seen), rtol=1e-5, atol=1e-6)
    if "coupled" in options:
        np.testing.assert_allclose(found["input"] + found["forget"], 1, rtol=1e-6)


@pytest.mark.parametrize("options", [x for k in (1, 2, 4) for x in combinations(OPTIONS, k)])
def test_gate_biases_open_the_gates_at_rest(options: tuple[str, ...]) -> None:
    cell: Any = LSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **dict.fromkeys(options, True))
    bias = jnp.linspace(-2, 2, HIDDEN)
    set_gate_biases(cell, {"forget": bias, "input": -bias, "refine": -bias})
    rest = jnp.zeros(HIDDEN)
    found = gates(cell, (rest, rest), jnp.zeros(FEATURES))
    f = sigmoid(np.asarray(bias))
    if "refine_gate" in options:
        np.testing.assert_allclose(found["refine"], 1 - f, rtol=1e-5)
        f = f + (1 - 2 * f) * f * (1 - f)
    np.testing.assert_allclose(found["forget"], f, rtol=1e-5)
    kept = 1 - f if "coupled" in options else sigmoid(-np.asarray(bias))
    np.testing.assert_allclose(found["input"], kept, rtol=1e-5)
    if "peepholes" not in options:
        np.testing.assert_allclose(found["output"], 0.5, rtol=1e-6)


def test_without_biases_there_are_none_to_set() -> None:
    for options in ({}, {"layer_norm": True}):
        cell = LSTM(FEATURES, HIDDEN, use_bias=False, rngs=nnx.Rngs(0), **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"gate biases need a cell with biases.*bias=zero"):
            set_gate_biases(cell, {"forget": jnp.ones(HIDDEN)})


def test_layer_norm_at_rest_is_steep() -> None:
    """At h = 0 the derivative of LN(U h) is U / √ε, less its mean over the columns."""
    cell = LSTM(FEATURES, HIDDEN, layer_norm=True, rngs=nnx.Rngs(0))
    jacobian = jax.jacobian(lambda h: cell.norm_h(cell.dense_h(h)))(jnp.zeros(HIDDEN))
    u = np.asarray(cell.dense_h.kernel[...], np.float64).T
    np.testing.assert_allclose(jacobian, (u - u.mean(0)) / np.sqrt(1e-5), rtol=1e-4, atol=1e-2)


def test_options_that_set_a_pinned_gate_are_refused() -> None:
    with pytest.raises(ValueError, match="coupled=true sets the input gate, which inp"):
        make("coupled", input_gate=0.5)
    with pytest.raises(ValueError, match="refine_gate=true sets the forget gate, which forget_ga"):
        make("refine_gate", forget_gate=1.0)
    cell = make("coupled", "peepholes", forget_gate=0.75)
    assert cell.learned == ("candidate", "output")
    carry = cell.initialize_carry((FEATURES,), nnx.Rngs(0))
    found = gates(cell, carry, jnp.asarray(inputs(), jnp.float32))
    np.testing.assert_array_equal(found["input"], 0.25)


@pytest.mark.parametrize(
    "words",
    [
        ("model=lstm", "+model.cell.layer_norm=true"),
        ("+network=ur_lstm", "+model.cell.peepholes=true"),
    ],
)
def test_they_learn(composed: Compose, words: tuple[str, ...]) -> None:
    config = composed(
        *words,
        "model.hidden_size=12",
        "task=digits",
        "task.length=8",
        "optim.learning_rate=0.01",
        "wandb=disabled",
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    end, _ = program.advance(hyperparameters, program.initialise(hyperparameters), 200)
    metrics = program.evaluate(end)
    assert float(metrics["eval/loss"]) < 0.8 * float(metrics["eval/baseline"])


def test_the_ur_lstm_is_configured_by_a_word(composed: Compose) -> None:
    config = composed("+network=ur_lstm", "model.hidden_size=50", "task.length=4")
    program = Program(config)
    state = program.initialise(hyperparameters_of(config))
    cell = program.merge(state.parameters, state.constants).cell
    assert cell.options == ("coupled", "refine_gate")
    bias = dict(zip(cell.learned, np.split(np.asarray(cell.dense_h.bias[...]), 4), strict=True))
    np.testing.assert_array_equal(bias["refine"], -bias["forget"])
    assert len(np.unique(bias["forget"])) == 50
    assert sigmoid(bias["forget"]).min() >= 1 / 50 - 1e-6
    assert not bias["candidate"].any()


def test_the_mean_of_powers_of_uniform_gates() -> None:
    many = 20_000
    gate = sigmoid(np.asarray(uniform_gate(jax.random.key(1), many)["forget"], np.float64))
    for n, lag in ((3, 1), (50, 4), (many, 100)):
        powers, _ = quad(lambda f, lag=lag: f**lag, 1 / n, 1 - 1 / n)
        expected = theory.uniform_gate_mean(lag, n)
        assert expected == pytest.approx(powers / (1 - 2 / n), rel=1e-6)
        if n == many:
            error = (gate**lag).std() / np.sqrt(many)
            assert abs((gate**lag).mean() - expected) < 4 * error
    refined, _ = quad(lambda f: float(lstm_variants.effective_gate(f, 1 - f)) ** 100, 0, 1)
    assert refined == pytest.approx(1 / 200, rel=0.01)
