"""Networks with weights written by hand, wired unit by unit."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gradlab.cells.elman import Activation, Elman
from gradlab.models import Network
from gradlab.tasks import Batch, Task
from gradlab.training.losses import metrics

Matrix = np.ndarray
# What a unit or an output adds up, with weights: inputs by number, units by name, None the bias.
Wires = Mapping[int | str | None, float]


def wired(
    features: int,
    units: Mapping[str, Wires],
    outputs: Sequence[Wires],
    activation: Activation = "relu",
) -> Network:
    """An Elman network: each unit sees the input of its step, and the units of the step before."""
    _, kernel, bias = _weights(0, units, outputs)
    return with_readout(layer(features, units, activation), kernel, bias)


def layer(features: int, units: Mapping[str, Wires], activation: Activation = "relu") -> Elman:
    """The recurrent part of such a network."""
    return elman(*_weights(features, units, list(units.values())), activation)


def elman(w_xh: Matrix, w_hh: Matrix, bias: Matrix, activation: Activation) -> Elman:
    """A layer with given kernels (rows: from, columns: to); nothing is drawn."""
    sizes = w_xh.shape
    cell = nnx.eval_shape(lambda: Elman(*sizes, activation=activation, rngs=nnx.Rngs(0)))
    cell.dense_i.kernel, cell.dense_h.kernel, cell.dense_i.bias = map(
        _parameter, (w_xh, w_hh, bias)
    )
    return cell


def with_readout(cell: nnx.RNNCellBase, kernel: Matrix, bias: Matrix) -> Network:
    """A network of a cell and a given readout."""
    network = nnx.eval_shape(lambda: Network(cell, *kernel.shape, nnx.Rngs(0)))
    network.cell = cell
    network.readout.kernel, network.readout.bias = _parameter(kernel), _parameter(bias)
    return network


def register(features: int, depth: int) -> dict[str, Wires]:
    """Units that hold the last `depth` inputs: "i@0" this step's input i, "i@1" the one before."""
    return {
        f"{i}@{lag}": {f"{i}@{lag - 1}": 1} if lag else {i: 1}
        for i in range(features)
        for lag in range(depth)
    }


def with_fitted_readout(task: Task, cell: Elman, sequences: int) -> Network:
    """A network whose readout is the least-squares one (of classes: of their one-hot codes)."""
    batch = drawn(task, sequences)
    counts = np.asarray(batch.weights) > 0
    states = with_readout(cell, np.eye(cell.hidden_features), np.zeros(cell.hidden_features))
    targets = np.asarray(batch.targets)[counts]
    if targets.ndim == 1:
        targets = np.eye(task.outputs)[targets]
    seen = np.asarray(states(batch.inputs))[counts]
    design = np.column_stack([seen, np.ones(len(seen))])
    solution = np.linalg.lstsq(design, targets, rcond=None)[0]
    return with_readout(cell, solution[:-1], solution[-1])


def drawn(task: Task, count: int, seed: int = 0) -> Batch:
    """Sequences to train on, as a compiled program draws them."""
    return jax.jit(task.sample, static_argnums=1)(jax.random.key(seed), count)


def found(network: Network, task: Task) -> dict[str, float]:
    """The metrics of a network on a task's held-out sequences."""
    return {k: float(v) for k, v in metrics(network(task.test.inputs), task).items()}


def _weights(
    features: int, units: Mapping[str, Wires], targets: Sequence[Wires]
) -> tuple[Matrix, Matrix, Matrix]:
    rows = {name: i for i, name in enumerate(units)}
    w_x, w_h = np.zeros((features, len(targets))), np.zeros((len(units), len(targets)))
    bias = np.zeros(len(targets))
    for column, wires in enumerate(targets):
        for source, weight in wires.items():
            if source is None:
                bias[column] = weight
            elif isinstance(source, str):
                w_h[rows[source], column] = weight
            else:
                w_x[source, column] = weight
    return w_x, w_h, bias


def _parameter(values: Matrix) -> nnx.Param:
    return nnx.Param(jnp.asarray(values, jnp.float32))
