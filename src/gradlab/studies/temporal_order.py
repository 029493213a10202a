"""Temporal order by method, network and length: Pascanu, Mikolov & Bengio 2013, figure 7."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.studies.success_rates import (
    KNOWN_NOTE,
    MARKERS,
    draw_known_losses,
    draw_rates,
    draw_values,
    success_axis,
)

METHODS = {  # of conf/method, and their names in the source
    "sgd": "SGD",
    "sgd_c": "SGD-C: clipped",
    "sgd_cr": "SGD-CR: clipped, with Ω",
    "sgd_cr_text": "SGD-CR: clipped, with Ω of weight 4",
}
NETWORKS = {  # of conf/network
    "sigmoid_small": "sigmoid",
    "tanh_basic": "basic tanh",
    "tanh_smart": "smart tanh",
}
DRAWN_LENGTH = 30  # whose share of solved runs is drawn over the updates; else the shortest
OFFSET = 0.022  # of the axis, between the marks of one length and another method


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw success over length and over updates, and the loss at 10,000 updates.

    There is one row of panels per network.
    """
    networks = list(table["network"].unique())
    title = "Temporal order by method and length"
    figure, panels = drawing.panels(len(networks), 3, title, height=3.0)
    for i, network in enumerate(networks):
        rows = table[table["network"] == network]
        _draw_row(panels[3 * i : 3 * i + 3], rows, NETWORKS[network])
    drawing.legend_above(panels[0])
    n = int(table.groupby(["network", "method", "task.length"]).size().min())
    # The 1 % is that of `solved_at` in experiments/temporal_order/claims.yaml and, when training
    # ends, that of `gradlab.training.success`.
    return style.finish(
        figure,
        [
            f"50 units, batches of 20, {n} seeds. Success: a check below 1 % wrong within "
            f"{table['train.steps'].max():,} updates, with 95 % intervals of Clopper & Pearson; "
            "hollow: below 1 % when training ends. Right: a mark a seed, line: median.",
            KNOWN_NOTE,
        ],
    )


def _draw_row(panels: list[Axes], rows: pd.DataFrame, network: str) -> None:
    lengths = sorted(rows["task.length"].unique())
    span = lengths[-1] - lengths[0]
    drawn = DRAWN_LENGTH if DRAWN_LENGTH in lengths else lengths[0]
    methods = [item for item in METHODS.items() if item[0] in set(rows["method"])]
    for nth, (method, name) in enumerate(methods):
        runs = rows[rows["method"] == method]
        runs = runs.assign(
            solved=np.isfinite(runs["solved_at"]),
            solved_at_end=runs["success.solved"] > 0,
            at=runs["task.length"] + OFFSET * span * (nth - 1),
        )
        draw_rates(panels[0], runs, "at", "solved", name, nth)
        at_end = runs.groupby("at")["solved_at_end"].mean()
        marker, colour = MARKERS[nth], drawing.HUES[nth]
        panels[0].plot(at_end.index, at_end.to_numpy(), marker, color=colour, mfc="none", ms=9.5)
        _draw_solved_so_far(panels[1], runs[runs["task.length"] == drawn], nth)
        draw_values(panels[2], runs, "at", "nll_10k", nth)
    for axes in panels[:2]:
        success_axis(axes)
    for axes in (panels[0], panels[2]):
        axes.set_xticks(lengths, [f"{x:g}" for x in lengths])
    draw_known_losses(panels[2])
    drawing.label_axes(panels[0], network, "length T (steps)", "share of runs solved", legend=False)
    updates = f"{network}, T = {drawn:g}"
    drawing.label_axes(
        panels[1], updates, "updates (thousands)", "share solved so far", legend=False
    )
    loss = f"{network}, after 10,000 updates"
    drawing.label_axes(panels[2], loss, "length T (steps)", "held-out loss (nats)", legend=False)


def _draw_solved_so_far(axes: Axes, rows: pd.DataFrame, nth: int) -> None:
    """Draw the share of runs that have passed a check, over the updates."""
    end = float(rows["train.steps"].max())
    passed = np.sort(rows["solved_at"][np.isfinite(rows["solved_at"])])
    x = np.concatenate([[0.0], passed, [end]]) / 1000
    shares = np.arange(len(passed) + 1) / len(rows)
    y = np.append(shares, shares[-1])
    axes.step(x, y, where="post", color=drawing.HUES[nth], linewidth=1.8)
