"""Success of a tanh network on temporal order, by clipping threshold and learning rate."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.studies.success_rates import (
    KNOWN_NOTE,
    draw_known_losses,
    draw_rates,
    draw_values,
    success_axis,
)

OFFSET = 0.06  # decades between the marks of one threshold and another learning rate
BEYOND = 1.0  # decades from the largest threshold to "none"


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw success and final loss over the threshold, and success over the longest step.

    There is one row of panels per length.
    """
    lengths = sorted(table["task.length"].unique())
    title = "Clipping threshold and learning rate"
    figure, panels = drawing.panels(len(lengths), 3, title, height=3.0)
    for row, length in enumerate(lengths):
        runs = table[table["task.length"] == length]
        _draw_row(panels[3 * row : 3 * row + 3], runs, f"T = {length:g}")
    drawing.legend_above(panels[0])
    n = int(table.groupby(["task.length", "optim.learning_rate", "clip.threshold"]).size().min())
    updates = int(table["train.steps"].max())
    # The 1 % is that of `solved_at` in experiments/clipping_threshold/claims.yaml.
    return style.finish(
        figure,
        [
            f"Temporal order, tanh, 50 units. Success: a check below 1 % wrong within {updates} "
            f"updates; {n} seeds, 95 % intervals of Clopper & Pearson. Middle: a mark a seed, "
            "line: median. Right: runs that are clipped; none takes a longer step.",
            KNOWN_NOTE,
        ],
    )


def _draw_row(panels: list[Axes], rows: pd.DataFrame, name: str) -> None:
    clipped = sorted(x for x in rows["clip.threshold"].unique() if np.isfinite(x))
    none = np.log10(clipped[-1]) + BEYOND
    position = np.log10(rows["clip.threshold"]).replace(np.inf, none)
    rows = rows.assign(solved=np.isfinite(rows["solved_at"]))
    rates = sorted(rows["optim.learning_rate"].unique(), reverse=True)
    for nth, rate in enumerate(rates):
        shift = OFFSET * (nth - (len(rates) - 1) / 2)
        runs = rows[rows["optim.learning_rate"] == rate]
        runs = runs.assign(at=position[runs.index] + shift)
        runs = runs.assign(step=np.log10(runs["clip.threshold"] * rate) + shift / 2)
        draw_rates(panels[0], runs, "at", "solved", f"learning rate {rate:g}", nth)
        draw_values(panels[1], runs, "at", "nll_end", nth)
        clipped_runs = runs[np.isfinite(runs["clip.threshold"])]
        draw_rates(panels[2], clipped_runs, "step", "solved", f"learning rate {rate:g}", nth)
    ticks = [np.log10(x) for x in clipped] + [none]
    for axes in panels[:2]:
        axes.set_xticks(ticks, [f"{x:g}" for x in clipped] + ["none"], fontsize="small")
    for axes in (panels[0], panels[2]):
        success_axis(axes)
    draw_known_losses(panels[1])
    drawing.label_axes(
        panels[0], f"success, {name}", "threshold", "share of runs solved", legend=False
    )
    drawing.label_axes(
        panels[1], f"loss at the end, {name}", "threshold", "held-out loss (nats)", legend=False
    )
    panels[2].xaxis.set_major_formatter(lambda x, _: f"$10^{{{x:g}}}$")
    low, high = panels[2].get_xlim()
    panels[2].set_xticks(range(int(np.ceil(low)), int(np.floor(high)) + 1))
    label = "learning rate × threshold"
    drawing.label_axes(panels[2], f"success, {name}", label, "share of runs solved", legend=False)
