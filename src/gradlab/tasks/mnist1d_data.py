"""The MNIST-1D data of Greydanus & Kobak 2024 (arXiv:2011.14439), built without a download.

Ten hand-drawn curves are padded, stretched, scaled, shifted round, set in noise, tilted and sampled
at 40 points (table 2). Random numbers are drawn in the order of the authors' package, so that seed
42 gives their frozen data set.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter

SAMPLES, TRAINING, POINTS = 5000, 4000, 40
PADDING, SHIFTS = (36, 60), 48  # zeros after a curve, least and most; number of places to shift by
SCALING, NOISE, NOISE_WIDTH, WHITE_NOISE, TILT = 0.4, 0.25, 2, 0.02, 0.75
NOT_ZERO = 1e-8  # marks the points of a curve that happen to be 0
ORDER = np.random.RandomState(42).permutation(
    POINTS
)  # of permuted points, in the authors' notebook

# The x of the ten digits, written from top to bottom.
CURVES = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)


class Digits(NamedTuple):
    """Sequences and their digits, for training and for testing."""

    x: Float[np.ndarray, "training points"]
    y: Int[np.ndarray, "training"]
    x_test: Float[np.ndarray, "testing points"]
    y_test: Int[np.ndarray, "testing"]

    def permuted(self, order: Int[np.ndarray, "points"]) -> "Digits":
        """Return the same digits with their points in another order."""
        return self._replace(x=self.x[:, order], x_test=self.x_test[:, order])


@lru_cache(maxsize=2)  # drawn once in a process
def digits(seed: int = 42) -> Digits:
    """Build the data set: 4000 sequences of 40 points for training and 1000 for testing.

    Args:
        seed: of NumPy's RandomState; 42 is that of the frozen data set.

    Returns:
        Sequences of mean 0 and variance 1 over all, in random order.

    Example:
        >>> from gradlab.tasks.mnist1d_data import digits
        >>> digits().x.shape
        (4000, 40)
    """
    random = np.random.RandomState(seed)
    curves = CURVES - CURVES.mean(axis=1, keepdims=True)
    curves /= curves.std(axis=1, keepdims=True)
    curves = (curves - curves[:, :1]) / 6  # they start and end at 0
    labels = np.repeat(np.arange(len(curves)), SAMPLES // len(curves))
    sequences = np.stack([_sequence(curves[label], random) for label in labels])
    order = random.permutation(SAMPLES)
    x, y = sequences[order], labels[order]
    x = (x - x.mean()) / x.std()
    return Digits(x[:TRAINING], y[:TRAINING], x[TRAINING:], y[TRAINING:])


def _sequence(
    curve: Float[np.ndarray, "12"], random: np.random.RandomState
) -> Float[np.ndarray, "points"]:
    least, most = PADDING
    zeros = least + int(random.rand() * (most - least + 1))
    x = _resampled(np.concatenate([curve + NOT_ZERO, np.zeros(zeros)]), len(curve) + most)
    x = x * (1 + SCALING * (random.rand() - 0.5))
    x = np.roll(x, random.choice(SHIFTS))
    background = gaussian_filter(NOISE * random.randn(len(x)), NOISE_WIDTH)
    x = np.where(x != 0, x, background) + WHITE_NOISE * random.randn(len(x))
    x = x - TILT * (random.rand() - 0.5) * np.linspace(-0.5, 0.5, len(x))
    return _resampled(x, POINTS)


def _resampled(x: Float[np.ndarray, "before"], points: int) -> Float[np.ndarray, "after"]:
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(x)), x)
