"""Training cells of somebody's: with a second bias, without biases, with a state of their own."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx

from gradlab.components import ConfigError
from gradlab.config import Config
from gradlab.point import Point, checkpoints, run_point
from gradlab.training.program import Program, State, hyperparameters_of

SMALL = (
    *("task=echo", "task.length=6", "task.delay=2", "task.test_size=8"),
    *("model.hidden_size=4", "train.steps=4", "train.batch_size=4", "probe.samples=1"),
    *("optim=sgd", "wandb=disabled", "probe.schedule=ends", "train.checkpoint_seconds=inf"),
)


class TorchGRU(nnx.GRUCell):
    """The GRU with PyTorch's second bias."""

    def __init__(
        self, in_features: int, hidden_features: int, *, bias: float = 0.0, rngs: nnx.Rngs, **k: Any
    ) -> None:
        super().__init__(in_features, hidden_features, rngs=rngs, **k)
        self.dense_h = nnx.Linear(
            hidden_features,
            3 * hidden_features,
            kernel_init=k["recurrent_kernel_init"],
            bias_init=nnx.initializers.constant(bias),
            rngs=rngs,
        )


class Timed(nnx.GRUCell):
    """A GRU that asks for the time."""

    def __call__(self, carry: Any, inputs: Any, time: Any) -> Any:  # type: ignore[override]
        return super().__call__(carry, inputs + time)


class Wrapped(nnx.GRUCell):
    """A GRU whose state goes through a layer of the given kind."""

    def __init__(
        self, in_features: int, hidden_features: int, *, kind: str, rngs: nnx.Rngs, **k: Any
    ) -> None:
        super().__init__(in_features, hidden_features, rngs=rngs, **k)
        n = hidden_features
        self.kind = kind.removeprefix("held ")
        if self.kind == "dropout":
            self.layer = nnx.Dropout(0.5, rngs=rngs)
        elif self.kind == "norm":
            self.layer = nnx.BatchNorm(n, rngs=rngs)
        elif self.kind == "mask":
            self.mask = nnx.Variable(jax.random.normal(rngs.params(), (n,)))
        elif self.kind == "counter":
            self.count = nnx.Variable(jnp.array(0))
        if kind.startswith("held"):
            self.eval()

    def __call__(self, carry: Any, inputs: Any) -> Any:
        h, _ = super().__call__(carry, inputs)
        if self.kind == "mask":
            h = h * self.mask[...]
        elif self.kind == "counter":
            self.count[...] = self.count[...] + 1
        elif self.kind == "lazy":
            self.seen = nnx.Variable(h)
        elif self.kind == "broken":
            h = h @ jnp.ones((3, 3))
        else:
            h = self.layer(h)
        return h, h


def of_cell(composed: Compose, name: str, *overrides: str) -> Config:
    cell = f"model.cell._target_=test_held_state.{name}"
    return composed(*SMALL, "model.name=mine", cell, *overrides)


def trained(config: Config, steps: int = 4) -> tuple[Program, State, State]:
    program, hyperparameters = Program(config), hyperparameters_of(config)
    before = program.initialise(hyperparameters)
    return program, before, program.advance(hyperparameters, before, steps)[0]


def held_out_loss(program: Program, state: State) -> float:
    """Compute it from the cell's own steps."""
    network = program.merge(state.parameters, state.constants)
    batch = program.task.test
    carry, logits = network.initial_carry(batch.inputs), []
    for x in batch.inputs.swapaxes(0, 1):
        carry, output = network.cell(carry, x)
        logits.append(network.readout(output))
    logs = np.asarray(jax.nn.log_softmax(jnp.stack(logits, axis=1)), np.float64)
    losses = -np.take_along_axis(logs, np.asarray(batch.targets)[..., None], axis=-1)[..., 0]
    weights = np.asarray(batch.weights)
    return float(np.sum(losses * weights) / np.sum(weights))


def test_a_second_bias_counts_and_trains(composed: Compose) -> None:
    found = []
    for bias in (0.0, 50.0):
        program, before, after = trained(of_cell(composed, "TorchGRU", f"+model.cell.bias={bias}"))
        states = (nnx.to_flat_state(state.parameters) for state in (before, after))
        old, new = (dict(state)["cell", "dense_h", "bias"][...] for state in states)
        assert (bias == 50) or (np.abs(new - old) > 0).all()  # 50 saturates
        loss = float(program.evaluate(after)["eval/loss"])
        assert loss == pytest.approx(held_out_loss(program, after), rel=1e-5)
        found.append(loss)
    assert abs(found[0] - found[1]) > 1e-3


