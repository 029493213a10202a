"""Figure of the mean log norm against lag: how fast the gradient decays, and its horizon."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab import decay
from gradlab.figures import bands, curves, legends, lines, moments, selection, style
from gradlab.figures.choice import Choice, Where
from gradlab.figures.layout import arrange_lines
from gradlab.figures.moments import Step

HORIZON_LEVEL = -1.0  # nats: the mean norm is 1/e of its lag-0 value
THEORIES = {  # the first that was measured, and what it is
    "mean field": "mean field of a tanh layer",
    "mean log forget": "E ln f of a forget gate f",
    "mean log update": "E ln z of a gate z that keeps the state",
}
HORIZON_LEVEL_LINE: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9, "linestyle": ":"}
THEORY_LINE: dict[str, Any] = {"linewidth": 0.9, "linestyle": "-."}
HORIZON_MARK: dict[str, Any] = {"marker": "o", "markersize": 5}
ZERO_MARK: dict[str, Any] = {
    "color": style.GREY,
    "linestyle": "none",
    "marker": "x",
    "markersize": 5,
}
PROFILE = curves.Quantity(
    "lag", "lag t − k (steps)", "relative", "mean norm, relative to lag 0", scale="norm"
)


def decay_table(runs: pd.DataFrame, step: Step = moments.DEFAULT) -> pd.DataFrame:
    """Tabulate the mean log norm by lag: one row per point, moment and lag.

    Args:
        runs: from `gradlab.load_runs`; every run must have gradients.
        step: the moments of training, as in `Choice`.

    Returns:
        `point` (the index of the runs), `when` (the moment: "before training", …), `step` (updates
        before it), `lag` (time steps), `log_norm` (nats, `gradlab.decay.lag_profile`: mean over the
        samples and pairs that are not exactly zero), `relative` (`log_norm` less its value at lag
        0, or at the first lag where the norm is not exactly zero), `zero` (whether every product
        of this lag is exactly zero), `zero_share` (of the pairs k < t of all lags, those that are
        exactly zero), `theory` (the decay rate that theory gives, nats per step; NaN: none was
        measured) and `theory_name` (a key of THEORIES; "": none).

    Example:
        >>> table = gradlab.figures.decay_table(runs, step="first")
        >>> table.loc[table["lag"] == 0, "log_norm"].tolist()  # nats; lag 0 is the identity
        [0.0, 0.0, 0.0, 0.0]
    """
    return lines.measured_table(runs, _curve, selection.MAPS, step=step)


@style.theme()
def decay_figure(
    runs: pd.DataFrame,
    *,
    where: Where | None = None,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    step: Step = moments.DEFAULT,
    band: bands.Band = bands.DEFAULT,
) -> style.Drawn:
    """Draw the mean norm against lag: one line per gain, one panel per model, or what else varies.

    A theory's decay rate is the slope of a line through lag 0.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        where: config keys with the level, or list of levels, to show, as {"model.name": "lstm"}.
        hue: the config key by which lines differ; None: the gain, or what else varies.
        col, row: the config keys by which columns and rows of panels differ; None: columns by what
            varies, one row.
        step: the moments of training: "first", "last", both ("ends"), "all", or a number of updates
            after which the runs were measured.
        band: over seeds: "ci" (95 % bootstrap interval of the mean), "sd", "iqr", "range" or
            "none"; fewer than four seeds are thin lines instead.

    Raises:
        ValueError: no point has gradients, or what is asked for is not there.

    Example:
        >>> lstm = {"model.name": "lstm"}
        >>> drawn = gradlab.figures.decay(runs, where=lstm, hue="init.gain", step="last")
    """
    choice = Choice(where, hue, col, row, step, band)
    usable = selection.with_gradients(runs)
    limits: dict[str, Any] = {"panels": lines.PANELS, "lines": lines.LINES}
    grid = arrange_lines(usable, choice, **limits, apart=lines.OVER_TIME)
    table = decay_table(grid.runs, step)
    figure, body, panels = lines.small_multiples(grid, [PROFILE])
    notes = lines.draw_panels(panels, grid, table, [PROFILE], band, mark_curves)
    points = [group for row_groups in grid.panels() for group in row_groups]
    for axes, group in zip(panels.ravel(), points, strict=True):
        _draw_theory(axes, group, table)
    legends.legend(
        body,
        [*curves.line_entries(grid.runs, table), *mark_entries(table), *_theory_entries(table)],
    )
    notes += [*zero_notes(table), *_theory_note(table)]
    notes += selection.notes(runs, usable, grid.runs, choice.keys(), selection.MAPS)
    return style.Drawn(style.finish(figure, notes, lines.panel_height(grid)), table)


def mark_curves(axes: Axes, drawn: Sequence[curves.Curve]) -> None:
    """Mark the horizons of the curves of a panel, and where they end in exact zeros."""
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    axes.axhline(HORIZON_LEVEL, **HORIZON_LEVEL_LINE)
    for curve in drawn:
        _mark_horizon(axes, curve)
        _mark_last_nonzero(axes, curve)


def mark_entries(table: pd.DataFrame) -> list[legends.Entry]:
    """Return the legend entries of the dashes and markers that `mark_curves` draws of a table."""
    label = "horizon: norm at 1/e"
    entries = curves.moment_entries(table)
    entries.append(Line2D([], [], **HORIZON_LEVEL_LINE, **HORIZON_MARK, label=label))
    if np.isneginf(table["relative"]).any():
        entries.append(Line2D([], [], **ZERO_MARK, label="exactly zero beyond"))
    return entries


def zero_notes(table: pd.DataFrame) -> list[str]:
    """Return the sentences on the pairs that curves leave out and on where they end, if any do."""
    most = table["zero_share"].max()
    if not most > 0:
        return []
    notes = [
        f"A run's mean leaves out products that are zero: at most {most:.1%} of a map's pairs."
    ]
    if np.isneginf(table["relative"]).any():
        notes.append("A curve that ends in exact zeros above 1/e has no dot.")
    return notes


def _curve(measurements: xr.Dataset) -> pd.DataFrame:
    maps = measurements[selection.MAPS]
    log_norms = maps.to_numpy()
    profile = decay.lag_profile(log_norms)
    by_lag = (np.diagonal(log_norms, -lag, -2, -1) for lag in range(len(profile)))
    curve = {
        "lag": maps["t"] - maps["t"][0],
        "log_norm": profile,
        "relative": _relative(profile),
        "zero": [bool(np.isneginf(decay.mean_log_norm(pairs))) for pairs in by_lag],
    }
    share = decay.zero_share(log_norms)
    theory, rate = _theory(measurements)
    return pd.DataFrame(curve).assign(zero_share=share, theory=rate, theory_name=theory)


def _relative(profile: decay.Profile) -> decay.Profile:
    nonzero = profile[profile > -np.inf]
    return profile - nonzero[0] if len(nonzero) else profile


def _theory(measurements: xr.Dataset) -> tuple[str, float]:
    """Return the theory that was measured, the first of THEORIES, and its rate."""
    if "theory_rate" not in measurements:
        return "", np.nan
    rates = measurements["theory_rate"].mean("sample").to_series()
    name = next((name for name in THEORIES if name in rates), "")
    return name, float(rates.get(name, np.nan))


def _mark_horizon(axes: Axes, curve: curves.Curve) -> None:
    stride = float(curve.band["lag"].iloc[1])  # between lags, in time steps
    whole = curve.band[~np.logical_or.accumulate(curve.partial())]
    horizon = decay.horizon(whole["mean"].to_numpy()) * stride
    if not horizon <= whole.loc[np.isfinite(whole["mean"]), "lag"].max():
        return  # the line ends above
    face = "white" if curve.when == moments.BEFORE else curve.colour
    mark = HORIZON_MARK | {"color": curve.colour, "markerfacecolor": face}
    axes.plot(horizon, HORIZON_LEVEL, **mark)


def _mark_last_nonzero(axes: Axes, curve: curves.Curve) -> None:
    means = curve.means().dropna()
    zero = [seed for _, seed in curve.seeds.items() if np.isneginf(seed).any()]
    ends = [seed[np.isfinite(seed)].tail(1) for seed in zero]
    end = means.tail(1)
    thin = [last for last in ends if (last.index > means.index.max()).any()]  # beyond the mean
    for last, size in [*((end, 5) for _ in zero[:1]), *((last, 3) for last in thin)]:
        axes.plot(last.index, last, **ZERO_MARK | {"color": curve.colour, "markersize": size})


def _draw_theory(axes: Axes, runs: pd.DataFrame, table: pd.DataFrame) -> None:
    limits = axes.get_ylim()
    last = table[table["step"] == table.groupby("point")["step"].transform("max")]
    for colour, line in runs.groupby("colour", sort=False):
        rows = last[last["point"].isin(line.index)]
        if rows["theory"].notna().any():
            lags = np.sort(rows["lag"].unique())
            axes.plot(lags, rows["theory"].mean() * lags, color=str(colour), **THEORY_LINE)
    axes.set_ylim(limits)  # theory may leave the panel: the measured curves set its limits


def _theory_entries(table: pd.DataFrame) -> list[legends.Entry]:
    shown = table["theory"].notna().any()
    label = "theory, last moment" if len(set(table["step"])) > 1 else "slope by theory"
    return [Line2D([], [], color=style.GREY, **THEORY_LINE, label=label)] if shown else []


def _theory_note(table: pd.DataFrame) -> list[str]:
    drawn = set(table.loc[table["theory"].notna(), "theory_name"])
    meanings = [meaning for name, meaning in THEORIES.items() if name in drawn]
    return [f"Theory: {'; '.join(meanings)}."] if meanings else []
