"""Equinox: an LSTM that predicts the parity of a stream of bits, watched while it trains.

python docs/examples/watch_equinox.py
gradlab figure heatmap --runs runs/watch_equinox
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import gradlab

LENGTH, UNITS, BATCH, UPDATES = 24, 32, 32, 60
START = {"h": jnp.zeros(UNITS), "c": jnp.zeros(UNITS)}  # a dictionary names the parts of the carry


def draw(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """Return streams of bits, and whether each bit differs from the one before."""
    bits = jax.random.bernoulli(key, shape=(batch, LENGTH)).astype(jnp.float32)
    return bits[..., None], jnp.cumsum(bits, axis=1) % 2


class Parity(eqx.Module):
    """An LSTM with a readout of every output."""

    cell: eqx.nn.LSTMCell
    readout: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        """Draw the weights."""
        cell_key, readout_key = jax.random.split(key)
        self.cell = eqx.nn.LSTMCell(1, UNITS, key=cell_key)
        self.readout = eqx.nn.Linear(UNITS, 1, key=readout_key)

    def step(
        self, carry: dict[str, jax.Array], x: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Return the next state and the output, h."""
        h, c = self.cell(x, (carry["h"], carry["c"]))
        return {"h": h, "c": c}, h

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits at every step of one stream."""
        _, outputs = jax.lax.scan(lambda carry, x: self.step(carry, x), START, x)
        return jax.vmap(self.readout)(outputs)[:, 0]


@eqx.filter_jit
def update(
    model: Parity, state: optax.OptState, key: jax.Array
) -> tuple[Parity, optax.OptState, jax.Array, Parity]:
    """Make one update; return the model, the optimiser's state, the loss and its gradient."""
    x, parity = draw(key, BATCH)

    def loss_of(model: Parity) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(jax.vmap(model)(x), parity).mean()

    loss, grads = eqx.filter_value_and_grad(loss_of)(model)
    changes, state = optimizer.update(grads, state)
    return eqx.apply_updates(model, changes), state, loss, grads


model = Parity(jax.random.key(0))
optimizer = optax.adam(1e-2)
state = optimizer.init(eqx.filter(model, eqx.is_array))
held_out, _ = draw(jax.random.key(1), 4)

watcher = gradlab.watch(held_out, initial_carry=START, folder="runs/watch_equinox", overwrite=True)
for step in range(UPDATES):
    updated, state, loss, grads = update(model, state, jax.random.key(step))
    measured = watcher(step, model.step, grads=grads, loss=loss)  # after `step` updates
    model = updated
    if measured:
        rate = measured.metrics["jacobian/decay_rate"]
        print(f"step {step:3d}  loss {loss:.3f}  decay rate {rate:+.3f} nats per step")
