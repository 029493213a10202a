"""Figure of training curves: loss, accuracy and gradient norm, with diverged runs marked."""

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import bands, curves, legends, lines, moments, selection, style
from gradlab.figures.choice import Choice, Where
from gradlab.figures.layout import arrange_lines
from gradlab.records import load_metrics

DIVERGED: dict[str, Any] = {"linestyle": "none", "marker": "X", "markersize": 6}
STEP = ("step", "training step (updates)", "value")
QUANTITIES = (
    curves.Quantity(*STEP, "loss", "train/loss", "log"),
    curves.Quantity(*STEP, "held-out loss", "eval/loss", "log"),
    curves.Quantity(*STEP, "accuracy", "eval/accuracy"),
    curves.Quantity(*STEP, "error rate", "eval/error_rate"),
    curves.Quantity(*STEP, "gradient norm", "train/grad_norm", "log"),
)
METRICS = tuple(quantity.name for quantity in QUANTITIES)


def training_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the metrics logged over training: one row per point, metric and training step.

    Args:
        runs: from `gradlab.load_runs`; every run must have metrics.

    Returns:
        `point`, `step` (updates), `quantity` (the metric's name), `value` (finite ones only), and
        `diverged` (whether the run diverged after its last row).

    Example:
        >>> table = gradlab.figures.training_table(runs)
        >>> table.loc[table["quantity"] == "eval/loss", "step"].unique().tolist()  # updates
        [0, 20]
    """
    names = [quantity.name for quantity in QUANTITIES]
    tables = []
    for point, run in runs.iterrows():
        metrics = load_metrics(run["path"]).rename(columns={"train/step": "step"})
        metrics = metrics[["step", *(name for name in names if name in metrics)]].astype(float)
        rows = metrics.melt("step", var_name="quantity", value_name="value")
        rows = rows[np.isfinite(rows["value"])]
        tables.append(rows.assign(point=point, diverged=run["status"] == "diverged"))
    table = pd.concat(tables, ignore_index=True).astype({"step": int})
    return table[["point", "step", "quantity", "value", "diverged"]]


@style.theme()
def training_figure(
    runs: pd.DataFrame,
    *,
    where: Where | None = None,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    band: bands.Band = bands.DEFAULT,
    metric: Sequence[str] | None = None,
) -> style.Drawn:
    """Draw training curves, one row of panels per metric.

    Lines are means of the seeds whose runs are done. Each of the others is a thin line, and a ✕
    marks the last finite value of one that diverged.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        where, hue, col, row, band: as in `decay`.
        metric: names of the metrics to show, of METRICS; None: all that were logged.

    Raises:
        ValueError: no run has metrics, or what is asked for is not there.

    Example:
        >>> drawn = gradlab.figures.training(runs, metric=["eval/loss", "train/grad_norm"])
    """
    choice = Choice(where, hue, col, row, band=band)
    usable = selection.with_metrics(runs)
    grid = arrange_lines(usable, choice, panels=lines.PANELS, lines=lines.LINES)
    table = training_table(grid.runs)
    shown = _shown(set(table["quantity"]), metric)
    table = table[table["quantity"].isin([quantity.name for quantity in shown])]
    figure, body, panels = lines.small_multiples(grid, shown)
    unaveraged = pd.concat(map(_unaveraged, itertools.chain(*grid.panels())))
    is_single = table["point"].isin(unaveraged.index)
    averaged = table.assign(value=table["value"].mask(is_single))
    notes = lines.draw_panels(panels, grid, averaged, shown, band)
    by_row = panels.reshape(-1, len(shown), panels.shape[1])
    for row_panels, groups in zip(by_row, grid.panels(), strict=True):
        for axes_row, quantity in zip(row_panels, shown, strict=True):
            for axes, group in zip(axes_row, groups, strict=True):
                _draw_single(axes, group, table[is_single], quantity)
                mark_diverged(axes, group, table, quantity)
    legends.legend(body, [*curves.line_entries(grid.runs), *_diverged_entries(table)])
    if len(unaveraged):
        count = f"{len(unaveraged)} of {len(grid.runs)} runs"
        notes.append(f"Thin, not in the means: {count} ({moments.reasons(unaveraged)}).")
    notes += selection.notes(runs, usable, grid.runs, choice.keys())
    return style.Drawn(style.finish(figure, notes, lines.panel_height(grid)), table)


def _shown(logged: Collection[str], metric: Sequence[str] | None) -> list[curves.Quantity]:
    """Return the rows of panels: of the metrics that are asked for, else of all that are there."""
    for name in metric or ():
        if name not in logged:
            known = ", ".join(name for name in METRICS if name in logged)
            raise ValueError(f"no run logged {name}; these can be shown: {known}.")
    return [quantity for quantity in QUANTITIES if quantity.name in (metric or logged)]


def _unaveraged(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of a panel that diverged, or are not done where others of their line are."""
    is_done = runs["status"] == "done"
    has_others = is_done.groupby(runs["colour"]).transform("any")
    return runs[(runs["status"] == "diverged") | (~is_done & has_others)]


def _draw_single(
    axes: Axes, runs: pd.DataFrame, table: pd.DataFrame, quantity: curves.Quantity
) -> None:
    """Draw a thin line of each run of a panel that is in a table."""
    rows = lines.rows_of(table, quantity)
    for point, colour in runs["colour"].items():
        own = rows[rows["point"] == point]
        y = quantity.plotted(own["value"])
        axes.plot(own["step"], y, color=colour, **curves.THIN)


def mark_diverged(
    axes: Axes, runs: pd.DataFrame, table: pd.DataFrame, quantity: curves.Quantity
) -> None:
    """Mark the last value of each diverged run in one panel.

    Args:
        axes: the panel.
        runs: the points of the panel, from `layout.with_line_style`.
        table: from `training_table`.
        quantity: the metric that the panel shows.
    """
    last = lines.rows_of(table[table["diverged"]], quantity).groupby("point").last()
    last = last.join(runs["colour"], how="inner")
    for step, value, colour in zip(last["step"], last["value"], last["colour"], strict=True):
        axes.plot(step, quantity.plotted(value), color=colour, **DIVERGED)


def _diverged_entries(table: pd.DataFrame) -> list[legends.Entry]:
    mark = Line2D([], [], color=style.GREY, **DIVERGED, label="diverged after")
    return [mark] if table["diverged"].any() else []
