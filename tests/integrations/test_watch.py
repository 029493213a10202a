"""What a watcher measures, when, and of which cells: against the engine's and a run's numbers."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import linen, nnx
from jax import Array
from watched import Tagger, X, lstm, measured

import gradlab
from gradlab.cells.recurrence import unroll
from gradlab.probes import Measurement, ProbeInput
from gradlab.probes.maps import map_metrics
from gradlab.training.losses import losses
from gradlab.training.program import Program, hyperparameters_of

pytestmark = pytest.mark.usefixtures("no_watcher_left")
MAP = "jacobian_log_norm"


def assert_map_of(measurement: Measurement, cell: Any, x: Any, name: str = MAP, **of: Any) -> None:
    expected = gradlab.jacobian_log_norms(cell, x, **({"of": "h", "wrt": "h"} | of))
    np.testing.assert_allclose(measurement.arrays[name], expected, atol=1e-6)


def test_metrics_and_maps_are_those_of_a_point_with_the_same_weights(composed: Compose) -> None:
    probes = ["spectral", "typical", "lyapunov", "statistics", "adjoint", "contribution"]
    config = composed(
        "task=echo", "task.length=7", "task.delay=2", f"probe=[{','.join(probes)}]", "model=lstm"
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    theirs = program.measure(hyperparameters, state)
    test = jax.tree.map(lambda x: x[: config.probe["samples"]], program.task.test)
    network = program.merge(state.parameters, state.constants)

    def loss(carry: Any, target: Any) -> Array:
        wanted, weight = target
        return weight * losses(network.readout(carry[1]), wanted)

    ours = measured(
        network,
        inputs=test.inputs,
        probes=probes,
        loss=loss,
        targets=(test.targets, test.weights / test.weights.sum()),
    )
    assert list(ours.metrics) == list(theirs.metrics)
    assert set(ours.arrays) == set(theirs.arrays)
    for name, value in theirs.metrics.items():
        np.testing.assert_allclose(ours.metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    for name, array in theirs.arrays.items():
        assert ours.arrays[name].dims == array.dims
        np.testing.assert_allclose(ours.arrays[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_cell_is_measured_as_it_is_at_the_call() -> None:
    cell, watcher = lstm(), gradlab.watch(X, every=1)
    for step in range(3):
        measurement = watcher(step, cell)
        assert measurement is not None
        assert_map_of(measurement, cell, X)
        expected = map_metrics(np.asarray(measurement.arrays[MAP]))
        assert measurement.metrics == pytest.approx(expected)
        cell.dense_h.kernel[...] *= 1.5


def test_measuring_changes_nothing_of_the_model_that_is_trained() -> None:
    def numbers(model: nnx.Module) -> list[np.ndarray]:
        leaves = jax.tree.leaves(nnx.state(model))
        is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
        data = [jax.random.key_data(x) if k else x for x, k in zip(leaves, is_key, strict=True)]
        return list(map(np.array, data))

    model = nnx.RNN(lstm())  # which counts the random numbers that it draws for initial carries
    before, watcher = numbers(model), gradlab.watch(X, every=1, probes=("spectral", "statistics"))
    watcher(0, model)
    watcher(1, model)
    jax.tree.map(np.testing.assert_array_equal, before, numbers(model))


@pytest.mark.parametrize(
    ("every", "steps", "due"),
    [
        ("log", range(70), [0, 1, 4, 16, 64]),
        ("log", range(1, 20), [1, 4, 16]),  # counted from 1
        ("log", range(500, 1300, 100), [500, 1100]),  # 1024 is made up for
        ("log", range(0, 90, 10), [0, 10, 20, 70]),  # skipped steps are made up for
        (3, range(8), [0, 3, 6]),
        (3, range(7, 15), [7, 9, 12]),
        ([2, 5], range(9), [0, 2, 5]),
        (range(2, 9, 3), range(9), [0, 2, 5, 8]),
        (np.array([2, 5]), range(9), [0, 2, 5]),
        (list(np.array([2, 5])), range(9), [0, 2, 5]),
        ("ends", range(9), [0]),
        (2, [0, 1, 2, 0, 1, 2, 3, 4], [0, 2, 4]),  # a step that comes again is not measured again
    ],
)
def test_measurements_are_due_as_every_says(every: Any, steps: Any, due: list[int]) -> None:
    watcher = gradlab.watch(X, every=every, probes=length_of)
    assert [step for step in steps if watcher(step, lstm())] == due


def length_of(probed: ProbeInput, *, name: str) -> Measurement:
    return Measurement({f"{name}/steps": probed.inputs.shape[1]}, {})


def test_a_call_that_is_not_due_takes_microseconds_and_reads_nothing() -> None:
    class Unreadable:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    watcher = gradlab.watch(X, every="ends")
    watcher(0, lstm())
    begun = time.perf_counter()
    for step in range(1, 10_001):
        watcher(step, Unreadable(), loss=Unreadable())
    assert (time.perf_counter() - begun) / 10_000 < 20e-6


def test_a_step_function_of_present_weights_is_measured_with_every_probe_of_states() -> None:
    cell = linen.GRUCell(features=5)
    h0 = jnp.zeros(5)
    weights = cell.init(jax.random.key(1), h0, X[0, 0])
    watcher = gradlab.watch(
        X,
        probes=("spectral", "lyapunov", "statistics", "contribution"),
        every=1,
        initial_carry=h0,
        loss=lambda h, target: jnp.sum((h - target) ** 2),
        targets=jnp.ones((2, 6, 5)),
    )
    for step, factor in enumerate((1.0, 2.0)):
        present = jax.tree.map(lambda w, by=factor: by * w, weights)

        def advance(h: Array, x: Array, weights: Any = present) -> tuple[Array, Array]:
            return cell.apply(weights, h, x)

        measurement = watcher(step, advance)
        assert measurement is not None
        assert_map_of(measurement, advance, X, initial_carry=h0)
        rates = gradlab.lyapunov_exponents(advance, X, initial_carry=h0)
        assert measurement.metrics["lyapunov/max"] == pytest.approx(
            float(np.mean(rates[:, 0])), 1e-5
        )
        states = jax.vmap(lambda x, f=advance: jax.lax.scan(f, h0, x)[1])(X)
        norm = float(jnp.mean(jnp.linalg.norm(states, axis=-1)))
        assert measurement.metrics["statistics/h/norm"] == pytest.approx(norm, rel=1e-5)


def test_a_carry_without_h_is_measured_whole() -> None:
    def step(carry: dict[str, Array], x: Array) -> tuple[dict[str, Array], Array]:
        carry = {"u": jnp.tanh(carry["v"] + x), "v": 0.5 * carry["u"]}
        return carry, jnp.sum(carry["v"])

    start = {"u": jnp.zeros(3), "v": jnp.zeros(3)}
    measurement = measured(step, initial_carry=start)
    assert_map_of(measurement, step, X, initial_carry=start, of=None, wrt=None)
    assert measurement.arrays[MAP].attrs["of"] == "whole carry"


def test_cells_deeper_in_a_model_are_measured_on_what_they_read() -> None:
    model = Tagger()

    def inputs(model: Tagger) -> dict[str, Array]:
        embedded = model.embed(X)
        below = {f"both.{way}_rnn": embedded for way in ("forward", "backward")}
        return below | {"top": model.both(embedded)}

    measurement = measured(model, inputs=inputs)
    embedded = model.embed(X)
    forward, backward = model.both.forward_rnn.cell, model.both.backward_rnn.cell
    assert_map_of(measurement, forward, embedded, f"both.forward_rnn/{MAP}")
    assert_map_of(measurement, backward, embedded[:, ::-1], f"both.backward_rnn/{MAP}")
    assert_map_of(measurement, model.top.cell, model.both(embedded), f"top/{MAP}")
    assert "top/jacobian/decay_rate" in measurement.metrics
    only_top = measured(model, inputs={"top": model.both(embedded)})
    assert_map_of(only_top, model.top.cell, model.both(embedded))


def test_the_backward_direction_reads_each_sequence_from_its_own_end() -> None:
    model = nnx.Bidirectional(nnx.RNN(lstm()), nnx.RNN(lstm(seed=1)))
    measurement = measured(model, lengths=[6, 4], probes=("spectral", "statistics"))
    backward = model.backward_rnn.cell
    for sample, length in enumerate((6, 4)):
        flipped = X[sample, :length][::-1]
        expected = gradlab.jacobian_log_norms(backward, flipped, of="h", wrt="h")
        log_norms = measurement.arrays[f"backward_rnn/{MAP}"][sample]
        np.testing.assert_allclose(log_norms[: length + 1, : length + 1], expected, atol=1e-6)
        assert np.isnan(log_norms[length + 1 :]).all()
    start = backward.initialize_carry((2, 3), nnx.Rngs(0))
    outputs = model(X, seq_lengths=jnp.array([6, 4]))[..., 5:]  # Flax's own way of reversing
    flipped = jnp.stack([X[0, ::-1], jnp.concatenate([X[1, 3::-1], X[1, 4:]])])
    ours = unroll(backward, start, flipped.swapaxes(0, 1))[1].swapaxes(0, 1)
    np.testing.assert_allclose(outputs[0], ours[0, ::-1], atol=1e-6)
    np.testing.assert_allclose(outputs[1, :4], ours[1, 3::-1], atol=1e-6)


class Below(nnx.Module):
    """A network whose cell reads what dropout and a batch norm make of the inputs."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.cell = nnx.SimpleCell(3, 5, rngs=rngs)

    def below(self, x: Array) -> Array:
        return self.dropout(self.norm(x))


