"""Figure of gradient clipping: success, final loss and clip fraction by threshold and rate."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import bands, lines, outcome, selection, style
from gradlab.figures.labels import level_label
from gradlab.figures.layout import arrange, with_line_style
from gradlab.records import load_metrics
from gradlab.records.table import with_constants

THRESHOLD, RATE = "clip.threshold", "optim.learning_rate"
LINES = 5  # in a panel, at most
SUCCESS, LOSS, FRACTION = "success", "final loss", "clip fraction"
BY_THRESHOLD = ("rank", "clip threshold", "value")
QUANTITIES = (
    lines.Quantity(*BY_THRESHOLD, "success rate", SUCCESS, band=False),
    lines.Quantity(*BY_THRESHOLD, "final loss", LOSS, "log"),
    lines.Quantity("step", "training step (updates)", "value", "clip fraction", FRACTION),
)


def clipping_table(
    runs: pd.DataFrame, error: float = outcome.MAX_ERROR, accuracy: float = outcome.MIN_ACCURACY
) -> pd.DataFrame:
    """Tabulate how runs ended and how often their updates were clipped.

    Args:
        runs: from `gradlab.load_runs`; every run must have metrics.
        error, accuracy: the criteria of success, as in `outcome.succeeded`.

    Returns:
        One row per point and quantity, or logged step: `point`, `quantity` ("success": 1 or 0;
        "final loss": held out, NaN if the run diverged; "clip fraction": share of the updates since
        the last logged step), `threshold` (inf: no clipping), `learning_rate`, `step` (updates;
        NaN except for the clip fraction) and `value`.

    Raises:
        ValueError: the runs have no learning rate in their configs, or none logged the metric that
            success is judged by.
    """
    runs = _with_rate(runs)
    settings = pd.DataFrame({"threshold": threshold_of(runs), "learning_rate": runs[RATE]})
    outcomes = {
        SUCCESS: outcome.succeeded(runs, error, accuracy),
        LOSS: runs.reindex(columns=["eval/loss"])["eval/loss"].where(runs["status"] == "done"),
    }
    tables = [
        settings.assign(point=runs.index, quantity=name, step=np.nan, value=values)
        for name, values in outcomes.items()
    ]
    for point, path in zip(runs.index.tolist(), runs["path"], strict=True):
        metrics = load_metrics(path).reindex(columns=["train/step", "train/clip_fraction"])
        columns = {"step": metrics["train/step"], "value": metrics["train/clip_fraction"]}
        fractions = pd.DataFrame(columns).dropna()
        fractions["point"], fractions["quantity"] = point, FRACTION
        tables.append(fractions.join(settings, on="point"))
    table = pd.concat(tables, ignore_index=True)
    return table[["point", "quantity", "threshold", "learning_rate", "step", "value"]]


@style.theme()
def clipping_figure(
    runs: pd.DataFrame, error: float = outcome.MAX_ERROR, accuracy: float = outcome.MIN_ACCURACY
) -> style.Drawn:
    """Draw success and loss against the threshold, and the clip fraction over training.

    Success and loss have one line per learning rate. The clip fraction is drawn for one learning
    rate: the one with the highest success rate and, among equals, the lowest loss.

    Args:
        runs: from `gradlab.load_runs`, of a sweep over clip.threshold and optim.learning_rate.
        error, accuracy: the criteria of success, as in `outcome.succeeded`.

    Raises:
        ValueError: no run has metrics, or none logged the metric that success is judged by.
    """
    usable = _with_rate(selection.with_metrics(runs))
    keys = selection.varying_keys(usable)
    group_keys = [key for key in keys if key not in (THRESHOLD, RATE, "seed")]
    styled = with_line_style(usable, RATE)
    grid = arrange(styled, RATE, group_keys, levels=LINES, groups=lines.PANELS)
    table = clipping_table(grid.runs, error, accuracy)
    levels = sorted(table["threshold"].unique())
    figure, body, panels = lines.small_multiples(grid, QUANTITIES)
    ranked = table.assign(rank=table["threshold"].map(levels.index))
    band_notes = lines.draw_panels(panels[:2], grid, ranked, QUANTITIES[:2], "ci")
    for axes in panels[:2].ravel():
        axes.set_xticks(range(len(levels)), [_threshold_label(level) for level in levels])
    rate = _best_rate(table)
    for axes, (_, group) in zip(panels[2], grid.groups(), strict=True):
        _draw_fractions(axes, table[table["point"].isin(group.index)], levels, rate)
    for axes in panels[[0, 2]].ravel():
        axes.set_ylim(-0.05, 1.05)
    style.legend(body, [*lines.line_entries(grid.runs), *_threshold_entries(levels)])
    notes = [
        *band_notes,
        outcome.criterion(runs, error, accuracy),
        f"Clip fraction: at {level_label(RATE, rate)}.",
        *selection.notes(runs, usable, grid.runs),
    ]
    return style.Drawn(style.finish(figure, notes), table)


def threshold_of(runs: pd.DataFrame) -> pd.Series:
    """Return the clip threshold of each run; inf if it does not clip."""
    thresholds = runs.get(THRESHOLD, pd.Series(np.inf, runs.index))
    return thresholds.astype(float).fillna(np.inf)


def _with_rate(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with their constant columns, of which one is the learning rate."""
    runs = with_constants(runs)
    if RATE not in runs:
        raise ValueError(
            f"the runs have no config key {RATE!r}: give it to gradlab.watch, as "
            f"config={{{RATE!r}: 0.01}}."
        )
    return runs


def _best_rate(table: pd.DataFrame) -> float:
    means = table.pivot_table(index="learning_rate", columns="quantity", values="value")
    means = means.reindex(columns=[SUCCESS, LOSS])
    return float(means.sort_values([SUCCESS, LOSS], ascending=[False, True]).index[0])


def _draw_fractions(axes: Axes, table: pd.DataFrame, levels: list[float], rate: float) -> None:
    fractions = table[(table["quantity"] == FRACTION) & (table["learning_rate"] == rate)]
    for level, colour in zip(levels, _greys(levels), strict=True):
        rows = fractions[fractions["threshold"] == level]
        if not rows.empty:
            band = bands.over_seeds(rows, "step", "value")
            seeds = bands.seeds_of(rows, "step", "value")
            lines.draw_curve(axes, lines.Curve("", colour, band, seeds), "ci")


def _greys(levels: list[float]) -> list[str]:
    return style.shades("#777777", len(levels))


def _threshold_entries(levels: list[float]) -> list[style.Entry]:
    return [
        Line2D([], [], color=colour, label=level_label(THRESHOLD, level))
        for level, colour in zip(levels, _greys(levels), strict=True)
    ]


def _threshold_label(level: float) -> str:
    return f"{level:g}" if np.isfinite(level) else "none"
