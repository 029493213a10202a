"""Exact zeros are counted and left out of means; nothing beyond a sequence's end is measured."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from float64_products import log_norm_map

from gradlab import decay, lyapunov_exponents, theory
from gradlab.__main__ import CONF
from gradlab.cells import gates
from gradlab.components import build
from gradlab.jacobian import jacobian_log_norms, lyapunov_spectrum
from gradlab.probes import Measurement, ProbeInput
from gradlab.probes.losses import contribution
from gradlab.probes.maps import jacobian_map
from gradlab.probes.states import theory_rates
from gradlab.tasks import Batch
from gradlab.tasks.adding import adding
from gradlab.tasks.reversal import reversal
from gradlab.training.program import Program, hyperparameters_of

ALL = "[spectral,lyapunov,singular_values,adjoint,contribution,statistics,theory]"
SHORT = ("task.variant=vorontsov", "task.length=24", "task.min_length=6", "probe.samples=3")


def measure(composed: Compose, *overrides: str) -> tuple[Any, Batch, Measurement]:
    config = composed("wandb=disabled", *overrides)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    network = program.merge(state.parameters)
    samples = config.probe["samples"]
    batch = jax.tree.map(lambda x: x[:samples], program.task.test)
    return network, batch, program.measure(hyperparameters, state)


def float64_map(w_x: Any, w_h: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the log norms of a ReLU layer's products, in plain float64; −inf where k > t."""
    w_x, w_h = np.asarray(w_x, float), np.asarray(w_h, float)
    h, jacobians = np.zeros(len(w_h)), []
    for x in np.asarray(inputs, float):
        z = x @ w_x + h @ w_h
        h = np.maximum(z, 0)
        jacobians.append((z > 0)[:, None] * w_h.T)
    return log_norm_map(np.array(jacobians))


# Exact zeros


@pytest.mark.parametrize("length", [8, 64])
def test_black_pixels_do_not_make_an_irnn_vanish(composed: Compose, length: int) -> None:
    network, batch, measured = measure(
        composed, "+network=irnn", "task=digits", f"task.length={length}", "model.hidden_size=10"
    )
    cell = network.cell
    maps = np.array(
        [float64_map(cell.dense_i.kernel, cell.dense_h.kernel, x) for x in batch.inputs]
    )
    low = maps[:, *np.tril_indices(length + 1, -1)]
    assert measured.metrics["jacobian/zero_share"] == np.isneginf(low).mean()
    assert (measured.metrics["jacobian/zero_share"] > 0) == (length == 64)
    assert measured.metrics["jacobian/decay_rate"] == pytest.approx(0, abs=1e-6)
    assert measured.metrics["jacobian/horizon"] == np.inf
    assert decay.verdict_of(measured.metrics, length) == "stable"


def test_an_exploding_relu_network_with_a_few_zeros_explodes(composed: Compose) -> None:
    network, batch, measured = measure(
        composed,
        *("task=echo", "task.length=40", "task.delay=3", "task.test_size=16", "seed=1"),
        *("model.hidden_size=8", "+model.cell.activation=relu", "init.gain=3"),
    )
    cell = network.cell
    maps = np.array(
        [float64_map(cell.dense_i.kernel, cell.dense_h.kernel, x) for x in batch.inputs]
    )
    share = np.isneginf(maps[:, *np.tril_indices(41, -1)]).mean()
    assert 0 < share < 0.05
    assert measured.metrics["jacobian/zero_share"] == pytest.approx(share)
    means = [
        [x for x in np.diagonal(maps, -lag, -2, -1).ravel() if x > -np.inf] for lag in range(41)
    ]
    expected = np.polyfit(range(1, 41), [np.mean(x) for x in means[1:]], 1)[0]
    assert measured.metrics["jacobian/decay_rate"] == pytest.approx(expected, rel=1e-4)
    assert measured.metrics["jacobian/log_norm/lag_16"] == pytest.approx(
        np.mean(means[16]), rel=1e-4
    )
    assert decay.verdict_of(measured.metrics, 40) == "exploding"


def zero_loss_input(cell: nnx.RNNCellBase, **changes: Any) -> ProbeInput:
    inputs = jnp.ones((2, 5, 2))
    targets = jnp.ones((2, 5)).at[1].set(0)  # weights: the second sample has no loss
    probed = ProbeInput(
        cell=cell,
        inputs=inputs,
        lengths=np.array([5, 5]),
        loss=lambda h, weight: weight * jnp.sum(jnp.asarray(h) ** 2),
        targets=targets,
        stride=1,
        grad_norm=lambda: 1.0,
        threshold=np.inf,
    )
    return probed._replace(**changes)


