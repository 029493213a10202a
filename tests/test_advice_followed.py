"""Advice on networks that do not learn, and the same training with it."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from jax.tree_util import Partial

from gradlab import advise
from gradlab.advice import Advice
from gradlab.tasks import Batch, Task
from gradlab.training.losses import total_weight
from gradlab.training.program import Hyperparameters, Program, State, hyperparameters_of
from gradlab.training.success import MAX_ERROR_RATE
from gradlab.training.telemetry import Telemetry


@cache
def train(program: Program, updates: int) -> Callable[..., tuple[State, Telemetry]]:
    """A program's training, optimised: it runs for longer than it compiles."""

    def advance(hyperparameters: Hyperparameters, state: State) -> tuple[State, Telemetry]:
        return program.advance(hyperparameters, state, updates)

    return jax.jit(advance, compiler_options={"xla_backend_optimization_level": 2})


class Run:
    """A program of one config, trained."""

    def __init__(self, composed: Compose, overrides: tuple[str, ...], updates: int) -> None:
        config = composed(*overrides, "wandb=disabled")
        self.program, hyperparameters = Program(config), hyperparameters_of(config)
        self.start: State = self.program.initialise(hyperparameters)
        self.end, telemetry = train(self.program, updates)(hyperparameters, self.start)
        self.grad_norms = np.asarray(telemetry.grad_norm)[np.asarray(telemetry.update) > 0]

    def metrics(self) -> dict[str, float]:
        return {name: float(x) for name, x in self.program.evaluate(self.end).items()}

    @property
    def learnt(self) -> bool:
        return self.metrics()["eval/error_rate"] < MAX_ERROR_RATE

    @property
    def stuck(self) -> bool:
        """Whether the loss is not below that of a trivial answer."""
        return not self.metrics()["eval/loss"] < 0.95 * self.program.task.baseline

    def advise(self, **options: Any) -> Advice:
        """Measure the start on four held-out sequences."""
        batch = jax.tree.map(lambda x: x[:4], self.program.task.test)
        cell = self.program.merge(self.start.parameters, self.start.constants).cell
        loss_of_carry = Partial(self.program._loss_of_carry, self.start.parameters)
        targets = (batch.targets, batch.weights / total_weight(batch))
        return advise(cell, batch.inputs, loss_of_carry, targets, **options)


def typed(settings: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}={'null' if x is None else x}" for key, x in settings.items())


ECHO = (
    *("task=echo", "task.length=51", "task.delay=50", "task.test_size=400"),
    *("model.hidden_size=32", "train.batch_size=32", "clip=global_norm", "clip.threshold=1"),
    "optim.learning_rate=0.005",
)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "network",
    [
        ("model=rnn", "init=gaussian", "init.gain=0.5"),
        ("model=lstm", "init=glorot"),
    ],
)
def test_a_start_that_reaches_learns_an_echo_of_50_steps(
    composed: Compose, network: tuple[str, ...], seed: int
) -> None:
    overrides = (*ECHO, *network, f"seed={seed}")
    before = Run(composed, overrides, 1000)
    advice = before.advise(lag=50)["reach"]
    assert advice.measured["horizon"] < 10
    assert advice.measured["horizon_after"] >= 50
    assert before.stuck
    assert Run(composed, (*overrides, *typed(advice.settings)), 1000).learnt


@pytest.mark.parametrize("seed", range(5))
def test_an_exploding_network_learns_with_the_advised_threshold(
    composed: Compose, seed: int
) -> None:
    overrides = (
        *("task=temporal_order", "task.length=20", "task.test_size=400", "init.gain=1.8"),
        *("model.hidden_size=50", "train.batch_size=20", "optim=sgd", "optim.learning_rate=0.2"),
        f"seed={seed}",
    )
    before = Run(composed, overrides, 3000)
    advice = before.advise(grad_norms=before.grad_norms)
    assert advice["growth"].measured["decay_rate/spectral"] > 0
    assert before.stuck
    assert Run(composed, (*overrides, *typed(advice["clipping"].settings)), 3000).learnt


def recall(length: int = 50, lag: int = 40) -> Task:
    """A task whose last step asks for the sign that was shown `lag` steps before, amid noise."""

    def sample(key: jax.Array, size: int) -> Batch:
        bit_key, noise_key = jax.random.split(key)
        bits = jax.random.bernoulli(bit_key, shape=(size,)).astype(int)
        noise = 0.5 * jax.random.normal(noise_key, (size, length, 1))
        shown = jnp.zeros((size, length, 1)).at[:, length - 1 - lag, 0].set(2.0 * bits - 1)
        weights = jnp.zeros((size, length)).at[:, -1].set(1)
        targets = jnp.broadcast_to(bits[:, None], (size, length))
        return Batch(jnp.concatenate([shown, noise], axis=-1), targets, weights)

    test = sample(jax.random.key(1), 400)
    return Task(features=2, outputs=2, sample=sample, test=test, baseline=float(np.log(2)))


@pytest.mark.parametrize("seed", range(5))
def test_a_window_of_20_learns_no_lag_of_40_and_the_advised_one_does(
    composed: Compose, seed: int
) -> None:
    overrides = (
        *("task._target_=test_advice_followed.recall", "~task.permuted", "task.length=50"),
        *("init=orthogonal", "init.gain=0.93", "model.other_std=0.1", "model.hidden_size=16"),
        *("train.batch_size=16", "optim.learning_rate=0.003"),
        *("clip=global_norm", "clip.threshold=1", f"seed={seed}"),
    )
    truncated = (*overrides, "tbptt.window=20", "tbptt.stride=1")
    before = Run(composed, truncated, 1000)
    advice = before.advise(window=20, lag=40)["truncation"]
    assert advice.measured["lost"]["all"] > 0.05
    without_lag = before.advise()["truncation"]
    assert without_lag.measured["window"] < 41  # the start's gradient vanishes before the lag
    assert without_lag.settings == {}
    assert before.stuck
    assert Run(composed, (*overrides, *typed(advice.settings)), 1000).learnt
