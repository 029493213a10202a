"""Probes of the map ‖∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾‖ over all pairs (t, k)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gradlab import decay
from gradlab.jacobian import jacobian_log_norms
from gradlab.jacobian.pairs import Norm
from gradlab.probes import Measurement, ProbeInput, labelled

Map = Float[np.ndarray, "sample t k"]
DIMS = ("sample", "t", "k")


def jacobian_map(
    probed: ProbeInput,
    *,
    name: str,
    norm: Norm = "spectral",
    of: str | None = "h",
    wrt: str | None = "h",
    certify: bool = False,
) -> Measurement:
    """Measure log ‖∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾‖ (nats) of every pair (t, k) within each sequence.

    Args:
        probed: the cell and sequences.
        name: prefix of the metrics and arrays.
        norm: "spectral" (the worst case), "frobenius" or "rms" (the typical case).
        of, wrt: parts of the carry; None for the whole.
        certify: also record the error of a sample of the entries, which entries are unresolved
            (lost to rounding), and the error that the cell's precision makes of each.
    """
    result: Any = jacobian_log_norms(
        probed.cell,
        probed.inputs,
        norm=norm,
        of=of,
        wrt=wrt,
        stride=probed.stride,
        lengths=jnp.asarray(probed.lengths),
        certify=certify,
    )
    log_norms, certificate = result if certify else (result, None)
    times = {"t": probed.times(), "k": probed.times()}
    log_norms = probed.within(log_norms, *times.values())
    quantity = f"{norm} norm of ∂{of or 's'}⁽ᵗ⁾/∂{wrt or 's'}⁽ᵏ⁾"
    whole = "whole carry"
    arrays = {
        f"{name}_log_norm": labelled(
            log_norms,
            DIMS,
            times,
            long_name=f"log {quantity}",
            units="nats",
            norm=norm,
            of=of or whole,
            wrt=wrt or whole,
        )
    }
    metrics = map_metrics(log_norms, name, probed.stride)
    if certificate is not None:
        measured = ~np.isnan(log_norms)
        unresolved = np.asarray(certificate.unresolved) & measured
        text = f"entries of the {quantity} that rounding left without three digits"
        arrays[f"{name}_unresolved"] = labelled(
            unresolved, DIMS, times, long_name=text, units="1 where unresolved"
        )
        arrays[f"{name}_precision_error"] = labelled(
            probed.within(certificate.precision_error, *times.values()),
            DIMS,
            times,
            long_name=f"relative error that the network's precision makes of the {quantity}",
            units="1",
        )
        # NaN is the error of a sequence of which no checked entry is resolved.
        error = np.fmax.reduce(np.asarray(certificate.largest_error))
        metrics[f"{name}/certified_error"] = float(error)
        metrics[f"{name}/unresolved"] = float(unresolved.sum() / measured.sum())
    return Measurement(metrics, arrays)


def map_metrics(log_norms: Map, name: str = "jacobian", stride: int = 1) -> dict[str, float]:
    """Return the decay rate (nats per step), horizon (steps) and mean log norm at lags 1, 2, 4, …

    These are of the pairs that are not exactly zero, as `decay` defines them; "zero_share" is the
    share of the pairs k < t that are.

    Args:
        log_norms: [sample, t, k] in nats, t and k in strides; NaN where not measured.
        name: prefix of the metrics.
        stride: in steps.
    """
    profile = decay.lag_profile(log_norms)
    metrics = {
        f"{name}/decay_rate": decay.decay_rate(profile) / stride,
        f"{name}/horizon": decay.horizon(profile) * stride,
        f"{name}/zero_share": decay.zero_share(log_norms),
    }
    for power in range((profile.size - 1).bit_length()):
        metrics[f"{name}/log_norm/lag_{2**power * stride}"] = float(profile[2**power])
    return metrics
