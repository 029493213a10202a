"""Flax Linen with TrainState: a GRU that recalls a cue after a delay, watched while it trains.

python docs/examples/watch_linen.py
gradlab figure decay --runs runs/watch_linen
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

import gradlab

LENGTH, UNITS, CUES, BATCH, UPDATES = 20, 32, 4, 32, 60
ZEROS = jnp.zeros(UNITS)


def draw(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """Return sequences that show a cue at their first step only, and the cues."""
    cues = jax.random.randint(key, batch, 0, CUES)
    return jnp.zeros((batch, LENGTH, CUES)).at[:, 0].set(jax.nn.one_hot(cues, CUES)), cues


class Recall(nn.Module):
    """A GRU with a readout of its last output."""

    def setup(self) -> None:
        """Name the layers."""
        self.cell = nn.GRUCell(UNITS)
        self.readout = nn.Dense(CUES)

    def step(self, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the next state and the output, h."""
        return self.cell(h, x)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits of the cue of each sequence."""
        h = jnp.zeros((len(x), UNITS))
        for t in range(LENGTH):
            h, _ = self.step(h, x[:, t])
        return self.readout(h)


@jax.jit
def update(state: TrainState, key: jax.Array) -> tuple[TrainState, jax.Array, Any]:
    """Make one update; return its loss and its gradient too."""
    x, cues = draw(key, BATCH)

    def loss_of(params: Any) -> jax.Array:
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, cues).mean()

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=grads), loss, grads


model = Recall()
held_out, _ = draw(jax.random.key(1), 4)
params = model.init(jax.random.key(0), held_out)["params"]
state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-2))

watcher = gradlab.watch(held_out, initial_carry=ZEROS, folder="runs/watch_linen", overwrite=True)
for step in range(UPDATES):
    updated, loss, grads = update(state, jax.random.key(step))
    cell = partial(model.apply, {"params": state.params}, method="step")  # after `step` updates
    measured = watcher(step, cell, grads=grads, loss=loss)
    state = updated
    if measured:
        rate = measured.metrics["jacobian/decay_rate"]
        print(f"step {step:3d}  loss {loss:.3f}  decay rate {rate:+.3f} nats per step")
