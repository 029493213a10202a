"""Curves of the mean log norm against lag: how fast a gradient fades, and its horizon."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab import decay
from gradlab.figures import lines, selection, style

HORIZON = -1.0  # nats: the mean norm is 1/e of its lag-0 value
THEORIES = ("mean field", "mean log forget", "mean log update")  # the first that was measured
HORIZON_LINE: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9, "linestyle": ":"}
THEORY_LINE: dict[str, Any] = {"linewidth": 0.9, "linestyle": "-."}
REACHED: dict[str, Any] = {"marker": "o", "markersize": 5}
ENDED: dict[str, Any] = {"color": style.GREY, "linestyle": "none", "marker": "x", "markersize": 5}
LAG_LABEL = "lag t − k (steps)"
NORM_LABEL = "mean norm, relative to lag 0"
PROFILE = lines.Quantity("lag", LAG_LABEL, "relative", NORM_LABEL, scale="nats")


def decay_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The lag profile of every point, tidy: one row a point, moment and lag.

    Args:
        runs: every point must have gradients.

    Returns:
        `point` (the index of the runs), `when` ("before", "after" training), `step` (training
        step), `lag` (time steps), `log_norm` (nats, mean over samples and pairs), `relative`, the
        same less its value at lag 0 (or at the first lag that is not exactly zero; −inf: exactly
        zero), and `theory`, the rate that theory gives (nats per step; NaN: none was measured).
    """
    return lines.measured(runs, _curve, "jacobian_log_norm")


def _curve(found: xr.Dataset) -> pd.DataFrame:
    maps = found["jacobian_log_norm"]
    profile = decay.lag_profile(maps.to_numpy())
    curve = {"lag": maps["t"] - maps["t"][0], "log_norm": profile, "relative": _relative(profile)}
    return pd.DataFrame(curve).assign(theory=_theory(found))


def _theory(found: xr.Dataset) -> float:
    if "theory_rate" not in found:
        return np.nan
    rates = found["theory_rate"].mean("sample").to_series()
    return float(next((rates[name] for name in THEORIES if name in rates), np.nan))


def horizon_of(curve: pd.DataFrame) -> float:
    """The lag at which a mean curve falls to −1 nat, in time steps; inf if it never does."""
    return decay.horizon(curve["mean"].to_numpy()) * float(curve["lag"].iloc[1])


@style.theme()
def decay_figure(runs: pd.DataFrame, when: Sequence[str] = lines.WHEN) -> style.Drawn:
    """Mean norm against lag: a line a gain (or what else varies), a panel a model and length.

    Lines are means over seeds, with a band from the least to the greatest; the slope that theory
    gives is drawn through lag 0.

    Args:
        runs: as of `gradlab.load_runs`, of any sweep.
        when: "before" and/or "after" training.

    Raises:
        ValueError: no point has gradients.
    """
    usable = selection.with_gradients(runs)
    grid = selection.arrange_lines(usable, panels=lines.PANELS, lines=lines.LINES)
    table = lines.at_moments(decay_table(grid.runs), when)
    figure, body, panels = lines.small_multiples(grid, [PROFILE])
    for axes, (_, row) in zip(panels[0], grid.rows(), strict=True):
        draw_curves(axes, row, table)
        _draw_theory(axes, row, table)
    entries = [*lines.line_key(grid.runs), *mark_key(table), *_theory_key(table)]
    style.legend(body, entries)
    below = [lines.NORM_NOTE, *_theory_note(table), *selection.notes(runs, usable, grid.runs)]
    return style.Drawn(style.finish(figure, below), table)


def draw_curves(axes: Axes, cell: pd.DataFrame, table: pd.DataFrame) -> None:
    """Draw the lines of some points, dashed before and solid after training.

    Args:
        axes: where.
        cell: the points, as of `selection.with_lines`; those of the same line are averaged.
        table: as of `decay_table`.
    """
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    axes.axhline(HORIZON, **HORIZON_LINE)
    for colour, line in cell.groupby("colour", sort=False):
        profiles = table[table["point"].isin(line.index)]
        for when, profile in profiles.groupby("when", sort=False):
            band = lines.band_of(profile, "lag", "relative")
            lines.draw_band(axes, band, str(colour), lines.DASHES[str(when)])
            _mark_ends(axes, band, str(colour), str(when))


def mark_key(table: pd.DataFrame) -> list[style.Entry]:
    """Legend entries of the dashes and markers that `draw_curves` uses for a table."""
    entries = lines.when_key(table)
    entries.append(Line2D([], [], **HORIZON_LINE, **REACHED, label="horizon: norm fallen to 1/e"))
    if np.isneginf(table["relative"]).any():
        entries.append(Line2D([], [], **ENDED, label="exactly zero beyond"))
    return entries


def _mark_ends(axes: Axes, band: pd.DataFrame, colour: str, when: str) -> None:
    face = colour if when == "after" else "white"
    reached = REACHED | {"color": colour, "markerfacecolor": face}
    axes.plot(horizon_of(band), HORIZON, **reached)
    if np.isneginf(band["mean"]).any():
        last = band[np.isfinite(band["mean"])].tail(1)
        axes.plot(last["lag"], last["mean"], **(ENDED | {"color": colour}))


def _draw_theory(axes: Axes, cell: pd.DataFrame, table: pd.DataFrame) -> None:
    low, high = axes.get_ylim()
    last = table[table["when"] == table["when"].iloc[-1]]
    for colour, line in cell.groupby("colour", sort=False):
        mine = last[last["point"].isin(line.index)]
        if mine["theory"].notna().any():
            lags = np.sort(mine["lag"].unique())
            axes.plot(lags, mine["theory"].mean() * lags, color=str(colour), **THEORY_LINE)
    axes.set_ylim(low, high)  # what is measured sets the frame


def _theory_key(table: pd.DataFrame) -> list[style.Entry]:
    shown = table["theory"].notna().any()
    label = "slope by theory"
    return [Line2D([], [], color=style.GREY, **THEORY_LINE, label=label)] if shown else []


def _theory_note(table: pd.DataFrame) -> list[str]:
    note = "Theory: mean field of a tanh layer; E ln f of a gate f that keeps the state."
    return [note] if table["theory"].notna().any() else []


def _relative(profile: decay.Profile) -> decay.Profile:
    present = profile[profile > -np.inf]
    return profile - present[0] if len(present) else profile