def test_padding_that_overflows_changes_no_map() -> None:
    cell = nnx.SimpleCell(2, 3, rngs=nnx.Rngs(0))
    probed = zero_loss_input(cell, lengths=np.array([5, 3]))
    expected = jacobian_map(probed, name="jacobian")
    inputs = probed.inputs.at[1, 3:].set(jnp.inf)
    found = jacobian_map(probed._replace(inputs=inputs), name="jacobian")
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def test_samples_without_any_gradient_have_no_long_range_share() -> None:
    cell = nnx.SimpleCell(2, 3, rngs=nnx.Rngs(0))
    name = "contribution/long_range_share/dense_h.kernel"
    one = zero_loss_input(cell)
    both = contribution(one, name="contribution", long_lag=1).metrics[name]
    first = one._replace(inputs=one.inputs[:1], targets=one.targets[:1], lengths=np.array([5]))
    assert 0 < both < 1
    assert both == pytest.approx(
        contribution(first, name="contribution", long_lag=1).metrics[name], rel=1e-5
    )
    none = zero_loss_input(cell, targets=jnp.zeros((2, 5)))
    assert np.isnan(contribution(none, name="contribution", long_lag=1).metrics[name])


def test_a_gate_that_is_exactly_closed_is_left_out_of_the_mean_log_gate() -> None:
    cell = nnx.GRUCell(2, 4, rngs=nnx.Rngs(0))
    name = "theory/mean_log_update"
    ordinary = theory_rates(zero_loss_input(cell), name="theory").metrics[name]
    assert ordinary == pytest.approx(float(np.mean(np.log(update_gates(cell)))), rel=1e-5)
    bias = np.array(cell.dense_i.bias[...])
    bias[4] = -200.0 if update_gates(cell).shape[-1] == 4 else 0.0  # the first update gate
    cell.dense_i.bias = nnx.Param(jnp.asarray(bias))
    closed = update_gates(cell)
    assert (closed == 0).any()
    expected = np.mean(np.log(closed[closed > 0]))
    assert theory_rates(zero_loss_input(cell), name="theory").metrics[name] == pytest.approx(
        float(expected), rel=1e-5
    )


def update_gates(cell: Any) -> np.ndarray:
    carry, values = jnp.zeros((2, 4)), []
    for _ in range(5):
        values.append(np.asarray(gates(cell, carry, jnp.ones((2, 2)))["update"]))
        carry, _ = cell(carry, jnp.ones((2, 2)))
    return np.array(values)


# Sequences of different length


