"""Every task has a solution: hand-wired networks in the real cells, readout and metrics."""

import numpy as np
import pytest
from hand_built import (
    Wires,
    elman,
    evaluate,
    layer,
    shift_register,
    wired,
    with_fitted_readout,
)

from gradlab import jacobian_log_norms
from gradlab.cells import EncoderDecoder
from gradlab.tasks.adding import RULES, Variant, adding
from gradlab.tasks.copying import copying
from gradlab.tasks.cue import cue
from gradlab.tasks.digits import digits
from gradlab.tasks.echo import echo
from gradlab.tasks.forecast import forecast
from gradlab.tasks.memory_capacity import memory_capacity
from gradlab.tasks.reversal import reversal
from gradlab.tasks.temporal_order import temporal_order
from gradlab.tasks.xor import xor

SURE = 30.0  # a logit that leaves e⁻³⁰ of the probability to the others


@pytest.mark.parametrize("variant", RULES)
def test_two_gates_and_two_sums_add(variant: Variant) -> None:
    """relu(value + mark − 1) lets marked values from [0, 1] through; those from [−1, 1] need 2."""
    task = adding(30, 24, variant, test_size=500)
    signed = variant == "hochreiter"
    units: dict[str, Wires] = {
        "let in": {0: 1, 1: 2 if signed else 1, None: -1},
        "sum": {"sum": 1, "let in": 1},
        "mark": {1: 1},
        "count": {"count": 1, "mark": 1},
    }
    rule = RULES[variant]
    marked: Wires = {"sum": 1, "let in": 1, "count": -signed, "mark": -signed}
    output = {unit: rule.scale * weight for unit, weight in marked.items()}
    result = evaluate(wired(2, units, [{**output, None: rule.offset}]), task)
    assert result["eval/loss"] < 1e-10
    assert result["eval/error_rate"] == 0


@pytest.mark.parametrize("symbols", [2, 3])
def test_latches_and_a_count_tell_the_order(symbols: int) -> None:
    """Units pulse at "A and none before", "A and one before", …; other units sum the pulses."""
    task = temporal_order(40, 10, symbols, test_size=500)
    units: dict[str, Wires] = {"count": {"count": 1, 0: 1, 1: 1}}
    for kind in (0, 1):
        units |= {
            f"pulse {kind} 0": {kind: 1, "count": -1},
            f"pulse {kind} 1": {kind: 2, "count": 1, None: -2},  # 2, not 1, at the third symbol
            f"pulse {kind} 2": {kind: 3, "count": 1, None: -4},
        }
        units |= {f"{kind} at {i}": {f"{kind} at {i}": 1, f"pulse {kind} {i}": 1} for i in range(3)}
    outputs = []
    for order in range(2**symbols):
        scores: dict[int | str | None, float] = {}
        for place in range(symbols):
            kind = order >> place & 1
            scores[f"{kind} at {place}"] = scores.get(f"{kind} at {place}", 0) + SURE
            if place == 1:
                scores[f"{kind} at 2"] = -2 * SURE
        outputs.append(scores)
    result = evaluate(wired(6, units, outputs), task)
    assert result["eval/loss"] < 1e-6
    assert result["eval/error_rate"] == 0


def test_a_rotation_for_each_frequency_answers_the_cue() -> None:
    task = cue(50, (0.02, 0.11, 0.3))
    units: dict[str, Wires] = {}
    for kind, angle in enumerate(2 * np.pi * np.array([0.02, 0.11, 0.3])):
        c, s = float(np.cos(angle)), float(np.sin(angle))
        units |= {
            f"cos {kind}": {kind: c, f"cos {kind}": c, f"sin {kind}": -s},
            f"sin {kind}": {kind: s, f"cos {kind}": s, f"sin {kind}": c},
        }
    output: Wires = {f"sin {kind}": 1 for kind in range(3)}
    network = wired(3, units, [output], activation="identity")
    assert evaluate(network, task)["eval/loss"] < 1e-9
    log_norms = np.asarray(jacobian_log_norms(network.cell, task.test.inputs[0]))
    np.testing.assert_allclose(log_norms[np.tril_indices(51)], 0, atol=1e-5)


def test_a_shift_register_echoes() -> None:
    network = wired(
        1, shift_register(1, 6), [{None: SURE}, {"0@5": 2 * SURE}], activation="identity"
    )
    assert evaluate(network, echo(20, 5, 200))["eval/error_rate"] == 0
    assert evaluate(network, echo(20, 5, 200))["eval/loss"] < 1e-6
    assert evaluate(network, echo(20, 4, 200))["eval/accuracy"] == pytest.approx(0.5, abs=0.03)


