"""Truncated BPTT against sums of the terms of BPTT, hand-written loops and published results."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from jax.tree_util import Partial

from gradlab import backpropagate
from gradlab.cells.recurrence import unroll
from gradlab.components import ConfigError
from gradlab.jacobian.flat_cell import split_weights
from gradlab.tasks import Batch, Task
from gradlab.training.losses import losses, weighted_mean
from gradlab.training.program import Program, hyperparameters_of
from gradlab.training.truncated import (
    run_window,
    split_segments,
    unroll_truncated,
    window_segments,
)

TIME, BATCH, FEATURES, HIDDEN = 10, 2, 3, 6
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
TARGETS = RNG.normal(size=(BATCH, TIME, HIDDEN)).astype(np.float32)


def loss(carry: Any, target: Any) -> jax.Array:
    return target[1] * jnp.sum((jax.tree.leaves(carry)[-1] - target[0]) ** 2)


@pytest.fixture(scope="module")
def cell() -> nnx.RNNCellBase:
    return nnx.OptimizedLSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (6, 3)])
def test_the_gradient_is_the_sum_of_the_terms_within_the_window(
    cell: nnx.RNNCellBase, window: int, stride: int
) -> None:
    carry = cell.initialize_carry((BATCH, FEATURES), nnx.Rngs(0))
    inputs, targets = INPUTS.swapaxes(0, 1), TARGETS.swapaxes(0, 1)

    @nnx.jit
    def truncated(cell: Any) -> Any:
        def total(cell: Any) -> Any:
            outputs = unroll_truncated(cell, carry, inputs, window=window, stride=stride)
            return jnp.sum((outputs - targets) ** 2), outputs

        return nnx.grad(total, has_aux=True)(cell)

    gradient, outputs = truncated(cell)
    np.testing.assert_allclose(outputs, unroll(cell, carry, inputs)[1], atol=1e-6)
    by_weight, _ = split_weights(gradient)
    expected: dict[str, Any] = dict.fromkeys(by_weight, 0)
    for t in range(1, TIME + 1):
        at_t = np.broadcast_to(np.arange(1, TIME + 1) == t, (BATCH, TIME)).astype(np.float32)
        terms = backpropagate(cell, INPUTS, loss, (TARGETS, at_t))
        end = -(-t // stride) * stride  # of the segment that contains t
        for name, by_lag in terms.by_lag.items():
            within = by_lag[: t - (end - window)]  # k = t − lag > end − window
            expected[name] += within.sum(axis=0) * np.exp(terms.log_scale)
    for name, array in expected.items():
        np.testing.assert_allclose(by_weight[name], array, atol=1e-5 * np.abs(array).max())


def test_a_window_over_the_whole_sequence_equals_backpropagation(
    cell: nnx.RNNCellBase,
) -> None:
    carry = cell.initialize_carry((BATCH, FEATURES), nnx.Rngs(0))
    inputs, targets = INPUTS.swapaxes(0, 1), TARGETS.swapaxes(0, 1)
    rule = Partial(lambda c, tree: jax.tree.map(lambda x: jnp.clip(x, -c, c), tree), 0.1)

    def total(cell: Any, run: Any) -> jax.Array:
        return jnp.sum((run(cell, carry, inputs, rule) - targets) ** 2)

    def full(*arguments: Any) -> jax.Array:
        return unroll(*arguments)[1]

    truncated = partial(unroll_truncated, window=TIME, stride=TIME)
    grads = [nnx.jit(nnx.grad(total), static_argnums=1)(cell, run) for run in (full, truncated)]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), *grads)


def running_sum(length: int) -> Task:
    """A task whose target at each step is the sum of the inputs so far."""

    def sample(key: jax.Array, size: int) -> Batch:
        inputs = jax.random.normal(key, (size, length, 1))
        return Batch(inputs, jnp.cumsum(inputs, axis=1), jnp.ones((size, length)))

    test = sample(jax.random.key(1), 8)
    return Task(features=1, outputs=1, sample=sample, test=test, baseline=(length + 1) / 2)


EVERY_STEP = (
    *("model.hidden_size=5", "train.batch_size=6", "optim=sgd", "wandb=disabled"),
    *("task._target_=test_truncated.running_sum", "task.length=8", "~task.permuted"),
)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (("tbptt.window=4", "tbptt.stride=3"), "must divide"),
        (("task=digits", "tbptt.window=4", "tbptt.update=segment"), "every segment of 4 steps"),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    composed: Compose, overrides: tuple[str, ...], part: str
) -> None:
    with pytest.raises(ConfigError, match=part):
        Program(composed(*overrides))


def test_one_update_a_sequence_takes_the_truncated_sum(composed: Compose) -> None:
    config = composed(*EVERY_STEP, "tbptt.window=3", "tbptt.stride=1")
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    new, telemetry = program.advance(hyperparameters, state, 1)
    batch = program.task.sample(jax.random.split(state.key)[1], 6)
    cell = nnx.merge(program.definition, state.parameters, program.constants).cell
    targets = (batch.targets, batch.weights / batch.weights.sum())
    loss_of_carry = Partial(program._loss_of_carry, state.parameters)
    terms = backpropagate(cell, batch.inputs, loss_of_carry, targets)
    kernel = terms.by_lag["dense_h.kernel"][:3].sum(axis=0) * np.exp(terms.log_scale)
    trained = nnx.merge(program.definition, new.parameters, program.constants).cell
    change = trained.dense_h.kernel[...] - cell.dense_h.kernel[...]
    np.testing.assert_allclose(change, -0.1 * kernel, rtol=1e-4, atol=1e-7)
    expected_loss = float(program.loss(state.parameters, batch))
    assert telemetry.loss[0] == pytest.approx(expected_loss, rel=1e-6)


@pytest.mark.parametrize(("window", "stride"), [(3, 3), (4, 2)])
def test_one_update_a_segment_carries_the_state_over(
    composed: Compose, window: int, stride: int
) -> None:
    """Two sequences of 8 steps; with stride 3 the last segment has 2 steps."""
    updates = 2 * -(-8 // stride)
    config = composed(
        *EVERY_STEP,
        *(f"tbptt.window={window}", f"tbptt.stride={stride}", "tbptt.update=segment"),
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    end, telemetry = program.advance(hyperparameters, state, updates)

    @jax.jit
    def learn(parameters: Any, h: jax.Array, inputs: jax.Array, segment: Batch) -> Any:
        """Update on a segment, given the state that enters its window and the window's inputs."""

        def objective(parameters: Any) -> Any:
            network = nnx.merge(program.definition, parameters, program.constants)
            state, after, hidden = h, h, []
            for t in range(inputs.shape[1]):
                state, _ = network.cell(state, inputs[:, t])
                hidden.append(state)
                after = state if len(hidden) == stride else after
            outputs = network.readout(jnp.stack(hidden[-segment.weights.shape[1] :], axis=1))
            return weighted_mean(losses(outputs, segment.targets), segment), after

        (value, after), gradient = jax.value_and_grad(objective, has_aux=True)(parameters)
        return jax.tree.map(lambda w, g: w - 0.1 * g, parameters, gradient), after, value

    parameters, key, expected = state.parameters, state.key, []
    for _ in range(2):
        key, batch_key = jax.random.split(key)
        batch, h = program.task.sample(batch_key, 6), jnp.zeros((6, 5))
        for end_of_segment in range(stride, 8 + stride, stride):
            begin = end_of_segment - window
            inputs = batch.inputs[:, max(0, begin) : end_of_segment]
            segment = Batch(*(x[:, end_of_segment - stride : end_of_segment] for x in batch))
            parameters, after, value = learn(parameters, h, inputs, segment)
            h = after if begin >= 0 else h
            expected.append(float(value))
    np.testing.assert_allclose(telemetry.loss, expected, rtol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        end.parameters,
        parameters,
    )


