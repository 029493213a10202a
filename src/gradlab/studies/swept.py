"""The figure of a study that sweeps: one column of its table over another, with printed points.

A study names its columns in claims.yaml, so that a new one needs no code.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.figures import style
from gradlab.studies import drawing


@style.theme()
def figure(
    table: pd.DataFrame,
    x: str,
    y: str,
    by: str | None = None,
    printed: Sequence[tuple[float, float]] = (),
    log_axes: Sequence[str] = (),
) -> Figure:
    """Draw medians over seeds as lines with their range as bands, and the source's points.

    Args:
        table: the study's results, with a column `seed`.
        x: the column along the horizontal axis; infinite values are left out.
        y: the column along the vertical axis; infinite values are left out.
        by: the column that tells the lines apart; None: one line.
        printed: (x, y) of the points that the source prints, drawn as open marks.
        log_axes: axes with a logarithmic scale, of "x" and "y".

    Raises:
        ValueError: the table has no such column; the message names those that it has.
    """
    for column in (x, y, *([by] if by else [])):
        if column not in table:
            names = ", ".join(map(str, table))
            raise ValueError(f"the figure asks for {column!r}; the results have {names}.")
    figure, (axes,) = drawing.panels(1, 1, f"{y} over {x}", height=3.4)
    finite = np.isfinite(table[[x, y]].astype(float)).all(axis=1)
    rows = table[finite].assign(value=table[y].astype(float))
    levels = {f"{by} = {name!s}": line for name, line in rows.groupby(by)} if by else {"ours": rows}
    for (label, line), colour in zip(levels.items(), drawing.HUES, strict=False):
        places, values = drawing.by_seed(line, x)
        drawing.band(axes, places, values, colour, label, marker="o", markersize=4)
    if printed:
        marks: dict[str, Any] = {
            "color": "0.15",
            "linestyle": "none",
            "marker": "D",
            "markerfacecolor": "none",
        }
        axes.plot(*np.transpose(printed), label="as printed", **marks)
    for axis in log_axes:
        axes.set(**{f"{axis}scale": "log"})
    drawing.label_axes(axes, "", x, y, legend=False)
    drawing.legend_above(axes)
    return style.finish(figure, [f"Medians of {table['seed'].nunique()} seeds and their range."])
