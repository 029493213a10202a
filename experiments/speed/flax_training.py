"""The benchmark's training step as users of Flax write it: `nnx.RNN`, one call per step."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from gradlab.models import Network
from gradlab.tasks import Batch

CELLS: dict[str, Any] = {
    "rnn": nnx.SimpleCell,
    "lstm": nnx.OptimizedLSTMCell,
    "gru": nnx.GRUCell,
}


class Model(nnx.Module):
    """A layer and a readout at every step."""

    def __init__(self, cell: nnx.RNNCellBase, width: int, outputs: int, rngs: nnx.Rngs) -> None:
        """Make the layer of a cell, and its readout."""
        self.layer = nnx.RNN(cell)
        self.readout = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return the outputs for sequences (batch, time, features)."""
        return self.readout(self.layer(inputs))


class FlaxTraining:
    """Training by `nnx.jit`, `nnx.value_and_grad` and an `nnx.Optimizer`."""

    def __init__(
        self,
        cell: str,
        network: Network,
        batch: Batch,
        draw: Callable[[jax.Array, int], Batch] | None,
        threshold: float,
        learning_rate: float,
    ) -> None:
        """Copy the network's weights; `draw` returns training batches, None stands for `batch`."""
        source: Any = network.cell
        rngs, n = nnx.Rngs(0), source.hidden_features
        own_cell = CELLS[cell](batch.inputs.shape[-1], n, rngs=rngs)
        self.model = Model(own_cell, n, batch.targets.shape[-1], rngs)
        for name in ("dense_i", "dense_h"):
            nnx.update(getattr(own_cell, name), nnx.state(getattr(source, name)))
        nnx.update(self.model.readout, nnx.state(network.readout))
        rule = optax.chain(optax.clip_by_global_norm(threshold), optax.adam(learning_rate))
        self.optimiser = nnx.Optimizer(self.model, rule, wrt=nnx.Param)
        self.batch = batch
        size = batch.inputs.shape[0]
        self.draw = None if draw is None else jax.jit(lambda key: draw(key, size))

    def loss_and_gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and gradients of the first batch."""
        loss, gradient = nnx.value_and_grad(_loss)(self.model, self.batch)
        cell, readout = gradient["layer"]["cell"], gradient["readout"]
        return float(loss), {
            "input": np.asarray(cell["dense_i"]["kernel"][...]),
            "recurrent": np.asarray(cell["dense_h"]["kernel"][...]),
            "readout": np.asarray(readout["kernel"][...]),
        }

    def train(self, steps: int) -> jax.Array:
        """Train for some steps; return the last loss."""
        key = jax.random.key(1)
        for _ in range(steps):
            batch = self.batch
            if self.draw is not None:
                key, batch_key = jax.random.split(key)
                batch = self.draw(batch_key)
            loss = _step(self.model, self.optimiser, batch)
        return loss


def _loss(model: Model, batch: Batch) -> jax.Array:
    return ((model(batch.inputs) - batch.targets) ** 2).mean()


@nnx.jit
def _step(model: Model, optimiser: nnx.Optimizer, batch: Batch) -> jax.Array:
    loss, gradient = nnx.value_and_grad(_loss)(model, batch)
    optimiser.update(model, gradient)
    return loss
