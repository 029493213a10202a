"""Probes of spectra: Lyapunov exponents, and singular values of the Jacobian at chosen lags."""

from collections.abc import Sequence
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from pydantic import Field

from gradlab import decay
from gradlab.jacobian import log_singular_values, lyapunov_spectrum
from gradlab.probes import Measurement, ProbeInput, labelled

Lag = Annotated[int, Field(ge=0)]


def lyapunov(
    probed: ProbeInput, *, name: str, count: Annotated[int, Field(ge=1)] | None = None
) -> Measurement:
    """Measure the Lyapunov exponents (nats per step), descending, and their standard errors.

    An exponent is −inf in a sample where a step maps its direction to zero, and NaN where rounding
    took it. The metrics "max" and "max_error" are means over the samples where λ₁ is finite, and
    "zero_share" is the share of those where it is −inf; "sum" is the mean over all.

    Args:
        probed: the cell and sequences.
        name: prefix of the metrics and arrays.
        count: number of exponents; None for all.

    Example:
        >>> [name for name in runs.columns if name.startswith("lyapunov/")]
        ['lyapunov/max', 'lyapunov/max_error', 'lyapunov/zero_share', 'lyapunov/sum']
    """
    spectrum = lyapunov_spectrum(
        probed.cell, probed.inputs, count=count, lengths=jnp.asarray(probed.lengths)
    )
    index = {"exponent": np.arange(1, spectrum.exponents.shape[1] + 1)}
    dims = ("sample", "exponent")
    exponents, errors = (
        labelled(values, dims, index, long_name=text, units="nats/step")
        for values, text in zip(
            spectrum, ("Lyapunov exponent", "standard error of the exponent"), strict=True
        )
    )
    leading = np.asarray(spectrum.exponents[:, 0])
    finite = np.isfinite(leading)
    error = np.asarray(spectrum.standard_error[:, 0])[finite]
    metrics = {
        f"{name}/max": float(decay.mean_log_norm(leading)),
        f"{name}/max_error": float(np.mean(error)) if error.size else np.nan,
        f"{name}/zero_share": float(np.mean(np.isneginf(leading))),
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

    T is each sequence's own length; values that rounding took are NaN. The metric "spread" is the
    mean of ln σ₁/σₙ over the samples that are as long as the lag, and whose product is not exactly
    zero.

    Args:
        probed: the cell and sequences.
        name: prefix of the metrics and arrays.
        lags: in steps; those longer than the sequence are left out.
        of, wrt: parts of the carry; None for the whole.

    Raises:
        ValueError: all lags are longer than the sequence.

    Example:
        >>> [name for name in runs.columns if name.startswith("singular_values/")][:2]
        ['singular_values/spread/lag_1', 'singular_values/spread/lag_4']
        >>> gradlab.load_gradients(runs["path"].iloc[0])["singular_values_log"].dims
        ('step', 'sample', 'chosen_lag', 'index')
    """
    longest = int(probed.lengths.max())
    measured = [lag for lag in lags if lag <= longest]
    if not measured:
        raise ValueError(f"probe.{name}.lags must have one that is at most {longest}; got {lags}.")
    logs = np.stack(
        [
            _at_lags(probed.cell, x, int(end), measured, of, wrt)
            for x, end in zip(probed.inputs, probed.lengths, strict=True)
        ]
    )
    array = labelled(
        logs,
        ("sample", "chosen_lag", "index"),
        {"chosen_lag": measured, "index": np.arange(1, logs.shape[-1] + 1)},
        long_name=f"log singular value of ∂{of or 's'}⁽ᵀ⁾/∂{wrt or 's'}⁽ᵏ⁾",
        units="nats",
    )
    metrics = {
        f"{name}/spread/lag_{lag}": _mean_spread(logs[:, i]) for i, lag in enumerate(measured)
    }
    return Measurement(metrics, {f"{name}_log": array})


def _at_lags(
    cell: nnx.RNNCellBase,
    inputs: Float[Array, "T features"],
    end: int,
    lags: Sequence[int],
    of: str | None,
    wrt: str | None,
) -> Float[np.ndarray, "lags index"]:
    """Return the log singular values at the end of one sequence; NaN at lags longer than it."""
    # A lag that is too long is replaced by 0, so that all samples run one compiled program.
    pairs = [(end, end - lag if lag <= end else end) for lag in lags]
    logs = np.asarray(log_singular_values(cell, inputs, pairs, of=of, wrt=wrt))
    return np.where(np.array(lags)[:, None] <= end, logs, np.float32(np.nan))


def _mean_spread(logs: Float[np.ndarray, "sample index"]) -> float:
    nonzero = logs[logs[:, 0] > -np.inf]
    return float(np.mean(nonzero[:, 0] - nonzero[:, -1])) if len(nonzero) else np.nan
