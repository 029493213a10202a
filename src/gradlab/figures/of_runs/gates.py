"""Figure of a cell's gates and states over time: how open the gates are, how large the states."""

import pandas as pd
import xarray as xr

from gradlab.figures import bands, curves, lines, moments, style
from gradlab.figures.choice import Choice, Where
from gradlab.figures.moments import Step

PREFIX = "statistics_"
VARIABLE = "statistics_h_norm"


def gates_table(runs: pd.DataFrame, step: Step = moments.DEFAULT) -> pd.DataFrame:
    """Tabulate gates and states over time: one row per point, moment, quantity and time step.

    Args:
        runs: from `gradlab.load_runs`; every run must have gradients.
        step: the moments of training, as in `Choice`.

    Returns:
        `point`, `when`, `step`, `quantity` ("forget gate mean"; "forget gate closed", … as shares
        of the units; "c norm"), `t` (time steps) and `value` (mean over samples).

    Raises:
        ValueError: a run has no statistics.

    Example:
        >>> table = gradlab.figures.gates_table(runs[runs["model.name"] == "lstm"], step="first")
        >>> [name for name in table["quantity"].unique() if name.endswith("gate mean")]
        ['forget gate mean', 'input gate mean', 'output gate mean']
    """
    return lines.measured_table(runs, _statistics, VARIABLE, step=step)


@style.theme()
def gates_figure(
    runs: pd.DataFrame,
    *,
    where: Where | None = None,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    step: Step = moments.DEFAULT,
    band: bands.Band = bands.DEFAULT,
) -> style.Drawn:
    """Draw the mean of each gate and the norm of each state over time, in one row of panels each.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        where, hue, col, row, step, band: as in `decay`.

    Raises:
        ValueError: no run has statistics.

    Example:
        >>> drawn = gradlab.figures.gates(runs, where={"model.name": "lstm"}, step="last")
    """
    choice = Choice(where, hue, col, row, step, band)
    return lines.draw_measured(runs, VARIABLE, gates_table, _quantities, choice)


def _quantities(table: pd.DataFrame) -> list[curves.Quantity]:
    names = [str(name) for name in table["quantity"].unique()]
    gates = [name for name in names if name.endswith(" mean")]
    states = [name for name in names if name.endswith(" norm")]
    return [
        curves.Quantity("t", "t (steps)", "value", _label(name), name) for name in gates + states
    ]


def _label(name: str) -> str:
    subject, _, statistic = style.literal(name).rpartition(" ")
    return f"{subject},\nmean" if statistic == "mean" else f"norm of {subject}"


def _statistics(measurements: xr.Dataset) -> pd.DataFrame:
    tables = [
        pd.DataFrame(
            {
                "quantity": str(name).removeprefix(PREFIX).replace("_", " "),
                "t": values["t"].to_numpy(),
                "value": values.mean("sample").astype(float).to_numpy(),
            }
        )
        for name, values in measurements.data_vars.items()
        if str(name).startswith(PREFIX)
    ]
    # Statistics start at t = 1; the maps, which share the axis t, start at 0.
    return pd.concat(tables).dropna()
