"""Build networks whose weights are written by hand, unit by unit."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gradlab.cells.elman import Activation, Elman
from gradlab.models import Network, Readout
from gradlab.tasks import Batch, Task
from gradlab.training.losses import metrics

Matrix = np.ndarray
# The weights of a unit's or an output's sum: inputs by number, units by name, the bias as None.
Wires = Mapping[int | str | None, float]


def wired(
    features: int,
    units: Mapping[str, Wires],
    outputs: Sequence[Wires],
    activation: Activation = "relu",
) -> Network:
    """Return an Elman network whose units read the present input and the previous units."""
    _, kernel, bias = _weights(0, units, outputs)
    return with_readout(layer(features, units, activation), kernel, bias)


def layer(features: int, units: Mapping[str, Wires], activation: Activation = "relu") -> Elman:
    """Return the recurrent layer of such a network."""
    return elman(*_weights(features, units, list(units.values())), activation)


def elman(w_xh: Matrix, w_hh: Matrix, bias: Matrix, activation: Activation) -> Elman:
    """Return an Elman layer with these kernels (rows: from, columns: to)."""
    sizes = w_xh.shape
    cell = nnx.eval_shape(lambda: Elman(*sizes, activation=activation, rngs=nnx.Rngs(0)))
    cell.dense_i.kernel, cell.dense_h.kernel, cell.dense_i.bias = map(
        _parameter, (w_xh, w_hh, bias)
    )
    return cell


def with_readout(cell: nnx.RNNCellBase, kernel: Matrix, bias: Matrix) -> Network:
    """Return a network of a cell and this readout."""
    network = nnx.eval_shape(lambda: Network(cell, Readout(*kernel.shape, rngs=nnx.Rngs(0))))
    network.cell = cell
    network.readout.kernel, network.readout.bias = _parameter(kernel), _parameter(bias)
    return network


def shift_register(features: int, depth: int) -> dict[str, Wires]:
    """Return units that hold the last `depth` inputs: "i@lag" has input i of `lag` steps before."""
    return {
        f"{i}@{lag}": {f"{i}@{lag - 1}": 1} if lag else {i: 1}
        for i in range(features)
        for lag in range(depth)
    }


def with_fitted_readout(task: Task, cell: Elman, sequences: int) -> Network:
    """Return a network with the least-squares readout of the targets (one-hot codes of classes)."""
    batch = draw_batch(task, sequences)
    counts = np.asarray(batch.weights) > 0
    states = with_readout(cell, np.eye(cell.hidden_features), np.zeros(cell.hidden_features))
    targets = np.asarray(batch.targets)[counts]
    if targets.ndim == 1:
        targets = np.eye(task.outputs)[targets]
    rows = np.asarray(states(batch.inputs))[counts]
    design = np.column_stack([rows, np.ones(len(rows))])
    solution = np.linalg.lstsq(design, targets, rcond=None)[0]
    return with_readout(cell, solution[:-1], solution[-1])


def draw_batch(task: Task, count: int, seed: int = 0) -> Batch:
    """Draw training sequences, compiled as in a training program."""
    return jax.jit(task.sample, static_argnums=1)(jax.random.key(seed), count)


def evaluate(network: Network, task: Task) -> dict[str, float]:
    """Return the metrics of a network on a task's test sequences."""
    return {name: float(x) for name, x in metrics(network(task.test.inputs), task).items()}


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
