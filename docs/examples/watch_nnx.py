"""Flax NNX: an LSTM that adds two marked numbers of a sequence, watched while it trains.

python docs/examples/watch_nnx.py
gradlab figure heatmap --runs runs/watch_nnx
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import gradlab

LENGTH, BATCH, UPDATES = 30, 32, 60


def draw(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """Return sequences of (number, mark), and the sums of the two marked numbers of each."""
    numbers, first, second = jax.random.split(key, 3)
    values = jax.random.uniform(numbers, (batch, LENGTH))
    half = LENGTH // 2
    marks = jax.nn.one_hot(jax.random.randint(first, batch, 0, half), LENGTH)
    marks += jax.nn.one_hot(jax.random.randint(second, batch, half, LENGTH), LENGTH)
    return jnp.stack([values, marks], axis=-1), jnp.sum(values * marks, axis=1)


class Adder(nnx.Module):
    """An LSTM with a readout of its last output."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        """Draw the weights."""
        self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(2, 32, rngs=rngs))
        self.readout = nnx.Linear(32, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the predicted sum of each sequence."""
        return self.readout(self.rnn(x)[:, -1])[:, 0]


@nnx.jit
def gradient(model: Adder, key: jax.Array) -> tuple[jax.Array, nnx.State]:
    """Return the loss of a batch and its gradient, before clipping."""
    x, sums = draw(key, BATCH)
    return nnx.value_and_grad(lambda model: jnp.mean((model(x) - sums) ** 2))(model)


@nnx.jit
def update(model: Adder, optimizer: nnx.Optimizer, grads: nnx.State) -> None:
    """Make one update."""
    optimizer.update(model, grads)


model = Adder(nnx.Rngs(0))
clip = optax.clip_by_global_norm(1.0)
optimizer = nnx.Optimizer(model, optax.chain(clip, optax.adam(1e-2)), wrt=nnx.Param)
held_out, _ = draw(jax.random.key(1), 4)

watcher = gradlab.watch(held_out, folder="runs/watch_nnx", clip=clip, overwrite=True)
for step in range(UPDATES):
    loss, grads = gradient(model, jax.random.key(step))
    measured = watcher(step, model, grads=grads, loss=loss)
    update(model, optimizer, grads)
    if measured:
        rate = measured.metrics["jacobian/decay_rate"]
        print(f"step {step:3d}  loss {loss:.3f}  decay rate {rate:+.3f} nats per step")
