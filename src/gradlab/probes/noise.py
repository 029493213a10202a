"""Probe of the gradient's noise: how much it differs from sequence to sequence, at each lag."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from gradlab.jacobian import backpropagate
from gradlab.probes import Measurement, ProbeInput, labelled


class Moments(NamedTuple):
    """Sums over the gradients of single sequences: Σ g_i and Σ ‖g_i‖², by lag or of all lags."""

    first: Float[np.ndarray, "*lags weights"]
    second: Float[np.ndarray, "*lags"]


def noise(probed: ProbeInput, *, name: str) -> Measurement:
    """Measure the noise of the gradient against its signal, of the cell's weights and of each lag.

    With g_i the number of sequences times sequence i's part of the gradient of the mean loss, noise
    is the trace of their covariance, tr Σ, and signal the square of their mean, ‖G‖². tr Σ/‖G‖² is
    the "simple noise scale" of McCandlish, Kaplan & Amodei 2018 (arXiv:1812.06162, eq. 2.9): in a
    batch of that many sequences noise and signal are equal. The same is measured of what each lag j
    adds to the gradient, c_j: in a batch far smaller than a lag's noise scale, that lag's part of
    the gradient is mostly noise.

    The metrics are "trace" (tr Σ) and "signal" (‖G‖²) of all the cell's weights together, without
    the readout's, which have no lag; "scale" of the same; "scale/dense_h.kernel" and so on; and
    "scale/lag_0", "scale/lag_1", "scale/lag_2", "scale/lag_4", …. Trace and signal are estimated
    without bias, so their means over seeds are the ones to trust; a scale, their ratio, is biased
    upwards, and inf where no signal is left above the estimate's own noise: take
    `probe.samples=32` or more. NaN of a single sequence, or where all gradients are zero.

    Args:
        probed: the cell, sequences and loss.
        name: prefix of the metrics and arrays.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> targets = jnp.zeros((4, 20, 8))
        >>> watcher = gradlab.watch(
        ...     x, probes="noise", loss=loss, targets=targets, folder="runs/noise"
        ... )
        >>> measured = watcher(0, cell)
        >>> watcher.finish()
        >>> gradlab.load_metrics("runs/noise")["noise/trace"].item() > 0
        True
    """
    count, length = probed.inputs.shape[:2]
    by_lag, whole = _moments(probed)
    first = np.sum([np.sum(x.first**2, axis=1) for x in by_lag.values()], axis=0)
    second = np.sum([x.second for x in by_lag.values()], axis=0)
    scales = np.array([noise_scale(*each, count) for each in zip(first, second, strict=True)])
    lags = [0, *(2**p for p in range(length.bit_length()) if 2**p < length)]
    sums = {w: (float(np.sum(x.first**2)), float(x.second)) for w, x in whole.items()}
    total = sum(x for x, _ in sums.values()), sum(x for _, x in sums.values())
    trace, signal = trace_and_signal(*total, count)
    metrics = {f"{name}/trace": trace, f"{name}/signal": signal}
    metrics[f"{name}/scale"] = noise_scale(*total, count)
    metrics |= {f"{name}/scale/{w}": noise_scale(*each, count) for w, each in sums.items()}
    metrics |= {f"{name}/scale/lag_{lag}": float(scales[lag]) for lag in lags}
    array = labelled(
        scales,
        ("lag",),
        {"lag": np.arange(length)},
        long_name="noise scale of the gradient by lag",
        units="sequences",
    )
    return Measurement(metrics, {f"{name}_scale": array})


def trace_and_signal(first: float, second: float, count: int) -> tuple[float, float]:
    """Return unbiased estimates of tr Σ and ‖G‖² of gradients with mean G and covariance Σ.

    Args:
        first: ‖Σ g_i‖², the square of the sum of the gradients.
        second: Σ ‖g_i‖².
        count: number of gradients.

    Returns:
        Both; NaN of a single gradient.
    """
    if count < 2:
        return np.nan, np.nan
    trace = max(0.0, second - first / count) / (count - 1)
    return trace, first / count**2 - trace / count


def noise_scale(first: float, second: float, count: int) -> float:
    """Return tr Σ/‖G‖², by the estimates of `trace_and_signal`.

    Returns:
        The number of sequences whose mean has as much noise as signal; inf where the estimate of
        ‖G‖² is not above 0, NaN of a single gradient or of gradients that are all zero.
    """
    trace, signal = trace_and_signal(first, second, count)
    if not second > 0 or np.isnan(signal):
        return float("nan")
    return trace / signal if signal > 0 else float("inf")


def _moments(probed: ProbeInput) -> tuple[dict[str, Moments], dict[str, Moments]]:
    """Return those of each weight array by lag, and of its whole gradient, one sequence at a time.

    (The gradients of all sequences together would take many gigabytes for a wide network.)
    """
    by_lag: dict[str, Moments] = {}
    whole: dict[str, Moments] = {}
    for index in range(len(probed.inputs)):
        for weight, terms in _by_lag(probed, index).items():
            for sums, gradient in ((by_lag, terms), (whole, terms.sum(axis=0))):
                added = Moments(gradient, np.sum(gradient**2, axis=-1))
                before = sums.get(weight, Moments(np.zeros(()), np.zeros(())))
                sums[weight] = Moments(before.first + added.first, before.second + added.second)
    return by_lag, whole


def _by_lag(probed: ProbeInput, index: int) -> dict[str, Float[np.ndarray, "T weights"]]:
    """Return the sums by lag of one sequence's gradient, times the number of sequences."""
    inputs, targets = jax.tree.map(lambda x: x[index], (probed.inputs, probed.targets))
    terms = backpropagate(probed.cell, inputs, probed.loss, targets)
    scale = len(probed.inputs) * np.exp(float(terms.log_scale))  # losses are parts of their mean
    return {w: _real_rows(np.asarray(x)) * scale for w, x in terms.by_lag.items()}  # in float64


def _real_rows(values: Any) -> Any:
    """Return an array as rows by its first axis, complex numbers as two reals."""
    rows = values.reshape(len(values), -1)
    return np.concatenate([rows.real, rows.imag], axis=1) if np.iscomplexobj(rows) else rows
