"""Which lags own the gradient, and what a window of truncated backpropagation loses."""

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from gradlab.figures import lines, style

SHARE, ERROR = "share of the gradient", "truncation error"
QUANTITIES = (
    lines.Quantity("lag", "lag t − k (steps)", "value", "share of\nthe gradient", SHARE, level=0.0),
    lines.Quantity(
        "window", "window (steps)", "value", "error of\ntruncation", ERROR, "log", doubling=True
    ),
)


def contributions_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Contributions by lag and truncation error by window: one row a point, moment and abscissa.

    Returns:
        `point`, `when`, `step`, `quantity` ("share of the gradient": of its projection on itself,
        so shares add up to 1; "truncation error": ‖g_K − g‖/‖g‖ of a window of K steps), `lag` or
        `window` (time steps) and `value`.

    Raises:
        ValueError: a run has no contributions.
    """
    return lines.measured(runs, _both, "contribution_share")


@style.theme()
def contributions_figure(runs: pd.DataFrame, when: Sequence[str] = lines.WHEN) -> style.Drawn:
    """Shares by lag above, truncation error against the window below.

    Raises:
        ValueError: no run has gradients, or one has no contributions.
    """
    return lines.draw(runs, contributions_table, lambda _: QUANTITIES, when)


def _both(found: xr.Dataset) -> pd.DataFrame:
    share, error = found["contribution_share"], found["contribution_relative_error"]
    by_lag = pd.DataFrame({"quantity": SHARE, "lag": share["lag"], "value": share.astype(float)})
    by_window = pd.DataFrame(
        {"quantity": ERROR, "window": error["window"], "value": error.astype(float)}
    )
    by_window = by_window[by_window["value"] > 0]  # the whole window loses nothing
    return pd.concat([by_lag, by_window])[["quantity", "lag", "window", "value"]]