def own_states(cell: Any, batch: Batch, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every h and forget gate of all sequences, step by step, up to their own lengths."""
    states, forget = [], []
    carry = cell.initialize_carry(batch.inputs[:, 0].shape, nnx.Rngs(0))
    for step in range(batch.inputs.shape[1]):
        within = step < lengths
        forget.append(np.asarray(gates(cell, carry, batch.inputs[:, step])["forget"])[within])
        carry, h = cell(carry, batch.inputs[:, step])
        states.append(np.asarray(h)[within])
    return np.concatenate(states), np.concatenate(forget)


OF_DRAWN_LENGTHS = [
    f"hs97_{name}"
    for name in ("adding", "distractors", "multiplication", "temporal_order", "two_sequences")
]


OF_A_FILE = {"arrays", "mnist"}
TASKS = sorted({path.stem for path in (CONF / "task").glob("*.yaml")} - OF_A_FILE)


@pytest.mark.parametrize("name", TASKS)
def test_sequences_end_with_the_time_axis_or_with_their_answer(
    composed: Compose, name: str
) -> None:
    test = build(composed(f"task={name}").task).test
    if name in OF_DRAWN_LENGTHS:
        np.testing.assert_array_equal(test.lengths, np.asarray(test.weights).argmax(1) + 1)
        assert len(set(test.lengths)) > 5
    else:
        assert (test.lengths == test.inputs.shape[1]).all()


def test_lengths_are_those_that_the_tasks_drew() -> None:
    test = adding(length=40, min_length=5, variant="vorontsov", test_size=50).test
    np.testing.assert_array_equal(test.lengths, np.asarray(test.weights).argmax(1) + 1)
    assert len(set(test.lengths)) > 10
    test = reversal(length=9, min_length=2, test_size=50).test
    np.testing.assert_array_equal(test.lengths, 2 * np.asarray(test.weights).sum(axis=1))
    silent = Batch(jnp.zeros((2, 4, 1)), jnp.zeros((2, 4), int), jnp.zeros((2, 4)).at[0, 2].set(1))
    assert silent.lengths.tolist() == [3, 1]


def test_padding_is_not_measured(composed: Compose) -> None:
    """Every number is that of the sequences cut to their own lengths."""
    overrides = (*SHORT, "task=adding", "model=lstm", "model.hidden_size=4", f"probe={ALL}")
    network, batch, (metrics, arrays) = measure(
        composed, *overrides, "init.gain=1.5", "probe.singular_values.lags=[1,16]"
    )
    lengths = np.asarray(batch.weights).argmax(1) + 1
    assert lengths.min() < 16 < lengths.max()
    cell, t = network.cell, np.arange(25)
    maps = np.asarray(
        jacobian_log_norms(cell, batch.inputs, of="h", wrt="h", lengths=jnp.asarray(lengths))
    )
    cut = jacobian_log_norms(cell, batch.inputs[1, : lengths[1]], of="h", wrt="h")
    np.testing.assert_allclose(maps[1, : lengths[1] + 1, : lengths[1] + 1], cut, atol=1e-4)
    pairs: dict[int, list[float]] = {}
    for sample, end in enumerate(lengths):
        inside, own = np.s_[: end + 1, : end + 1], maps[sample, : end + 1, : end + 1]
        log_norms = arrays["jacobian_log_norm"][sample].to_numpy()
        np.testing.assert_array_equal(log_norms[inside], own)
        assert np.isnan(log_norms[np.maximum.outer(t, t) > end]).all()
        for lag in range(end + 1):
            pairs.setdefault(lag, []).extend(np.diagonal(own, -lag))
        for i, lag in enumerate([1, 16]):
            values = arrays["singular_values_log"][sample, i].to_numpy()
            if lag > end:
                assert np.isnan(values).all()
            else:
                assert values[0] == pytest.approx(own[end, end - lag], abs=1e-4)
        for name in ("adjoint_log_norm", "contribution_log_norm"):
            values = arrays[name][sample].to_numpy()
            assert np.isfinite(values[..., 1 : end + 1]).any()
            assert np.isnan(values[..., end + 1 :]).all()
        assert np.isnan(arrays["statistics_h_norm"][sample, end:]).all()
        assert np.isfinite(arrays["statistics_h_norm"][sample, :end]).all()
    means = [np.mean(pairs[lag]) for lag in sorted(pairs)]
    rate = np.polyfit(range(1, len(means)), means[1:], 1)[0]
    assert metrics["jacobian/decay_rate"] == pytest.approx(rate, rel=1e-5)
    last = [arrays["adjoint_log_norm"][i, end] for i, end in enumerate(lengths)]
    assert metrics["adjoint/last"] == pytest.approx(float(np.mean(last)), rel=1e-5)
    exponents = lyapunov_exponents(cell, batch.inputs, lengths=jnp.asarray(lengths))
    np.testing.assert_array_equal(arrays["lyapunov_exponent"], exponents)
    states, forget = own_states(cell, batch, lengths)
    mean_norm = np.mean(np.linalg.norm(states, axis=1))
    assert metrics["statistics/h/norm"] == pytest.approx(mean_norm, rel=1e-5)
    assert metrics["statistics/forget_gate/mean"] == pytest.approx(np.mean(forget), rel=1e-5)
    assert metrics["theory/mean_log_forget"] == pytest.approx(np.mean(np.log(forget)), rel=1e-5)


def test_the_mean_field_is_driven_by_the_steps_of_each_sequence(composed: Compose) -> None:
    network, batch, measured = measure(composed, *SHORT, "task=adding", "probe=theory")
    lengths = np.asarray(batch.weights).argmax(1) + 1
    steps = np.concatenate([x[:end] for x, end in zip(batch.inputs, lengths, strict=True)])
    w_h = np.asarray(network.cell.dense_h.kernel[...], float)
    drive = np.asarray(network.cell.dense_i(jnp.asarray(steps)), float)
    expected = theory.mean_field(np.sqrt(len(w_h)) * w_h.std(), np.mean(drive**2)).rate
    assert measured.metrics["theory/mean_field"] == pytest.approx(expected, rel=1e-4)


def test_the_adjoints_of_each_loss_end_with_the_sequence(composed: Compose) -> None:
    _, batch, measured = measure(
        composed, *SHORT, "task=adding", "probe=adjoint", "probe.adjoint.each=true"
    )
    _, _, summed = measure(composed, *SHORT, "task=adding", "probe=adjoint")
    lengths = np.asarray(batch.weights).argmax(1) + 1
    each = measured.arrays["adjoint_log_norm"].to_numpy()
    for sample, end in enumerate(lengths):  # the only loss is that of the last step
        np.testing.assert_allclose(
            each[sample, end, : end + 1],
            summed.arrays["adjoint_log_norm"][sample, : end + 1],
            atol=1e-4,
        )
        assert np.isnan(each[sample, end + 1 :]).all()
    for name in ("adjoint/first", "adjoint/last"):
        assert measured.metrics[name] == pytest.approx(summed.metrics[name], abs=1e-4)


def test_exponents_of_a_length_are_those_of_the_steps_up_to_it() -> None:
    cell = nnx.GRUCell(2, 3, rngs=nnx.Rngs(0))
    inputs = jax.random.normal(jax.random.key(1), (3, 30, 2))
    lengths = np.array([1, 7, 30])
    together = lyapunov_spectrum(cell, inputs, lengths=jnp.asarray(lengths))
    for sample, end in enumerate(lengths):
        alone = lyapunov_spectrum(cell, inputs[sample, :end])
        for ours, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours[sample], expected, rtol=1e-5)
    whole = lyapunov_spectrum(cell, inputs, lengths=jnp.full(3, 30))
    for ours, expected in zip(whole, lyapunov_spectrum(cell, inputs), strict=True):
        np.testing.assert_array_equal(ours, expected)
    for wrong in ([1, 7], [0, 7, 30], [1, 7, 31]):
        with pytest.raises(ValueError, match="lengths must be one whole number from 1 to 30"):
            lyapunov_exponents(cell, inputs, lengths=jnp.array(wrong))
