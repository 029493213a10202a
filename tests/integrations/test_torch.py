"""Modules of PyTorch as Flax cells: equal outputs, and norms equal to those of its autograd."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from gradlab import from_torch, jacobian_log_norms, load_runs, watch
from gradlab.cells import gates
from gradlab.cells.recurrence import unroll
from gradlab.integrations.torch import cell_inputs, recurrent_modules

torch = pytest.importorskip("torch", reason="PyTorch, whose modules are read, is not installed")

FEATURES, HIDDEN, STEPS, BATCH = 3, 5, 4, 2
MODULES: dict[str, Callable[..., Any]] = {
    "tanh": lambda **o: torch.nn.RNN(FEATURES, HIDDEN, **o),
    "relu": lambda **o: torch.nn.RNN(FEATURES, HIDDEN, nonlinearity="relu", **o),
    "lstm": lambda **o: torch.nn.LSTM(FEATURES, HIDDEN, **o),
    "projected": lambda **o: torch.nn.LSTM(FEATURES, HIDDEN, proj_size=4, **o),
    "gru": lambda **o: torch.nn.GRU(FEATURES, HIDDEN, **o),
}
STEPWISE: dict[str, Callable[..., Any]] = {
    "tanh": lambda **o: torch.nn.RNNCell(FEATURES, HIDDEN, **o),
    "relu": lambda **o: torch.nn.RNNCell(FEATURES, HIDDEN, nonlinearity="relu", **o),
    "lstm": lambda **o: torch.nn.LSTMCell(FEATURES, HIDDEN, **o),
    "gru": lambda **o: torch.nn.GRUCell(FEATURES, HIDDEN, **o),
}
KINDS = {"tanh": "rnn_tanh", "relu": "rnn_relu", "lstm": "lstm", "projected": "lstm", "gru": "gru"}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")


def drawn(make: Callable[..., Any], **options: Any) -> Any:
    """Return a module with random biases, whose weights amplify no rounding over the steps."""
    torch.manual_seed(0)
    module = make(**options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def sequences(dtype: Any = torch.float32, *, batch: bool = True) -> Any:
    torch.manual_seed(1)
    return torch.randn(STEPS, *[BATCH] * batch, FEATURES, dtype=dtype)


def outputs_of(cell: Any, inputs: Any) -> np.ndarray:
    """Return a Flax cell's outputs (batch, time, m)."""
    start = cell.initialize_carry((inputs.shape[0], inputs.shape[-1]), nnx.Rngs(0))
    return np.asarray(unroll(cell, start, inputs.swapaxes(0, 1))[1]).swapaxes(0, 1)


def torch_outputs(module: Any, inputs: Any) -> np.ndarray:
    """Return a module's outputs (batch, time, m) of inputs (time, batch, features)."""
    if hasattr(module, "num_layers"):
        return module(inputs)[0].detach().numpy().swapaxes(0, 1)
    state, outputs = None, []
    for x in inputs:
        state = module(x, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs, 1).detach().numpy()


def assert_equal_outputs(found: np.ndarray, expected: np.ndarray) -> None:
    tolerance = 1e-12 if expected.dtype == np.float64 else 1e-6
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


CASES = [
    ({}, torch.float64),
    ({"num_layers": 3}, torch.float32),
    ({"num_layers": 2, "bias": False, "dropout": 0.5}, torch.float64),
]


