"""Figure of the Lyapunov spectrum of every run."""

from collections.abc import Sequence

import pandas as pd
import xarray as xr

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
        (nats per step, means over samples).

    Raises:
        ValueError: a run has no Lyapunov exponents.
    """
    return lines.measured_table(runs, _spectrum, "lyapunov_exponent")


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


def _spectrum(measurements: xr.Dataset) -> pd.DataFrame:
    exponents, errors = (
        measurements[f"lyapunov_{name}"].mean("sample").astype(float)
        for name in ("exponent", "standard_error")
    )
    columns = {"index": exponents["exponent"], "exponent": exponents, "standard_error": errors}
    return pd.DataFrame({name: values.to_numpy() for name, values in columns.items()})
