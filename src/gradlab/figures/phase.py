"""Figure of a phase diagram: an outcome of training over two config keys of a sweep."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize

from gradlab.figures import outcome, selection, style
from gradlab.figures.labels import key_label, value_label

PANELS = 4  # side by side, at most
MAX_NUMBERED_CELLS = 12  # along x or y, at most, for each to have its number written in it


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
        `point`, the columns named by x and y, and a column named by the outcome (NaN: the run has
        none).

    Raises:
        ValueError: x or y is not a config key of the runs, or no run has the outcome.
    """
    for key in (x, y):
        if key not in runs:
            varying = ", ".join(selection.varying_keys(selection.comparable(runs))) or "nothing"
            raise ValueError(f"the runs have no config key {key!r}; what varies: {varying}.")
    outcomes = outcome.outcome_of(runs, value, error, accuracy)
    table = pd.DataFrame({x: runs[x], y: runs[y], value: outcomes})
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

    A cell is the mean over seeds.

    Args:
        runs, value, x, y, error, accuracy: as in `phase_table`.

    Raises:
        ValueError: as in `phase_table`.
    """
    table = phase_table(runs, value, x, y, error=error, accuracy=accuracy)
    runs = selection.comparable(runs)
    group_keys = [key for key in selection.varying_keys(runs) if key not in (x, y, "seed")]
    grid = selection.arrange(runs, None, group_keys, levels=1, groups=PANELS)
    table = table[table["point"].isin(grid.runs.index)]
    colours, norm = _colours(value, table[value])
    look, groups = style.current_style(), grid.groups()
    width = look.column if len(groups) <= 2 else look.width
    figure, body = style.new_figure(width, 0.8 * look.text + 0.75 * (width - 1) / len(groups) + 0.5)
    panels = body.subplots(1, len(groups), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (label, group) in zip(panels, groups, strict=True):
        _draw(axes, table[table["point"].isin(group.index)], (x, y, value), colours, norm)
        axes.set_title(style.wrapped(label, width / len(groups)))
        axes.set_xlabel(_axis_label(x))
    panels[0].set_ylabel(_axis_label(y))
    bar = ScalarMappable(norm, colours)
    body.colorbar(bar, ax=panels.tolist(), label=outcome.OUTCOMES[value][1])
    notes = selection.notes(runs, runs, grid.runs)
    if value == "success":
        notes.append(outcome.criterion(runs, error, accuracy))
    return style.Drawn(style.finish(figure, notes), table)


def _draw(
    axes: Axes,
    table: pd.DataFrame,
    columns: tuple[str, str, str],
    colours: Colormap,
    norm: Normalize,
) -> None:
    x, y, value = columns
    cells = table.pivot_table(index=y, columns=x, values=value, dropna=False)
    axes.imshow(cells, cmap=colours, norm=norm, origin="lower", aspect="auto")
    axes.patch.set(**style.ZERO)
    axes.set_xticks(range(cells.shape[1]), [value_label(x, v) for v in cells.columns])
    axes.set_yticks(range(cells.shape[0]), [value_label(y, v) for v in cells.index])
    if max(cells.shape) > MAX_NUMBERED_CELLS:
        return
    for (row, column), number in np.ndenumerate(cells.to_numpy()):
        if np.isfinite(number):
            dark = np.dot(colours(norm(number))[:3], (0.3, 0.6, 0.1)) < 0.5
            colour = "white" if dark else "black"
            axes.text(
                column, row, f"{number:.2g}", ha="center", va="center", color=colour, size="x-small"
            )


def _colours(value: str, numbers: pd.Series) -> tuple[Colormap, Normalize]:
    finite = numbers[np.isfinite(numbers)]
    if value == "decay_rate":
        limit = max(float(finite.abs().max()), 1e-3) if len(finite) else 1.0
        return style.norm_colours(), Normalize(-limit, limit)
    low, high = (0, 1) if value == "success" else (float(finite.min()), float(finite.max()))
    return style.sequential_colours(), Normalize(low, max(high, low + 1e-6))


def _axis_label(key: str) -> str:
    return f"{key_label(key)} (steps)" if key == "task.length" else key_label(key)
