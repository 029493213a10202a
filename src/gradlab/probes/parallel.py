"""Probe of parallel evaluation: whether the network can be run in parallel over time."""

from typing import Annotated

import jax.numpy as jnp
import numpy as np
from pydantic import Field

from gradlab import decay
from gradlab.jacobian import parallel_evaluation
from gradlab.probes import Measurement, ProbeInput, labelled


def parallel(
    probed: ProbeInput,
    *,
    name: str,
    tolerance: Annotated[float, Field(gt=0)] = 1e-10,
    most: Annotated[int, Field(ge=1)] | None = None,
) -> Measurement:
    """Count the Newton steps that find each whole trajectory at once, and measure λ₁ beside them.

    The metrics "steps" and "share" (of the sequence's time steps) are means over all samples; one
    that has not converged counts with the most allowed, so they are bounds from below unless
    "converged", the share of the samples that have, is 1. "exponent" is the mean of λ₁ (nats
    per step) over the samples where it is finite.

    Args:
        probed: the cell and sequences.
        name: prefix of the metrics and arrays.
        tolerance: of the residual at which it has converged.
        most: the number of Newton steps at which it has not; None for the sequence's time steps.

    Example:
        >>> watcher = gradlab.watch(x, probes="parallel", folder="runs/parallel")
        >>> measured = watcher(0, cell)
        >>> watcher.finish()
        >>> gradlab.load_metrics("runs/parallel")["parallel/converged"].item()
        1.0
    """
    longest = probed.inputs.shape[1]
    found = parallel_evaluation(
        probed.cell,
        probed.inputs,
        tolerance=tolerance,
        most=None if most is None else min(most, longest),
        lengths=jnp.asarray(probed.lengths),
    )
    steps, exponents = np.asarray(found.steps), np.asarray(found.exponent)
    share = steps / probed.lengths
    metrics = {
        f"{name}/steps": float(np.mean(steps)),
        f"{name}/share": float(np.mean(share)),
        f"{name}/converged": float(np.mean(found.converged)),
        f"{name}/exponent": float(decay.mean_log_norm(exponents)),
    }
    samples = {
        "steps": labelled(steps, ("sample",), {}, long_name="Newton steps", units="1"),
        "converged": labelled(
            found.converged, ("sample",), {}, long_name="has converged", units="1 where it has"
        ),
        "exponent": labelled(
            exponents, ("sample",), {}, long_name="largest Lyapunov exponent", units="nats/step"
        ),
    }
    newton = {"newton_step": np.arange(found.residuals.shape[1])}
    samples["residual"] = labelled(
        found.residuals, ("sample", "newton_step"), newton, long_name="largest residual", units="1"
    )
    return Measurement(metrics, {f"{name}_{key}": array for key, array in samples.items()})
