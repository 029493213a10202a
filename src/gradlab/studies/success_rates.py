"""Shared parts of figures of success rates, which have the intervals of Clopper & Pearson."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradlab.claims.statistics import rate
from gradlab.studies import drawing

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
KNOWN = {"ln 4": np.log(4), "ln 2": np.log(2)}  # losses of temporal order, see KNOWN_NOTE
KNOWN_NOTE = "Dashed: ln 4, chance; ln 2, one of the two symbols known."
MARKERS = ("o", "s", "^", "D", "v")


def draw_rates(
    axes: Axes, rows: pd.DataFrame, at: str, success: str, label: str, nth: int = 0
) -> None:
    """Draw the share of rows with `success` over the column `at`, with 95 % intervals.

    Args:
        axes: the panel; its x axis is set up by the caller.
        rows: one row per training.
        at: column of the position on the x axis, shifted a little to tell several lines apart.
        success: column of truth values.
        label: the legend's.
        nth: index of the colour and marker.
    """
    groups = rows.groupby(at)[success]
    x = np.array([position for position, _ in groups])
    rates = [rate(successes.to_numpy()) for _, successes in groups]
    values = np.array([estimate.value for estimate in rates])
    margins = np.array([(e.value - e.low, e.high - e.value) for e in rates]).T.clip(0)
    colour = drawing.HUES[nth]
    axes.errorbar(x, values, margins, fmt="none", ecolor=colour, elinewidth=1.0, capsize=3)
    axes.plot(x, values, color=colour, label=label, marker=MARKERS[nth], ms=5.5, linewidth=1.8)


def draw_values(axes: Axes, rows: pd.DataFrame, at: str, value: str, nth: int = 0) -> None:
    """Draw each row's value as a small mark, and the medians by position as a line."""
    colour, groups = drawing.HUES[nth], rows.groupby(at)[value]
    medians = groups.median()
    axes.plot(rows[at], rows[value], MARKERS[nth], color=colour, alpha=0.45, ms=4, mew=0)
    axes.plot(medians.index, medians.to_numpy(), color=colour, linewidth=1.8)


def success_axis(axes: Axes) -> None:
    """Set up the y axis for success rates, with room for marks at 0 and 1."""
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks(TICKS)


def draw_known_losses(axes: Axes) -> None:
    """Draw dashed lines at the losses of KNOWN, labelled at their right ends."""
    for name, loss in KNOWN.items():
        axes.axhline(loss, zorder=0, **drawing.THEORY_STYLE)
        place = axes.get_yaxis_transform()
        axes.text(1.01, loss, name, transform=place, va="center", fontsize="small")
