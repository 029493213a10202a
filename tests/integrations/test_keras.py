"""Layers of Keras 3 as Flax cells: equal outputs, and norms equal to those of their own steps."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import from_keras, jacobian_log_norms
from gradlab.cells import gates
from gradlab.cells.recurrence import unroll

os.environ.setdefault("KERAS_BACKEND", "jax")
keras: Any = pytest.importorskip("keras", reason="Keras, whose layers are read, is not installed")

FEATURES, HIDDEN, STEPS = 3, 5, 6
INPUTS = np.random.default_rng(0).normal(size=(2, STEPS, FEATURES)).astype(np.float32)
LAYERS: dict[str, Callable[..., Any]] = {
    "tanh": keras.layers.SimpleRNN,
    "linear": lambda n, **o: keras.layers.SimpleRNN(n, activation=None, **o),
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "gru reset before": lambda n, **o: keras.layers.GRU(n, reset_after=False, **o),
    "gru hard": lambda n, **o: keras.layers.GRU(n, recurrent_activation="hard_sigmoid", **o),
}


def drawn(kind: str, **options: Any) -> Any:
    """Return a built layer with random biases."""
    draw = keras.initializers.RandomNormal(stddev=0.7, seed=0)
    layer = LAYERS[kind](HIDDEN, bias_initializer=draw, return_sequences=True, **options)
    layer.build((None, None, FEATURES))
    return layer


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_has_equal_outputs(kind: str, use_bias: bool) -> None:
    layer = drawn(kind, use_bias=use_bias)
    cell = from_keras(layer)
    start = cell.initialize_carry((len(INPUTS), FEATURES), nnx.Rngs(0))
    outputs = unroll(cell, start, INPUTS.swapaxes(0, 1))[1].swapaxes(0, 1)
    np.testing.assert_allclose(outputs, layer(INPUTS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_norms_are_those_of_the_steps_of_keras(kind: str) -> None:
    layer = drawn(kind)
    size = 2 * HIDDEN if kind == "lstm" else HIDDEN

    def step(state: Any, x: Any) -> tuple[Any, Any]:
        states = jnp.split(state, size // HIDDEN)
        _, after = layer.cell(x[None], [s[None] for s in states])
        state = jnp.concatenate([s[0] for s in after])
        return state, state

    expected = jacobian_log_norms(step, INPUTS[0], initial_carry=jnp.zeros(size))
    np.testing.assert_allclose(
        jacobian_log_norms(from_keras(layer), INPUTS[0]), expected, rtol=1e-4, atol=1e-4
    )


def test_gates_of_a_gru_that_resets_before_the_product() -> None:
    layer, x, h = drawn("gru reset before"), INPUTS[0, 0], np.linspace(-1, 1, HIDDEN)
    kernel, recurrent, bias = (np.asarray(w) for w in layer.get_weights())
    z, r, _ = np.split(1 / (1 + np.exp(-(x @ kernel + h @ recurrent + bias))), 3)
    found = gates(from_keras(layer.cell), jnp.asarray(h), x)
    np.testing.assert_allclose(found["update"], z, rtol=1e-5)
    np.testing.assert_allclose(found["reset"], r, rtol=1e-5)
    jax.tree.map(lambda gate: np.testing.assert_array_less(gate, 1), found)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "another layer": (lambda: keras.layers.Dense(3), "SimpleRNN, LSTM or GRU.* got Dense"),
    "two directions": (
        lambda: keras.layers.Bidirectional(keras.layers.LSTM(3)),
        "got Bidirectional: pass its .forward_layer",
    ),
    "no weights": (lambda: keras.layers.LSTM(3), "has no weights yet: layer.build"),
    "an activation": (lambda: drawn("tanh", activation="mish"), "must be one of .*; got mish"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_layers_are_refused_in_a_sentence(case: str) -> None:
    make, sentence = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=sentence):
        from_keras(make())


def test_a_model_that_holds_one_layer_is_read_as_that_layer() -> None:
    embedding, layer = keras.layers.Embedding(7, FEATURES), keras.layers.LSTM(HIDDEN)
    sequential = keras.Sequential([embedding, layer, keras.layers.Dense(2)])
    tokens = np.arange(STEPS)[None] % 7
    sequential(tokens)
    entry = keras.Input((None, FEATURES))
    functional = keras.Model(entry, keras.layers.Dense(1)(layer(entry)))
    within = keras.Sequential([functional])
    inputs = np.asarray(embedding(tokens))
    for model in (sequential, functional, within):
        cell = from_keras(model)
        start = cell.initialize_carry((1, FEATURES), nnx.Rngs(0))
        outputs = unroll(cell, start, inputs.swapaxes(0, 1))[1]
        np.testing.assert_allclose(outputs[-1], layer(inputs), rtol=0, atol=1e-6)


def test_a_model_of_none_or_several_layers_says_what_to_pass() -> None:
    entry = keras.Input((None, FEATURES))
    both = keras.layers.Bidirectional(keras.layers.GRU(HIDDEN), name="both")(entry)
    with pytest.raises(ValueError, match=r"holds no recurrent layer"):
        from_keras(keras.Sequential([keras.layers.Dense(2)]))
    model = keras.Model(entry, both)
    with pytest.raises(ValueError, match=r"model\.get_layer\('both'\)\.backward_layer\)"):
        from_keras(model)
    assert from_keras(model.get_layer("both").backward_layer).hidden_features == HIDDEN
    unbuilt = keras.Sequential([keras.layers.GRU(HIDDEN)])
    with pytest.raises(ValueError, match=r"no weights yet: .* or call the model"):
        from_keras(unbuilt)
