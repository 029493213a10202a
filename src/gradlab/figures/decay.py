"""Curves of the mean log norm against lag: how fast a gradient fades, and its horizon."""

from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab import decay
from gradlab.figures import points, style
from gradlab.records import load_gradients

LINES, COLUMNS, ROWS = 6, 4, 6  # in a panel; of panels
HORIZON = -1.0  # nats: the mean norm is 1/e of its lag-0 value
DASHES: dict[str, Any] = {"before": (0, (4, 2)), "after": "-"}
HORIZON_LINE: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9, "linestyle": ":"}
REACHED: dict[str, Any] = {"marker": "o", "markersize": 5}
ENDED: dict[str, Any] = {"color": style.GREY, "linestyle": "none", "marker": "x", "markersize": 5}
LAG_LABEL = "lag t − k (steps)"
LOG_NORM_LABEL = "mean log norm, relative to lag 0 (nats)"


def decay_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The lag profile of every point, tidy: one row a point, moment and lag.

    Args:
        runs: as of `gradlab.load_runs`; every point must have gradients.

    Returns:
        `point` (the index of `runs`), `when` ("before", "after" training), `lag` (time steps),
        `log_norm` (nats, mean over samples and pairs) and `relative`, the same less its value at
        lag 0 (or at the first lag that is not exactly zero); −inf: exactly zero.
    """
    parts = []
    for point, path in runs["path"].items():
        for when, maps in points.before_and_after(load_gradients(path)).items():
            profile = decay.lag_profile(maps.to_numpy())
            lags = (maps["t"] - maps["t"][0]).to_numpy()
            curve = {"lag": lags, "log_norm": profile, "relative": _relative(profile)}
            parts.append(pd.DataFrame({"point": point, "when": when, **curve}))
    return pd.concat(parts, ignore_index=True)


def mean_curve(table: pd.DataFrame) -> pd.DataFrame:
    """The mean of several points' profiles at one moment: columns `lag` and `relative`."""
    return table.groupby("lag")["relative"].mean().reset_index()


def horizon_of(curve: pd.DataFrame) -> float:
    """The lag at which a mean curve falls to −1 nat, in time steps; inf if it never does."""
    return decay.horizon(curve["relative"].to_numpy()) * float(curve["lag"].iloc[1])


@style.theme()
def decay_figure(runs: pd.DataFrame) -> Figure:
    """Mean log norm against lag: a line a gain (or what else varies), a colour a model.

    Lengths stand side by side, other settings below each other. Curves are means over seeds.

    Args:
        runs: as of `gradlab.load_runs`, of any sweep.

    Raises:
        ValueError: no point has gradients.
    """
    runs = points.comparable(runs)
    usable = points.drawable(runs)
    axes = points.axes_of(usable)
    lines = points.across_of(axes, usable)
    rest = [axis for axis in axes if axis not in (lines, "seed")]
    across = "task.length" if "task.length" in rest else next(iter(rest), None)
    lined = points.with_lines(usable, lines)
    chosen = points.arrange(lined, lines, [], columns=LINES, rows=1).runs
    grid = points.arrange(chosen, across, rest, columns=COLUMNS, rows=ROWS)
    table = decay_table(grid.runs)
    figure, body = style.frame(style.WIDTH, 1.2 + 2.0 * len(grid.rows()))
    shape = (len(grid.rows()), len(grid.columns()))
    # Panels of one length compare; of several, the longest would flatten the others.
    shared: Literal["col", "all"] = "col" if across == "task.length" else "all"
    panels = body.subplots(*shape, sharex=shared, sharey=shared, squeeze=False)
    for line, (label, row) in zip(panels, grid.rows(), strict=True):
        for panel, cell, column in zip(line, grid.cells(row), grid.columns(), strict=True):
            draw_curves(panel, cell, table)
            panel.set_title(", ".join(filter(None, (label, column))))
    for panel in panels[-1]:
        panel.set_xlabel(LAG_LABEL)
    body.supylabel(LOG_NORM_LABEL, size="medium")
    style.legend(body, [*line_key(grid.runs), *mark_key(table)], grid.runs["model.name"].nunique())
    return style.finish(figure, points.notes(runs, grid.runs))


def draw_curves(axes: Axes, cell: pd.DataFrame, table: pd.DataFrame) -> None:
    """Draw the lines of some points, dashed before and solid after training.

    Args:
        axes: where.
        cell: the points, as of `points.with_lines`; those of the same line are averaged.
        table: as of `decay_table`.
    """
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    axes.axhline(HORIZON, **HORIZON_LINE)
    for colour, line in cell.groupby("colour", sort=False):
        profiles = table[table["point"].isin(line.index)]
        for when, profile in profiles.groupby("when", sort=False):
            _draw_curve(axes, mean_curve(profile), str(colour), str(when))
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)


def line_key(runs: pd.DataFrame) -> list[Artist]:
    """Legend entries of the lines of some points, as of `points.with_lines`."""
    lines = runs[["line", "colour"]].drop_duplicates()
    return [Line2D([], [], color=c, label=name) for name, c in lines.itertuples(index=False)]


def mark_key(table: pd.DataFrame) -> list[Artist]:
    """Legend entries of the dashes and markers that `draw_curves` uses for a table."""
    entries: list[Artist] = [
        Line2D([], [], color=style.GREY, linestyle=DASHES[when], label=f"{when} training")
        for when in table["when"].unique()
    ]
    entries.append(Line2D([], [], **HORIZON_LINE, **REACHED, label="horizon: norm fallen to 1/e"))
    if np.isneginf(table["relative"]).any():
        entries.append(Line2D([], [], **ENDED, label="exactly zero beyond"))
    return entries


def _draw_curve(axes: Axes, curve: pd.DataFrame, colour: str, when: str) -> None:
    axes.plot(curve["lag"], curve["relative"], color=colour, linestyle=DASHES[when], linewidth=1.6)
    face = colour if when == "after" else "white"
    reached = REACHED | {"color": colour, "markerfacecolor": face}
    axes.plot(horizon_of(curve), HORIZON, **reached)
    if np.isneginf(curve["relative"]).any():
        last = curve[np.isfinite(curve["relative"])].tail(1)
        axes.plot(last["lag"], last["relative"], **(ENDED | {"color": colour}))


def _relative(profile: decay.Profile) -> decay.Profile:
    present = profile[profile > -np.inf]
    return profile - present[0] if len(present) else profile
