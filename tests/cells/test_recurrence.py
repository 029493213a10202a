"""`unroll` against a plain scan over the steps of Flax's own cells."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import PyTree

from gradlab.cells import LSTM, ConcatenatedElman, Elman, recurrence
from gradlab.cells.affine import affine_form
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.models import Stack

FEATURES, HIDDEN, BATCH, LENGTH = 3, 4, 2, 6
CELLS: dict[str, Callable[..., nnx.RNNCellBase]] = {
    **{f"Elman {x}": partial(Elman, activation=x) for x in ("tanh", "relu", "sigmoid", "identity")},
    "ConcatenatedElman": ConcatenatedElman,
    "SimpleCell": nnx.SimpleCell,
    "residual SimpleCell": partial(nnx.SimpleCell, residual=True),
    "LSTM": LSTM,
    "pinned LSTM": partial(LSTM, forget_gate=0.9, output_gate=1.0),
    "OptimizedLSTMCell": nnx.OptimizedLSTMCell,
    "GRUCell": nnx.GRUCell,
}


class LeakyCell(nnx.SimpleCell):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        new, _ = super().__call__(carry, inputs)
        return 0.9 * carry + 0.1 * new, carry


class OpenLSTM(LSTM):
    def activations(self, carry: Any, inputs: Any) -> Any:
        return super().activations(carry, inputs) | {"input": jnp.ones(HIDDEN)}


class Renamed(Elman):
    pass


def make(kind: Callable[..., Any], features: int = FEATURES, seed: int = 0) -> nnx.RNNCellBase:
    return with_random_biases(kind(features, HIDDEN, rngs=nnx.Rngs(seed)))


def with_random_biases(cell: Any) -> Any:
    state = nnx.state(cell, nnx.Param)
    noise = np.random.default_rng(0)
    state = jax.tree.map(lambda x: x + 0.3 * noise.normal(size=x.shape).astype(x.dtype), state)
    nnx.update(cell, state)
    return cell


def in_float64(cell: Any) -> Any:
    """Return the cell with float64 weights, which SimpleCell's layers would otherwise cast back."""
    for _, part in nnx.iter_graph(cell):
        if isinstance(part, nnx.Linear):
            part.dtype = None
    nnx.update(cell, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(cell, nnx.Param)))
    return cell


def problem(cell: Any, dtype: Any, length: int = LENGTH, batch: int = BATCH) -> tuple[Any, Any]:
    """Return a carry and inputs."""
    noise = np.random.default_rng(1)
    carry = cell.initialize_carry((batch, cell_features(cell)), nnx.Rngs(0))
    carry = jax.tree.map(lambda x: jnp.asarray(noise.normal(size=x.shape), dtype), carry)
    return carry, jnp.asarray(noise.normal(size=(length, batch, cell_features(cell))), dtype)


def cell_features(cell: Any) -> int:
    return cell.layers[0].in_features if isinstance(cell, Stack) else cell.in_features


def with_gradients(run_cell: Callable, cell: Any, rule: Any = None) -> Callable[..., PyTree]:
    """Return a function that computes the last carry, the outputs and all gradients."""
    definition, weights, rest = nnx.split(cell, nnx.Param, ...)

    def run(weights: Any, carry: Any, inputs: Any) -> Any:
        return run_cell(nnx.merge(definition, weights, rest), carry, inputs, rule)

    def differentiated(carry: Any, inputs: Any, weights: Any = weights) -> Any:
        values, pull = jax.vjp(run, weights, carry, inputs)
        return values, pull(jax.tree.map(lambda x: jnp.cos(3 * x + 1), values))

    return jax.jit(differentiated)


def assert_same(actual: PyTree, expected: PyTree, tolerance: float) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        scale = max(1.0, float(jnp.max(jnp.abs(y))))
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients_are_those_of_the_plain_scan(name: str) -> None:
    cell = make(CELLS[name])
    assert affine_form(cell) is not None
    args = problem(cell, jnp.float32)
    assert_same(
        with_gradients(unroll, cell)(*args), with_gradients(step_by_step, cell)(*args), 1e-5
    )
    with jax.enable_x64(True):
        cell, rule = in_float64(make(CELLS[name])), partial(jax.tree.map, jnp.tanh)
        args = problem(cell, jnp.float64)
        assert recurrence._is_plain_batch(affine_form(cell), *args)
        expected = with_gradients(step_by_step, cell, rule)(*args)
        assert_same(with_gradients(unroll, cell, rule)(*args), expected, 1e-12)


