"""Figure of the gradient by lag: each lag's share of it, and the error of truncating it."""

import numpy as np
import pandas as pd
import xarray as xr

from gradlab.figures import bands, curves, lines, moments, style
from gradlab.figures.choice import Choice, Where
from gradlab.figures.moments import Step

VARIABLE = "contribution_share"
SHARE, ERROR = "share of the gradient", "truncation error"
QUANTITIES = (
    curves.Quantity(
        "lag", "lag t − k (steps)", "value", "share of\nthe gradient", SHARE, baseline=0.0
    ),
    curves.Quantity(
        "window", "window (steps)", "value", "error of\ntruncation", ERROR, "log", doubling=True
    ),
)


def contributions_table(runs: pd.DataFrame, step: Step = moments.DEFAULT) -> pd.DataFrame:
    """Tabulate shares of the gradient by lag and truncation errors by window.

    Args:
        runs: from `gradlab.load_runs`; every run must have gradients.
        step: the moments of training, as in `Choice`.

    Returns:
        One row per point, moment, and lag or window: `point`, `when`, `step`, `quantity` ("share of
        the gradient": of its projection on itself, so that shares add up to 1; "truncation error":
        ‖g_K − g‖/‖g‖ of a truncation window of K steps), `lag` or `window` (time steps) and
        `value` (NaN: of a gradient that is exactly zero).

    Raises:
        ValueError: a run has no contributions.

    Example:
        >>> table = gradlab.figures.contributions_table(runs, step="first")
        >>> shares = table[table["quantity"] == "share of the gradient"]
        >>> shares.groupby("point")["value"].sum().round(2).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    return lines.measured_table(runs, _shares_and_errors, VARIABLE, step=step)


@style.theme()
def contributions_figure(
    runs: pd.DataFrame,
    *,
    where: Where | None = None,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    step: Step = moments.DEFAULT,
    band: bands.Band = bands.DEFAULT,
) -> style.Drawn:
    """Draw shares of the gradient against lag, and below them truncation error against window.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        where, hue, col, row, step, band: as in `decay`.

    Raises:
        ValueError: no run has contributions.

    Example:
        >>> drawn = gradlab.figures.contributions(runs, where={"model.name": "lstm"}, step="last")
    """
    choice = Choice(where, hue, col, row, step, band)
    return lines.draw_measured(runs, VARIABLE, contributions_table, lambda _: QUANTITIES, choice)


def _shares_and_errors(measurements: xr.Dataset) -> pd.DataFrame:
    error = measurements["contribution_relative_error"]
    share = measurements["contribution_share"].where(~np.isnan(error).all())  # of 0, there is none
    by_lag = pd.DataFrame({"quantity": SHARE, "lag": share["lag"], "value": share.astype(float)})
    by_window = pd.DataFrame(
        {"quantity": ERROR, "window": error["window"], "value": error.astype(float)}
    )
    by_window = by_window[:-1]  # the window of the whole sequence has no error
    return pd.concat([by_lag, by_window])[["quantity", "lag", "window", "value"]]
