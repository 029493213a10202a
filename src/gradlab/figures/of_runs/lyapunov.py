"""Figure of the Lyapunov spectrum of every run."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import decay
from gradlab.figures import lines, style

SPECTRUM = lines.Quantity(
    "index", "index i", "exponent", "Lyapunov exponent\nλᵢ (nats/step)", baseline=0.0
)


def lyapunov_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Tabulate Lyapunov exponents: one row per point, moment and exponent.

    Args:
        runs: from `gradlab.load_runs`; every run must have gradients.

    Returns:
        `point`, `when`, `step`, `index` (from 1, descending), `exponent` and `standard_error`
        (nats per step, means over the samples where the exponent is not −inf; −inf: it is in all).

    Raises:
        ValueError: a run has no Lyapunov exponents.
    """
    return lines.measured_table(runs, mean_spectrum, "lyapunov_exponent")


@style.theme()
def lyapunov_figure(runs: pd.DataFrame, when: Sequence[str] = lines.WHEN) -> style.Drawn:
    """Draw Lyapunov exponents against their index.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        when: "before" and/or "after" training.

    Raises:
        ValueError: no run has gradients, or one has no Lyapunov exponents.
    """
    return lines.draw_measured(runs, lyapunov_table, lambda _: [SPECTRUM], when)


def mean_spectrum(measurements: xr.Dataset) -> pd.DataFrame:
    """Return the columns `index`, `exponent` and `standard_error` of `lyapunov_table`."""
    exponents = measurements["lyapunov_exponent"]
    errors = measurements["lyapunov_standard_error"].where(exponents > -np.inf)
    exponents = exponents.reduce(decay.mean_log_norm, "sample").astype(float)
    errors = errors.mean("sample").astype(float)
    columns = {"index": exponents["exponent"], "exponent": exponents, "standard_error": errors}
    return pd.DataFrame({name: values.to_numpy() for name, values in columns.items()})
