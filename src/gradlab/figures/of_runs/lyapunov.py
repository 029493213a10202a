"""Figure of the Lyapunov spectrum of every run."""

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import decay
from gradlab.figures import bands, curves, lines, moments, style
from gradlab.figures.choice import Choice, Where
from gradlab.figures.moments import Step

VARIABLE = "lyapunov_exponent"
SPECTRUM = curves.Quantity(
    "index", "index i", "exponent", "Lyapunov exponent λᵢ", scale="rate", baseline=0.0
)


def lyapunov_table(runs: pd.DataFrame, step: Step = moments.DEFAULT) -> pd.DataFrame:
    """Tabulate Lyapunov exponents: one row per point, moment and exponent.

    Args:
        runs: from `gradlab.load_runs`; every run must have gradients.
        step: the moments of training, as in `Choice`.

    Returns:
        `point`, `when`, `step`, `index` (from 1, descending), `exponent` and `standard_error`
        (nats per step, means over the samples where the exponent is not −inf; −inf: it is in all).

    Raises:
        ValueError: a run has no Lyapunov exponents.

    Example:
        >>> table = gradlab.figures.lyapunov_table(runs, step="first")
        >>> table.groupby("point")["index"].max().tolist()  # the carry has h, or c and h
        [8, 8, 16, 16]
    """
    return lines.measured_table(runs, mean_spectrum, VARIABLE, step=step)


@style.theme()
def lyapunov_figure(
    runs: pd.DataFrame,
    *,
    where: Where | None = None,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    step: Step = moments.DEFAULT,
    band: bands.Band = bands.DEFAULT,
) -> style.Drawn:
    """Draw Lyapunov exponents against their index.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        where, hue, col, row, step, band: as in `decay`.

    Raises:
        ValueError: no run has Lyapunov exponents.

    Example:
        >>> drawn = gradlab.figures.lyapunov(runs, step="first")
    """
    choice = Choice(where, hue, col, row, step, band)
    return lines.draw_measured(
        runs, VARIABLE, lyapunov_table, lambda _: [SPECTRUM], choice, _remarks
    )


def _remarks(table: pd.DataFrame) -> list[str]:
    lost = table["exponent"].isna()
    count = f"{lost.sum()} of {len(table)} exponents"
    return [f"Not drawn: {count}, which rounding took."] if lost.any() else []


def mean_spectrum(measurements: xr.Dataset) -> pd.DataFrame:
    """Return the columns `index`, `exponent` and `standard_error` of `lyapunov_table`."""
    exponents = measurements[VARIABLE]
    errors = measurements["lyapunov_standard_error"].where(exponents > -np.inf)
    exponents = exponents.reduce(decay.mean_log_norm, "sample").astype(float)
    errors = errors.mean("sample").astype(float)
    columns = {"index": exponents["exponent"], "exponent": exponents, "standard_error": errors}
    return pd.DataFrame({name: values.to_numpy() for name, values in columns.items()})
