"""Loss, accuracy and the gradient's norm over training, with the runs that diverged marked."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import lines, selection, style
from gradlab.records import load_metrics

DIVERGED: dict[str, Any] = {"linestyle": "none", "marker": "X", "markersize": 6}
STEP = ("step", "training step (updates)", "value")
QUANTITIES = (
    lines.Quantity(*STEP, "loss", "train/loss", "log"),
    lines.Quantity(*STEP, "held-out loss", "eval/loss", "log"),
    lines.Quantity(*STEP, "accuracy", "eval/accuracy"),
    lines.Quantity(*STEP, "error rate", "eval/error_rate"),
    lines.Quantity(*STEP, "gradient norm", "train/grad_norm", "log"),
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
        kept = logged[["step", *(name for name in names if name in logged)]].astype(float)
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
    usable = selection.with_metrics(runs)
    grid = selection.arrange_lines(usable, panels=lines.PANELS, lines=lines.LINES)
    table = training_table(grid.runs)
    shown = [quantity for quantity in QUANTITIES if quantity.name in set(table["quantity"])]
    figure, body, panels = lines.small_multiples(grid, shown)
    lines.draw_panels(panels, grid, table, shown)
    for row, quantity in zip(panels, shown, strict=True):
        for axes, (_, inside) in zip(row, grid.rows(), strict=True):
            mark_diverged(axes, inside, table, quantity)
    style.legend(body, [*lines.line_key(grid.runs), *_key(table)])
    notes = selection.notes(runs, usable, grid.runs)
    return style.Drawn(style.finish(figure, notes), table)


def mark_diverged(
    axes: Axes, runs: pd.DataFrame, table: pd.DataFrame, quantity: lines.Quantity
) -> None:
    """Mark where the runs of a panel ended that diverged."""
    ended = lines.of_quantity(table[table["diverged"]], quantity).groupby("point").last()
    ended = ended.join(runs["colour"], how="inner")
    for step, value, colour in zip(ended["step"], ended["value"], ended["colour"], strict=True):
        axes.plot(step, quantity.shown(value), color=colour, **DIVERGED)


def _key(table: pd.DataFrame) -> list[style.Entry]:
    mark = Line2D([], [], color=style.GREY, **DIVERGED, label="diverged after")
    return [mark] if table["diverged"].any() else []
