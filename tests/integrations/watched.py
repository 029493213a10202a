"""Networks that tests of watchers watch, and their first measurement."""

from typing import Any

import jax
from flax import nnx
from jax import Array

import gradlab
from gradlab.probes import Measurement

X = jax.random.normal(jax.random.key(0), (2, 6, 3))


def lstm(features: int = 3, seed: int = 0) -> nnx.OptimizedLSTMCell:
    return nnx.OptimizedLSTMCell(features, 5, rngs=nnx.Rngs(seed))


def measured(cell: Any, **arguments: Any) -> Measurement:
    """Return what a watcher measures at its first call."""
    measurement = gradlab.watch(**({"inputs": X} | arguments))(0, cell)
    assert measurement is not None
    return measurement


class Tagger(nnx.Module):
    """An embedding, a bidirectional layer and a layer on top of it."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.embed = nnx.Linear(3, 4, rngs=rngs)
        forward, backward = nnx.RNN(lstm(4)), nnx.RNN(nnx.GRUCell(4, 5, rngs=rngs))
        self.both = nnx.Bidirectional(forward, backward)
        self.top = nnx.RNN(nnx.SimpleCell(10, 5, rngs=rngs))

    def __call__(self, x: Array) -> Array:
        return self.top(self.both(self.embed(x)))
