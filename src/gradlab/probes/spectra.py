"""Spectra: the Lyapunov exponents, and the singular values of the Jacobian at chosen lags."""

from typing import Annotated

import numpy as np
from pydantic import Field

from gradlab.jacobian import log_singular_values, lyapunov_spectrum
from gradlab.probes import Measurement, ProbeInput, labelled

Lag = Annotated[int, Field(ge=0)]


def lyapunov(
    given: ProbeInput, *, name: str, count: Annotated[int, Field(ge=1)] | None = None
) -> Measurement:
    """Exponents in nats per step, descending, and their standard errors."""
    spectrum = lyapunov_spectrum(given.cell, given.inputs, count=count)
    index = {"exponent": np.arange(1, spectrum.exponents.shape[1] + 1)}
    dims = ("sample", "exponent")
    exponents, errors = (
        labelled(values, dims, index, long_name=text, units="nats/step")
        for values, text in zip(
            spectrum, ("Lyapunov exponent", "standard error of the exponent"), strict=True
        )
    )
    metrics = {
        f"{name}/max": float(np.mean(spectrum.exponents[:, 0])),
        f"{name}/max_error": float(np.mean(spectrum.standard_error[:, 0])),
        f"{name}/sum": float(np.mean(np.sum(spectrum.exponents, axis=1))),
    }
    return Measurement(metrics, {f"{name}_exponent": exponents, f"{name}_standard_error": errors})


def singular_values(
    given: ProbeInput,
    *,
    name: str,
    lags: list[Lag],
    of: str | None = "h",
    wrt: str | None = "h",
) -> Measurement:
    """All log singular values of ∂of⁽ᵀ⁾/∂wrt⁽ᵏ⁾ for lags T − k; lags beyond T are left out."""
    length = given.inputs.shape[1]
    kept = [lag for lag in lags if lag <= length]
    if not kept:
        raise ValueError(f"probe.{name}.lags must have one that is at most {length}; got {lags}.")
    pairs = [(length, length - lag) for lag in kept]
    logs = np.stack(
        [log_singular_values(given.cell, x, pairs, of=of, wrt=wrt) for x in given.inputs]
    )
    array = labelled(
        logs,
        ("sample", "chosen_lag", "index"),
        {"chosen_lag": kept, "index": np.arange(1, logs.shape[-1] + 1)},
        long_name=f"log singular value of ∂{of or 's'}⁽ᵀ⁾/∂{wrt or 's'}⁽ᵏ⁾",
        units="nats",
    )
    spread = logs[..., 0] - logs[..., -1]
    metrics = {
        f"{name}/spread/lag_{lag}": float(np.mean(spread[:, i])) for i, lag in enumerate(kept)
    }
    return Measurement(metrics, {f"{name}_log": array})
