"""What clipping changes: success and loss by threshold and learning rate, how often it acts."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import lines, outcome, selection, style
from gradlab.figures.labels import level_label
from gradlab.records import load_metrics

THRESHOLD, RATE = "clip.threshold", "optim.learning_rate"
LINES = 5
SUCCESS, LOSS, FRACTION = "success", "final loss", "clip fraction"
BY_THRESHOLD = ("place", "clip threshold", "value")
QUANTITIES = (
    lines.Quantity(*BY_THRESHOLD, "success rate", SUCCESS, band=False),
    lines.Quantity(*BY_THRESHOLD, "final loss", LOSS, "log"),
    lines.Quantity("step", "training step (updates)", "value", "clip fraction", FRACTION),
)


def clipping_table(
    runs: pd.DataFrame, error: float = outcome.ERROR, accuracy: float = outcome.ACCURACY
) -> pd.DataFrame:
    """How runs ended, and how often their clip acted: one row a point and quantity, or step.

    Args:
        runs: every run must have metrics.
        error, accuracy: what counts as success, as of `outcome.succeeded`.

    Returns:
        `point`, `quantity` ("success": 1 or 0; "final loss": held out, NaN of a run that diverged;
        "clip fraction": of the updates since the row before), `threshold` (inf: none),
        `learning_rate`, `step` (updates; NaN but for the fraction) and `value`.

    Raises:
        ValueError: no run logs what success is told by.
    """
    place = pd.DataFrame({"threshold": threshold_of(runs), "learning_rate": runs[RATE]})
    ended = {
        SUCCESS: outcome.succeeded(runs, error, accuracy),
        LOSS: runs.reindex(columns=["eval/loss"])["eval/loss"].where(runs["status"] == "done"),
    }
    parts = [
        place.assign(point=runs.index, quantity=name, step=np.nan, value=values)
        for name, values in ended.items()
    ]
    for point, path in zip(runs.index.tolist(), runs["path"], strict=True):
        logged = load_metrics(path).reindex(columns=["train/step", "train/clip_fraction"])
        seen = {"step": logged["train/step"], "value": logged["train/clip_fraction"]}
        over = pd.DataFrame(seen).dropna()
        over["point"], over["quantity"] = point, FRACTION
        parts.append(over.join(place, on="point"))
    table = pd.concat(parts, ignore_index=True)
    return table[["point", "quantity", "threshold", "learning_rate", "step", "value"]]


@style.theme()
def clipping_figure(
    runs: pd.DataFrame, error: float = outcome.ERROR, accuracy: float = outcome.ACCURACY
) -> style.Drawn:
    """Success and loss against the threshold, a line a learning rate; below, the clip fraction.

    The fraction is that of the learning rate with most successes, then least loss.

    Raises:
        ValueError: no run has metrics, or logs what success is told by.
    """
    usable = selection.with_metrics(runs)
    down = [
        axis for axis in selection.varying_keys(usable) if axis not in (THRESHOLD, RATE, "seed")
    ]
    shaded = selection.with_lines(usable, RATE)
    grid = selection.arrange(shaded, RATE, down, columns=LINES, rows=lines.PANELS)
    table = clipping_table(grid.runs, error, accuracy)
    levels = sorted(table["threshold"].unique())
    figure, body, panels = lines.small_multiples(grid, QUANTITIES)
    placed = table.assign(place=table["threshold"].map(levels.index))
    lines.draw_panels(panels[:2], grid, placed, QUANTITIES[:2])
    for axes in panels[:2].ravel():
        axes.set_xticks(range(len(levels)), [_threshold_label(level) for level in levels])
    best = _best(table)
    for axes, (_, inside) in zip(panels[2], grid.rows(), strict=True):
        _draw_fractions(axes, table[table["point"].isin(inside.index)], levels, best)
    for axes in panels[[0, 2]].ravel():
        axes.set_ylim(-0.05, 1.05)
    style.legend(body, [*lines.line_key(grid.runs), *_key(levels)])
    notes = [
        outcome.criterion(runs, error, accuracy),
        f"Clip fraction: at {level_label(RATE, best)}.",
        *selection.notes(runs, usable, grid.runs),
    ]
    return style.Drawn(style.finish(figure, notes), table)


def threshold_of(runs: pd.DataFrame) -> pd.Series:
    """The clip threshold of each run; inf where it does not clip."""
    given = runs.get(THRESHOLD, pd.Series(np.inf, runs.index))
    return given.astype(float).fillna(np.inf)


def _best(table: pd.DataFrame) -> float:
    ended = table.pivot_table(index="learning_rate", columns="quantity", values="value")
    ended = ended.reindex(columns=[SUCCESS, LOSS])
    return float(ended.sort_values([SUCCESS, LOSS], ascending=[False, True]).index[0])


def _draw_fractions(axes: Axes, table: pd.DataFrame, levels: list[float], rate: float) -> None:
    table = table[(table["quantity"] == FRACTION) & (table["learning_rate"] == rate)]
    for level, colour in zip(levels, _greys(levels), strict=True):
        band = lines.band_of(table[table["threshold"] == level], "step", "value")
        lines.draw_band(axes, band, colour, "-")


def _greys(levels: list[float]) -> list[str]:
    return style.shades("#777777", len(levels))


def _key(levels: list[float]) -> list[style.Entry]:
    return [
        Line2D([], [], color=colour, label=level_label(THRESHOLD, level))
        for level, colour in zip(levels, _greys(levels), strict=True)
    ]


def _threshold_label(level: float) -> str:
    return f"{level:g}" if np.isfinite(level) else "none"
