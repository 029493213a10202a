"""What a cell's gates and states do over time: open, closed, and how large the state grows."""

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from gradlab.figures import lines, style

PREFIX = "statistics_"


def gates_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Gates and states over time: one row a point, moment, quantity and step.

    Returns:
        `point`, `when`, `step`, `quantity` ("forget gate mean", "forget gate closed", … as shares
        of the units; "c norm"), `t` (time steps) and `value` (mean over samples).

    Raises:
        ValueError: a run has no statistics.
    """
    return lines.measured(runs, _statistics, "statistics_h_norm")


@style.theme()
def gates_figure(runs: pd.DataFrame, when: Sequence[str] = lines.WHEN) -> style.Drawn:
    """A row of panels for the mean of each gate and for the norm of each state.

    Raises:
        ValueError: no run has gradients, or one has no statistics.
    """
    return lines.draw(runs, gates_table, _rows, when)


def _rows(table: pd.DataFrame) -> list[lines.Quantity]:
    names = [str(name) for name in table["quantity"].unique()]
    gates = [name for name in names if name.endswith(" mean")]
    states = [name for name in names if name.endswith(" norm")]
    return [
        lines.Quantity("t", "t (steps)", "value", _label(name), name) for name in gates + states
    ]


def _label(name: str) -> str:
    subject, _, kind = name.rpartition(" ")
    return f"{subject},\nmean" if kind == "mean" else f"norm of {subject}"


def _statistics(found: xr.Dataset) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "quantity": str(name).removeprefix(PREFIX).replace("_", " "),
                "t": values["t"].to_numpy(),
                "value": values.mean("sample").astype(float).to_numpy(),
            }
        )
        for name, values in found.data_vars.items()
        if str(name).startswith(PREFIX)
    ]
    return pd.concat(parts).dropna()  # what is measured after a step has no value at t = 0
