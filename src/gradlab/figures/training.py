"""Loss, accuracy and the gradient's norm over training, with the runs that diverged marked."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import lines, points, style

DIVERGED: dict[str, Any] = {"linestyle": "none", "marker": "X", "markersize": 6}
STEP = ("step", "training step (updates)", "value")
QUANTITIES = (
    lines.Quantity(*STEP, "loss", "train/loss", log="y"),
    lines.Quantity(*STEP, "held-out loss", "eval/loss", log="y"),
    lines.Quantity(*STEP, "accuracy", "eval/accuracy"),
    lines.Quantity(*STEP, "error rate", "eval/error_rate", log="y"),
    lines.Quantity(*STEP, "gradient norm", "train/grad_norm", log="y"),
)


def training_table(runs: pd.DataFrame) -> pd.DataFrame:
    """What was logged over training: one row a point, quantity and training step.

    Args:
        runs: every run must have metrics.

    Returns:
        `point`, `step` (updates), `quantity` (a metric's name), `value`, and `diverged` (whether
        the run did, after its last row).
    """
    names = [quantity.name for quantity in QUANTITIES]
    parts = []
    for point, run in runs.iterrows():
        logged = load_metrics(run["path"]).rename(columns={"train/step": "step"})
        kept = logged[["step", *logged.columns.intersection(names)]].astype(float)
        long = kept.melt("step", var_name="quantity", value_name="value")
        long = long[np.isfinite(long["value"])]
        parts.append(long.assign(point=point, diverged=run["status"] == "diverged"))
    table = pd.concat(parts, ignore_index=True).astype({"step": int})
    return table[["point", "step", "quantity", "value", "diverged"]]


@style.theme()
def training_figure(runs: pd.DataFrame) -> style.Drawn:
    """Training curves: a row of panels a quantity; ✕ is the last finite value before divergence.

    Raises:
        ValueError: no run has metrics.
    """
    usable = points.logged(runs)
    grid = points.choose(usable, panels=lines.PANELS, lines=lines.LINES)
    table = training_table(grid.runs)
    shown = [quantity for quantity in QUANTITIES if quantity.name in set(table["quantity"])]
    figure, body, panels = lines.small_multiples(grid, shown)
    lines.draw_panels(panels, grid, table, shown)
    for row, quantity in zip(panels, shown, strict=True):
        for axes, (_, runs) in zip(row, grid.rows(), strict=True):
            mark_diverged(axes, runs, lines.of_quantity(table, quantity))
    entries = [*lines.line_key(grid.runs), *_key(table)]
    style.legend(body, entries, rows=grid.runs["model.name"].nunique())
    notes = points.notes(runs, usable, grid.runs)
    return style.Drawn(style.finish(figure, notes), table)


def mark_diverged(axes: Axes, runs: pd.DataFrame, table: pd.DataFrame) -> None:
    """Mark where the runs of a panel ended that diverged."""
    ended = table[table["diverged"]].groupby("point").last()
    for point, last in ended[ended.index.isin(runs.index)].iterrows():
        axes.plot(last["step"], last["value"], color=runs.loc[point, "colour"], **DIVERGED)


def _key(table: pd.DataFrame) -> list[Artist]:
    mark = Line2D([], [], color=style.GREY, **DIVERGED, label="diverged after")
    return [mark] if table["diverged"].any() else []
