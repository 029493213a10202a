"""Torch models as a watcher measures them: names, folders, and norms equal to torch.autograd's."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx

import gradlab
from gradlab.cells.recurrence import unroll
from gradlab.integrations.torch import cell_inputs
from gradlab.probes.maps import jacobian_map

torch = pytest.importorskip("torch", reason="PyTorch, whose modules are read, is not installed")

FEATURES, HIDDEN, STEPS, BATCH = 3, 4, 6, 2
MODULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "tanh": (torch.nn.RNN, {}),
    "relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (torch.nn.LSTM, {}),
    "projected": (torch.nn.LSTM, {"proj_size": 2}),
    "gru": (torch.nn.GRU, {"bias": False}),
}
TWO_WAYS = {"num_layers": 2, "bidirectional": True, "batch_first": True}
MAP = "jacobian_log_norm"
pytestmark = [
    pytest.mark.usefixtures("no_watcher_left"),
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),
]


def drawn(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    make, own = MODULES[kind]
    module = make(FEATURES, HIDDEN, **own, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return module


def sequences() -> Any:
    return torch.randn(BATCH, STEPS, FEATURES, generator=torch.Generator().manual_seed(1))


def measured(model: Any, inputs: Any, **options: Any) -> Any:
    with gradlab.watch(inputs, **options) as watcher:
        return watcher(0, model)


def outputs_of(cell: Any, inputs: Any) -> np.ndarray:
    start = cell.initialize_carry((BATCH, inputs.shape[-1]), nnx.Rngs(0))
    return np.asarray(unroll(cell, start, inputs.swapaxes(0, 1))[1]).swapaxes(0, 1)


def last_norms(module: Any, inputs: Any, lengths: list[int]) -> np.ndarray:
    """Return log ‖∂h/∂h‖ from its start to its end of every layer's directions and sample.

    torch.autograd differentiates the whole module: what a layer starts from moves none below it.
    """
    is_lstm, count = isinstance(module, torch.nn.LSTM), 2 * module.num_layers
    module = module.double()
    norms = np.empty((count, BATCH))
    for sample, length in enumerate(lengths):
        x = inputs[sample : sample + 1, :length].double()

        def last_states(h: Any, x: Any = x) -> Any:
            c = torch.zeros(count, 1, HIDDEN, dtype=h.dtype)
            last = module(x, (h, c) if is_lstm else h)[1]
            return last[0] if is_lstm else last

        h0 = torch.zeros(count, 1, getattr(module, "proj_size", 0) or HIDDEN, dtype=x.dtype)
        jacobian = torch.autograd.functional.jacobian(last_states, h0)[:, 0, :, :, 0]
        for part in range(count):
            norm = torch.linalg.matrix_norm(jacobian[part, :, part], 2)
            norms[part, sample] = norm.log().item()
    return norms


@pytest.mark.parametrize("lengths", [[STEPS, STEPS], [STEPS, 3]])
@pytest.mark.parametrize("kind", MODULES)
def test_each_direction_of_each_layer_is_measured_on_what_it_reads(
    kind: str, lengths: list[int]
) -> None:
    module, inputs = drawn(kind, **TWO_WAYS, dropout=0.5), sequences()
    measurement = measured(module, inputs, lengths=lengths)
    names = [f"layer{i}.{way}/{MAP}" for i in (0, 1) for way in ("forward", "backward")]
    assert list(measurement.arrays) == names
    maps = [measurement.arrays[name].to_numpy() for name in names]
    found = [norms[range(BATCH), lengths, 0] for norms in maps]
    expected = last_norms(module.eval(), inputs, lengths)
    np.testing.assert_allclose(found, expected, atol=3e-5)


def test_what_an_upper_layer_reads_of_padded_sequences_is_that_of_a_packed_sequence() -> None:
    module, inputs, lengths = drawn("lstm", **TWO_WAYS), sequences(), [STEPS, 3]
    packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0], batch_first=True)
    for way in (0, 1):
        chosen: dict[str, Any] = {"layer": 1, "reverse": bool(way)}
        cell = gradlab.from_torch(module, **chosen)
        read = cell_inputs(module, inputs, **chosen, lengths=lengths)
        outputs = outputs_of(cell, read)
        for sample, length in enumerate(lengths):
            in_order = outputs[sample, :length][:: -1 if way else 1]
            expected = padded[sample, :length, way * HIDDEN : (way + 1) * HIDDEN].detach()
            np.testing.assert_allclose(in_order, expected, atol=1e-6)


def test_directions_have_folders_of_their_own_in_their_modules_folder(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"encoder": drawn("gru", **TWO_WAYS), "other": drawn("tanh")})
    measured(model, {"encoder": sequences()}, folder=tmp_path)
    runs = gradlab.load_runs(tmp_path)
    parts = {f"encoder.layer{i}.{way}" for i in (0, 1) for way in ("forward", "backward")}
    assert set(runs["model.part"]) == parts
    assert {Path(path).name for path in runs["path"]} == parts


def test_the_name_of_a_module_stands_for_its_directions_that_are_not_named() -> None:
    module, x = drawn("gru", bidirectional=True, batch_first=True), sequences()
    model = torch.nn.ModuleDict({"rnn": module})
    both = measured(model, {"rnn": x}).arrays
    for way in ("forward", "backward"):
        alone = measured(model, {f"rnn.{way}": x}).arrays[MAP]
        np.testing.assert_array_equal(both[f"rnn.{way}/{MAP}"], alone)
    mixed = measured(model, {"rnn": x, "rnn.backward": x[:, :3]}).arrays
    assert [array.shape[-1] for array in mixed.values()] == [STEPS + 1, 4]


def test_other_features_than_the_module_reads_are_refused_at_any_layer() -> None:
    model = torch.nn.ModuleDict({"rnn": drawn("gru", **TWO_WAYS)})
    wide = torch.zeros(BATCH, STEPS, 2 * HIDDEN)
    with pytest.raises(ValueError, match=r"must have the 3 features that the module reads.* 8\)"):
        measured(model, {"rnn.layer1.forward": wide})


def test_wrappers_leave_the_names_of_a_model_as_they_are() -> None:
    model = torch.nn.ModuleDict({"a": drawn("gru"), "b": torch.compile(drawn("tanh"))})
    x = {name: sequences().transpose(0, 1) for name in ("a", "b")}
    expected = measured(torch.nn.ModuleDict({"a": drawn("gru"), "b": drawn("tanh")}), x).arrays
    for wrapped in (
        model,
        torch.nn.DataParallel(model),
        torch.compile(torch.nn.DataParallel(model)),
    ):
        found = measured(wrapped, x).arrays
        assert list(found) == [f"a/{MAP}", f"b/{MAP}"]
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name])


def pruned(module: Any, name: str) -> Any:
    from torch.nn.utils import prune

    return prune.l1_unstructured(module, name, 0.5)


NORMALISED: dict[str, Any] = {
    "weight norm": torch.nn.utils.parametrizations.weight_norm,
    "weight norm by a hook": torch.nn.utils.weight_norm,
    "spectral norm": torch.nn.utils.parametrizations.spectral_norm,
    "spectral norm by a hook": torch.nn.utils.spectral_norm,
    "orthogonal": torch.nn.utils.parametrizations.orthogonal,
    "pruned": pruned,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("kind", NORMALISED)
def test_computed_weights_are_those_after_the_update_and_stay_as_they_are(kind: str) -> None:
    module, x = drawn("lstm", batch_first=True), sequences()
    NORMALISED[kind](module, "weight_hh_l0")
    module(x)[0].square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.5).step()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    cell = gradlab.from_torch(module)
    assert module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    expected = module.eval()(x)[0].detach()
    np.testing.assert_allclose(outputs_of(cell, x.numpy()), expected, atol=1e-6)


def test_packed_sequences_and_outputs_with_their_state_are_refused_in_a_sentence() -> None:
    module, x = drawn("gru", batch_first=True), sequences()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [STEPS, 3], batch_first=True)
    refused = {
        "inputs must be padded: give pad_packed_sequence's tensor and lengths=": packed,
        r"inputs must be one tensor; got a tuple of 2: .*give the output, module\(x\)": module(x),
    }
    for sentence, inputs in refused.items():
        for given in (inputs, lambda _, inputs=inputs: inputs):
            with pytest.raises(ValueError, match=sentence):
                measured(module, given)
        with pytest.raises(ValueError, match=sentence):
            cell_inputs(module, inputs)


def test_a_cell_of_ones_own_is_refused_with_a_way_to_measure_it() -> None:
    with pytest.raises(ValueError, match=r"Linear holds no .* measured by its step Jacobians"):
        measured(torch.nn.Linear(FEATURES, HIDDEN), sequences())


def test_several_layers_are_measured_by_the_top_ones_h_and_all_states_by_a_probe() -> None:
    """torch.autograd differentiates the module in float64 from its start to its end."""
    module, inputs = drawn("gru", num_layers=2, batch_first=True), sequences()

    def end(start: Any) -> Any:
        hidden = start.reshape(2, 1, HIDDEN)
        return double(inputs[:1].double(), hidden)[1].flatten()

    double = drawn("gru", num_layers=2, batch_first=True).double()
    jacobian = torch.autograd.functional.jacobian(end, torch.zeros(2 * HIDDEN).double()).numpy()
    top = measured(module, inputs).arrays[MAP].values[0, -1, 0]
    np.testing.assert_allclose(top, np.log(np.linalg.norm(jacobian[HIDDEN:, HIDDEN:], 2)), 1e-4)
    probe = {"jacobian": partial(jacobian_map, of=None, wrt=None)}
    whole = measured(module, inputs, probes=probe).arrays[MAP].values[0, -1, 0]
    np.testing.assert_allclose(whole, np.log(np.linalg.norm(jacobian, 2)), 1e-4)
    assert whole > top + 0.1
