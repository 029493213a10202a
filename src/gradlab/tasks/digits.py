"""Handwritten digits read as sequences: many-to-one, on real data that needs no download."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from pydantic import AfterValidator
from sklearn.datasets import load_digits

from gradlab.tasks import Batch, Task

LENGTHS = (1, 2, 4, 8, 16, 32, 64)
TEST_SHARE = 5  # every fifth image is held out


def _check_length(length: int) -> int:
    if length not in LENGTHS:
        raise ValueError(
            f"must be one of {', '.join(map(str, LENGTHS))} steps, which cut the image's 64 pixels "
            "into equal pieces (8 reads rows, 64 reads pixels)"
        )
    return length


def digits(length: Annotated[int, AfterValidator(_check_length)] = 8) -> Task:
    """Classify the 8 × 8 digits of UCI (Alpaydin & Kaynak 1998), shipped with scikit-learn.

    The 64 pixels, scaled to [0, 1], are read in writing order in `length` steps of 64/length
    pixels; the class is wanted at the last step. Chance: accuracy 0.1, cross entropy ln 10.
    """
    images, labels = load_digits(return_X_y=True)
    inputs = (images / 16).astype(np.float32).reshape(-1, length, 64 // length)
    held_out = np.arange(len(labels)) % TEST_SHARE == 0
    train_inputs, train_labels = jnp.asarray(inputs[~held_out]), jnp.asarray(labels[~held_out])

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        index = jax.random.randint(key, (batch_size,), 0, train_labels.size)
        return _at_last_step(train_inputs[index], train_labels[index])

    test = _at_last_step(jnp.asarray(inputs[held_out]), jnp.asarray(labels[held_out]))
    return Task(features=64 // length, outputs=10, sample=sample, test=test)


def _at_last_step(
    inputs: Float[Array, "batch time features"], labels: Int[Array, "batch"]
) -> Batch:
    batch, length, _ = inputs.shape
    weights = jnp.zeros((batch, length)).at[:, -1].set(1.0)
    return Batch(inputs, jnp.broadcast_to(labels[:, None], (batch, length)), weights)