@pytest.mark.parametrize(
    "cell",
    [
        ("model=rnn",),
        ("model=lstm",),
        ("model.cell._target_=gradlab.cells.GRU", "model.name=gru"),
        (
            "model.cell._target_=gradlab.cells.ConcatenatedElman",
            "probe=[spectral,theory,statistics]",
        ),
    ],
)
def test_cells_without_biases_are_trained_and_measured(
    composed: Compose, tmp_path: Path, cell: tuple[str, ...]
) -> None:
    config = composed(*SMALL, *cell, "+model.cell.use_bias=false")
    status = run_point(Point(config, tmp_path / "sweep" / "0", "0"))
    assert status["state"] == "done", status
    program, _, after = trained(config)
    paths = [path for path, _ in nnx.to_flat_state(after.parameters)]
    assert not [path for path in paths if path[0] == "cell" and path[-1] == "bias"]
    loss = held_out_loss(program, after)
    assert status["summary"]["eval/loss"] == pytest.approx(loss, rel=1e-5)


def test_gate_biases_of_a_cell_without_any_are_refused(composed: Compose) -> None:
    with pytest.raises(ConfigError, match=r"use_bias=false\): take bias=zero"):
        Program(composed(*SMALL, "model=lstm", "+model.cell.use_bias=false", "bias=chrono"))


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("dropout", "layer.rngs.count of a Dropout changes at every step"),
        ("norm", "layer.mean of a BatchNorm, .*layer.var of a BatchNorm.* changes"),
        ("counter", "count of a Wrapped changes at every step.*make it a part of the carry"),
        ("lazy", "seen of a Wrapped"),
    ],
)
def test_a_cell_that_changes_a_state_of_its_own_is_refused(
    composed: Compose, kind: str, named: str
) -> None:
    for layers in (1, 2):
        override = (f"+model.cell.kind={kind}", f"model.num_layers={layers}")
        with pytest.raises(ConfigError, match=named):
            Program(of_cell(composed, "Wrapped", *override))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_step_of_other_arguments_is_refused_and_an_error_in_it_is_its_own(
    composed: Compose, layers: int
) -> None:
    stacked = f"model.num_layers={layers}"
    named = r"must run on inputs of shape \(2, 1\): test_held_state.Timed raises TypeE.*'time'"
    with pytest.raises(ConfigError, match=named):
        Program(of_cell(composed, "Timed", stacked))
    with pytest.raises(TypeError, match="dot_general"):
        Program(of_cell(composed, "Wrapped", "+model.cell.kind=broken", stacked))


@pytest.mark.parametrize("kind", ["held dropout", "held norm", "mask"])
def test_a_state_that_is_only_read_is_held(composed: Compose, tmp_path: Path, kind: str) -> None:
    config = of_cell(composed, "Wrapped", f"+model.cell.kind='{kind}'")
    status = run_point(Point(config, tmp_path / "sweep" / "0", "0"))
    assert status["state"] == "done", status
    program, before, after = trained(config)
    assert status["summary"]["eval/loss"] == pytest.approx(held_out_loss(program, after), rel=1e-5)
    for x, y in zip(*map(jax.tree.leaves, (before.constants, after.constants)), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(x, y)


def test_each_seed_has_a_mask_of_its_own_that_a_checkpoint_keeps(
    composed: Compose, tmp_path: Path
) -> None:
    kind = "+model.cell.kind=mask"
    configs = [of_cell(composed, "Wrapped", kind, f"seed={seed}") for seed in (0, 1)]
    states = [trained(config)[2] for config in configs]
    masks = [np.asarray(jax.tree.leaves(state.constants)[0]) for state in states]
    assert not np.array_equal(*masks)
    checkpoints.save(tmp_path, configs[1], states[1])
    kept = checkpoints.load(tmp_path, configs[1], Program(configs[0]).abstract_state)
    assert kept is not None
    np.testing.assert_array_equal(jax.tree.leaves(kept.constants)[0], masks[1])
