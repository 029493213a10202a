"""Gradient flossing as a start, against QR decompositions of cells written out in NumPy."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx

from gradlab.cells import GRU, LSTM, Elman, Leaky
from gradlab.components import ConfigError
from gradlab.identity import identity, training_digest
from gradlab.jacobian.steps import random_frame
from gradlab.point import Point, run_point, run_points
from gradlab.records import load_metrics
from gradlab.tasks import Batch
from gradlab.training.batched import BatchedProgram
from gradlab.training.flossing import Flossing, floss
from gradlab.training.program import Program, hyperparameters_of

FEATURES, N, LENGTH, COUNT = 3, 8, 25, 3
Weights = dict[str, np.ndarray]
Step = Callable[[Weights, np.ndarray, np.ndarray], np.ndarray]
SMALL = ("task=echo", "task.length=12", "model.hidden_size=6", "train.batch_size=6")
FLOSSED = ("+init/floss=lyapunov", "init.floss.exponents=2", "init.floss.updates=40")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def tanh_step(w: Weights, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.tanh(x @ w["dense_i.kernel"] + w.get("dense_i.bias", 0) + h @ w["dense_h.kernel"])


def leaky_step(w: Weights, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    return 0.8 * h + 0.2 * tanh_step(w, h, x)


def gru_step(w: Weights, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    from_x = np.split(x @ w["dense_i.kernel"] + w["dense_i.bias"], 3)
    from_h = np.split(h @ w["dense_h.kernel"], 3)
    r, z = (sigmoid(a + b) for a, b in zip(from_x[:2], from_h[:2], strict=True))
    return z * h + (1 - z) * np.tanh(from_x[2] + r * from_h[2])


def lstm_step(w: Weights, s: np.ndarray, x: np.ndarray) -> np.ndarray:
    c, h = np.split(s, 2)
    net = np.split(x @ w["dense_i.kernel"] + h @ w["dense_h.kernel"] + w["dense_h.bias"], 4)
    i, f, o = (sigmoid(net[k]) for k in (0, 1, 3))
    c = f * c + i * np.tanh(net[2])
    return np.concatenate([c, o * np.tanh(c)])


CELLS: dict[str, tuple[Any, Step, int]] = {
    "leaky": (Leaky, leaky_step, N),
    "gru": (GRU, gru_step, N),
    "lstm": (LSTM, lstm_step, 2 * N),
}


def weights_of(cell: Any) -> Weights:
    flat = nnx.to_flat_state(nnx.state(cell, nnx.Param))
    return {".".join(map(str, path)): np.asarray(x[...], np.float64) for path, x in flat}


def exponents(step: Step, w: Weights, inputs: np.ndarray, size: int, count: int) -> np.ndarray:
    """Return finite-time Lyapunov exponents from the state 0, by QR in float64."""
    s, q, growth = np.zeros(size), np.asarray(random_frame(size, count)), np.zeros(count)
    change = 1e-6
    for x in inputs:
        columns = [
            (step(w, s + change * unit, x) - step(w, s - change * unit, x)) / (2 * change)
            for unit in np.eye(size)
        ]
        q, r = np.linalg.qr(np.stack(columns, axis=1) @ q)
        growth += np.log(np.abs(np.diag(r)))
        s = step(w, s, x)
    return growth / len(inputs)


def sample(key: Any, batch: int) -> Batch:
    inputs = jax.random.normal(key, (batch, LENGTH, FEATURES))
    return Batch(inputs, jnp.zeros((batch, LENGTH), int), jnp.ones((batch, LENGTH)))


@pytest.mark.parametrize("kind", CELLS)
def test_the_first_exponents_come_nearer_to_zero(kind: str) -> None:
    make, step, size = CELLS[kind]
    cell = make(FEATURES, N, rngs=nnx.Rngs(0))
    flossing = Flossing(exponents=COUNT, updates=60, learning_rate=0.01)
    key = jax.random.key(1)
    flossed = nnx.jit(lambda cell: flossing(cell, sample, key))(cell)
    inputs = np.asarray(sample(jax.random.key(2), 1).inputs[0], np.float64)
    before, after = (exponents(step, weights_of(x), inputs, size, COUNT) for x in (cell, flossed))
    assert np.mean(np.abs(after)) < 0.5 * np.mean(np.abs(before))


def test_the_first_update_is_along_the_gradient_of_finite_differences() -> None:
    cell, rate, change = Elman(FEATURES, 4, rngs=nnx.Rngs(0)), 1e-3, 1e-5
    key = jax.random.key(3)
    flossed = Flossing(exponents=2, updates=1, learning_rate=rate)(cell, sample, key)
    inputs = np.asarray(sample(jax.random.split(key, 1)[0], 1).inputs[0], np.float64)
    weights, moved = weights_of(cell), weights_of(flossed)

    def objective(w: Weights) -> float:
        return float(np.mean(exponents(tanh_step, w, inputs, 4, 2) ** 2))

    compared = 0
    for name, values in weights.items():
        for place in np.ndindex(values.shape):
            sides = []
            for sign in (1, -1):
                other = {k: v.copy() for k, v in weights.items()}
                other[name][place] += sign * change
                sides.append(objective(other))
            slope = (sides[0] - sides[1]) / (2 * change)
            if abs(slope) > 1e-3:  # Adam's first update is −rate · g / (|g| + ε)
                assert moved[name][place] - values[place] == pytest.approx(
                    -rate * np.sign(slope), rel=0.01
                )
                compared += 1
    assert compared > 20


def test_updates_without_a_finite_gradient_are_left_out() -> None:
    def rates(x: Any, key: Any) -> Any:
        return jnp.where(jax.random.bernoulli(key), x, jnp.nan)

    found = floss(jnp.array([1.0, -0.5]), rates, jax.random.key(0), 60, 0.1)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 0.3


def test_a_program_flosses_the_network_that_it_has_drawn(composed: Compose) -> None:
    configs = [composed(*SMALL, *extra) for extra in ((), FLOSSED)]
    assert "floss" not in configs[0].init
    assert identity(configs[0]) != identity(configs[1])
    assert training_digest(configs[0]) != training_digest(configs[1])
    (plain, drawn), (program, state) = (
        (p, p.initialise(hyperparameters_of(p.config))) for p in map(Program, configs)
    )
    networks = plain.merge(drawn.parameters), program.merge(state.parameters)
    before, after = (weights_of(x.cell) for x in networks)
    assert all(not np.array_equal(before[name], after[name]) for name in before)
    np.testing.assert_array_equal(*(x.readout.kernel[...] for x in networks))
    row = program.start_row(hyperparameters_of(configs[1]), state)
    inputs = np.asarray(program.probed.inputs, np.float64)
    for name, weights in (("before", before), ("after", after)):
        each = [-np.sort(-exponents(tanh_step, weights, x, 6, 2)) for x in inputs]
        for i, mean in enumerate(np.mean(each, axis=0), 1):
            assert row[f"floss/{name}/exponent_{i}"] == pytest.approx(mean, abs=1e-4)
    assert plain.start_row(hyperparameters_of(configs[0]), drawn) == {}


def test_points_flossed_together_are_those_flossed_alone(composed: Compose) -> None:
    config = composed(*SMALL, *FLOSSED, "init.floss.updates=10")
    program = Program(config)
    hyperparameters = [
        hyperparameters_of(dataclasses.replace(config, seed=seed)) for seed in (0, 1)
    ]
    together = BatchedProgram(program, hyperparameters).initialise()
    for index, own in enumerate(hyperparameters):
        alone = program.initialise(own)
        for a, b in zip(
            *map(jax.tree.leaves, (alone.parameters, together.parameters)), strict=True
        ):
            np.testing.assert_allclose(b[index], a, atol=1e-5)


def test_a_resumed_run_keeps_what_flossing_did(composed: Compose, tmp_path: Path) -> None:
    words = (*SMALL, *FLOSSED, "train.steps=6", "train.log_every=3", "wandb=disabled")
    config = composed(*words)
    whole, broken = (Point(config, tmp_path / "sweep" / name, name) for name in ("0", "1"))
    status = run_point(whole)
    assert status["state"] == "done", status["reason"]
    stop = Event()
    run_points(Program(config), [broken], on_updates=lambda count: stop.set(), stop=stop)
    resumed = run_point(broken)
    assert resumed["state"] == "done"
    assert load_metrics(broken.folder).equals(load_metrics(whole.folder))
    first = load_metrics(whole.folder).iloc[0]
    for run in (status, resumed):
        flossing = {k: x for k, x in run["summary"].items() if k.startswith("floss/")}
        assert len(flossing) == 6
        assert all(first[name] == x for name, x in flossing.items())


class Looping(Elman):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        h, _ = super().__call__(carry, inputs)
        _, h = jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, 0.9 * s[1]), (0, h))
        return h, h


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("init.floss.exponents=7",),
            r"exponents must be at most 6, the numbers in the carry of Elman; got 7",
        ),
        (
            ("model.cell._target_=test_flossing.Looping",),
            r"step of Looping, which has none \(Reverse-mode .*while",
        ),
        (("model=lstm_1997", "model.hidden_size=2"), r"step of LSTM1997 stops some: leave out"),
        (("init.floss._target_=gradlab.tasks.echo.echo", "~init.floss.exponents"), "is unknown"),
    ],
)
def test_what_cannot_be_flossed_is_refused(
    composed: Compose, words: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Program(composed(*SMALL, *FLOSSED, *words))


def test_another_function_returns_a_flossing(composed: Compose) -> None:
    config = composed(*SMALL, *FLOSSED)
    init = config.init | {"floss": {"_target_": "gradlab.regularisers.none"}}
    assert Program(dataclasses.replace(config, init=init)).flossing is None
    init = config.init | {"floss": {"_target_": "gradlab.regularisers.Omega"}}
    with pytest.raises(ConfigError, match=r"must return a gradlab.training.flossing.Flossing; it"):
        Program(dataclasses.replace(config, init=init))


def test_units_that_are_off_have_no_exponent_to_move(composed: Compose) -> None:
    words = ("+network=irnn", "+init/floss=lyapunov", "init.floss.updates=2")
    config = composed(*SMALL, *words, "init.floss.exponents=6")
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    assert np.isfinite(weights_of(program.merge(state.parameters).cell)["dense_h.kernel"]).all()
    with pytest.raises(ConfigError, match=r"exponent \d+ is .* and only finite ones can be f"):
        program.start_row(hyperparameters, state)
