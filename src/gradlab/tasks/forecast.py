"""Forecasting an electroencephalogram (many-to-many, synchronised): real data, one step ahead."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from matplotlib.cbook import get_sample_data
from pydantic import Field

from gradlab.tasks import Batch, Task

CHANNELS = 4
TRAINING_SAMPLES = 640  # of 800
MAX_LENGTH = 128  # leaves 32 test windows


def forecast(length: Annotated[int, Field(ge=1, le=MAX_LENGTH)] = 50) -> Task:
    """Forecast the next sample of all channels of an EEG at every step.

    The recording is matplotlib's eeg.dat (the one of its gallery, 800 samples of 4 channels in
    10 s). It is the only real time series that gradlab's dependencies ship: consecutive samples
    correlate by 0.86 to 0.91, scikit-learn's tables have no order in time, and the loaders of SciPy
    and seaborn download their data.

    Training windows are drawn from the first 640 samples; the test set is every window of the rest.
    Each channel is scaled to mean 0 and variance 1 over the first 640 samples. Baseline: the mean
    squared error of repeating the present sample on the test windows, the naive forecast of
    Hyndman & Koehler 2006.

    Args:
        length: steps of a window, at most 128.

    Example:
        >>> from gradlab.tasks.forecast import forecast
        >>> task = forecast(length=20)
        >>> task.features, task.outputs
        (4, 4)
    """
    series = _eeg()
    training = jnp.asarray(series[:TRAINING_SAMPLES])
    rest = jnp.asarray(series[TRAINING_SAMPLES:])

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        starts = jax.random.randint(key, (batch_size,), 0, TRAINING_SAMPLES - length)
        return _windows(training, starts, length)

    test = _windows(rest, jnp.arange(len(rest) - length), length)
    naive = jnp.mean((test.inputs - test.targets) ** 2)
    return Task(
        features=CHANNELS, outputs=CHANNELS, sample=sample, test=test, baseline=float(naive)
    )


def _windows(
    series: Float[Array, "samples channels"], starts: Int[Array, "batch"], length: int
) -> Batch:
    windows = series[starts[:, None] + jnp.arange(length + 1)]
    return Batch(windows[:, :-1], windows[:, 1:], jnp.ones((starts.size, length)))


def _eeg() -> Float[np.ndarray, "samples channels"]:
    """Read the recording and standardise it by its training samples."""
    values = np.fromfile(get_sample_data("eeg.dat", asfileobj=False), dtype="<f8")
    series = values.reshape(-1, CHANNELS)
    training = series[:TRAINING_SAMPLES]
    return ((series - training.mean(axis=0)) / training.std(axis=0)).astype(np.float32)
