"""Figure of the mean log norm against lag: how fast the gradient decays, and its horizon."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab import decay
from gradlab.figures import lines, selection, style

HORIZON_LEVEL = -1.0  # nats: the mean norm is 1/e of its lag-0 value
THEORIES = ("mean field", "mean log forget", "mean log update")  # the first that was measured
HORIZON_LEVEL_LINE: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9, "linestyle": ":"}
THEORY_LINE: dict[str, Any] = {"linewidth": 0.9, "linestyle": "-."}
HORIZON_MARK: dict[str, Any] = {"marker": "o", "markersize": 5}
ZERO_MARK: dict[str, Any] = {
    "color": style.GREY,
    "linestyle": "none",
    "marker": "x",
    "markersize": 5,
}
PROFILE = lines.Quantity(
    "lag", "lag t − k (steps)", "relative", "mean norm, relative to lag 0", scale="nats"
)


def decay_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the mean log norm by lag: one row per point, moment and lag.

    Args:
        runs: from `gradlab.load_runs`; every run must have gradients.

    Returns:
        `point` (the index of the runs), `when` ("before", "after" training), `step` (training
        step), `lag` (time steps), `log_norm` (nats, `gradlab.decay.lag_profile`: mean over the
        samples and pairs that are not exactly zero), `relative` (`log_norm` less its value at lag
        0, or at the first lag where the norm is not exactly zero), `zero_share` (of the pairs k < t
        of all lags, those that are exactly zero), and `theory` (the decay rate that theory gives,
        nats per step; NaN: none was measured).
    """
    return lines.measured_table(runs, _curve, "jacobian_log_norm")


@style.theme()
def decay_figure(runs: pd.DataFrame, when: Sequence[str] = lines.WHEN) -> style.Drawn:
    """Draw the mean norm against lag: one line per gain, one panel per model, or what else varies.

    Lines are means over seeds with a band from the least to the greatest. A theory's decay rate is
    the slope of a line through lag 0.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        when: "before" and/or "after" training.

    Raises:
        ValueError: no point has gradients.
    """
    usable = selection.with_gradients(runs)
    grid = selection.arrange_lines(usable, panels=lines.PANELS, lines=lines.LINES)
    table = lines.at_moments(decay_table(grid.runs), when)
    figure, body, panels = lines.small_multiples(grid, [PROFILE])
    for axes, (_, group) in zip(panels[0], grid.groups(), strict=True):
        draw_curves(axes, group, table)
        _draw_theory(axes, group, table)
    entries = [*lines.line_entries(grid.runs), *mark_entries(table), *_theory_entries(table)]
    style.legend(body, entries)
    notes = [lines.NORM_NOTE, *zero_notes(table), *_theory_note(table)]
    notes += [*selection.notes(runs, usable, grid.runs)]
    return style.Drawn(style.finish(figure, notes), table)


def draw_curves(axes: Axes, runs: pd.DataFrame, table: pd.DataFrame) -> None:
    """Draw the curves of some points, dashed before and solid after training, with their horizons.

    Args:
        axes: the panel.
        runs: the points, from `selection.with_line_style`; points of one colour are averaged.
        table: from `decay_table`.
    """
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    axes.axhline(HORIZON_LEVEL, **HORIZON_LEVEL_LINE)
    for colour, line in runs.groupby("colour", sort=False):
        line_rows = table[table["point"].isin(line.index)]
        for when, rows in line_rows.groupby("when", sort=False):
            band = lines.band_over_seeds(rows, "lag", "relative")
            lines.draw_band(axes, band, str(colour), lines.DASHES[str(when)])
            _mark_horizon(axes, band, str(colour), str(when))
            _mark_last_nonzero(axes, band, str(colour))


def mark_entries(table: pd.DataFrame) -> list[style.Entry]:
    """Return the legend entries of the dashes and markers that `draw_curves` uses for a table."""
    label = "horizon: norm fallen to 1/e"
    entries = lines.moment_entries(table)
    entries.append(Line2D([], [], **HORIZON_LEVEL_LINE, **HORIZON_MARK, label=label))
    if np.isneginf(table["relative"]).any():
        entries.append(Line2D([], [], **ZERO_MARK, label="exactly zero beyond"))
    return entries


def zero_notes(table: pd.DataFrame) -> list[str]:
    """Return the sentence that says how many pairs the curves of a table leave out, if any."""
    most = table["zero_share"].max()
    if not most > 0:
        return []
    return [f"Means leave out products that are exactly zero: at most {most:.1%} of a map's pairs."]


def _curve(measurements: xr.Dataset) -> pd.DataFrame:
    maps = measurements["jacobian_log_norm"]
    profile = decay.lag_profile(maps.to_numpy())
    curve = {"lag": maps["t"] - maps["t"][0], "log_norm": profile, "relative": _relative(profile)}
    share = decay.zero_share(maps.to_numpy())
    return pd.DataFrame(curve).assign(zero_share=share, theory=_theory_rate(measurements))


def _relative(profile: decay.Profile) -> decay.Profile:
    nonzero = profile[profile > -np.inf]
    return profile - nonzero[0] if len(nonzero) else profile


def _theory_rate(measurements: xr.Dataset) -> float:
    if "theory_rate" not in measurements:
        return np.nan
    rates = measurements["theory_rate"].mean("sample").to_series()
    return float(next((rates[name] for name in THEORIES if name in rates), np.nan))


def _mark_horizon(axes: Axes, band: pd.DataFrame, colour: str, when: str) -> None:
    stride = float(band["lag"].iloc[1])  # between lags, in time steps
    horizon = decay.horizon(band["mean"].to_numpy()) * stride
    face = colour if when == "after" else "white"
    mark = HORIZON_MARK | {"color": colour, "markerfacecolor": face}
    axes.plot(horizon, HORIZON_LEVEL, **mark)


def _mark_last_nonzero(axes: Axes, band: pd.DataFrame, colour: str) -> None:
    if np.isneginf(band["mean"]).any():
        last = band[np.isfinite(band["mean"])].tail(1)
        axes.plot(last["lag"], last["mean"], **(ZERO_MARK | {"color": colour}))


def _draw_theory(axes: Axes, runs: pd.DataFrame, table: pd.DataFrame) -> None:
    limits = axes.get_ylim()
    last = table[table["when"] == table["when"].iloc[-1]]
    for colour, line in runs.groupby("colour", sort=False):
        rows = last[last["point"].isin(line.index)]
        if rows["theory"].notna().any():
            lags = np.sort(rows["lag"].unique())
            axes.plot(lags, rows["theory"].mean() * lags, color=str(colour), **THEORY_LINE)
    axes.set_ylim(limits)  # theory may leave the panel: the measured curves set its limits


def _theory_entries(table: pd.DataFrame) -> list[style.Entry]:
    shown = table["theory"].notna().any()
    label = "slope by theory"
    return [Line2D([], [], color=style.GREY, **THEORY_LINE, label=label)] if shown else []


def _theory_note(table: pd.DataFrame) -> list[str]:
    note = "Theory: mean field of a tanh layer; E ln f of a gate f that keeps the state."
    return [note] if table["theory"].notna().any() else []
