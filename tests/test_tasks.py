"""Tasks: what is shown, what is asked."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from gradlab.tasks.digits import LENGTHS, digits


@pytest.mark.parametrize("length", LENGTHS)
def test_digits_are_the_images_in_reading_order(length: int) -> None:
    task = digits(length)
    images, labels = load_digits(return_X_y=True)
    assert task.test.inputs.shape[1:] == (length, task.features)
    np.testing.assert_allclose(task.test.inputs[1].reshape(-1), images[5] / 16)
    np.testing.assert_array_equal(task.test.targets[:, -1], labels[::5])


def test_only_the_last_step_counts() -> None:
    weights = np.asarray(digits(8).test.weights)
    assert (weights[:, -1] == 1).all()
    assert (weights[:, :-1] == 0).all()


def test_held_out_images_are_never_trained_on() -> None:
    task = digits(1)
    held_out = {image.tobytes() for image in np.asarray(task.test.inputs)}
    shown = task.sample(jax.random.key(0), 20_000).inputs
    drawn = {image.tobytes() for image in np.asarray(shown)}
    assert len(drawn) > 1400
    assert not drawn & held_out
