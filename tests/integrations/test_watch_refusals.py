"""What a watcher refuses, in a sentence and before training."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from watched import Tagger, X, lstm, measured

import gradlab

pytestmark = pytest.mark.usefixtures("no_watcher_left")


def stacked() -> nnx.OptimizedLSTMCell:
    """Return two layers in one, as `nnx.vmap` makes them."""
    graph, state = nnx.split(lstm())
    return nnx.merge(graph, jax.tree.map(lambda w: jnp.stack([w, w]), state))


WRONG: dict[str, tuple[dict[str, Any], Any, str]] = {
    "every": ({"every": "often"}, None, "every must be log, ends"),
    "every, not whole": ({"every": np.array([0.5])}, None, "every must be log, ends"),
    "stride": ({"stride": 0}, None, "stride must be a whole number of at least 1"),
    "probe": ({"probes": "jacobi"}, None, "probes must be names out of adjoint, .*'jacobi'"),
    "twice": ({"probes": ("spectral", "rms")}, None, "two probes are called 'jacobian'"),
    "no probe": ({"probes": ()}, None, "probes must name one or more of adjoint"),
    "nameless": ({"probes": lambda probed: 0}, None, "a probe of your own needs a name"),
    "no loss": ({"probes": "adjoint"}, None, "give loss=.* and targets="),
    "no targets": ({"loss": lambda h, y: 0}, None, "loss and targets belong together"),
    "clip": ({"clip": "norm"}, None, "clip must be an optax transformation, .* above 0; got 'norm"),
    "run": ({"run": "mine"}, None, "run must be a W&B run"),
    "name": ({"name": 3}, None, "name must be a text, such as 'test'; got 3"),
    "model": ({"inputs": lstm()}, None, r"got the model OptimizedLSTMCell, .*watcher\(step, mod"),
    "folder": ({"folder": 3}, None, "folder must be a path, such as 'runs/mine'; got 3"),
    "config": ({"config": 3}, None, r"config must be a mapping; got int: give vars\(args\)"),
    "features": ({}, lstm(4), "deeper in a network reads what lies below it: give inputs"),
    "stacked": ({}, stacked(), "nnx.vmap stacks the layers of a network: give the watcher one"),
    "rank": ({"inputs": np.ones(3)}, lstm(), "inputs must be held-out sequences"),
    "lengths": ({"lengths": [7, 1]}, lstm(), "lengths must be one whole number from 1 to 6"),
    "no cell": ({}, nnx.Linear(3, 3, rngs=nnx.Rngs(0)), "Linear holds no recurrent cell"),
    "several": ({}, Tagger(), "3 recurrent cells, .*top.* give inputs="),
    "unknown": ({"inputs": {"up": X}}, Tagger(), "name cells of the model out of .*'up'"),
    "lone": ({"inputs": {"up": X}}, lstm(), "inputs must be sequences of one cell"),
    "carry": ({"initial_carry": X}, lstm(), "initial_carry is that of a step function"),
}


@pytest.mark.parametrize("samples", [1, 2, 5])  # the held-out sequences are two
def test_an_initial_carry_of_a_batch_is_refused_whatever_its_size(samples: int) -> None:
    cell, h0 = linen.GRUCell(features=5), jnp.zeros((samples, 5))
    weights = cell.init(jax.random.key(1), h0[0], X[0, 0])
    with pytest.raises(ValueError, match=rf"leave out its first axis, of {samples}, as in jax.tre"):
        measured(lambda h, x: cell.apply(weights, h, x), initial_carry=h0)


def test_a_step_that_does_not_fit_is_not_said_to_lie_deep_in_a_network() -> None:
    with pytest.raises(ValueError, match=r"takes float32.5. and returns float32.3") as caught:
        measured(lambda h, x: (x, h), initial_carry=jnp.zeros(5))
    assert "deeper" not in str(caught.value)
    with pytest.raises(ValueError, match="initial_carry is needed with a plain step function"):
        measured(lambda h, x: (h, h))


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_use_is_refused_before_training_in_a_sentence(wrong: str) -> None:
    arguments, cell, sentence = WRONG[wrong]
    with pytest.raises(ValueError, match=sentence):
        gradlab.watch(**({"inputs": X} | arguments))(0, cell)


@pytest.mark.parametrize("inputs", [np.ones(3), {"top": X, "up": np.ones((2, 0, 3))}, None])
def test_what_are_no_sequences_is_refused_before_there_is_a_model(inputs: Any) -> None:
    with pytest.raises(ValueError, match="inputs must be "):
        gradlab.watch(inputs)


def test_what_is_no_cell_is_refused_as_the_engine_refuses_it() -> None:
    with pytest.raises(TypeError, match="a Linen cell's weights lie outside it"):
        measured(linen.GRUCell(features=5))
    with pytest.raises(ValueError, match="metrics must be numbers; loss is 'small'"):
        gradlab.watch(X)(0, lstm(), loss="small")


@pytest.mark.parametrize("step", [0.5, "0", None, lstm()])
def test_what_is_no_number_of_updates_is_refused(step: Any) -> None:
    with pytest.raises(ValueError, match=r"a whole number, .*watcher\(step, model\); got "):
        gradlab.watch(X)(step, lstm())


def test_a_call_within_a_traced_function_is_refused() -> None:
    with pytest.raises(ValueError, match="JAX is tracing here: call it outside of jit"):
        nnx.jit(lambda cell: gradlab.watch(X, lengths=[6, 4])(0, cell))(lstm())
    with pytest.raises(ValueError, match="JAX is tracing here"):
        jax.jit(lambda w: measured(lambda h, x: (jnp.tanh(w * h), h), initial_carry=X[0, 0]))(2.0)
