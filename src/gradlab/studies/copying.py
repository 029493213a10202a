"""The copying memory problem: losses over training, and how far the whole state's gradient reaches.

The task and its baseline are those of Arjovsky, Shah & Bengio 2016. A sweep of trainings computes
it; this file makes the study's table of those runs, and draws it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import style, units
from gradlab.records import load_metrics
from gradlab.studies import drawing
from gradlab.studies.networks import NETWORKS, network_legend

LOSS, LOG_NORM = "eval/loss", "jacobian/log_norm"
BY_LAG = f"{LOG_NORM}/lag_"  # how the metrics of single lags begin


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the held-out losses over training and the mean log norms over the lag.

    Args:
        runs: from `gradlab.load_runs`, with the probe `jacobian`.

    Returns:
        `point` (the index of the runs), `step` (updates), `quantity` ("eval/loss",
        "jacobian/log_norm"), `lag` (steps; NaN of a loss) and `value`, one row per finite value.
    """
    tables = []
    for point, path in runs["path"].items():
        metrics = load_metrics(path).rename(columns={"train/step": "step"})
        shown = [x for x in map(str, metrics) if x == LOSS or x.startswith(BY_LAG)]
        rows = metrics.melt("step", shown, "name", "value")
        lag = pd.to_numeric(rows["name"].str.removeprefix(BY_LAG), errors="coerce")
        quantity = np.where(lag.isna(), LOSS, LOG_NORM)
        place: dict[str, Any] = {"point": point, "quantity": quantity, "lag": lag}
        tables.append(rows.assign(**place)[np.isfinite(rows["value"])])
    table = pd.concat(tables, ignore_index=True)
    return table[["point", "step", "quantity", "lag", "value"]]


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the loss over the baseline during training, and the gradient over lag around it.

    There is one row of panels per length.
    """
    lengths = sorted(table["task.length"].unique())
    figure, panels = drawing.panels(len(lengths), 3, "The copying memory problem", height=3.1)
    for i, length in enumerate(lengths):
        _draw(panels[3 * i : 3 * i + 3], table[table["task.length"] == length], f"T = {length}")
    network_legend(panels[0], table["network"].unique())
    seeds = table["seed"].nunique()
    note = f"Lines: medians of {seeds} seeds; bands: from the least to the most. "
    return drawing.finish_with_theory_note(figure, note + "s: the whole state, of an LSTM c and h.")


def _draw(panels: Sequence[Axes], rows: pd.DataFrame, length: str) -> None:
    for name, of_network in rows.groupby("network"):
        label, colour, _ = NETWORKS[str(name)]
        losses = of_network[of_network["quantity"] == LOSS]
        relative = losses.assign(value=losses["value"] / losses["eval.baseline"])
        drawing.band(panels[0], *drawing.by_seed(relative, "step"), colour, label)
        norms = of_network[of_network["quantity"] == LOG_NORM]
        for axes, step in zip(panels[1:], (0, norms["step"].max()), strict=True):
            lags, log_norms = drawing.by_seed(norms[norms["step"] == step], "lag")
            drawing.band(axes, lags, log_norms / units.DECADE, colour, label, marker="o", ms=3)
    panels[0].axhline(1, **drawing.THEORY_STYLE)
    panels[0].set_yscale("log")
    drawing.label_axes(
        panels[0], f"{length}: held-out loss", "update", "loss / baseline", legend=False
    )
    lowest = min(axes.get_ylim()[0] for axes in panels[1:])
    highest = max(axes.get_ylim()[1] for axes in panels[1:])
    label = r"mean $\log_{10}\Vert\partial s^{(t)}/\partial s^{(k)}\Vert_2$"
    for axes, title in zip(panels[1:], ("before training", "after training"), strict=True):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        limits = (lowest, highest)
        drawing.label_axes(axes, title, drawing.LAG, label, legend=False, ylim=limits)
