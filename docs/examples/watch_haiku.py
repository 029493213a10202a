"""Haiku: an LSTM that tells whether a sequence begins above its end, watched while it trains.

python docs/examples/watch_haiku.py
gradlab figure decay --runs runs/watch_haiku
"""

from collections.abc import Callable
from functools import partial

import haiku as hk
import jax
import jax.numpy as jnp
import optax

import gradlab

LENGTH, UNITS, BATCH, UPDATES = 20, 32, 32, 60
START = {"h": jnp.zeros(UNITS), "c": jnp.zeros(UNITS)}  # a dictionary names the parts of the carry


def draw(key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """Return sequences of numbers, and whether the first of each is larger than the last."""
    x = jax.random.normal(key, (batch, LENGTH, 1))
    return x, (x[:, 0, 0] > x[:, -1, 0]).astype(float)


def build() -> tuple[Callable, tuple[Callable, Callable]]:
    """Return what draws the weights, and the two functions that share them."""
    lstm, readout = hk.LSTM(UNITS), hk.Linear(1)

    def step(carry: dict[str, jax.Array], x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        """Return the next state and the output, h."""
        h, state = lstm(x, hk.LSTMState(carry["h"], carry["c"]))
        return {"h": h, "c": state.cell}, h

    def logits(x: jax.Array) -> jax.Array:
        """Return the logit of each sequence."""
        start = lstm.initial_state(len(x))
        outputs, _ = hk.dynamic_unroll(lstm, x, start, time_major=False)
        return readout(outputs[:, -1])[:, 0]

    return logits, (step, logits)


initialise, (step_of, logits_of) = hk.without_apply_rng(hk.multi_transform(build))


@jax.jit
def update(
    weights: hk.Params, state: optax.OptState, key: jax.Array
) -> tuple[hk.Params, optax.OptState, jax.Array, hk.Params]:
    """Make one update; return the weights, the optimiser's state, the loss and its gradient."""
    x, is_larger = draw(key, BATCH)

    def loss_of(weights: hk.Params) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(logits_of(weights, x), is_larger).mean()

    loss, grads = jax.value_and_grad(loss_of)(weights)
    changes, state = optimizer.update(grads, state)
    return optax.apply_updates(weights, changes), state, loss, grads


held_out, _ = draw(jax.random.key(1), 4)
weights = initialise(jax.random.key(0), held_out)
optimizer = optax.adam(1e-2)
state = optimizer.init(weights)

watcher = gradlab.watch(held_out, initial_carry=START, folder="runs/watch_haiku", overwrite=True)
for step in range(UPDATES):
    updated, state, loss, grads = update(weights, state, jax.random.key(step))
    measured = watcher(step, partial(step_of, weights), grads=grads, loss=loss)
    weights = updated
    if measured:
        rate = measured.metrics["jacobian/decay_rate"]
        print(f"step {step:3d}  loss {loss:.3f}  decay rate {rate:+.3f} nats per step")
