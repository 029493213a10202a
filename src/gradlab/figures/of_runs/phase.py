"""Figure of a phase diagram: an outcome of training over two config keys of a sweep."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from gradlab.figures import cells, legends, moments, outcome, remedies, selection, style
from gradlab.figures.cell_numbers import cell_table
from gradlab.figures.choice import Choice, Where, chosen
from gradlab.figures.layout import arrange_along

PANELS = 4  # side by side, at most, unless asked for
GAIN, LENGTH = "init.gain", "task.length"


def phase_table(
    runs: pd.DataFrame,
    value: str = "decay_rate",
    x: str | None = None,
    y: str | None = None,
    *,
    step: moments.Step = "last",
    error: float = outcome.MAX_ERROR,
    accuracy: float = outcome.MIN_ACCURACY,
) -> pd.DataFrame:
    """Tabulate an outcome of training over two config keys: one row per point.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        value: the outcome, a key of `outcome.OUTCOMES`.
        x, y: config keys; None: chosen from what varies.
        step: the moment of training, as in `outcome.outcome_at`.
        error: a run that logs an error rate succeeds if that is below this value.
        accuracy: any other run succeeds if its accuracy is above this value.

    Returns:
        `point`, the columns named by x and y (none where nothing varies), a column named by the
        outcome (NaN: the run has none, as one that diverged has no final loss, decay rate or
        horizon; −inf: a decay rate of gradients that are exactly zero; inf: a horizon that is never
        reached; decay rates in nats per step), `step` (updates before it) and `status`.

    Raises:
        ValueError: x or y is not a config key of the runs, or no run has the outcome then.

    Example:
        >>> table = gradlab.figures.phase_table(runs, "decay_rate", x="init.gain", y="model.name")
        >>> list(table.columns)
        ['point', 'init.gain', 'model.name', 'decay_rate', 'step', 'status']
    """
    runs = selection.comparable(runs)
    keys = [key for key in choose_axes(runs, x, y) if key]
    outcomes = outcome.outcome_at(runs, value, step, error, accuracy)
    columns = {value: outcomes["value"], "step": outcomes["step"], "status": runs["status"]}
    return runs[keys].assign(**columns).rename_axis("point").reset_index()


def choose_axes(
    runs: pd.DataFrame, x: str | None = None, y: str | None = None, taken: Collection[str] = ()
) -> tuple[str | None, str | None]:
    """Return the config keys along x and y, where they are not given from what varies.

    Gain is along x and length along y, if they vary; else other numbers, else names. The seed is
    neither unless it is given. What is left if too few vary is None.

    Args:
        runs: from `selection.comparable`.
        x, y: as they are given.
        taken: keys that part panels.

    Raises:
        ValueError: a key that is given is not in the runs' configs, or is both.
    """
    x, y = (selection.check_key(runs, key) if key else None for key in (x, y))
    taken = [selection.check_key(runs, key) for key in taken]
    if x and x == y:
        raise ValueError(f"x and y must be different keys; got {x} for both.")
    free = [key for key in selection.varying_keys(runs) if key not in (x, y, *taken, "seed")]
    names = [key for key in free if not _is_number(runs[key])]
    numbers = [key for key in free if key not in names]
    numbers.sort(key=lambda key: (key == LENGTH, key != GAIN))
    x = x or next(iter([*numbers, *names]), None)
    left = [key for key in (LENGTH, *numbers, *names) if key in free and key != x]
    return x, y or next(iter(left), None)


@style.theme()
def phase_figure(
    runs: pd.DataFrame,
    value: str = "decay_rate",
    x: str | None = None,
    y: str | None = None,
    *,
    where: Where | None = None,
    col: str | None = None,
    row: str | None = None,
    step: moments.Step = "last",
    error: float = outcome.MAX_ERROR,
    accuracy: float = outcome.MIN_ACCURACY,
) -> style.Drawn:
    """Draw an outcome of training as colour over two config keys; other ones part the panels.

    Args:
        runs: from `gradlab.load_runs`, of any sweep.
        value, x, y, step, error, accuracy: as in `phase_table`.
        where, col, row: as in `decay`.

    Returns:
        The figure, and the `cell_table` that it shows, with the keys that part its panels.

    Raises:
        ValueError: as in `phase_table`, or what is asked for is not there.

    Example:
        >>> lstm = {"model.name": "lstm"}
        >>> drawn = gradlab.figures.phase(runs, "horizon", where=lstm, step="first")
    """
    choice = Choice(where, None, col, row, step)
    usable = selection.readable(runs)
    x, y = choose_axes(chosen(usable, where), x, y, [key for key in (col, row) if key])
    keys = [key for key in (y, x) if key]
    grid = arrange_along(usable, keys, choice, panels=PANELS)
    outcomes = outcome.outcome_at(grid.runs, value, step, error, accuracy)
    points = grid.runs.assign(**{value: outcomes["value"]})
    parting = [key for key in (grid.row_key, *grid.group_keys) if key]
    by_panel = [
        cell_table(points.loc[panel.index], [*parting, *keys], value)
        for panels in grid.panels()
        for panel in panels
    ]
    table = pd.concat(by_panel, ignore_index=True)
    label = f"{outcome.outcome_label(value)}, {outcome.moment_label(step, outcomes['step'])}"
    scale = cells.Scale.of(table, value, label)
    along = cells.Axis.of(grid.runs, x), cells.Axis.of(grid.runs, y)
    figure, body, panels, height = cells.new_panels(grid, *along)
    for axes, own in zip(panels.ravel(), by_panel, strict=True):
        cells.draw(axes, own, *along, scale)
    if entries := cells.mark_entries(table, value):
        legends.legend(body, entries)
    cells.draw_bar(figure, body, panels, scale)
    notes = [
        cells.write_numbers(panels.ravel().tolist(), by_panel, *along, scale),
        *_left_out(points, [*parting, *keys], value),
        *([f"Success: {outcome.criterion(runs, error, accuracy)}."] if value == "success" else []),
        *(_on_zeros(grid.runs) if value == "horizon" else []),
        *([] if keys else [_nothing_varies(grid.runs)]),
        *selection.notes(runs, usable, grid.runs, {*choice.keys(), *keys}),
    ]
    return style.Drawn(style.finish(figure, notes, height), table)


def _left_out(points: pd.DataFrame, keys: Sequence[str], value: str) -> list[str]:
    """Return the sentence that counts the points that the number of their cell leaves out."""
    values = points[value].mask(points[value] == -np.inf)
    levels = [points[key] for key in keys] or [pd.Series(0, points.index)]
    in_cell = values.notna().groupby(levels, dropna=False).transform("any")
    left_out = points[in_cell & values.isna()]
    if left_out.empty:
        return []
    reasons = left_out["status"].mask(left_out[value] == -np.inf, "exactly zero")
    return [f"Cells leave out points without a number: {moments.counted(reasons)}."]


def _on_zeros(runs: pd.DataFrame) -> list[str]:
    """Return the sentence that says of which pairs horizons are, if some products are zero."""
    has_zeros = (runs.get("jacobian/zero_share", pd.Series(dtype=float)) > 0).any()
    return ["Horizons are of products that are not exactly zero."] if has_zeros else []


def _nothing_varies(runs: pd.DataFrame) -> str:
    return f"Nothing but the seed varies: {remedies.vary(runs, GAIN)}, for an axis."


def _is_number(levels: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(levels) and not pd.api.types.is_bool_dtype(levels)
