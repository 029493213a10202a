"""What the loss's gradient is made of: adjoints, and the terms of backpropagation through time."""

from typing import Annotated, Any

import jax
import numpy as np
from pydantic import Field

from gradlab.jacobian import (
    adjoint_log_norms,
    backpropagate,
    credit,
    long_range_share,
    truncation,
)
from gradlab.probes import Measurement, ProbeInput, labelled


def adjoint(
    given: ProbeInput, *, name: str, wrt: str | None = "h", each: bool = False
) -> Measurement:
    """log ‖∂L/∂s⁽ᵏ⁾‖ (nats) of the mean loss, or of each step's part of it."""
    log_norms: Any = adjoint_log_norms(
        given.cell, given.inputs, given.loss, given.targets, wrt=wrt, each=each
    )
    kept = log_norms[:, :: given.stride]
    dims: tuple[str, ...] = ("sample", "k")
    if each:
        kept, dims = kept[..., :: given.stride], ("sample", "t", "k")
    times = {dim: given.times() for dim in dims[1:]}
    loss = "L⁽ᵗ⁾" if each else "L"
    array = labelled(
        kept, dims, times, long_name=f"log norm of ∂{loss}/∂{wrt or 's'}⁽ᵏ⁾", units="nats"
    )
    summed = log_norms[:, -1] if each else log_norms
    metrics = {
        f"{name}/first": float(np.mean(summed[:, 0])),
        f"{name}/last": float(np.mean(summed[:, -1])),
    }
    return Measurement(metrics, {f"{name}_log_norm": array})


def contribution(
    given: ProbeInput,
    *,
    name: str,
    long_lag: Annotated[int, Field(ge=0)] = 20,
) -> Measurement:
    """The terms of BPTT per weight array, what truncation loses, and which lags own the gradient.

    Args:
        given: what is measured.
        name: of the metrics.
        long_lag: lags beyond it are long-range.
    """
    found = backpropagate(given.cell, given.inputs, given.loss, given.targets)
    by_lag = jax.tree.map(lambda x: np.asarray(x) * np.exp(float(found.log_scale)), found.by_lag)
    weights, times = list(found.log_norms), given.times()
    stride = given.stride
    terms = np.stack([found.log_norms[w][:, ::stride, ::stride] for w in weights], axis=1)
    window = {"window": np.arange(1, given.inputs.shape[1] + 1)}
    lag = {"lag": window["window"] - 1}
    own = sum(float(np.sum(x.sum(axis=0) ** 2)) for x in by_lag.values())
    readout = np.sqrt(max(0.0, given.grad_norm() ** 2 - own))
    errors, budget = truncation(by_lag), credit(by_lag, given.threshold, readout)
    one = {
        "relative_error": labelled(
            errors.relative_error, ("window",), window, long_name="error of the gradient", units="1"
        ),
        "cosine": labelled(
            errors.cosine, ("window",), window, long_name="cosine with the gradient", units="1"
        ),
        "share": labelled(
            budget.share, ("lag",), lag, long_name="share of the gradient by lag", units="1"
        ),
        "cut": labelled(
            budget.cut, ("lag",), lag, long_name="norm that the clip cut, by lag", units="1"
        ),
    }
    arrays = {f"{name}_{key}": value for key, value in one.items()}
    arrays[f"{name}_log_norm"] = labelled(
        terms,
        ("sample", "weight", "t", "k"),
        {"weight": weights, "t": times, "k": times},
        long_name="log norm of a term of BPTT",
        units="nats",
    )
    metrics = {
        f"{name}/long_range_share/{w}": float(
            np.mean(long_range_share(found.log_norms[w], long_lag))
        )
        for w in weights
    }
    windows = [2**p for p in range(len(errors.cosine).bit_length())]
    metrics |= {
        f"{name}/truncation_error/{k}": float(errors.relative_error[k - 1]) for k in windows
    }
    return Measurement(metrics, arrays)
