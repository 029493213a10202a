"""Shared parts of the studies' figures: panels with legends, measured solid and theory dashed."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import legends, style

THEORY_STYLE: dict[str, Any] = {"color": "0.15", "linewidth": 1.0, "linestyle": (0, (4, 2))}
MEASURED_STYLE: dict[str, Any] = {"linewidth": 2.4, "alpha": 0.85, "solid_capstyle": "round"}
LAG = "lag t − k (steps)"
HUES = ("#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#7f7f7f", "#8c564b", "#b8a800", "#0072b2")
AS_PRINTED: dict[str, Any] = {"mfc": "none", "mec": HUES[7], "mew": 1.6, "ms": 8}


def panels(rows: int, columns: int, title: str, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels, `height` inches high each; return the panels row by row."""
    figure, body = style.new_figure(style.current_style().width, 0.8 + height * rows, title)
    return figure, list(body.subplots(rows, columns, squeeze=False).flat)


def overlay(axes: Axes, rows: pd.DataFrame, x: str, hue: str, labels: Sequence[str]) -> None:
    """Draw the columns `measured` (solid) and `expected` (dashed), one line per level of hue."""
    levels = list(rows.groupby(hue, sort=False))
    for (_, line), label, colour in zip(levels, labels, HUES, strict=False):
        axes.plot(line[x], line["measured"], color=colour, label=label, **MEASURED_STYLE)
        axes.plot(line[x], line["expected"], **THEORY_STYLE)


def label_axes(
    axes: Axes,
    title: str,
    x: str,
    y: str,
    *,
    legend: bool = True,
    loc: Literal["best", "upper left", "lower left", "lower right"] = "best",
    columns: int = 1,
    **settings: Any,
) -> None:
    """Set a panel's title and axis labels, and give it a legend of its own if asked."""
    axes.set(title=title, xlabel=x, ylabel=y, **settings)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small", handlelength=1.4, labelspacing=0.3, loc=loc, ncols=columns)


def legend_above(axes: Axes) -> None:
    """Write one panel's legend above all panels, for figures whose panels share it."""
    legends.legend(axes.figure, axes.get_legend_handles_labels()[0])  # type: ignore[arg-type]


def finish_with_theory_note(figure: Figure, notes: str) -> Figure:
    """Write below the panels how measured and theory are drawn, and the notes."""
    return style.finish(figure, ["Solid: measured. Dashed: theory.", notes])


def finite(values: np.ndarray) -> np.ndarray:
    """Return values for a log axis: NaN where they are zero."""
    return np.where(values > 0, values, np.nan)


def by_seed(
    rows: pd.DataFrame, x: str
) -> tuple[Float[np.ndarray, "places"], Float[np.ndarray, "seeds places"]]:
    """Return the places along the column `x`, and each seed's `value` there (NaN: none)."""
    values = rows.pivot_table("value", index="seed", columns=x)
    return values.columns.to_numpy(), values.to_numpy()


def band(
    axes: Axes,
    places: Float[np.ndarray, "places"],
    values: Float[np.ndarray, "seeds places"],
    colour: str,
    name: str,
    centre: Callable[..., Any] = np.nanmedian,
    **look: Any,
) -> None:
    """Draw the median over seeds as a line, or another centre, and their range as a band.

    A study's losses may lie decades apart, so that their mean would be that of the worst seed; log
    norms and exponents are drawn with np.nanmean.
    """
    measured = ~np.isnan(values).all(axis=0)
    places, values = places[measured], values[:, measured]
    axes.plot(places, centre(values, axis=0), color=colour, label=name, **look)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
