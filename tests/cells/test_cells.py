"""Cells with options against Flax's own, and their gates."""

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


def parameters(cell: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(cell, nnx.Param))]


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "identity"])
def test_one_matrix_or_two_are_the_same_network(activation: Any) -> None:
    joined, separate = (
        kind(FEATURES, HIDDEN, activation=activation, rngs=nnx.Rngs(0))
        for kind in (ConcatenatedElman, Elman)
    )
    np.testing.assert_allclose(joined(H, X)[0], separate(H, X)[0], rtol=1e-5, atol=1e-6)
    w_xh, w_hh = separate.dense_i.kernel[...], separate.dense_h.kernel[...]
    a = X @ w_xh + H @ w_hh + separate.dense_i.bias[...]
    phi = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "identity": lambda x: x,
    }[activation]
    np.testing.assert_allclose(separate(H, X)[0], phi(np.asarray(a)), rtol=1e-5, atol=1e-6)
    assert joined.kernel.shape == (FEATURES + HIDDEN, HIDDEN)
    start = joined.initialize_carry((FEATURES,), nnx.Rngs(0))
    assert start.shape == (HIDDEN,)


def test_a_tanh_layer_and_an_lstm_without_pins_are_flaxs() -> None:
    pairs = [(Elman, nnx.SimpleCell, H), (LSTM, nnx.OptimizedLSTMCell, (C, H))]
    for ours, theirs, carry in pairs:
        mine, flax = (kind(FEATURES, HIDDEN, rngs=nnx.Rngs(0)) for kind in (ours, theirs))
        for left, right in zip(parameters(mine), parameters(flax), strict=True):
            np.testing.assert_array_equal(left, right)
        np.testing.assert_allclose(mine(carry, X)[1], flax(carry, X)[1], rtol=1e-6)


PINS = st.none() | st.floats(0, 1, width=32)


@settings(max_examples=10)
@given(input_gate=PINS, forget_gate=PINS, output_gate=PINS)
def test_pinned_gates_are_constants_and_the_others_are_as_before(**pins: float | None) -> None:
    cell, unpinned = (LSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **p) for p in (pins, {}))
    values_by_gate, unpinned_gates = gates(cell, (C, H), X), gates(unpinned, (C, H), X)
    learned = 4
    for name, values in values_by_gate.items():
        pin = pins[f"{name}_gate"]
        learned -= pin is not None
        np.testing.assert_allclose(values, unpinned_gates[name] if pin is None else pin, rtol=1e-5)
    assert cell.dense_i.kernel.shape == (FEATURES, learned * HIDDEN)
    assert cell.dense_h.bias.shape == (learned * HIDDEN,)
    candidate = unpinned.activations((C, H), X)["candidate"]
    c = values_by_gate["forget"] * C + values_by_gate["input"] * candidate
    (new_c, new_h), _ = cell((C, H), X)
    np.testing.assert_allclose(new_c, c, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new_h, values_by_gate["output"] * np.tanh(c), rtol=1e-5, atol=1e-6)


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="forget_gate must be None or from 0 to 1; got 2"):
        LSTM(FEATURES, HIDDEN, forget_gate=2.0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="activation must be one of tanh, relu, sigmoid, identity"):
        Elman(FEATURES, HIDDEN, activation="softsign", rngs=nnx.Rngs(0))  # type: ignore[arg-type]


def test_gates_of_flaxs_cells_explain_their_next_state() -> None:
    optimised = nnx.OptimizedLSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    plain = nnx.LSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    for cell in (optimised, plain):
        cell_gates = gates(cell, (C, H), X)
        (c, h), _ = cell((C, H), X)
        np.testing.assert_allclose(h, cell_gates["output"] * np.tanh(c), rtol=1e-5)
        # c − f ⊙ c⁽ᵗ⁻¹⁾ is i ⊙ g with |g| ≤ 1.
        assert (np.abs(c - cell_gates["forget"] * C) <= cell_gates["input"] + 1e-6).all()
    gru = nnx.GRUCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    cell_gates = gates(gru, H, X)
    new = np.asarray(gru(H, X)[0])
    candidate = (new - cell_gates["update"] * H) / (1 - cell_gates["update"])
    assert (np.abs(candidate) <= 1).all()
    with pytest.raises(
        TypeError, match=r"knows no gates of Elman: .* @gradlab.cells.gates.register"
    ):
        gates(Elman(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), H, X)


def test_gates_of_a_stack_go_by_layer() -> None:
    layers = [Elman(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), LSTM(HIDDEN, HIDDEN, rngs=nnx.Rngs(1))]
    stack = Stack(layers)
    carry = stack.initialize_carry((FEATURES,), nnx.Rngs(0))
    cell_gates = gates(stack, carry, X)
    assert list(cell_gates) == ["layer1.input", "layer1.forget", "layer1.output"]
    below = layers[0](jnp.zeros(HIDDEN), X)[1]
    alone = gates(layers[1], (jnp.zeros(HIDDEN), jnp.zeros(HIDDEN)), below)
    np.testing.assert_allclose(cell_gates["layer1.forget"], alone["forget"], rtol=1e-6)


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
    x, zero = np.zeros(FEATURES, np.float32), jnp.zeros(HIDDEN)
    carry = zero if gate == "update" else (zero, zero)
    before = gates(cell, carry, x)
    set_gate_biases(cell, {"forget": jnp.arange(HIDDEN, dtype=jnp.float32)})
    after = gates(cell, carry, x)
    np.testing.assert_allclose(after[gate], 1 / (1 + np.exp(-np.arange(HIDDEN))), rtol=1e-5)
    for name in before.keys() - {gate}:
        np.testing.assert_array_equal(after[name], before[name])
