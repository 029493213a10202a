"""Clipping thresholds in units of the average gradient norm: which let a network learn, how fast.

Pascanu, Mikolov & Bengio 2013, section 3.2. A sweep of trainings computes it; this file draws it.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.studies.success_rates import draw_rates, draw_values, success_axis

AVERAGE_NORM = 0.435  # of the gradient, over 14,000 updates without clipping
UNCLIPPED = 25.0  # where no clipping stands on the axis of multiples


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw success and the number of updates until then, over the threshold's multiple.

    Args:
        table: of the study, with `clip.threshold`, `solved` and `updates` (inf: never).
    """
    figure, panels = drawing.panels(1, 2, "Thresholds around the average norm", height=3.0)
    multiple = (table["clip.threshold"] / AVERAGE_NORM).replace(np.inf, UNCLIPPED)
    rows = table.assign(at=np.log10(multiple), solved=np.isfinite(table["updates"]))
    draw_rates(panels[0], rows, "at", "solved", "ours")
    draw_values(panels[1], rows[rows["solved"]], "at", "updates")
    ticks = sorted(rows["at"].unique())
    labels = [f"{10**x:.2g}" if 10**x < 0.99 * UNCLIPPED else "none" for x in ticks]
    for axes in panels:
        axes.axvspan(np.log10(0.5), 1, color="0.93", zorder=-1, label="as printed: can learn")
        axes.set_xticks(ticks, labels)
    success_axis(panels[0])
    panels[1].set_yscale("log")
    panels[1].yaxis.set_minor_formatter(NullFormatter())
    x = "threshold / average norm of the gradient"
    drawing.label_axes(panels[0], "success", x, "share of runs that learn", legend=False)
    drawing.label_axes(panels[1], "speed", x, "updates until learned", legend=False)
    drawing.legend_above(panels[0])
    length, seeds = table["task.length"].iloc[0], table["seed"].nunique()
    note = (
        f"Temporal order, T = {length:g}, tanh, 50 units, {seeds} seeds. Learned: fewer than 1 % "
        f"of the last 10,000 sequences wrong. Left: intervals of Clopper & Pearson. Right: a mark "
        f"a seed that learns, line: their median. The average norm is {AVERAGE_NORM}."
    )
    return style.finish(figure, [note])
