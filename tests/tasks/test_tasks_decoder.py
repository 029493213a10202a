"""The encoder-decoder cell against an encoder and a decoder run one after the other."""

from typing import Any

import jax
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from hand_built import elman

from gradlab import jacobian_log_norms
from gradlab.cells import LSTM, Elman, EncoderDecoder, gates
from gradlab.models import Stack
from gradlab.training.program import Program, hyperparameters_of

SHOWN, ANSWERED, FEATURES, HIDDEN = 4, 3, 2, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SHOWN + ANSWERED, FEATURES)).astype(np.float32)
FLAG = (np.arange(SHOWN + ANSWERED) >= SHOWN).astype(np.float32)
INPUTS = np.column_stack([X, FLAG])


@pytest.mark.parametrize("kind", [Elman, LSTM, nnx.GRUCell])
def test_the_decoder_goes_on_from_where_the_encoder_stopped(kind: Any) -> None:
    encoder, decoder = (kind(FEATURES, HIDDEN, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    joined = EncoderDecoder(encoder, decoder)
    carry = joined.initialize_carry((FEATURES + 1,), nnx.Rngs(0))
    expected_carry = encoder.initialize_carry((FEATURES,), nnx.Rngs(0))
    for t, x in enumerate(INPUTS):
        step = joined(carry, x)
        expected = (encoder if t < SHOWN else decoder)(expected_carry, X[t])
        jax.tree.map(np.testing.assert_array_equal, step, expected)
        carry, expected_carry = step[0], expected[0]


def test_its_jacobian_reaches_from_the_last_answer_to_the_first_input() -> None:
    w_xh = np.zeros((FEATURES, HIDDEN))
    kernels = RNG.normal(size=(2, HIDDEN, HIDDEN)) / np.sqrt(HIDDEN)
    cells = (elman(w_xh, w, np.zeros(HIDDEN), "identity") for w in kernels)
    log_norms = jacobian_log_norms(EncoderDecoder(*cells), INPUTS, norm="frobenius")
    steps = [kernels[0].T] * SHOWN + [kernels[1].T] * ANSWERED
    for k in range(SHOWN + 1):
        product = np.linalg.multi_dot([np.eye(HIDDEN), *steps[k:][::-1]])
        assert float(log_norms[-1, k]) == pytest.approx(np.log(np.linalg.norm(product)), abs=1e-5)


def test_its_gates_are_those_of_the_cell_that_acts() -> None:
    encoder = LSTM(FEATURES, HIDDEN, forget_gate=0.25, rngs=nnx.Rngs(0))
    decoder = LSTM(FEATURES, HIDDEN, forget_gate=0.75, rngs=nnx.Rngs(1))
    joined = EncoderDecoder(encoder, decoder)
    carry = joined.initialize_carry((SHOWN + ANSWERED, FEATURES + 1), nnx.Rngs(0))
    joined_gates = gates(joined, carry, INPUTS)
    np.testing.assert_array_equal(joined_gates["forget"][:, 0], np.where(FLAG, 0.75, 0.25))
    np.testing.assert_array_equal(joined_gates["output"][0], gates(encoder, carry, X)["output"][0])
    np.testing.assert_array_equal(
        joined_gates["output"][-1], gates(decoder, carry, X)["output"][-1]
    )


def test_a_decoder_is_configured_with_as_many_layers_as_the_encoder(composed: Compose) -> None:
    overrides = ("task=reversal", "task.length=3", "task.test_size=4", "model.hidden_size=6")
    config = composed(*overrides, "model=gru", "model.num_layers=2", "model.decoder=true")
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    cell = nnx.merge(program.definition, state.parameters, program.constants).cell
    assert isinstance(cell, EncoderDecoder)
    for half in (cell.encoder, cell.decoder):
        assert isinstance(half, Stack)
        assert [layer.in_features for layer in half.layers] == [8, 6]
    assert not np.array_equal(
        *(half.layers[0].dense_h.kernel for half in (cell.encoder, cell.decoder))
    )
    trained, telemetry = program.advance(hyperparameters, state, 2)
    assert np.isfinite(telemetry.grad_norm).all()
    pairs = (nnx.to_flat_state(x.parameters) for x in (state, trained))
    unchanged = [
        path for (path, a), (_, b) in zip(*pairs, strict=True) if np.array_equal(a[...], b[...])
    ]
    # The decoder's inputs are all 0.
    assert unchanged == [("cell", "decoder", "layers", 0, "dense_i", "kernel")]
