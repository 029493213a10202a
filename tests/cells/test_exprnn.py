"""Orthogonal layers against their papers' formulas in float64, SciPy and closed forms."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from conftest import Compose
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_recurrence import assert_same, in_float64, problem, with_gradients, with_random_biases

from gradlab.cells import ExpRNN, gates, set_gate_biases
from gradlab.cells.affine import affine_form
from gradlab.cells.exprnn import cayley_angles, henaff_angles
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.components import ConfigError
from gradlab.jacobian import jacobian_log_norms
from gradlab.jacobian.closure import inner_jaxprs
from gradlab.training.program import Program, hyperparameters_of

FEATURES, HIDDEN, STEPS, BATCH = 3, 5, 7, 2
SQUARINGS = 16  # of JAX's expm, the length of a loop of its own
OPTIONS: dict[str, dict[str, Any]] = {
    "expRNN": {},
    "Cayley start": {"start": "cayley"},
    "scoRNN": {"map": "cayley", "start": "cayley", "negative_share": 0.4},
    "scoRNN without D": {"map": "cayley"},
    "tanh": {"activation": "tanh"},
    "relu": {"activation": "relu", "use_bias": False},
    "identity": {"use_bias": False},
}


def make(name: str = "expRNN", n: int = HIDDEN) -> ExpRNN:
    return with_random_biases(ExpRNN(FEATURES, n, rngs=nnx.Rngs(0), **OPTIONS[name]))


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*shape, FEATURES))


def skew_of(cell: ExpRNN) -> np.ndarray:
    skew = np.zeros((cell.hidden_features, cell.hidden_features))
    skew[np.triu_indices(cell.hidden_features, 1)] = np.asarray(cell.skew[...])
    return skew - skew.T


def matrix_by_the_paper(cell: ExpRNN, negative_share: float = 0.0) -> np.ndarray:
    skew, identity = skew_of(cell), np.eye(cell.hidden_features)
    if cell.map == "exponential":
        return scipy.linalg.expm(skew)
    negatives = round(negative_share * len(skew))
    d = np.diag([1.0] * (len(skew) - negatives) + [-1.0] * negatives)
    return np.linalg.inv(identity + skew) @ (identity - skew) @ d


def nonlinearity(name: str, z: np.ndarray, b: np.ndarray) -> np.ndarray:
    return {
        "modrelu": np.where(np.abs(z) + b > 0, z + np.sign(z) * b, 0),
        "tanh": np.tanh(z + b),
        "relu": np.maximum(z + b, 0),
    }[name]


@pytest.mark.parametrize("name", OPTIONS)
def test_outputs_are_those_of_the_paper(name: str) -> None:
    cell, x, h = make(name), inputs(STEPS, BATCH), np.zeros((BATCH, HIDDEN))
    w = matrix_by_the_paper(cell, OPTIONS[name].get("negative_share", 0.0))
    t = np.asarray(cell.dense_i.kernel[...], np.float64)
    b = np.zeros(HIDDEN) if cell.bias is None else np.asarray(cell.bias[...], np.float64)
    expected = []
    for now in x:
        h = nonlinearity(cell.activation, h @ w.T + now @ t, b)
        expected.append(h)
    carry = cell.initialize_carry((BATCH, FEATURES))
    for run in (unroll, step_by_step):
        last, outputs = run(cell, carry, jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(last, outputs[-1])
    alone, _ = cell(carry[0], jnp.asarray(x[0, 0], jnp.float32))
    np.testing.assert_allclose(alone, expected[0][0], atol=1e-5)


@settings(max_examples=10, derandomize=True)
@given(
    n=st.sampled_from([2, 3, 6]),
    scale=st.floats(0, 5, width=32),
    share=st.none() | st.floats(0, 1, width=32),
    seed=st.integers(0, 9),
)
@example(n=2, scale=5.0, share=None, seed=0)
def test_every_matrix_is_orthogonal_and_that_of_scipy(
    n: int, scale: float, share: float | None, seed: int
) -> None:
    options = {} if share is None else {"map": "cayley", "negative_share": share}
    cell: Any = ExpRNN(1, n, rngs=nnx.Rngs(0), **options)
    drawn = np.random.default_rng(seed).normal(size=n * (n - 1) // 2)
    # Rotations are by up to the spectral norm of A.
    cell.skew[...] = jnp.asarray(scale * drawn / np.linalg.norm(drawn), jnp.float32)
    w = np.asarray(cell.recurrent_matrix(), np.float64)
    np.testing.assert_allclose(w @ w.T, np.eye(n), atol=1e-5)
    assert np.linalg.det(w) == pytest.approx((-1) ** cell.negatives, abs=1e-4)
    np.testing.assert_allclose(w, matrix_by_the_paper(cell, share or 0.0), atol=1e-5)


def test_the_published_starts_are_drawn() -> None:
    key, many = jax.random.key(0), 20_000
    s = np.asarray(henaff_angles(key, many))
    assert np.abs(s).max() <= np.pi
    assert s.mean() == pytest.approx(0, abs=0.05)
    assert s.var() == pytest.approx(np.pi**2 / 3, rel=0.03)
    u = np.arccos((1 - cayley_angles(key, many) ** 2) / (1 + cayley_angles(key, many) ** 2))
    assert (np.asarray(cayley_angles(key, many)) <= 0).all()
    assert u.max() <= np.pi / 2 + 1e-3
    assert u.mean() == pytest.approx(np.pi / 4, rel=0.02)


@pytest.mark.parametrize("n", [6, 7])
def test_a_cell_starts_with_rotations_of_pairs_of_units(n: int) -> None:
    cell = ExpRNN(200, n, rngs=nnx.Rngs(3))
    skew = skew_of(cell)
    pairs = np.zeros((n, n), bool)
    for j in range(n // 2):
        pairs[2 * j, 2 * j + 1] = pairs[2 * j + 1, 2 * j] = True
    assert (skew[~pairs] == 0).all()
    assert len(np.unique(np.abs(skew[pairs]))) == n // 2
    assert cell.skew.shape == (n * (n - 1) // 2,)
    assert np.abs(cell.bias[...]).max() <= 0.01
    assert np.asarray(cell.dense_i.kernel[...]).var() == pytest.approx(2 / 200, rel=0.15)
    cayley = ExpRNN(1, n, map="cayley", start="cayley", rngs=nnx.Rngs(3))
    angles = np.angle(np.linalg.eigvals(np.asarray(cayley.recurrent_matrix(), np.float64)))
    s = skew_of(cayley)[np.arange(0, n - 1, 2), np.arange(1, n, 2)]
    rotations = np.repeat(2 * np.arctan(np.abs(s)), 2) * np.tile([1, -1], n // 2)
    expected = np.sort(np.append(rotations, [0] * (n % 2)))
    np.testing.assert_allclose(np.sort(angles), expected, atol=1e-5)
    assert np.abs(angles).max() <= np.pi / 2 + 1e-5


@pytest.mark.parametrize("name", OPTIONS)
def test_the_step_jacobian_is_that_of_differences_and_the_closed_form(name: str) -> None:
    with jax.enable_x64(True):
        cell = in_float64(make(name))
        if cell.bias is not None:
            cell.bias[...] = jnp.array([-0.1, -9.0, 0.2, 0.1, -0.2])  # one unit is off
        h, x = np.random.default_rng(2).normal(size=HIDDEN), jnp.asarray(inputs())
        jacobian = np.asarray(jax.jacobian(lambda h: cell(h, x)[0])(jnp.asarray(h)))
        step = 1e-6
        differences = [
            (np.asarray(cell(h + d, x)[0]) - np.asarray(cell(h - d, x)[0])) / (2 * step)
            for d in step * np.eye(HIDDEN)
        ]
        np.testing.assert_allclose(jacobian, np.stack(differences, axis=1), atol=1e-7)
        new, w = np.asarray(cell(jnp.asarray(h), x)[0]), np.asarray(cell.recurrent_matrix())
        slopes = 1 - new**2 if cell.activation == "tanh" else (new != 0).astype(float)
        np.testing.assert_allclose(jacobian, slopes[:, None] * w, atol=1e-10)
        if cell.activation == "modrelu":
            values = np.linalg.svd(jacobian, compute_uv=False)
            np.testing.assert_allclose(values, np.sort(slopes)[::-1], atol=1e-10)


@pytest.mark.parametrize("name", ["expRNN", "scoRNN"])
def test_the_gradient_of_the_skew_matrix_is_that_of_differences(name: str) -> None:
    with jax.enable_x64(True):
        cell = in_float64(make(name))
        carry, x = problem(cell, jnp.float64)
        definition, state = nnx.split(cell)

        def loss(change: Any) -> Any:
            changed = nnx.merge(definition, state)
            changed.skew = nnx.Param(cell.skew[...] + change)
            return jnp.sum(jnp.cos(unroll(changed, carry, x)[1]))

        zero = jnp.zeros(cell.skew.shape)
        gradient = jax.grad(loss)(zero)
        directions = 1e-6 * np.eye(zero.size)
        differences = [(loss(d) - loss(-d)) / 2e-6 for d in directions]
        np.testing.assert_allclose(gradient, differences, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_fast_path_has_the_values_and_gradients_of_the_steps(name: str) -> None:
    cell = make(name)
    assert affine_form(cell) is not None
    args = problem(cell, jnp.float32)
    assert_same(
        with_gradients(unroll, cell)(*args), with_gradients(step_by_step, cell)(*args), 1e-5
    )
    with jax.enable_x64(True):
        cell, rule = in_float64(make(name)), partial(jax.tree.map, jnp.tanh)
        args = problem(cell, jnp.float64)
        expected = with_gradients(step_by_step, cell, rule)(*args)
        assert_same(with_gradients(unroll, cell, rule)(*args), expected, 1e-11)


def test_a_layer_of_another_kind_runs_by_its_own_steps() -> None:
    cell: Any = make()
    cell.dense_i = nnx.LoRALinear(FEATURES, HIDDEN, lora_rank=1, rngs=nnx.Rngs(0))
    assert affine_form(cell) is None
    cell.dense_i = nnx.Linear(FEATURES, HIDDEN, rngs=nnx.Rngs(0))  # with a bias
    assert affine_form(cell) is None


def equations(jaxpr: jex.Jaxpr) -> Iterator[jex.JaxprEqn]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in inner_jaxprs(equation):
            yield from equations(inner)


def solves_over_time(function: Any, state: Any, length: int) -> int:
    """Return how many linear systems the steps of a sequence solve."""
    scans = [
        equation
        for equation in equations(jax.make_jaxpr(function)(state).jaxpr)
        if equation.primitive.name == "scan" and equation.params["length"] == length
    ]
    assert scans
    bodies = [body for scan in scans for body in inner_jaxprs(scan)]
    return sum(x.primitive.name == "lu" for body in bodies for x in equations(body))


@pytest.mark.parametrize("name", ["expRNN", "scoRNN"])
def test_the_matrix_is_computed_once_for_a_sequence(name: str) -> None:
    length = SQUARINGS + 7
    definition, state = nnx.split(make(name))
    carry, x = jnp.zeros((BATCH, HIDDEN)), jnp.asarray(inputs(length, BATCH), jnp.float32)

    def loss(run: Any, state: Any) -> Any:
        return jnp.sum(run(nnx.merge(definition, state), carry, x)[1])

    fast = partial(loss, unroll)
    assert solves_over_time(fast, state, length) == 0
    assert solves_over_time(jax.grad(fast), state, length) == 0
    assert solves_over_time(partial(loss, step_by_step), state, length) > 0


def test_a_linear_layer_keeps_every_norm_and_a_silent_one_passes_nothing() -> None:
    cell, x = make("identity"), jnp.asarray(inputs(STEPS), jnp.float32)
    log_norms = np.asarray(jacobian_log_norms(cell, x))
    np.testing.assert_allclose(log_norms[np.tril_indices(STEPS + 1)], 0, atol=1e-5)
    start = ExpRNN(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    silent = np.asarray(jacobian_log_norms(start, jnp.zeros((STEPS, FEATURES))))
    assert (silent[np.tril_indices(STEPS + 1, -1)] == -np.inf).all()


@pytest.mark.parametrize("words", [("model=exprnn",), ("+network=scornn",)])
def test_it_learns_and_stays_orthogonal(composed: Compose, words: tuple[str, ...]) -> None:
    config = composed(
        *words,
        "model.hidden_size=12",
        "task=echo",
        "task.length=10",
        "task.delay=2",
        "task.test_size=100",
        "optim.learning_rate=0.01",
        "wandb=disabled",
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    start = program.initialise(hyperparameters)
    end, _ = program.advance(hyperparameters, start, 300)
    metrics = program.evaluate(end)
    assert float(metrics["eval/loss"]) < 0.8 * float(metrics["eval/baseline"])
    cells = [program.merge(state.parameters, state.constants).cell for state in (start, end)]
    before, after = (np.asarray(cell.recurrent_matrix(), np.float64) for cell in cells)
    assert np.abs(after - before).max() > 0.05
    np.testing.assert_allclose(after @ after.T, np.eye(12), atol=1e-5)


def test_it_has_no_gates() -> None:
    cell = make()
    with pytest.raises(TypeError, match="knows no gates of ExpRNN"):
        gates(cell, jnp.zeros(HIDDEN), jnp.zeros(FEATURES))
    before = np.asarray(cell.bias[...])
    set_gate_biases(cell, {"forget": jnp.ones(HIDDEN)})
    np.testing.assert_array_equal(cell.bias[...], before)


def test_wrong_options_are_named(composed: Compose) -> None:
    with pytest.raises(ValueError, match="a rotation needs at least 2 units; got 1"):
        ExpRNN(FEATURES, 1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"negative_share=0.5 needs map=cayley"):
        ExpRNN(FEATURES, 4, negative_share=0.5, rngs=nnx.Rngs(0))
    build: Any = partial(ExpRNN, FEATURES, 4, rngs=nnx.Rngs(0))
    for option in ("map", "start", "activation"):
        with pytest.raises(ValueError, match=f"{option} must be one of .*; got 'other'"):
            build(**{option: "other"})
    with pytest.raises(ValueError, match=r"negative_share must be from 0 to 1; got 1\.5"):
        build(map="cayley", negative_share=1.5)
    with pytest.raises(ConfigError, match=r"model.cell.map must be 'exponential' or 'cayley'"):
        composed("model=exprnn", "model.cell.map=polar")
