"""Figure of a phase diagram: an outcome of training over two config keys of a sweep."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Patch, Rectangle

from gradlab import decay
from gradlab.figures import outcome, selection, style
from gradlab.figures.labels import key_label, value_label
from gradlab.figures.layout import arrange
from gradlab.records.table import with_constants

PANELS = 4  # side by side, at most
MAX_NUMBERED_CELLS = 12  # along x or y, at most, for each to have its number written in it
# Cells without a finite number, and their looks.
MARKS = {
    "diverged": style.DIVERGED,
    "exactly zero": style.ZERO,
    "infinite": style.INFINITE,
    "no value": style.BLANK,
}


def phase_table(
    runs: pd.DataFrame,
    value: str = "decay_rate",
    x: str = "init.gain",
    y: str = "task.length",
    *,
    error: float = outcome.MAX_ERROR,
    accuracy: float = outcome.MIN_ACCURACY,
) -> pd.DataFrame:
    """Tabulate an outcome of training over two config keys: one row per point.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        value: the outcome, a key of `outcome.OUTCOMES`.
        x, y: config keys.
        error, accuracy: the criteria of success, as in `outcome.succeeded`.

    Returns:
        `point`, the columns named by x and y, a column named by the outcome (NaN: the run has
        none, as one that diverged has no final loss, decay rate or horizon; −inf: a decay rate of
        gradients that are exactly zero; inf: a horizon that is never reached) and `status`.

    Raises:
        ValueError: x or y is not a config key of the runs, or no run has the outcome.
    """
    runs = with_constants(runs)
    for key in (x, y):
        if key not in runs:
            varying = ", ".join(selection.varying_keys(selection.comparable(runs))) or "nothing"
            raise ValueError(f"the runs have no config key {key!r}; what varies: {varying}.")
    outcomes = outcome.outcome_of(runs, value, error, accuracy)
    if value != "success":  # W&B keeps what was measured before the run diverged
        outcomes = outcomes.mask(runs["status"] == "diverged")
    table = pd.DataFrame({x: runs[x], y: runs[y], value: outcomes, "status": runs["status"]})
    return table.rename_axis("point").reset_index()


@style.theme()
def phase_figure(
    runs: pd.DataFrame,
    value: str = "decay_rate",
    x: str = "init.gain",
    y: str = "task.length",
    *,
    error: float = outcome.MAX_ERROR,
    accuracy: float = outcome.MIN_ACCURACY,
) -> style.Drawn:
    """Draw an outcome over two config keys, one panel per model (or what else varies).

    A cell is the mean over the seeds that have a value. Hatchings tell apart cells where training
    diverged, where the gradient is exactly zero, and where a horizon is never reached.

    Args:
        runs, value, x, y, error, accuracy: as in `phase_table`.

    Raises:
        ValueError: as in `phase_table`.
    """
    everything, runs = runs, selection.readable(runs)
    table = phase_table(runs, value, x, y, error=error, accuracy=accuracy)
    group_keys = [key for key in selection.varying_keys(runs) if key not in (x, y, "seed")]
    grid = arrange(runs, None, group_keys, levels=1, groups=PANELS)
    table = table[table["point"].isin(grid.runs.index)]
    colours, norm = _colours(value, table[value])
    look, groups = style.current_style(), grid.groups()
    width = look.column if len(groups) <= 2 else look.width
    figure, body = style.new_figure(width, 0.8 * look.text + 0.75 * (width - 1) / len(groups) + 0.5)
    panels = body.subplots(1, len(groups), sharex=True, sharey=True, squeeze=False)[0]
    marked: set[str] = set()
    for axes, (label, group) in zip(panels, groups, strict=True):
        numbers, marks = _cells(table[table["point"].isin(group.index)], x, y, value)
        _draw(axes, numbers, marks, colours, norm)
        marked |= set(marks.to_numpy().ravel())
        axes.set_title(style.wrapped(label, width / len(groups)))
        axes.set_xticks(range(numbers.shape[1]), _ticks(x, numbers.columns))
        axes.set_yticks(range(numbers.shape[0]), _ticks(y, numbers.index))
        axes.set_xlabel(_axis_label(x))
    panels[0].set_ylabel(_axis_label(y))
    bar = ScalarMappable(norm, colours)
    body.colorbar(bar, ax=panels.tolist(), label=outcome.OUTCOMES[value][1])
    labels = {"infinite": "never falls to 1/e"} if value == "horizon" else {}
    entries = [
        Patch(label=labels.get(mark, mark), **look)
        for mark, look in MARKS.items()
        if mark in marked
    ]
    if entries:
        style.legend(body, entries)
    notes = [
        *_left_out(table.join(grid.runs[group_keys], on="point"), [x, y, *group_keys], value),
        *selection.notes(everything, runs, grid.runs),
    ]
    if value == "success":
        notes.append(outcome.criterion(runs, error, accuracy))
    return style.Drawn(style.finish(figure, notes), table)


def _cells(table: pd.DataFrame, x: str, y: str, value: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the mean over seeds of each cell, [y, x], and its mark ("" or a key of MARKS)."""

    def pivot(column: str, combine: Callable[[pd.Series], Any]) -> pd.DataFrame:
        return table.pivot_table(
            index=y, columns=x, values=column, aggfunc=combine, dropna=False, observed=False
        )

    numbers = pivot(value, lambda values: float(decay.mean_log_norm(values.to_numpy(float))))
    diverged = pivot("status", lambda states: bool((states == "diverged").any())).eq(True)
    marks = numbers.isna().map({True: "no value", False: ""}.get)
    marks = marks.mask(numbers.isna() & diverged.reindex_like(numbers), "diverged")
    marks = marks.mask(numbers == -np.inf, "exactly zero").mask(numbers == np.inf, "infinite")
    return numbers, marks


