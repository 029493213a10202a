"""The figure of scaling.py: cost against length and against size, on logarithmic axes."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from gradlab.figures import style

# Okabe & Ito (2008); markers tell the lines apart without colour.
LOOKS: dict[str, dict[str, Any]] = {
    "gradlab, Frobenius": {"color": "#0072b2", "marker": "o"},
    "gradlab, spectral": {"color": "#d55e00", "marker": "s"},
    "PyTorch, batched reverse mode": {"color": "#cc79a7", "marker": "^", "linestyle": "--"},
    "JAX, products alone": {"color": "0.35", "marker": "D", "linestyle": "--"},
}
AXES = {"T": "sequence length T (steps)", "n": "hidden size n (units)"}
UPPER = 0.5  # share of the sizes, from the largest down, that a slope is fitted to
ROOM = 60  # factor above the highest point that is left for the legend


def slope(seconds: dict[int, float]) -> float:
    """Return the power of growth, by least squares of log seconds on log size."""
    sizes = sorted(seconds)[-fitted(len(seconds)) :]
    return float(np.polyfit(np.log(sizes), np.log([seconds[x] for x in sizes]), 1)[0])


def fitted(count: int) -> int:
    """Return the number of sizes that a slope is fitted to."""
    return max(2, int(np.ceil(UPPER * count)))


def draw(rows: list[dict[str, Any]], fixed: dict[str, str], note: str) -> Figure:
    """Draw the cost against T and against n, with the slopes in the legends."""
    with style.theme():
        title = "Cost of the norms of all pairs (t, k)"
        figure, body = style.new_figure(style.current_style().width, 4.4, title)
        for axes, axis in zip(body.subplots(1, 2, sharey=True), AXES, strict=True):
            panel(axes, axis, [row for row in rows if row["axis"] == axis])
            axes.set_title(f"against {axis}, at {fixed[axis]}")
            axes.set_xlabel(AXES[axis])
        seconds = [row["seconds"] for row in rows]
        # Both panels share this axis.
        body.axes[0].set_ylim(min(seconds) / 2, ROOM * max(seconds))
        body.axes[0].set_ylabel("seconds for all pairs (median)")
        fits = "Powers: least squares through the upper half of each line's sizes."
        return style.finish(figure, [f"{note}.", fits])


def panel(axes: Axes, axis: str, rows: list[dict[str, Any]]) -> None:
    """Draw a line for each method."""
    for what, look in LOOKS.items():
        seconds = {row[axis]: row["seconds"] for row in rows if row["what"] == what}
        label = f"{what}: ∝ {axis}$^{{{slope(seconds):.1f}}}$"
        axes.plot(list(seconds), list(seconds.values()), label=label, markersize=5, **look)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted({row[axis] for row in rows})
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(x) for x in sizes])
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.legend(loc="upper left", fontsize="small")
