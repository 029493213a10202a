"""Phase diagrams: how a sweep's runs ended, over two of its axes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize

from gradlab.figures import outcome, selection, style
from gradlab.figures.labels import key_label, value_label

PANELS, CELLS = 4, 12  # side by side; along an axis at most with a number in each


def phase_table(
    runs: pd.DataFrame,
    value: str = "decay_rate",
    x: str = "init.gain",
    y: str = "task.length",
    *,
    error: float = outcome.ERROR,
    accuracy: float = outcome.ACCURACY,
) -> pd.DataFrame:
    """How each run ended: one row a point.

    Args:
        runs: as of `gradlab.load_runs`, of any sweep.
        value: one of `outcome.OUTCOMES`.
        x, y: config keys.
        error, accuracy: what counts as success, as of `outcome.succeeded`.

    Returns:
        `point`, the columns x and y, and a column of the value's name (NaN: none).

    Raises:
        ValueError: x or y is no config key of the runs, or no run has the value.
    """
    for key in (x, y):
        if key not in runs:
            varying = ", ".join(selection.varying_keys(selection.comparable(runs))) or "nothing"
            raise ValueError(f"the runs have no config key {key!r}; what varies: {varying}.")
    ended = outcome.outcome_of(runs, value, error, accuracy)
    table = pd.DataFrame({x: runs[x], y: runs[y], value: ended})
    return table.rename_axis("point").reset_index()


@style.theme()
def phase_figure(
    runs: pd.DataFrame,
    value: str = "decay_rate",
    x: str = "init.gain",
    y: str = "task.length",
    *,
    error: float = outcome.ERROR,
    accuracy: float = outcome.ACCURACY,
) -> style.Drawn:
    """A map of the outcome over two axes, a panel a model (or what else varies); means over seeds.

    Raises:
        ValueError: as of `phase_table`.
    """
    everything = phase_table(runs, value, x, y, error=error, accuracy=accuracy)
    runs = selection.comparable(runs)
    down = [axis for axis in selection.varying_keys(runs) if axis not in (x, y, "seed")]
    grid = selection.arrange(runs, None, down, columns=1, rows=PANELS)
    table = everything[everything["point"].isin(grid.runs.index)]
    colours, norm = _colours(value, table[value])
    look, rows = style.present(), grid.rows()
    width = look.column if len(rows) <= 2 else look.width
    figure, body = style.frame(width, 0.8 * look.text + 0.75 * (width - 1) / len(rows) + 0.5)
    panels = body.subplots(1, len(rows), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (label, inside) in zip(panels, rows, strict=True):
        _draw(axes, table[table["point"].isin(inside.index)], (x, y, value), colours, norm)
        axes.set_title(style.wrapped(label, width / len(rows)))
        axes.set_xlabel(_name(x))
    panels[0].set_ylabel(_name(y))
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
    if max(cells.shape) > CELLS:
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
    return style.amounts(), Normalize(low, max(high, low + 1e-6))


def _name(key: str) -> str:
    return f"{key_label(key)} (steps)" if key == "task.length" else key_label(key)
