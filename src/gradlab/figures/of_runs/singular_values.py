"""Figure of all singular values of ∂h⁽ᵀ⁾/∂h⁽ᵏ⁾ at chosen lags."""

import numpy as np
import pandas as pd
import xarray as xr

from gradlab.figures import bands, curves, lines, moments, style
from gradlab.figures.choice import Choice, Where
from gradlab.figures.moments import Step

VARIABLE = "singular_values_log"


def singular_values_table(runs: pd.DataFrame, step: Step = moments.DEFAULT) -> pd.DataFrame:
    """Tabulate singular values: one row per point, moment, lag and index.

    Args:
        runs: from `gradlab.load_runs`; every run must have gradients.
        step: the moments of training, as in `Choice`.

    Returns:
        `point`, `when`, `step`, `quantity` ("lag 4"), `lag` (time steps), `index` (from 1,
        descending) and `log_value` (nats, mean over the samples whose product is not exactly zero,
        if any is not; NaN where rounding took it).

    Raises:
        ValueError: a run has no singular values.

    Example:
        >>> table = gradlab.figures.singular_values_table(runs, step="first")
        >>> table["lag"].unique().tolist()  # steps
        [1, 4, 16]
    """
    return lines.measured_table(runs, _spectrum, VARIABLE, step=step)


@style.theme()
def singular_values_figure(
    runs: pd.DataFrame,
    *,
    where: Where | None = None,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    step: Step = moments.DEFAULT,
    band: bands.Band = bands.DEFAULT,
) -> style.Drawn:
    """Draw singular values against their index, one row of panels per lag.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        where, hue, col, row, step, band: as in `decay`.

    Raises:
        ValueError: no run has singular values.

    Example:
        >>> drawn = gradlab.figures.singular_values(runs, where={"model.name": "rnn"}, step="first")
    """
    choice = Choice(where, hue, col, row, step, band)
    return lines.draw_measured(runs, VARIABLE, singular_values_table, _quantities, choice, _remarks)


def _remarks(table: pd.DataFrame) -> list[str]:
    if np.isfinite(table["log_value"]).all():
        return []
    return [
        "Not drawn: values that rounding took (of a part of the state: below 1e-8 of the largest) "
        "and exact zeros."
    ]


def _quantities(table: pd.DataFrame) -> list[curves.Quantity]:
    return [
        curves.Quantity("index", "index i", "log_value", f"σᵢ at lag {lag}", f"lag {lag}", "norm")
        for lag in sorted(table["lag"].unique())
    ]


def _spectrum(measurements: xr.Dataset) -> pd.DataFrame:
    log_values = measurements[VARIABLE]
    zero = log_values.isel(index=0, drop=True) == -np.inf  # σ₁ = 0: the whole product
    nonzero = log_values.where(~zero | zero.all("sample"))
    # Of the samples that have σ₁, all: else a mean of few may lie above that of a larger value.
    count = nonzero.count("sample")
    means = nonzero.mean("sample").where(count == count.isel(index=0, drop=True))
    log_values = means.astype(float).rename("log_value")
    table = log_values.to_series().reset_index().rename(columns={"chosen_lag": "lag"})
    table.insert(0, "quantity", "lag " + table["lag"].astype(str))
    is_measured = table["log_value"].notna().groupby(table["lag"]).transform("any")
    return table[is_measured]
