"""The accelerator's layers, and what their maps and exponents are, in float64 on the CPU."""

from functools import cache, partial

import numpy as np
from timing import (  # type: ignore[import-not-found, unused-ignore]
    Layer,
    Pair,
    reference_log_norms,
    sample_pairs,
    tanh_layer,
)

GAIN = 1.8  # norms fade slowly, so that none of the peers under- or overflows

layer_of = cache(partial(tanh_layer, gain=GAIN))


def weight_and_drive(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return W and the inputs times their weights, in float64 on the CPU."""
    into, recurrent = layer.cell.dense_i, layer.cell.dense_h
    kernel, inputs = np.asarray(into.kernel[...], np.float64), np.asarray(layer.inputs, np.float64)
    drive = inputs @ kernel + np.asarray(into.bias[...], np.float64)
    return np.asarray(recurrent.kernel[...], np.float64).T, drive


def float64_jacobians(layer: Layer) -> np.ndarray:
    """Return the step Jacobians diag(1 − h²) W of the layer, run in float64 on the CPU."""
    weight, drive = weight_and_drive(layer)
    h, jacobians = np.zeros(len(weight)), []
    for x in drive:
        h = np.tanh(weight @ h + x)
        jacobians.append((1 - h**2)[:, None] * weight)
    return np.stack(jacobians)


@cache
def sample_of_map(length: int, size: int, norm: str) -> dict[Pair, float]:
    """Return the log norms of a sample of pairs."""
    jacobians = float64_jacobians(layer_of(length, size))
    known: dict[Pair, float] = reference_log_norms(jacobians, sample_pairs(length, columns=3), norm)
    return known


@cache
def from_the_start(length: int, size: int) -> dict[str, dict[Pair, float]]:
    """Return the log norms of ∂h⁽ᵗ⁾/∂h⁽⁰⁾ at a few t, by norm."""
    weight, drive = weight_and_drive(layer_of(length, size))
    ends = {max(1, length // 2**i) for i in range(8)}
    h, product, log_scale = np.zeros(len(weight)), np.eye(len(weight)), 0.0
    log_norms: dict[str, dict[Pair, float]] = {"frobenius": {}, "spectral": {}}
    for t, x in enumerate(drive, start=1):
        h = np.tanh(weight @ h + x)
        product = (1 - h**2)[:, None] * (weight @ product)
        scale = np.linalg.norm(product)
        product, log_scale = product / scale, log_scale + float(np.log(scale))
        if t in ends:
            log_norms["frobenius"][t, 0] = log_scale
            log_norms["spectral"][t, 0] = log_scale + float(np.log(np.linalg.norm(product, 2)))
    return log_norms


def mean_log_determinant(layer: Layer) -> float:
    """Return the mean of log |det J⁽ᵗ⁾|, the sum of all Lyapunov exponents."""
    weight, drive = weight_and_drive(layer)
    h, total = np.zeros(len(weight)), 0.0
    for x in drive:
        h = np.tanh(weight @ h + x)
        total += float(np.sum(np.log1p(-(h**2))))
    return total / len(drive) + float(np.linalg.slogdet(weight)[1])
