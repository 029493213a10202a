"""The Lyapunov spectrum of every run: all growth rates, descending."""

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from gradlab.figures import lines, style

SPECTRUM = lines.Quantity(
    "index", "index i", "exponent", "Lyapunov exponent\nλᵢ (nats/step)", level=0.0
)


def lyapunov_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Lyapunov exponents: one row a point, moment and exponent.

    Returns:
        `point`, `when`, `step`, `index` (from 1), `exponent` and `standard_error` (nats per step,
        means over samples).

    Raises:
        ValueError: a run has no Lyapunov exponents.
    """
    return lines.measured(runs, _spectrum, "lyapunov_exponent")


@style.theme()
def lyapunov_figure(runs: pd.DataFrame, when: Sequence[str] = lines.WHEN) -> style.Drawn:
    """The spectra, before and after training.

    Raises:
        ValueError: no run has gradients, or one has no Lyapunov exponents.
    """
    return lines.draw(runs, lyapunov_table, lambda _: [SPECTRUM], when)


def _spectrum(found: xr.Dataset) -> pd.DataFrame:
    exponents, errors = (
        found[f"lyapunov_{name}"].mean("sample").astype(float)
        for name in ("exponent", "standard_error")
    )
    columns = {"index": exponents["exponent"], "exponent": exponents, "standard_error": errors}
    return pd.DataFrame({name: values.to_numpy() for name, values in columns.items()})