def test_a_shift_register_with_two_more_units_solves_xor() -> None:
    units = shift_register(1, 8)
    units["recent"], units["earlier"] = {"0@3": 1, "0@7": -1}, {"0@3": -1, "0@7": 1}
    network = wired(1, units, [{None: SURE}, {"recent": 2 * SURE, "earlier": 2 * SURE}])
    result = evaluate(network, xor(20, 4, 200))
    assert result["eval/loss"] < 1e-6
    assert result["eval/error_rate"] == 0


def test_no_linear_readout_of_the_past_solves_xor() -> None:
    task = xor(20, 4, 500)
    cell = layer(1, shift_register(1, 9), "identity")
    result = evaluate(with_fitted_readout(task, cell, sequences=2000), task)
    assert result["eval/accuracy"] == pytest.approx(0.5, abs=0.03)


def test_a_shift_register_copies() -> None:
    task = copying(5, test_size=100)
    units = shift_register(10, 16)
    outputs: list[Wires] = [{None: SURE}, *({f"{k}@15": 2 * SURE} for k in range(1, 9))]
    result = evaluate(wired(10, units, outputs, activation="identity"), task)
    assert result["eval/loss"] < 1e-6
    assert result["eval/error_rate"] == 0


def test_a_stack_that_the_encoder_fills_and_the_decoder_empties_reverses() -> None:
    task = reversal(6, 2, symbols=3, test_size=200)
    names = [(k, slot) for k in range(3) for slot in range(7)]
    push: dict[str, Wires] = {f"{k}@{slot}": _below(k, slot) for k, slot in names}
    pop: dict[str, Wires] = {
        f"{k}@{slot}": {f"{k}@{slot + 1}": 1} if slot < 6 else {} for k, slot in names
    }
    network = wired(4, push, [{f"{k}@0": SURE} for k in range(3)])
    network.cell = EncoderDecoder(layer(3, push, "identity"), layer(3, pop, "identity"))
    result = evaluate(network, task)
    assert result["eval/loss"] < 1e-6
    assert result["eval/error_rate"] == 0


def _below(k: int, slot: int) -> Wires:
    return {0: {}, 1: {k: 1}}.get(slot, {f"{k}@{slot - 1}": 1})


def test_a_plain_relu_network_reverses_with_the_answer_flag_as_a_gate() -> None:
    task = reversal(5, 2, symbols=3, test_size=200)
    flag, units = 3, {}
    for k in range(3):
        for slot in range(6):
            # A slot is the sum of two units: one copies from below while the flag is 0, the other
            # from above while it is 1.
            below: Wires = {1: {k: 1}}.get(
                slot, {f"{way} {k}@{slot - 1}": 1 for way in ("up", "down")} if slot else {}
            )
            above = {f"{way} {k}@{slot + 1}": 1 for way in ("up", "down")} if slot < 5 else {}
            units[f"up {k}@{slot}"] = {**below, flag: -1}
            units[f"down {k}@{slot}"] = {**above, flag: 1, None: -1}
    network = wired(4, units, [{f"down {k}@0": SURE} for k in range(3)])
    result = evaluate(network, task)
    assert result["eval/loss"] < 1e-6
    assert result["eval/error_rate"] == 0


def test_a_linear_network_of_n_units_has_memory_capacity_n() -> None:
    """Jaeger 2002: MC_d is a squared correlation, here on other sequences than the fit's."""
    n, delays = 10, 60
    task = memory_capacity(600, delays, test_size=24)
    rng = np.random.default_rng(0)
    w_hh = rng.normal(size=(n, n))
    w_hh *= 0.9 / np.abs(np.linalg.eigvals(w_hh)).max()
    cell = elman(rng.normal(size=(1, n)), w_hh, np.zeros(n), "identity")
    outputs = np.asarray(with_fitted_readout(task, cell, sequences=24)(task.test.inputs))
    counts = np.asarray(task.test.weights) > 0
    pairs = zip(outputs[counts].T, np.asarray(task.test.targets)[counts].T, strict=True)
    capacity = sum(np.corrcoef(y, target)[0, 1] ** 2 for y, target in pairs)
    assert capacity == pytest.approx(n, rel=0.01)


def test_two_samples_of_an_eeg_forecast_better_than_one() -> None:
    task = forecast(32)
    losses = []
    for depth in (1, 2):
        cell = layer(4, shift_register(4, depth), "identity")
        result = evaluate(with_fitted_readout(task, cell, sequences=500), task)
        losses.append(result["eval/loss"])
    assert losses[1] < losses[0] < result["eval/baseline"]


def test_a_shift_register_of_all_pixels_reads_digits_in_any_order() -> None:
    accuracies = []
    for permuted in (False, True):
        task = digits(8, permuted)
        cell = layer(8, shift_register(8, 8), "identity")
        network = with_fitted_readout(task, cell, sequences=2000)
        accuracies.append(evaluate(network, task)["eval/accuracy"])
    assert accuracies[0] > 0.9
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.01)
