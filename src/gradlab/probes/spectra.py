"""Probes of spectra: Lyapunov exponents, and singular values of the Jacobian at chosen lags."""

from typing import Annotated

import numpy as np
from pydantic import Field

from gradlab.jacobian import log_singular_values, lyapunov_spectrum
from gradlab.probes import Measurement, ProbeInput, labelled

Lag = Annotated[int, Field(ge=0)]


def lyapunov(
    probed: ProbeInput, *, name: str, count: Annotated[int, Field(ge=1)] | None = None
) -> Measurement:
    """Measure the Lyapunov exponents (nats per step), descending, and their standard errors.

    Args:
        probed: the cell and sequences.
        name: prefix of the metrics and arrays.
        count: number of exponents; None for all.
    """
    spectrum = lyapunov_spectrum(probed.cell, probed.inputs, count=count)
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
    probed: ProbeInput,
    *,
    name: str,
    lags: list[Lag],
    of: str | None = "h",
    wrt: str | None = "h",
) -> Measurement:
    """Measure all log singular values (nats) of ∂of⁽ᵀ⁾/∂wrt⁽ᵏ⁾ at chosen lags T − k.

    Args:
        probed: the cell and sequences.
        name: prefix of the metrics and arrays.
        lags: in steps; those longer than the sequence are left out.
        of, wrt: parts of the carry; None for the whole.

    Raises:
        ValueError: all lags are longer than the sequence.
    """
    length = probed.inputs.shape[1]
    measured = [lag for lag in lags if lag <= length]
    if not measured:
        raise ValueError(f"probe.{name}.lags must have one that is at most {length}; got {lags}.")
    pairs = [(length, length - lag) for lag in measured]
    logs = np.stack(
        [log_singular_values(probed.cell, x, pairs, of=of, wrt=wrt) for x in probed.inputs]
    )
    array = labelled(
        logs,
        ("sample", "chosen_lag", "index"),
        {"chosen_lag": measured, "index": np.arange(1, logs.shape[-1] + 1)},
        long_name=f"log singular value of ∂{of or 's'}⁽ᵀ⁾/∂{wrt or 's'}⁽ᵏ⁾",
        units="nats",
    )
    spread = logs[..., 0] - logs[..., -1]
    metrics = {
        f"{name}/spread/lag_{lag}": float(np.mean(spread[:, i])) for i, lag in enumerate(measured)
    }
    return Measurement(metrics, {f"{name}_log": array})
