"""Pascanu, Mikolov & Bengio 2013, figure 7: who learns temporal order, by method and length."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.studies.success_rates import (
    KNOWN_NOTE,
    MARKERS,
    draw_rates,
    draw_values,
    losses_to_know,
    success_axis,
)

METHODS = ("SGD", "SGD-C: clipped", "SGD-CR: clipped, with Ω")
COURSE = 30  # length whose course of training is drawn
APART = 0.022  # of the axis, between the marks of one length and another method


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Success over length and over updates, and the loss at 10,000 updates; a row a network."""
    rows = table.assign(method=_methods(table), network=_networks(table))
    networks = list(rows["network"].unique())
    title = "Temporal order by method and length"
    figure, axes = drawing.panels(len(networks), 3, title, height=3.0)
    for row, network in enumerate(networks):
        some = rows[rows["network"] == network]
        _draw_row(axes[3 * row : 3 * row + 3], some, network)
    drawing.legend_above(axes[0])
    n = int(rows.groupby(["network", "method", "task.length"]).size().min())
    return style.finish(
        figure,
        [
            f"50 units, batches of 20, {n} seeds. Success: a check below 1 % wrong within "
            f"{table['train.steps'].max():,} updates, with 95 % intervals of Clopper & Pearson; "
            "hollow: below 1 % when training ends. Right: a mark a seed, line: median.",
            KNOWN_NOTE,
        ],
    )


def _methods(table: pd.DataFrame) -> np.ndarray:
    """Which of METHODS a training is."""
    regularised = table["regulariser.weight"] > 0
    return np.where(np.isinf(table["clip.threshold"]), 0, np.where(regularised, 2, 1))


def _networks(table: pd.DataFrame) -> list[str]:
    """The name of a training's network in the source, of which the table has the numbers alone."""
    found = []
    for target, std in zip(table["init._target_"], table["init.std"], strict=True):
        smart = target.endswith(".sparse")
        found.append("smart tanh" if smart else "basic tanh" if std > 0.05 else "sigmoid")
    return found


def _draw_row(axes: list[Axes], rows: pd.DataFrame, network: str) -> None:
    lengths = sorted(rows["task.length"].unique())
    room = lengths[-1] - lengths[0]
    rows = rows.assign(
        solved=np.isfinite(rows["solved_at"]),
        kept=rows["success.solved"] > 0,
        at=rows["task.length"] + APART * room * (rows["method"] - 1),
    )
    for nth, name in enumerate(METHODS):
        some = rows[rows["method"] == nth]
        draw_rates(axes[0], some, "at", "solved", name, nth)
        kept = some.groupby("at")["kept"].mean()
        marker, colour = MARKERS[nth], drawing.HUES[nth]
        axes[0].plot(kept.index, kept.to_numpy(), marker, color=colour, mfc="none", ms=9.5)
        _draw_course(axes[1], some[some["task.length"] == COURSE], nth)
        draw_values(axes[2], some, "at", "nll_10k", nth)
    for panel in axes[:2]:
        success_axis(panel)
    for panel in (axes[0], axes[2]):
        panel.set_xticks(lengths, [f"{x:g}" for x in lengths])
    losses_to_know(axes[2])
    drawing.dress(axes[0], network, "length T (steps)", "share of runs solved", legend=False)
    updates = f"{network}, T = {COURSE}"
    drawing.dress(axes[1], updates, "updates (thousands)", "share solved so far", legend=False)
    loss = f"{network}, after 10,000 updates"
    drawing.dress(axes[2], loss, "length T (steps)", "held-out loss (nats)", legend=False)


def _draw_course(axes: Axes, rows: pd.DataFrame, nth: int) -> None:
    """The share of runs that have passed a check, over the updates."""
    end = float(rows["train.steps"].max())
    passed = np.sort(rows["solved_at"][np.isfinite(rows["solved_at"])])
    x = np.concatenate([[0.0], passed, [end]]) / 1000
    shares = np.arange(len(passed) + 1) / len(rows)
    y = np.append(shares, shares[-1])
    axes.step(x, y, where="post", color=drawing.HUES[nth], linewidth=1.8)