def test_what_lies_below_a_flax_cell_is_run_without_a_trace() -> None:
    model = Below()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    counts = [np.asarray(x[...]) for x in jax.tree.leaves(nnx.state(model, nnx.RngCount))]
    measurement = measured(model, inputs=lambda model: model.below(X))
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert [np.asarray(x[...]) for x in jax.tree.leaves(nnx.state(model, nnx.RngCount))] == counts
    assert not model.dropout.deterministic
    standard = X / jnp.sqrt(1 + 1e-5)  # by the statistics of a batch norm that has seen nothing
    assert_map_of(measurement, model.cell, standard, MAP)


def test_what_lies_below_a_torch_module_is_run_without_a_trace() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is missing")
    below = torch.nn.Sequential(torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
    below[1].eval()  # a user's choice, which stays
    model = torch.nn.ModuleDict({"below": below, "rnn": torch.nn.RNN(3, 5, batch_first=True)})
    before = {name: x.clone() for name, x in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    wide = torch.randn(2, 8, 3)
    torch.manual_seed(3)
    measured(model, inputs=lambda model: model["below"](wide + torch.rand(1)))
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert (model.training, below[0].training, below[1].training) == (True, True, False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tensor_is_read_as_its_module_reads_it(dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is missing")
    rnn = torch.nn.RNN(3, 5)  # (time, batch, features)
    x = torch.tensor(np.array(X)).transpose(0, 1).to(getattr(torch, dtype))
    as_read = jnp.asarray(x.float().numpy()).swapaxes(0, 1)
    assert_map_of(measured(rnn, inputs=x), gradlab.from_torch(rnn), as_read, MAP)
    assert_map_of(measured(rnn, inputs=X), gradlab.from_torch(rnn), X, MAP)  # an array, as ours


def test_an_array_is_read_as_a_flax_layer_reads_it() -> None:
    layer = nnx.RNN(lstm(), time_major=True, return_carry=True)
    measurement = measured(layer, inputs=X.swapaxes(0, 1), probes=("spectral", "statistics"))
    assert_map_of(measurement, layer.cell, X)
    _, last = layer(X.swapaxes(0, 1))
    np.testing.assert_allclose(last[-1], nnx.RNN(layer.cell)(X)[:, -1], atol=1e-6)
    assert_map_of(measured(layer, inputs=X[0]), layer.cell, X[:1])  # a lone sequence
    both = nnx.Bidirectional(nnx.RNN(layer.cell), nnx.RNN(lstm(seed=1)), time_major=True)
    measurement = measured(both, inputs=X.swapaxes(0, 1))
    assert_map_of(measurement, both.backward_rnn.cell, X[:, ::-1], f"backward_rnn/{MAP}")


def test_torch_modules_are_measured_by_their_names_on_what_they_read() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is missing")
    torch.manual_seed(0)
    below = torch.nn.LSTM(3, 5, batch_first=True, bidirectional=True)
    model = torch.nn.ModuleDict({"below": below, "top": torch.nn.RNN(10, 4, batch_first=True)})
    x = torch.tensor(np.array(X))

    def inputs(model: Any) -> dict[str, Any]:
        return {"below.forward": x, "below.backward": x, "top": model["below"](x)[0]}

    measurement = measured(model, inputs=inputs)
    for way, reverse in (("forward", False), ("backward", True)):
        cell = gradlab.from_torch(below, reverse=reverse)
        flipped = X[:, ::-1] if reverse else X
        assert_map_of(measurement, cell, flipped, f"below.{way}/{MAP}")
    recurrent, hidden = model["top"], torch.zeros(1, 4)
    outputs = below(x)[0][0].detach()
    _, hidden = recurrent(outputs[:2], hidden)  # h⁽²⁾
    jacobian = torch.autograd.functional.jacobian(lambda h: recurrent(outputs[2:5], h)[1], hidden)
    norm = torch.linalg.matrix_norm(jacobian.reshape(4, 4), 2).log().item()
    assert measurement.arrays[f"top/{MAP}"][0, 5, 2] == pytest.approx(norm, abs=1e-5)


def test_probes_of_ones_own_run_beside_ours_under_their_names() -> None:
    def reach(probed: ProbeInput, *, name: str) -> Measurement:
        return Measurement({f"{name}/lengths": float(probed.lengths.sum())}, {})

    assert measured(lstm(), probes=("rms", reach)).metrics["reach/lengths"] == 12
    assert "mine/lengths" in measured(lstm(), probes={"mine": reach}).metrics


def test_a_lone_sequence_and_its_targets_are_a_batch_of_one() -> None:
    def loss(carry: tuple[Array, Array], target: Array) -> Array:
        return jnp.sum((carry[1] - target) ** 2)

    cell, targets = lstm(), jnp.ones((6, 5))
    measurement = measured(cell, inputs=X[0], probes="adjoint", loss=loss, targets=targets)
    expected = gradlab.adjoint_log_norms(cell, X[0], loss, targets, wrt="h")
    np.testing.assert_allclose(measurement.arrays["adjoint_log_norm"][0], expected, atol=1e-6)


def test_a_carry_that_is_a_matrix_is_measured_whole() -> None:
    def heads(h: Array, x: Array) -> tuple[Array, Array]:  # two of them
        h = jnp.tanh(w @ h[..., None] + x)[..., 0]
        return h, h

    w = jax.random.normal(jax.random.key(0), (2, 1, 1))
    start = jnp.zeros((2, 1))
    measurement = measured(heads, inputs=X[..., :1], initial_carry=start)
    assert_map_of(measurement, heads, X[..., :1], initial_carry=start)


def test_a_network_that_diverges_ends_no_training() -> None:
    cell, watcher = lstm(), gradlab.watch(X, every=1)
    watcher(0, cell)
    cell.dense_h.kernel[...] *= jnp.nan
    with pytest.warns(RuntimeWarning, match="diverged at step 1: the weights dense_h.kernel hold"):
        measurement = watcher(1, cell)
    assert measurement == Measurement({"diverged/update": 1}, {})
    watcher(2, cell)  # it is said once


def test_errors_after_the_first_measurement_end_no_training() -> None:
    def inputs(cell: Any) -> Array:
        return X if cell.in_features == 3 else None

    watcher = gradlab.watch(inputs, every=1)
    watcher(0, lstm())
    with pytest.warns(
        RuntimeWarning, match="could not measure or record step 1: .*inputs must be an array"
    ):
        assert watcher(1, lstm(4)) is None
    assert watcher(2, lstm()) is not None


def test_the_last_step_seen_is_measured_at_the_end_with_the_cost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cell, watcher = lstm(), gradlab.watch(X, every="ends")
    for step in range(5):
        watcher(step, cell)
    cell.dense_h.kernel[...] *= 2
    last = watcher.finish()
    assert last is not None
    assert_map_of(last, cell, X)
    assert "gradlab: 2 measurements took " in capsys.readouterr().out
    assert watcher.finish() is None  # a second time does nothing
    assert watcher(100, cell) is None


def test_a_block_whose_measurements_nobody_gets_makes_none_at_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with gradlab.watch(X, every="ends", probes=length_of) as watcher:
        for step in range(5):
            watcher(step, lstm())
    assert "gradlab: 1 measurement took " in capsys.readouterr().out
