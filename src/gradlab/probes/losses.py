"""Probes of the loss's gradient: adjoints, and the terms of backpropagation through time."""

from typing import Annotated, Any

import jax
import numpy as np
from pydantic import Field

from gradlab import decay
from gradlab.config import NonNegative
from gradlab.jacobian import (
    adjoint_log_norms,
    backpropagate,
    credit,
    long_range_share,
    shortest_window,
    truncation,
)
from gradlab.probes import Measurement, ProbeInput, labelled


def adjoint(
    probed: ProbeInput, *, name: str, wrt: str | None = "h", each: bool = False
) -> Measurement:
    """Measure log ‖∂L/∂wrt⁽ᵏ⁾‖ (nats) of the mean loss L.

    The metrics "first" and "last" are means at k = 0 and at each sequence's last step, over the
    samples where the adjoint is not exactly zero; "zero_share" is the share of the adjoints that
    are.

    Args:
        probed: the cell, sequences and loss.
        name: prefix of the metrics and arrays.
        wrt: a part of the carry; None for the whole.
        each: measure ‖∂L⁽ᵗ⁾/∂wrt⁽ᵏ⁾‖ for each step's part L⁽ᵗ⁾ of the loss instead.

    Example:
        >>> [name for name in runs.columns if name.startswith("adjoint/")]
        ['adjoint/first', 'adjoint/last', 'adjoint/zero_share']
    """
    log_norms: Any = adjoint_log_norms(
        probed.cell, probed.inputs, probed.loss, probed.targets, wrt=wrt, each=each
    )
    dims = ("sample", "t", "k") if each else ("sample", "k")
    steps = np.arange(probed.inputs.shape[1] + 1)
    log_norms = probed.within(log_norms, *[steps] * len(dims[1:]))
    strided = log_norms[:, :: probed.stride]
    if each:
        strided = strided[..., :: probed.stride]
    times = {dim: probed.times() for dim in dims[1:]}
    loss = "L⁽ᵗ⁾" if each else "L"
    array = labelled(
        strided, dims, times, long_name=f"log norm of ∂{loss}/∂{wrt or 's'}⁽ᵏ⁾", units="nats"
    )
    sample = np.arange(len(log_norms))
    by_k = log_norms[sample, probed.lengths] if each else log_norms  # of the last step's loss
    metrics = {
        f"{name}/first": float(decay.mean_log_norm(by_k[:, 0])),
        f"{name}/last": float(decay.mean_log_norm(by_k[sample, probed.lengths])),
        f"{name}/zero_share": float(np.isneginf(by_k).sum() / (~np.isnan(by_k)).sum()),
    }
    return Measurement(metrics, {f"{name}_log_norm": array})


def contribution(
    probed: ProbeInput,
    *,
    name: str,
    long_lag: Annotated[int, Field(ge=0)] = 20,
    tolerance: NonNegative = 0.1,
) -> Measurement:
    """Measure the terms of BPTT, the error of truncation, and each lag's share of the gradient.

    Args:
        probed: the cell, sequences and loss.
        name: prefix of the metrics and arrays.
        long_lag: terms of a longer lag count as long-range.
        tolerance: of the relative error, for the metric "window": the shortest window that keeps
            it, as do all longer ones; NaN if the gradient is zero.

    Example:
        >>> names = [name for name in runs.columns if name.startswith("contribution/trunc")]
        >>> names[:2]  # by the window, in steps
        ['contribution/truncation_error/1', 'contribution/truncation_error/2']
    """
    terms = backpropagate(probed.cell, probed.inputs, probed.loss, probed.targets)
    by_lag = jax.tree.map(lambda x: np.asarray(x) * np.exp(float(terms.log_scale)), terms.by_lag)
    weights, times = list(terms.log_norms), probed.times()
    stride = probed.stride
    log_norms = np.stack([terms.log_norms[w][:, ::stride, ::stride] for w in weights], axis=1)
    log_norms = probed.within(log_norms, times, times)
    window = {"window": np.arange(1, probed.inputs.shape[1] + 1)}
    lag = {"lag": window["window"] - 1}
    # `credit` needs the norm of the readout's gradient, which has no terms. It comes by subtraction
    # from that of all weights; rounding may take the difference of the squares below 0.
    cell_square = sum(float(np.sum(x.sum(axis=0) ** 2)) for x in by_lag.values())
    readout_norm = np.sqrt(max(0.0, probed.grad_norm() ** 2 - cell_square))
    errors, credits = truncation(by_lag), credit(by_lag, probed.threshold, readout_norm)
    curves = {
        "relative_error": labelled(
            errors.relative_error, ("window",), window, long_name="error of the gradient", units="1"
        ),
        "cosine": labelled(
            errors.cosine, ("window",), window, long_name="cosine with the gradient", units="1"
        ),
        "share": labelled(
            credits.share, ("lag",), lag, long_name="share of the gradient by lag", units="1"
        ),
        "cut": labelled(
            credits.cut, ("lag",), lag, long_name="norm that the clip cut, by lag", units="1"
        ),
    }
    arrays = {f"{name}_{key}": curve for key, curve in curves.items()}
    arrays[f"{name}_log_norm"] = labelled(
        log_norms,
        ("sample", "weight", "t", "k"),
        {"weight": weights, "t": times, "k": times},
        long_name="log norm of a term of BPTT",
        units="nats",
    )
    metrics = {
        f"{name}/long_range_share/{w}": _mean_share(long_range_share(terms.log_norms[w], long_lag))
        for w in weights
    }
    window_kept = shortest_window(errors, tolerance)
    metrics[f"{name}/window"] = np.nan if window_kept is None else window_kept
    windows = [2**p for p in range(len(errors.cosine).bit_length())]
    metrics |= {
        f"{name}/truncation_error/{k}": float(errors.relative_error[k - 1]) for k in windows
    }
    return Measurement(metrics, arrays)


def _mean_share(shares: Any) -> float:
    """Return the mean over the samples that have a term which is not exactly zero; NaN if none."""
    shares = np.asarray(shares)[~np.isnan(shares)]
    return float(np.mean(shares)) if shares.size else np.nan
