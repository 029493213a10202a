"""What figures of trained-or-not share: success rates with the interval of Clopper & Pearson."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.claims.statistics import rate
from gradlab.studies import drawing

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
KNOWN = {"ln 4": np.log(4), "ln 2": np.log(2)}
KNOWN_NOTE = "Dashed: ln 4, chance; ln 2, one of the two symbols known."
MARKERS = ("o", "s", "^", "D", "v")


def draw_rates(
    axes: Axes, rows: pd.DataFrame, at: str, success: str, label: str, nth: int = 0
) -> None:
    """Draw the share of rows with `success` over the column `at`, with 95 % intervals.

    Args:
        axes: where; its x axis is made ready before.
        rows: one a training.
        at: column of the position on the x axis, moved a little to tell several lines apart.
        success: column of truth values.
        label: in the legend.
        nth: which colour and marker.
    """
    groups = rows.groupby(at)[success]
    x = np.array([position for position, _ in groups])
    found = [rate(some.to_numpy()) for _, some in groups]
    values = np.array([estimate.value for estimate in found])
    margins = np.array([(e.value - e.low, e.high - e.value) for e in found]).T.clip(0)
    colour = drawing.HUES[nth]
    axes.errorbar(x, values, margins, fmt="none", ecolor=colour, elinewidth=1.0, capsize=3)
    axes.plot(x, values, color=colour, label=label, marker=MARKERS[nth], ms=5.5, linewidth=1.8)


def draw_values(axes: Axes, rows: pd.DataFrame, at: str, value: str, nth: int = 0) -> None:
    """Draw a value of each row as a small mark, and the median of each position as a line."""
    colour, groups = drawing.HUES[nth], rows.groupby(at)[value]
    medians = groups.median()
    axes.plot(rows[at], rows[value], MARKERS[nth], color=colour, alpha=0.45, ms=4, mew=0)
    axes.plot(medians.index, medians.to_numpy(), color=colour, linewidth=1.8)


def success_axis(axes: Axes) -> None:
    """Make the y axis one of success rates, with room for marks at 0 and 1."""
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks(TICKS)


def losses_to_know(axes: Axes) -> None:
    """Dashed lines at the losses of temporal order that mean something, named at the right end."""
    for name, loss in KNOWN.items():
        axes.axhline(loss, zorder=0, **drawing.THEORY)
        place = axes.get_yaxis_transform()
        axes.text(1.01, loss, name, transform=place, va="center", fontsize="small")
