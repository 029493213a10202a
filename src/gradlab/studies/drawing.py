"""What the studies' figures share: panels with a legend each, measured solid and theory dashed."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import style

THEORY: dict[str, Any] = {"color": "0.15", "linewidth": 1.0, "linestyle": (0, (4, 2))}
MEASURED: dict[str, Any] = {"linewidth": 2.4, "alpha": 0.85, "solid_capstyle": "round"}
LAG = "lag t − k (steps)"
HUES = ("#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#7f7f7f", "#8c564b", "#b8a800", "#0072b2")


def panels(rows: int, columns: int, title: str, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, row by row, each `height` inches high."""
    figure, body = style.frame(style.present().width, 0.8 + height * rows, title)
    return figure, list(body.subplots(rows, columns, squeeze=False).flat)


def overlay(axes: Axes, rows: pd.DataFrame, x: str, hue: str, labels: Sequence[str]) -> None:
    """Draw the columns `measured`, solid, and `expected`, dashed over it, a line a level of hue."""
    levels = list(rows.groupby(hue, sort=False))
    for (_, line), label, colour in zip(levels, labels, HUES, strict=False):
        axes.plot(line[x], line["measured"], color=colour, label=label, **MEASURED)
        axes.plot(line[x], line["expected"], **THEORY)


def dress(
    axes: Axes,
    title: str,
    x: str,
    y: str,
    *,
    legend: bool = True,
    loc: Literal["best", "upper left", "lower left"] = "best",
    columns: int = 1,
    **settings: Any,
) -> None:
    """Name a panel and its axes, and write its own legend if it is to have one."""
    axes.set(title=title, xlabel=x, ylabel=y, **settings)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small", handlelength=1.4, labelspacing=0.3, loc=loc, ncols=columns)


def legend_above(axes: Axes) -> None:
    """Write a panel's legend above all panels, which share it."""
    style.legend(axes.figure, axes.get_legend_handles_labels()[0])  # type: ignore[arg-type]


def close(figure: Figure, notes: str) -> Figure:
    """Write what measured and theory look like, and what a reader must know, below the panels."""
    return style.finish(figure, ["Solid: measured. Dashed: theory.", notes])


def finite(values: np.ndarray) -> np.ndarray:
    """Values for a log axis: what is exactly zero is left out."""
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
    **look: Any,
) -> None:
    """Draw the median over seeds, and the range from the least to the most."""
    kept = ~np.isnan(values).all(axis=0)
    places, values = places[kept], values[:, kept]
    axes.plot(places, np.nanmedian(values, axis=0), color=colour, label=name, **look)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