MATRIX = 0.5 * (np.eye(23) + np.eye(23, k=1))
SIGNS = np.where(np.arange(23) < 10, 1.0, -1.0)


class Influence(nnx.RNNCellBase):
    """s⁽ᵗ⁾ = A s⁽ᵗ⁻¹⁾ + θ v (Tallec & Ollivier 2017): θ has opposite effects early and late."""

    def __init__(self) -> None:
        self.theta = nnx.Param(jnp.array(0.5))

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        s = carry @ MATRIX.T + self.theta[...] * SIGNS
        return s, s[..., :1]


def influence(length: int) -> np.ndarray:
    """D_K = e₁ᵀ Σ_{j<K} Aʲ v: ∂s₁/∂θ truncated to K steps, for K = 1..length."""
    product, terms = SIGNS, []  # Aʲ v; its first entry
    for _ in range(length):
        terms.append(product[0])
        product = MATRIX @ product
    return np.cumsum(terms)


def test_influence_balancing_flips_sign_at_41_and_110() -> None:
    """A truncated gradient has the wrong sign up to K = 40; a sum over the window up to 109."""
    exact = influence(150)
    with jax.enable_x64(True):
        definition, parameters = nnx.split(Influence())
        start = jnp.ones((1, 23))
        inputs = jnp.zeros((150, 1, 1))

        @partial(jax.jit, static_argnums=0)
        def slope(window: int) -> jax.Array:
            """Return the truncated gradient of the last output of a sequence of 150 steps."""

            def last(p: Any) -> jax.Array:
                cell = nnx.merge(definition, p)
                return unroll_truncated(cell, start, inputs, window=window, stride=1)[-1, 0, 0]

            return jax.grad(last)(parameters)["theta"][...]

        for window in (19, 40, 41):
            assert float(slope(window)) == pytest.approx(exact[window - 1], abs=1e-5)
        assert float(slope(40)) > 0 > float(slope(41))

        @jax.jit
        def summed() -> jax.Array:
            """Return the gradient of Σ s₁ over one window, for each window length."""
            gradients = jax.jacrev(
                lambda p: run_window(
                    nnx.merge(definition, p),
                    start,
                    split_segments(inputs, 150),
                    window_segments(jnp.array(0), 1),
                )[1][:, 0, 0]
            )(parameters)["theta"][...]
            return jnp.cumsum(gradients)

        sums = np.asarray(summed())
    np.testing.assert_allclose(sums, np.cumsum(exact), atol=1e-5)
    assert (np.argmax(exact < 0) + 1, np.argmax(sums < 0) + 1) == (41, 110)


@pytest.mark.parametrize(("window", "converges"), [(50, False), (150, True)])
def test_influence_balancing_learns_only_with_long_windows(window: int, converges: bool) -> None:
    """Train by SGD on the loss summed over each window, carrying the state over: θ* = −1/6."""
    with jax.enable_x64(True):
        definition, parameters = nnx.split(Influence())
        segments = split_segments(jnp.zeros((window, 1, 1)), window)

        def update(state: Any, _: None) -> Any:
            parameters, carry = state

            def objective(parameters: Any) -> Any:
                cell = nnx.merge(definition, parameters)
                after, s = run_window(cell, carry, segments, jnp.array([0]))
                return jnp.sum(0.5 * (s - 1) ** 2), after

            gradient, after = jax.grad(objective, has_aux=True)(parameters)
            return (jax.tree.map(lambda w, g: w - 1e-4 * g, parameters, gradient), after), None

        start = (parameters, jnp.ones((1, 23)))
        (parameters, _), _ = jax.jit(lambda s: jax.lax.scan(update, s, length=3000))(start)
        theta = float(parameters["theta"][...])
    assert (abs(theta + 1 / 6) < 1e-3) == converges
    assert (abs(theta) > 1 or not np.isfinite(theta)) != converges
