"""One step ahead of a real time series (many-to-many, synchronised): an electroencephalogram."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from matplotlib.cbook import get_sample_data
from pydantic import Field

from gradlab.tasks import Batch, Task

CHANNELS, TRAINED_ON = 4, 640  # of 800 samples
LONGEST = 128  # leaves 32 windows held out


def forecast(length: Annotated[int, Field(ge=1, le=LONGEST)] = 50) -> Task:
    """Forecast the next sample of all channels of an EEG at every step.

    The recording is matplotlib's eeg.dat (the one of its gallery, 800 samples of 4 channels in
    10 s), the only real series with serial structure that gradlab's dependencies ship: neighbours
    correlate by 0.86 to 0.91. Scikit-learn's tables have no order in time, and the loaders of
    SciPy and seaborn download.

    The first 640 samples are for training, in windows from anywhere in them; every window of the
    rest is held out. Values have mean 0 and variance 1 in each channel over the first part.
    Baseline: the naive forecast, that the next sample is the present one (Hyndman & Koehler 2006),
    on the windows held out.

    Args:
        length: steps of a window.
    """
    series = _eeg()
    trained_on = jnp.asarray(series[:TRAINED_ON])
    rest = jnp.asarray(series[TRAINED_ON:])

    def sample(key: Key[Array, ""], batch_size: int) -> Batch:
        starts = jax.random.randint(key, (batch_size,), 0, TRAINED_ON - length)
        return _windows(trained_on, starts, length)

    test = _windows(rest, jnp.arange(len(rest) - length), length)
    naive = jnp.mean((test.inputs - test.targets) ** 2)
    return Task(
        features=CHANNELS, outputs=CHANNELS, sample=sample, test=test, baseline=float(naive)
    )


def _windows(
    series: Float[Array, "samples channels"], starts: Int[Array, "batch"], length: int
) -> Batch:
    window = series[starts[:, None] + jnp.arange(length + 1)]
    return Batch(window[:, :-1], window[:, 1:], jnp.ones((starts.size, length)))


def _eeg() -> Float[np.ndarray, "samples channels"]:
    values = np.fromfile(get_sample_data("eeg.dat", asfileobj=False), dtype="<f8")
    series = values.reshape(-1, CHANNELS)
    first = series[:TRAINED_ON]
    return ((series - first.mean(axis=0)) / first.std(axis=0)).astype(np.float32)
