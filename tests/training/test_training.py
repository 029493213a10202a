"""Training against a hand-written loop; which points share a compiled program; divergence."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import Compose
from flax import nnx

from gradlab import load_gradients
from gradlab.config import Config
from gradlab.identity import program_key
from gradlab.point import Point, run_point
from gradlab.records import load_metrics
from gradlab.training.program import Program, hyperparameters_of
from gradlab.training.telemetry import training_row

SMALL = (
    "model.hidden_size=5",
    "task.length=4",
    "train.batch_size=6",
    "wandb=disabled",
    "probe.schedule=ends",
)


def by_hand(config: Config, steps: int) -> tuple[Any, list[tuple[float, float, float]]]:
    """Train by plain SGD with clipping, from the program's initial weights.

    Returns:
        The weights, and for each update its loss and its gradient norm before and after clipping.
    """
    program = Program(config)
    state = program.initialise(hyperparameters_of(config))
    network = nnx.merge(program.definition, state.parameters, program.constants)
    cell, readout = network.cell, network.readout
    weights = {
        "xh": cell.dense_i.kernel[...],
        "b": cell.dense_i.bias[...],
        "hh": cell.dense_h.kernel[...],
        "hy": readout.kernel[...],
        "by": readout.bias[...],
    }

    def loss(w: dict[str, jax.Array], inputs: jax.Array, labels: jax.Array) -> jax.Array:
        h = jnp.zeros((inputs.shape[0], w["hh"].shape[0]))
        for t in range(inputs.shape[1]):
            h = jnp.tanh(inputs[:, t] @ w["xh"] + h @ w["hh"] + w["b"])
        logits = h @ w["hy"] + w["by"]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(labels.size), labels])

    expected = []
    key = state.key
    for _ in range(steps):
        key, batch_key = jax.random.split(key)
        batch = program.task.sample(batch_key, config.train.batch_size)
        value, gradient = jax.value_and_grad(loss)(weights, batch.inputs, batch.targets[:, -1])
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in gradient.values()))
        scale = min(1.0, config.clip["threshold"] / norm)
        rate = config.optim["learning_rate"]
        weights = {k: w - rate * scale * gradient[k] for k, w in weights.items()}
        expected.append((float(value), norm, scale * norm))
    return weights, expected


@pytest.mark.parametrize("threshold", ["inf", "0.5"])
def test_training_is_clipped_gradient_descent(composed: Compose, threshold: str) -> None:
    config = composed(*SMALL, "optim=sgd", f"clip.threshold={threshold}")
    weights, expected = by_hand(config, steps=5)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, telemetry = program.advance(hyperparameters, program.initialise(hyperparameters), 5)
    columns = [telemetry.loss, telemetry.grad_norm, telemetry.grad_norm_clipped]
    np.testing.assert_allclose(np.stack(columns, axis=1), expected, rtol=2e-5)
    trained = nnx.merge(program.definition, state.parameters, program.constants).cell.dense_h
    np.testing.assert_allclose(trained.kernel[...], weights["hh"], atol=1e-6)
    assert np.max(telemetry.grad_norm) > 0.5  # so the threshold 0.5 did clip


def test_points_that_differ_in_traced_values_alone_compile_once(composed: Compose) -> None:
    def trained(*overrides: str) -> float:
        config = composed(*SMALL, "optim=sgd", "model.hidden_size=7", *overrides)
        program, hyperparameters = Program(config), hyperparameters_of(config)
        return float(
            program.advance(hyperparameters, program.initialise(hyperparameters), 3)[1].loss[-1]
        )

    before = Program.advance._cache_size()  # type: ignore[attr-defined]
    losses = {
        trained(),
        trained("seed=1"),
        trained("init.gain=2"),
        trained("optim.learning_rate=1"),
        trained("clip.threshold=0.01"),
    }
    assert len(losses) == 5
    assert Program.advance._cache_size() == before + 1  # type: ignore[attr-defined]
    assert trained() in losses


@pytest.mark.parametrize(
    "override", ["model.hidden_size=6", "task.length=8", "init=orthogonal", "optim.momentum=0.5"]
)
def test_only_traced_values_share_a_program(composed: Compose, override: str) -> None:
    base, other = composed(*SMALL, "optim=sgd"), composed(*SMALL, "optim=sgd", override)
    traced = override.startswith("optim.")
    assert (program_key(base) == program_key(other)) == traced


def test_whole_numbers_for_reals_are_the_same_program(composed: Compose) -> None:
    assert program_key(composed("init.gain=2")) == program_key(composed("init.gain=2.5"))


def test_a_diverging_run_keeps_its_records_and_says_when_it_diverged(
    composed: Compose, tmp_path: Path
) -> None:
    config = composed(*SMALL, "optim=sgd", "optim.learning_rate=3e38", "train.log_every=2")
    status = run_point(Point(config, tmp_path / "sweep" / "0", "fast"))
    assert status["state"] == "diverged"
    assert "not finite at update" in status["reason"]
    assert status["summary"]["verdict"] == "diverged"
    metrics = load_metrics(tmp_path / "sweep" / "0")
    assert np.isfinite(metrics["train/loss"].dropna()).all()
    last = metrics.iloc[-1]
    assert last["diverged/update"] == last["train/step"] + 1
    assert last["train/nonfinite"] > 0
    assert load_gradients(tmp_path / "sweep" / "0")["step"].values.tolist() == [0]


@pytest.mark.parametrize("rate", ["30", "3e38"])  # in the loss; in the weights, by overflow
def test_a_diverging_update_is_reported_and_not_made(composed: Compose, rate: str) -> None:
    linear = ("+model.cell.activation=identity", f"optim.learning_rate={rate}")
    config = composed(*SMALL, "optim=sgd", *linear)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, telemetry = program.advance(hyperparameters, program.initialise(hyperparameters), 60)
    last = int(np.max(telemetry.update))
    assert state.diverged
    assert int(state.step) == last - 1 < 50
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.parameters))

    numbers = np.arange(60) + 1
    assert (np.asarray(telemetry.update) == numbers * (numbers <= last)).all()  # 0: none made
    assert (np.asarray(telemetry.nonfinite[: last - 1]) == 0).all()
    assert (np.asarray(telemetry.nonfinite[last - 1 :]) > 0).all()
    batch = program.task.sample(jax.random.split(state.key)[1], 6)
    np.testing.assert_allclose(telemetry.loss[-1], program.loss(state.parameters, batch), rtol=1e-5)

    row = training_row(int(state.step), telemetry)
    assert row["diverged/update"] == row["train/step"] + 1 == last
    np.testing.assert_equal(row["diverged/loss"], float(telemetry.loss[-1]))
    np.testing.assert_equal(row["diverged/grad_norm"], float(telemetry.grad_norm[-1]))
    if last > 1:
        assert row["train/loss"] == pytest.approx(float(np.mean(telemetry.loss[: last - 1])))


def test_the_same_seed_gives_the_same_run(composed: Compose, tmp_path: Path) -> None:
    config = composed(*SMALL, "train.steps=4", "train.log_every=2")
    metrics = []
    for name in ("0", "1"):
        run_point(Point(config, tmp_path / name, name))
        metrics.append(load_metrics(tmp_path / name))
    assert metrics[0].equals(metrics[1])
    assert list(metrics[0].dropna(subset="train/loss")["train/step"]) == [2, 4]


def test_the_measured_map_belongs_to_the_trained_network(composed: Compose, tmp_path: Path) -> None:
    """Compare with the product of the trained cell's analytic step Jacobians."""
    config = composed(*SMALL, "train.steps=3", "probe.samples=1")
    run_point(Point(config, tmp_path, "point"))
    measured = load_gradients(tmp_path)["jacobian_log_norm"].isel(sample=0).sel(step=3)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, _ = program.advance(hyperparameters, program.initialise(hyperparameters), 3)
    cell = nnx.merge(program.definition, state.parameters, program.constants).cell
    w_xh, b, w_hh = (
        np.asarray(x[...], dtype=np.float64)
        for x in (cell.dense_i.kernel, cell.dense_i.bias, cell.dense_h.kernel)
    )
    h, product = np.zeros(5), np.eye(5)
    for t, x in enumerate(np.asarray(program.task.test.inputs[0], dtype=np.float64)):
        h = np.tanh(x @ w_xh + h @ w_hh + b)
        product = np.diag(1 - h**2) @ w_hh.T @ product
        assert float(measured.sel(t=t + 1, k=0)) == pytest.approx(
            np.log(np.linalg.norm(product, 2)), abs=1e-4
        )


def test_a_network_with_zero_weights_is_at_chance(composed: Compose) -> None:
    config = composed(*SMALL)
    program = Program(config)
    state = program.initialise(hyperparameters_of(config))
    zeroed = state._replace(parameters=jax.tree.map(jnp.zeros_like, state.parameters))
    assert float(program.evaluate(zeroed)["eval/loss"]) == pytest.approx(np.log(10), rel=1e-6)


def test_the_loss_is_the_mean_over_weighted_steps(composed: Compose) -> None:
    program = Program(composed(*SMALL))
    state = program.initialise(hyperparameters_of(composed(*SMALL)))
    batch = program.task.test
    logits = nnx.merge(program.definition, state.parameters, program.constants)(batch.inputs)
    last = optax.softmax_cross_entropy_with_integer_labels(logits[:, -1], batch.targets[:, -1])
    assert float(program.loss(state.parameters, batch)) == pytest.approx(float(last.mean()))