def _draw(
    axes: Axes, numbers: pd.DataFrame, marks: pd.DataFrame, colours: Colormap, norm: Normalize
) -> None:
    axes.imshow(numbers, cmap=colours, norm=norm, origin="lower", aspect="auto")
    for (row, column), mark in np.ndenumerate(marks.to_numpy()):
        if mark:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **MARKS[mark]))
    if max(numbers.shape) > MAX_NUMBERED_CELLS:
        return
    centred: dict[str, Any] = {"ha": "center", "va": "center", "size": "x-small"}
    for (row, column), number in np.ndenumerate(numbers.to_numpy()):
        if marks.iloc[row, column] == "no value":
            axes.text(column, row, "–", color=style.GREY, **centred)
        if np.isfinite(number):
            dark = np.dot(colours(norm(number))[:3], (0.3, 0.6, 0.1)) < 0.5
            colour = "white" if dark else "black"
            axes.text(column, row, f"{number:.2g}", color=colour, **centred)


def _left_out(table: pd.DataFrame, keys: Sequence[str], value: str) -> list[str]:
    """Return the sentence that counts the points that the mean of their cell leaves out."""
    values = table[value].mask(table[value] == -np.inf)
    in_mean = values.notna().groupby([table[key] for key in keys], dropna=False).transform("any")
    left_out = table[in_mean & values.isna()]
    if left_out.empty:
        return []
    reasons = left_out["status"].mask(left_out[value] == -np.inf, "exactly zero").value_counts()
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return [f"Means over seeds leave out points without a number: {listed}."]


def _colours(value: str, numbers: pd.Series) -> tuple[Colormap, Normalize]:
    finite = numbers[np.isfinite(numbers)]
    if value == "decay_rate":
        limit = max(float(finite.abs().max()), 1e-3) if len(finite) else 1.0
        return style.norm_colours(), Normalize(-limit, limit)
    if value == "success" or finite.empty:
        return style.sequential_colours(), Normalize(0, 1)
    low, high = float(finite.min()), float(finite.max())
    return style.sequential_colours(), Normalize(low, max(high, low + 1e-6))


def _axis_label(key: str) -> str:
    label = style.literal(key_label(key))
    return f"{label} (steps)" if key == "task.length" else label


def _ticks(key: str, levels: pd.Index) -> list[str]:
    return [style.literal(value_label(key, level)) for level in levels]
