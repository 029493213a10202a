"""Figure of the adjoint: the norm ‖∂L/∂h⁽ᵏ⁾‖ of the loss gradient at every step k."""

import pandas as pd
import xarray as xr

from gradlab import decay
from gradlab.figures import bands, curves, lines, moments, selection, style
from gradlab.figures.choice import Choice, Where
from gradlab.figures.labels import symbol
from gradlab.figures.moments import Step

VARIABLE = "adjoint_log_norm"


def adjoint_table(runs: pd.DataFrame, step: Step = moments.DEFAULT) -> pd.DataFrame:
    """Tabulate the norm of the adjoint over time: one row per point, moment and step k.

    Args:
        runs: from `gradlab.load_runs`; every run must have gradients.
        step: the moments of training, as in `Choice`.

    Returns:
        `point`, `when`, `step`, `k` (time steps) and `log_norm` (nats; of the summed loss, or of
        the last step's loss if the loss of every step was measured; mean over the samples where it
        is not exactly zero; −inf: it is in all).

    Raises:
        ValueError: a run has no adjoints.

    Example:
        >>> list(gradlab.figures.adjoint_table(runs).columns)
        ['point', 'when', 'step', 'k', 'log_norm']
    """
    return lines.measured_table(runs, _profile, VARIABLE, step=step)


@style.theme()
def adjoint_figure(
    runs: pd.DataFrame,
    *,
    where: Where | None = None,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    step: Step = moments.DEFAULT,
    band: bands.Band = bands.DEFAULT,
) -> style.Drawn:
    """Draw the norm of the adjoint over time.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        where, hue, col, row, step, band: as in `decay`.

    Raises:
        ValueError: no run has adjoints.

    Example:
        >>> drawn = gradlab.figures.adjoint(runs, hue="init.gain", step="first")
    """
    parts = set(selection.readable(runs).get("probe.adjoint.wrt", pd.Series("h")).dropna())
    state = symbol(parts.pop() if len(parts) == 1 else None)
    norm = rf"$\Vert\partial L/\partial {state}^{{(k)}}\Vert$"
    profile = curves.Quantity("k", "k (steps)", "log_norm", norm, scale="norm")
    return lines.draw_measured(
        runs, VARIABLE, adjoint_table, lambda _: [profile], Choice(where, hue, col, row, step, band)
    )


def _profile(measurements: xr.Dataset) -> pd.DataFrame:
    log_norms = measurements[VARIABLE]
    if "t" in log_norms.dims:
        kept = (log_norms.count("k") > 0).sum("t")  # of t, in each sample
        log_norms = log_norms.isel(t=kept - 1)
    means = log_norms.reduce(decay.mean_log_norm, "sample")
    return pd.DataFrame({"k": means["k"], "log_norm": means.astype(float)})