@pytest.mark.parametrize(("options", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("kind", MODULES)
def test_a_module_has_equal_outputs(kind: str, options: dict[str, Any], dtype: Any) -> None:
    module, inputs = drawn(MODULES[kind], dtype=dtype, **options), sequences(dtype)
    with jax.enable_x64(dtype == torch.float64):
        found = outputs_of(from_torch(module.train()), cell_inputs(module, inputs))
    assert_equal_outputs(found, torch_outputs(module.eval(), inputs))


@pytest.mark.parametrize("kind", STEPWISE)
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_of_one_step_has_equal_outputs(kind: str, bias: bool) -> None:
    module, inputs = drawn(STEPWISE[kind], bias=bias), sequences()
    cell = from_torch(module)
    assert_equal_outputs(
        outputs_of(cell, cell_inputs(module, inputs.swapaxes(0, 1))), torch_outputs(module, inputs)
    )


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", MODULES)
def test_both_directions_of_any_layer_have_equal_outputs(kind: str, num_layers: int) -> None:
    module = drawn(MODULES[kind], num_layers=num_layers, bidirectional=True)
    inputs, directions = sequences(), []
    for reverse in (False, True):
        chosen: dict[str, Any] = {"layer": num_layers - 1, "reverse": reverse}
        outputs = outputs_of(from_torch(module, **chosen), cell_inputs(module, inputs, **chosen))
        directions.append(outputs[:, ::-1] if reverse else outputs)
    assert_equal_outputs(np.concatenate(directions, -1), torch_outputs(module, inputs))


def test_one_layer_of_several_is_measured_alone_on_what_it_reads() -> None:
    module, inputs = drawn(MODULES["gru"], num_layers=2), sequences()
    outputs = outputs_of(from_torch(module, layer=1), cell_inputs(module, inputs, layer=1))
    assert_equal_outputs(outputs, torch_outputs(module, inputs))


def flat_run(module: Any, inputs: Any, reverse: bool) -> Callable[[Any], Any]:
    """Return the last state of a direction as a function of its first one, both as one vector."""
    ways = 1 + module.bidirectional
    own = slice(int(reverse), None, ways)
    h_size = getattr(module, "proj_size", 0) or HIDDEN
    sizes = [h_size, HIDDEN] if isinstance(module, torch.nn.LSTM) else [HIDDEN]

    def run(vector: Any) -> Any:
        states = []
        parts = torch.split(vector, [module.num_layers * size for size in sizes])
        for part, size in zip(parts, sizes, strict=True):
            state = torch.zeros(module.num_layers * ways, size, dtype=vector.dtype)
            state[own] = part.reshape(module.num_layers, size)
            states.append(state)
        _, last = module(inputs, tuple(states) if len(sizes) == 2 else states[0])
        lasts = last if len(sizes) == 2 else [last]
        return torch.cat([state[own].ravel() for state in lasts])

    return run


def torch_log_norms(module: Any, inputs: Any, reverse: bool) -> np.ndarray:
    """Return log ‖∂s⁽ᵗ⁾/∂s⁽ᵏ⁾‖ for k ≤ t, of torch.autograd through the steps from k to t."""

    def part(k: int, t: int) -> Any:  # a backward direction reads from the end
        return inputs[STEPS - t : STEPS - k] if reverse else inputs[k:t]

    size = (getattr(module, "proj_size", 0) or HIDDEN) * module.num_layers
    size += HIDDEN * module.num_layers * isinstance(module, torch.nn.LSTM)
    zero = torch.zeros(size, dtype=inputs.dtype)
    log_norms = np.full((STEPS + 1, STEPS + 1), -np.inf)
    for k in range(STEPS + 1):
        state = flat_run(module, part(0, k), reverse)(zero).detach() if k else zero
        log_norms[k, k] = 0.0
        for t in range(k + 1, STEPS + 1):
            run = flat_run(module, part(k, t), reverse)
            jacobian = torch.autograd.functional.jacobian(run, state).numpy()
            with np.errstate(divide="ignore"):
                log_norms[t, k] = np.log(np.linalg.norm(jacobian, 2))
    return log_norms


@pytest.mark.parametrize(
    ("options", "reverse"),
    [({}, False), ({"num_layers": 2}, False), ({"bidirectional": True}, True)],
    ids=["one layer", "two layers", "backwards"],
)
@pytest.mark.parametrize("kind", MODULES)
def test_norms_are_those_of_torch_autograd(
    kind: str, options: dict[str, Any], reverse: bool
) -> None:
    module = drawn(MODULES[kind], dtype=torch.float64, **options)
    inputs = sequences(torch.float64, batch=False)
    with jax.enable_x64(True):
        cell = from_torch(module, reverse=reverse)
        log_norms = jacobian_log_norms(cell, cell_inputs(module, inputs, reverse=reverse))
    expected = torch_log_norms(module, inputs, reverse)
    np.testing.assert_allclose(np.asarray(log_norms), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_weights_are_those_of_the_call_whatever_trains_them_later(x64: bool) -> None:
    module = drawn(MODULES["tanh"], dtype=torch.float64 if x64 else torch.float32, bias=False)
    with jax.enable_x64(x64):
        cell: Any = from_torch(module)
    before = np.array(cell.dense_h.kernel[...])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(cell.dense_h.kernel[...], before)
    assert np.all(before != 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_are_measured_in_float32(dtype: Any) -> None:
    module = drawn(MODULES["gru"], dtype=dtype)
    cell: Any = from_torch(module)
    assert cell.dense_i.kernel.dtype == np.float32
    expected = module.weight_ih_l0.detach().float().numpy().T
    np.testing.assert_array_equal(cell.dense_i.kernel[...], expected)


def test_the_inputs_of_a_cell_are_batch_first_whatever_the_module_takes() -> None:
    time_first = sequences()
    batch_first = time_first.swapaxes(0, 1)
    by_time = cell_inputs(MODULES["lstm"](), time_first)
    by_batch = cell_inputs(MODULES["lstm"](batch_first=True), batch_first)
    np.testing.assert_array_equal(by_time, batch_first.numpy())
    np.testing.assert_array_equal(by_batch, batch_first.numpy())
    alone = cell_inputs(MODULES["lstm"](batch_first=True, bidirectional=True), time_first[:, 0])
    np.testing.assert_array_equal(alone, time_first[:, 0].numpy())


@pytest.mark.parametrize("kind", ["lstm", "projected", "gru"])
def test_gates_are_those_of_the_module(kind: str) -> None:
    module = drawn(MODULES[kind])
    cell: Any = from_torch(module)
    x, rng = sequences()[0, 0], np.random.default_rng(0)
    start = cell.initialize_carry((FEATURES,), nnx.Rngs(0))
    carry = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), start)
    h = torch.tensor(carry[1] if isinstance(carry, tuple) else carry)
    from_x = torch.nn.functional.linear(x, module.weight_ih_l0, module.bias_ih_l0)
    from_h = torch.nn.functional.linear(h, module.weight_hh_l0, module.bias_hh_l0)
    blocks = torch.sigmoid(from_x + from_h).detach().numpy().reshape(-1, HIDDEN)
    names = ("reset", "update") if kind == "gru" else ("input", "forget", None, "output")
    expected = {name: blocks[i] for i, name in enumerate(names) if name}
    found = gates(cell, carry, x.numpy())
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


class Model(torch.nn.Module):
    """A classifier with recurrent modules of these names."""

    def __init__(self, **modules: Any) -> None:
        super().__init__()
        self.head = torch.nn.Linear(HIDDEN, 2)
        for name, module in modules.items():
            self.add_module(name, module)


class Rewritten(torch.nn.LSTM):
    def forward(self, *arguments: Any) -> Any:
        return super().forward(*arguments)[0]


def test_the_only_recurrent_module_of_a_model_is_found() -> None:
    lstm = drawn(MODULES["lstm"])
    model = Model(encoder=torch.nn.Sequential(torch.nn.Linear(2, FEATURES), lstm))
    assert recurrent_modules(model) == {"encoder.1": lstm}
    assert recurrent_modules(lstm) == {"": lstm}
    inputs = sequences()
    outputs = outputs_of(from_torch(model), cell_inputs(model, inputs))
    assert_equal_outputs(outputs, torch_outputs(lstm, inputs))


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("prefix", [None, "encoder", "encoder."])
def test_tensors_of_a_model_are_read_by_name(kind: str, prefix: str | None) -> None:
    module = drawn(MODULES[kind], num_layers=2)
    tensors = Model(encoder=module).state_dict()
    if prefix:
        tensors |= Model(other=MODULES["gru"]()).state_dict()
    definition, weights = nnx.split(from_torch(tensors, kind=KINDS[kind], prefix=prefix))
    expected_definition, expected = nnx.split(from_torch(module))
    assert definition == expected_definition
    jax.tree.map(np.testing.assert_array_equal, weights, expected)


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    module = drawn(STEPWISE["gru"], dtype=torch.bfloat16)
    file = tmp_path / "model.safetensors"
    safetensors.save_file(Model(cell=module).state_dict(), file)
    cell: Any = from_torch(file, kind="gru")
    expected = module.weight_hh.detach().float().numpy().T
    np.testing.assert_array_equal(cell.dense_h.kernel[...], expected)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"of a file of torch.save pass torch.load"):
        from_torch(str(tmp_path / "model.pt"), kind="gru")


@pytest.mark.filterwarnings("error")
def test_a_loss_that_is_not_detached_is_watched_without_a_warning(tmp_path: Path) -> None:
    module, inputs = drawn(MODULES["tanh"], batch_first=True), sequences()
    loss = module(inputs)[0].square().mean()
    with watch(inputs, folder=tmp_path) as watcher:
        watcher(0, module, loss=loss)
    assert load_runs(tmp_path)["train/loss"].item() == loss.item()


def renamed(tensors: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {key.replace(old, new): value for key, value in tensors.items()}


def without(tensors: dict[str, Any], part: str) -> dict[str, Any]:
    return {key: tensor for key, tensor in tensors.items() if part not in key}


LSTM, TWO_WAYS = MODULES["lstm"](), MODULES["lstm"](num_layers=2, bidirectional=True)
TENSORS = LSTM.state_dict()
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a tensor": (
        lambda: from_torch(torch.zeros(3)),
        "module must be a torch.nn.RNN, .* got Tensor",
    ),
    "a class": (lambda: from_torch(torch.nn.LSTM), "or the path of a safetensors file .* got type"),
    "no recurrent module": (lambda: from_torch(torch.nn.Linear(2, 2)), "Linear holds no torch.nn"),
    "several": (
        lambda: from_torch(Model(encoder=LSTM, decoder=copy.deepcopy(LSTM))),
        r"2 recurrent modules.* from_torch\(model.encoder\), from_torch\(model.decoder\)",
    ),
    "its own forward": (
        lambda: from_torch(Rewritten(FEATURES, HIDDEN)),
        "Rewritten has a forward of its own",
    ),
    "kind of a module": (lambda: from_torch(LSTM, kind="gru"), "kind and prefix are of tensors"),
    "backwards": (lambda: from_torch(LSTM, reverse=True), "needs a bidirectional module"),
    "no layer": (lambda: from_torch(LSTM, layer=1), "layer must be a whole number from 0 to"),
    "both ways at once": (lambda: from_torch(TWO_WAYS), "2 bidirectional layers"),
    "no kind": (lambda: from_torch(TENSORS), "kind must be one of 'rnn_tanh'.* got None"),
    "another kind": (
        lambda: from_torch(TENSORS, kind="gru"),
        r"shape \(20, 3\).* such a layer has 3 n rows",
    ),
    "no tensors": (lambda: from_torch({"weight": 0}, kind="gru"), "no tensor is called .*weight"),
    "tensors of several": (
        lambda: from_torch(Model(a=LSTM, b=LSTM).state_dict(), kind="lstm"),
        "pass one of prefix='a', 'b'",
    ),
    "no such prefix": (
        lambda: from_torch(Model(a=LSTM).state_dict(), kind="lstm", prefix="b"),
        "prefix must be one of 'a'; got 'b'",
    ),
    "a tensor missing": (
        lambda: from_torch(renamed(TENSORS, "bias_hh", "bias"), kind="lstm"),
        "the tensors lack bias_hh_l0",
    ),
    "all recurrent weights missing": (
        lambda: from_torch(without(TENSORS, "weight_hh"), kind="lstm"),
        "the tensors lack weight_hh_l0",
    ),
    "one layer's backward direction missing": (
        lambda: from_torch(without(TWO_WAYS.state_dict(), "l0_reverse"), kind="lstm"),
        "2 bidirectional layers",
    ),
    "the backward direction missing": (
        lambda: from_torch(without(TWO_WAYS.state_dict(), "_reverse"), kind="lstm"),
        "weight_ih_l1 reads 10 features, and the layer below gives 5: .* end in _reverse too",
    ),
    "a layer missing": (
        lambda: from_torch(without(TWO_WAYS.state_dict(), "_l0"), kind="lstm", layer=0),
        "the tensors lack weight_ih_l0, weight_hh_l0",
    ),
    "a checkpoint": (
        lambda: from_torch({"epoch": 1, "state_dict": TENSORS}, kind="lstm"),
        "got epoch, state_dict. If it is a checkpoint, pass what it has at 'state_dict'",
    ),
    "a folder": (
        lambda: from_torch(Path(__file__).parent, kind="lstm"),
        "is a folder: give a safe",
    ),
    "inputs of four axes": (
        lambda: cell_inputs(LSTM, torch.zeros(1, 1, 1, 3)),
        r"inputs must be .* got shape \(1, 1, 1, 3\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_refused_in_a_sentence(case: str) -> None:
    call, sentence = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()


def test_torch_is_not_imported_for_tensors_of_numpy() -> None:
    program = (
        "import sys, numpy as np, gradlab\n"
        "w = {'weight_ih': np.ones((8, 3)), 'weight_hh': np.ones((8, 2))}\n"
        "print(type(gradlab.from_torch(w, kind='lstm')).__name__, 'torch' in sys.modules)\n"
        "try: gradlab.from_torch(3)\n"
        "except TypeError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("OptimizedLSTMCell False\nmodule must be a torch.nn.RNN")
