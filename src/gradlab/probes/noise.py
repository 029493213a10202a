"""Probe of the gradient's noise: how much it differs from sequence to sequence, at each lag."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from gradlab.jacobian import backpropagate
from gradlab.probes import Measurement, ProbeInput, labelled


def noise(probed: ProbeInput, *, name: str) -> Measurement:
    """Measure the noise of the gradient against its signal, of the cell's weights and of each lag.

    With g_i the gradient of sequence i's loss, noise is the trace of their covariance, tr Σ, and
    signal the square of their mean, ‖G‖²; both are estimated without bias from the probed
    sequences. tr Σ/‖G‖² is the "simple noise scale" of McCandlish, Kaplan & Amodei 2018
    (arXiv:1812.06162, eq. 2.9): in a batch of that many sequences noise and signal are equal. The
    same is measured of what each lag j adds to the gradient, c_j: lags whose noise scale is far
    above the batch size teach nothing.

    The metrics are "scale" (of all weights together), "scale/dense_h.kernel" and so on, and
    "scale/lag_0", "scale/lag_1", "scale/lag_2", "scale/lag_4", …; inf where no signal is left above
    the estimate's own noise, NaN of a single sequence or where all gradients are zero. Take
    `probe.samples=32` or more: of few sequences the estimate is rough.

    Args:
        probed: the cell, sequences and loss.
        name: prefix of the metrics and arrays.
    """
    count, length = probed.inputs.shape[:2]
    of_sequences = [_by_lag(probed, index) for index in range(count)]
    joined = {w: np.stack([each[w] for each in of_sequences]) for w in of_sequences[0]}
    whole = {w: _flat(by_lag.sum(axis=1)) for w, by_lag in joined.items()}
    everything = np.concatenate([_flat(x, 2) for x in joined.values()], axis=2)
    by_lag = np.array([noise_scale(everything[:, lag]) for lag in range(length)])
    lags = [0, *(2**p for p in range(length.bit_length()) if 2**p < length)]
    metrics = {f"{name}/scale": noise_scale(np.concatenate(list(whole.values()), axis=1))}
    metrics |= {f"{name}/scale/{w}": noise_scale(gradients) for w, gradients in whole.items()}
    metrics |= {f"{name}/scale/lag_{lag}": float(by_lag[lag]) for lag in lags}
    array = labelled(
        by_lag,
        ("lag",),
        {"lag": np.arange(length)},
        long_name="noise scale of the gradient by lag",
        units="sequences",
    )
    return Measurement(metrics, {f"{name}_scale": array})


def noise_scale(gradients: Float[np.ndarray, "sequences weights"]) -> float:
    """Return tr Σ/‖G‖² of gradients with mean G and covariance Σ, estimated without bias.

    Args:
        gradients: one of each sequence.

    Returns:
        The number of sequences whose mean has as much noise as signal; inf where the estimate of
        ‖G‖² is not above 0, NaN of one sequence or of gradients that are all zero.
    """
    count = len(gradients)
    if count < 2 or not gradients.any():
        return float("nan")
    mean = gradients.mean(axis=0)
    spread = float(np.sum((gradients - mean) ** 2)) / (count - 1)
    signal = float(np.sum(mean**2)) - spread / count
    return spread / signal if signal > 0 else float("inf")


def _by_lag(probed: ProbeInput, index: int) -> dict[str, Float[np.ndarray, "T *weight"]]:
    """Return the sums by lag of one sequence's gradient, each times the number of sequences."""
    inputs, targets = jax.tree.map(lambda x: x[index], (probed.inputs, probed.targets))
    terms = backpropagate(probed.cell, inputs, probed.loss, targets)
    scale = len(probed.inputs) * np.exp(float(terms.log_scale))  # losses are parts of their mean
    return {w: np.asarray(x) * scale for w, x in terms.by_lag.items()}  # in float64


def _flat(values: Float[np.ndarray, "*axes"], kept: int = 1) -> Any:
    """Return an array with its axes after the first `kept` as one, complex numbers as two reals."""
    flat = values.reshape(*values.shape[:kept], -1)
    return np.concatenate([flat.real, flat.imag], axis=-1) if np.iscomplexobj(flat) else flat
