"""Probes of the map ‖∂of⁽ᵗ⁾/∂wrt⁽ᵏ⁾‖ over all pairs (t, k)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradlab import decay
from gradlab.cells.precision import is_half
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
            (lost to rounding), and the error that the cell's precision makes of each. Of a network
            in bfloat16 or float16, which has no three digits to lose, the last alone.

    Example:
        >>> [name for name in runs.columns if name.startswith("jacobian/log_norm/lag_1")]
        ['jacobian/log_norm/lag_1', 'jacobian/log_norm/lag_16']
        >>> gradlab.load_gradients(runs["path"].iloc[0])["jacobian_log_norm"].dims
        ('step', 'sample', 't', 'k')
    """
    part: dict[str, Any] = {"norm": norm, "of": of, "wrt": wrt}
    log_norms = probed.shared_maps(**part) if probed.shared_maps and not certify else None
    certificate = None
    if log_norms is None or not _is_finite(log_norms, probed):
        result: Any = jacobian_log_norms(
            probed.cell,
            probed.inputs,
            **part,
            stride=probed.stride,
            lengths=jnp.asarray(probed.lengths),
            certify=certify,
        )
        log_norms, certificate = result if certify else (result, None)
    times = {"t": probed.times(), "k": probed.times()}
    log_norms = probed.within(log_norms, *times.values())
    attributes = map_attributes(norm, of, wrt)
    quantity = attributes["long_name"].removeprefix("log ")
    arrays = {f"{name}_log_norm": labelled(log_norms, DIMS, times, **attributes)}
    metrics = map_metrics(log_norms, name, probed.stride)
    if certificate is not None:
        arrays[f"{name}_precision_error"] = labelled(
            probed.within(certificate.precision_error, *times.values()),
            DIMS,
            times,
            long_name=f"relative error that the network's precision makes of the {quantity}",
            units="1",
        )
        metrics |= _errors_by_precision(certificate.precision_error, log_norms, name)
    if certificate is not None and not is_half(probed.cell):
        measured = ~np.isnan(log_norms)
        unresolved = np.asarray(certificate.unresolved) & measured
        text = f"entries of the {quantity} that rounding left without three digits"
        arrays[f"{name}_unresolved"] = labelled(
            unresolved, DIMS, times, long_name=text, units="1 where unresolved"
        )
        # NaN is the error of a sequence of which no checked entry is resolved.
        error = np.fmax.reduce(np.asarray(certificate.largest_error))
        metrics[f"{name}/certified_error"] = float(error)
        metrics[f"{name}/unresolved"] = float(unresolved.sum() / measured.sum())
    return Measurement(metrics, arrays)


def _errors_by_precision(
    errors: Float[Array, "sample t k"], log_norms: Map, name: str
) -> dict[str, float]:
    """Return the median and largest of the errors that the network's precision makes, t > k."""
    inside = ~np.isnan(log_norms) & np.tri(log_norms.shape[-1], k=-1, dtype=bool)
    values = np.asarray(errors)[inside]
    values = values[~np.isnan(values)]  # a network that casts by itself has no float64 run
    if not values.size:
        return {}
    return {
        f"{name}/precision_error/median": float(np.median(values)),
        f"{name}/precision_error/largest": float(values.max()),
    }


def _is_finite(log_norms: Map, probed: ProbeInput) -> bool:
    """Return whether each sequence's log norms are numbers or −inf, up to its end."""
    times = probed.times()
    inside = probed.within(np.ones(log_norms.shape), times, times) == 1
    return bool((log_norms < np.inf)[inside].all())


def map_attributes(norm: Norm, of: str | None, wrt: str | None) -> dict[str, str]:
    """Return the attributes of a map: its name, units, norm, and the parts of the carry."""
    whole = "whole carry"
    return {
        "long_name": f"log {norm} norm of ∂{of or 's'}⁽ᵗ⁾/∂{wrt or 's'}⁽ᵏ⁾",
        "units": "nats",
        "norm": norm,
        "of": of or whole,
        "wrt": wrt or whole,
    }


def map_metrics(log_norms: Map, name: str = "jacobian", stride: int = 1) -> dict[str, float]:
    """Return the numbers of `decay.summary` as metrics of a run.

    Args:
        log_norms: [sample, t, k] in nats, t and k in strides; NaN where not measured.
        name: prefix of the metrics.
        stride: in steps.
    """
    return {f"{name}/{key}": value for key, value in decay.map_numbers(log_norms, stride).items()}
