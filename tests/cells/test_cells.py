"""Cells with options against Flax's own, and what their gates are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab.cells import LSTM, ConcatenatedElman, Elman, gates, set_gate_biases
from gradlab.models import Stack

FEATURES, HIDDEN = 3, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=FEATURES).astype(np.float32)
H, C = RNG.normal(size=(2, HIDDEN)).astype(np.float32)


def numbers(cell: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(cell, nnx.Param))]


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "identity"])
def test_one_matrix_or_two_are_the_same_network(activation: Any) -> None:
    one, two = (
        kind(FEATURES, HIDDEN, activation=activation, rngs=nnx.Rngs(0))
        for kind in (ConcatenatedElman, Elman)
    )
    np.testing.assert_allclose(one(H, X)[0], two(H, X)[0], rtol=1e-5, atol=1e-6)
    a = X @ two.dense_i.kernel[...] + H @ two.dense_h.kernel[...] + two.dense_i.bias[...]
    phi = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "identity": lambda x: x,
    }[activation]
    np.testing.assert_allclose(two(H, X)[0], phi(np.asarray(a)), rtol=1e-5, atol=1e-6)
    assert one.kernel.shape == (FEATURES + HIDDEN, HIDDEN)
    start = one.initialize_carry((FEATURES,), nnx.Rngs(0))
    assert start.shape == (HIDDEN,)


def test_a_tanh_layer_and_an_lstm_without_pins_are_flaxs() -> None:
    pairs = [(Elman, nnx.SimpleCell, H), (LSTM, nnx.OptimizedLSTMCell, (C, H))]
    for ours, theirs, carry in pairs:
        mine, flax = (kind(FEATURES, HIDDEN, rngs=nnx.Rngs(0)) for kind in (ours, theirs))
        for left, right in zip(numbers(mine), numbers(flax), strict=True):
            np.testing.assert_array_equal(left, right)
        np.testing.assert_allclose(mine(carry, X)[1], flax(carry, X)[1], rtol=1e-6)


PINS = st.none() | st.floats(0, 1, width=32)


@settings(max_examples=10, deadline=None)
@given(input_gate=PINS, forget_gate=PINS, output_gate=PINS)
def test_pinned_gates_are_constants_and_the_others_are_as_before(**pins: float | None) -> None:
    cell, whole = (LSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **p) for p in (pins, {}))
    found, free = gates(cell, (C, H), X), gates(whole, (C, H), X)
    learned = 4
    for name, values in found.items():
        pin = pins[f"{name}_gate"]
        learned -= pin is not None
        np.testing.assert_allclose(values, free[name] if pin is None else pin, rtol=1e-5)
    assert cell.dense_i.kernel.shape == (FEATURES, learned * HIDDEN)
    assert cell.dense_h.bias.shape == (learned * HIDDEN,)
    candidate = whole.activations((C, H), X)["candidate"]
    c = found["forget"] * C + found["input"] * candidate
    (new_c, new_h), _ = cell((C, H), X)
    np.testing.assert_allclose(new_c, c, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new_h, found["output"] * np.tanh(c), rtol=1e-5, atol=1e-6)


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="forget_gate must be None or from 0 to 1; got 2"):
        LSTM(FEATURES, HIDDEN, forget_gate=2.0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="activation must be one of tanh, relu, sigmoid, identity"):
        Elman(FEATURES, HIDDEN, activation="softsign", rngs=nnx.Rngs(0))  # type: ignore[arg-type]


def test_gates_of_flaxs_cells_explain_their_next_state() -> None:
    optimised = nnx.OptimizedLSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    plain = nnx.LSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    for cell in (optimised, plain):
        found = gates(cell, (C, H), X)
        (c, h), _ = cell((C, H), X)
        np.testing.assert_allclose(h, found["output"] * np.tanh(c), rtol=1e-5)
        # What c would be with the forget gate alone differs from c by something within i.
        assert (np.abs(c - found["forget"] * C) <= found["input"] + 1e-6).all()
    gru = nnx.GRUCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    found = gates(gru, H, X)
    new = np.asarray(gru(H, X)[0])
    candidate = (new - found["update"] * H) / (1 - found["update"])
    assert (np.abs(candidate) <= 1).all()
    with pytest.raises(
        TypeError, match=r"knows no gates of Elman: .* @gradlab.cells.gates.register"
    ):
        gates(Elman(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), H, X)


def test_gates_of_a_stack_go_by_layer() -> None:
    layers = [Elman(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), LSTM(HIDDEN, HIDDEN, rngs=nnx.Rngs(1))]
    stack = Stack(layers)
    carry = stack.initialize_carry((FEATURES,), nnx.Rngs(0))
    found = gates(stack, carry, X)
    assert list(found) == ["layer1.input", "layer1.forget", "layer1.output"]
    below = layers[0](jnp.zeros(HIDDEN), X)[1]
    alone = gates(layers[1], (jnp.zeros(HIDDEN), jnp.zeros(HIDDEN)), below)
    np.testing.assert_allclose(found["layer1.forget"], alone["forget"], rtol=1e-6)


@pytest.mark.parametrize(
    ("cell", "gate"),
    [
        (LSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), "forget"),
        (LSTM(FEATURES, HIDDEN, input_gate=1.0, rngs=nnx.Rngs(0)), "forget"),
        (nnx.OptimizedLSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), "forget"),
        (nnx.GRUCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), "update"),
    ],
)
def test_a_forget_bias_opens_the_gate_that_keeps(cell: Any, gate: str) -> None:
    nothing, zero = np.zeros(FEATURES, np.float32), jnp.zeros(HIDDEN)
    carry = zero if gate == "update" else (zero, zero)
    before = gates(cell, carry, nothing)
    set_gate_biases(cell, {"forget": jnp.arange(HIDDEN, dtype=jnp.float32)})
    after = gates(cell, carry, nothing)
    np.testing.assert_allclose(after[gate], 1 / (1 + np.exp(-np.arange(HIDDEN))), rtol=1e-5)
    for name in before.keys() - {gate}:
        np.testing.assert_array_equal(after[name], before[name])