@settings(max_examples=4)
@given(length=st.integers(1, 5), batch=st.integers(1, 4), features=st.integers(1, 5))
def test_any_size(length: int, batch: int, features: int) -> None:
    cell = make(nnx.GRUCell, features)
    args = problem(cell, jnp.float32, length, batch)
    assert_same(
        with_gradients(unroll, cell)(*args), with_gradients(step_by_step, cell)(*args), 1e-5
    )


def test_a_stack_runs_layer_after_layer() -> None:
    layers = [make(Elman), make(LSTM, HIDDEN, 1), make(LeakyCell, HIDDEN, 2)]
    stack = Stack(layers)
    args = problem(stack, jnp.float32)
    assert_same(
        with_gradients(unroll, stack)(*args), with_gradients(step_by_step, stack)(*args), 1e-5
    )

    def over_all_layers(adjoint: PyTree) -> PyTree:
        norm = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(adjoint)))
        return jax.tree.map(lambda x: x / jnp.maximum(1.0, norm), adjoint)

    clipped = with_gradients(unroll, stack, over_all_layers)(*args)
    assert_same(clipped, with_gradients(step_by_step, stack, over_all_layers)(*args), 1e-5)


def test_two_sets_of_weights_and_thresholds_at_once() -> None:
    cells = [make(nnx.OptimizedLSTMCell, seed=seed) for seed in (0, 1)]
    carry, inputs = problem(cells[0], jnp.float32)

    def clipped(run_cell: Callable, weights: Any, threshold: Any) -> Any:
        rule = partial(jax.tree.map, lambda x: jnp.clip(x, -threshold, threshold))
        return with_gradients(run_cell, cells[0], rule)(carry, inputs, weights)

    weights = jax.tree.map(lambda *x: jnp.stack(x), *(nnx.state(c, nnx.Param) for c in cells))
    thresholds = jnp.array([0.05, 0.5])
    batched = jax.vmap(partial(clipped, unroll))(weights, thresholds)
    for i, threshold in enumerate(thresholds):
        own_weights, own = (jax.tree.map(lambda x, i=i: x[i], tree) for tree in (weights, batched))
        assert_same(own, clipped(step_by_step, own_weights, threshold), 1e-5)


@pytest.mark.parametrize("kind", [Elman, LSTM, nnx.GRUCell])
def test_second_derivatives_and_stopped_carries(kind: Any) -> None:
    """A penalty on the adjoint of the first carry, over two windows with no gradient between."""
    with jax.enable_x64(True):
        cell = in_float64(make(kind))
        definition, weights, rest = nnx.split(cell, nnx.Param, ...)
        carry, inputs = problem(cell, jnp.float64)

        def penalty(run_cell: Callable, weights: Any) -> Any:
            def loss(carry: Any) -> Any:
                cell = nnx.merge(definition, weights, rest)
                last, early = run_cell(cell, carry, inputs[:3])
                _, late = run_cell(cell, jax.lax.stop_gradient(last), inputs[3:])
                return jnp.sum(early**2) + jnp.sum(late**3)

            return sum(jnp.sum(x**2) for x in jax.tree.leaves(jax.grad(loss)(carry)))

        actual, expected = (
            jax.grad(partial(penalty, run_cell))(weights) for run_cell in (unroll, step_by_step)
        )
        assert_same(actual, expected, 1e-12)


@pytest.mark.parametrize("kind", [LeakyCell, OpenLSTM, nnx.LSTMCell])
def test_a_cell_without_affine_form_runs_by_its_own_steps(kind: Any) -> None:
    cell = make(kind)
    assert affine_form(cell) is None
    args = problem(cell, jnp.float32)
    assert_same(
        with_gradients(unroll, cell)(*args),
        with_gradients(step_by_step, cell)(*args),
        0.0,
    )


def test_the_affine_form_goes_by_the_step_and_the_layers() -> None:
    assert affine_form(make(Renamed)) is not None
    changed: Any = make(Elman)
    changed.dense_h = nnx.LoRALinear(HIDDEN, HIDDEN, lora_rank=1, rngs=nnx.Rngs(0))
    assert affine_form(changed) is None


def test_mixed_precision_runs_as_flax_promotes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("ran in affine form")

    monkeypatch.setattr(recurrence, "_affine_unroll", fail)
    cell = make(nnx.GRUCell)
    carry, inputs = problem(cell, jnp.float32)
    _, outputs = unroll(cell, carry, inputs.astype(jnp.bfloat16))
    assert outputs.dtype == jnp.float32
