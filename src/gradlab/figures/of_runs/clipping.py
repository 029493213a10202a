"""Figure of gradient clipping: success, final loss and clip fraction by threshold."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import bands, curves, legends, lines, outcome, remedies, selection, style
from gradlab.figures.choice import Choice, Where, chosen
from gradlab.figures.labels import level_label, value_label
from gradlab.figures.layout import Grid, arrange_along
from gradlab.figures.levels import where_flag
from gradlab.figures.networks import without_networks
from gradlab.records import load_metrics
from gradlab.records.table import with_constants

THRESHOLD, RATE = "clip.threshold", "optim.learning_rate"
LINES = 5  # in a panel, at most
LOSSES = {"eval/loss": "final loss", "train/loss": "final training loss"}  # the first logged
SUCCESS, LOSS, FRACTION = "success", "final loss", "clip fraction"
HEADINGS = {SUCCESS: "success", LOSS: "loss"}  # in the legend
BY_THRESHOLD = ("rank", "clip threshold", "value")
FRACTIONS = curves.Quantity("step", "training step (updates)", "value", "clip fraction", FRACTION)
APART = 0.09  # between the bars of lines side by side, of the space between two thresholds
BARS: dict[str, Any] = {"capsize": 2, "marker": ".", "linewidth": curves.WIDTH, "elinewidth": 0.8}
NO_CLIPPING: dict[str, Any] = {"color": style.GREY, "linestyle": curves.DASHED}


def clipping_table(
    runs: pd.DataFrame, error: float = outcome.MAX_ERROR, accuracy: float = outcome.MIN_ACCURACY
) -> pd.DataFrame:
    """Tabulate how runs ended and how often their updates were clipped.

    Args:
        runs: from `gradlab.load_runs`; every run must have metrics.
        error: a run that logs an error rate succeeds if that is below this value.
        accuracy: any other run succeeds if its accuracy is above this value.

    Returns:
        One row per point and quantity, or logged step: `point`, `quantity` ("success": 1 or 0, if
        any run logs what it is judged by; "final loss": held out, or if no run logs that, of
        training; of runs that are done; "clip fraction": share of the updates since the last logged
        step), `threshold` (inf: no clipping; NaN: unknown), `learning_rate` (NaN: unknown), `step`
        (updates; NaN except for the clip fraction) and `value` (NaN: the run has none).

    Raises:
        ValueError: a criterion is no share.

    Example:
        >>> table = gradlab.figures.clipping_table(runs)
        >>> table["quantity"].unique().tolist()
        ['final loss', 'success', 'clip fraction']
    """
    outcome.check_criteria(error, accuracy)
    runs = with_constants(runs)
    rates = runs.get(RATE, pd.Series(np.nan, runs.index))
    settings = pd.DataFrame({"threshold": threshold_of(runs), "learning_rate": rates})
    loss = runs.get(_loss_metric(runs), pd.Series(np.nan, runs.index)).astype(float)
    outcomes = {LOSS: loss.where(runs["status"] == "done")}
    if outcome.is_judged(runs):
        outcomes[SUCCESS] = outcome.succeeded(runs, error, accuracy)
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
    runs: pd.DataFrame,
    error: float = outcome.MAX_ERROR,
    accuracy: float = outcome.MIN_ACCURACY,
    *,
    where: Where | None = None,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    band: bands.Band = bands.DEFAULT,
) -> style.Drawn:
    """Draw success and loss against the threshold, and the clip fraction over training.

    Success and loss have one line per learning rate, or per level of what else varies. The clip
    fraction is drawn for one of them: that with the highest success rate and, among equals, the
    fewest runs that did not end and the lowest loss.

    Args:
        runs: from `gradlab.load_runs`, of a sweep over clip.threshold.
        error: a run that logs an error rate succeeds if that is below this value.
        accuracy: any other run succeeds if its accuracy is above this value.
        where, col, row, band: as in `decay`; `band` is of loss and clip fraction.
        hue: the config key by which lines differ; None: the learning rate if it varies, else the
            gain, or what else varies.

    Raises:
        ValueError: no run has metrics or what the panels show, or what is asked for is not there.

    Example:
        >>> drawn = gradlab.figures.clipping(runs, where={"init.gain": 1}, hue="model.name")
    """
    usable = selection.with_metrics(runs)
    asked = Choice(where, hue, col, row, band=band)
    choice = asked._replace(hue=hue or _choose_hue(chosen(usable, where), (col, row)))
    grid = arrange_along(usable, (THRESHOLD,), choice, panels=lines.PANELS, lines=LINES)
    table = clipping_table(grid.runs, error, accuracy)
    thresholds = selection.levels_of(table, "threshold")
    quantities = _quantities(table, grid.runs)
    figure, body, panels = lines.small_multiples(grid, quantities)
    ranked = table.assign(rank=pd.Index(thresholds).get_indexer(pd.Index(table["threshold"])))
    by_line = [HEADINGS[quantity.name] for quantity in quantities if quantity.name in HEADINGS]
    groups = {f"{', '.join(by_line)}:": curves.line_entries(grid.runs)} if by_line else {}
    notes = list[str]()
    for number, quantity in enumerate(quantities):
        own = panels[number :: len(quantities)]
        if quantity.name == FRACTION:
            level, fractions = _best_line(table, grid)
            seeds = _draw_fractions(own, grid, fractions, thresholds, band)
            notes += [*_line_note(grid, level), *_band_note(quantities, seeds, band)]
            groups["clip fraction:"] = _threshold_entries(thresholds)
            continue
        _label_thresholds(own, thresholds)
        if quantity.name == SUCCESS:
            _draw_successes(own, grid, lines.rows_of(ranked, quantity), quantity)
        else:
            notes += lines.draw_panels(own, grid, ranked, [quantity], band)
            notes += _loss_note(grid.runs)
    legends.legend_of_groups(body, groups)
    notes = [
        *_success_note(table, grid.runs, outcome.criterion(runs, error, accuracy)),
        *notes,
        *_one_note(grid.runs, thresholds),
        *selection.notes(runs, usable, grid.runs, {*asked.keys(), THRESHOLD}),
    ]
    return style.Drawn(style.finish(figure, notes, lines.panel_height(grid)), table)


def threshold_of(runs: pd.DataFrame) -> pd.Series:
    """Return the clip threshold of each run; inf if it does not clip, NaN if that is unknown."""
    return runs.get(THRESHOLD, pd.Series(np.nan, runs.index)).astype(float)


def _label_thresholds(panels: np.ndarray, thresholds: Sequence[float]) -> None:
    """Label the x axes of panels with thresholds, ascending, each at its rank."""
    labels = [value_label(THRESHOLD, threshold) for threshold in thresholds]
    for axes in panels.ravel():
        width = axes.get_window_extent().width / axes.figure.dpi
        axes.set_xticks(range(len(labels)), style.sparse(labels, width))
        axes.set_xlim(-0.3, len(labels) - 0.7)


def _choose_hue(runs: pd.DataFrame, parting: Collection[str | None]) -> str | None:
    taken = (THRESHOLD, "seed", *parting)
    free = [key for key in selection.varying_keys(runs) if key not in taken]
    free = without_networks(runs, free)  # which part panels
    return RATE if RATE in free else selection.choose_level_key(free, runs)


def _loss_metric(runs: pd.DataFrame) -> str:
    """Return the loss of LOSSES that the runs log, the first if they log none."""
    return next((name for name in LOSSES if name in runs), next(iter(LOSSES)))


def _quantities(table: pd.DataFrame, runs: pd.DataFrame) -> list[curves.Quantity]:
    """Return the rows of panels: those that have numbers, success only if there is any.

    Raises:
        ValueError: there are none.
    """
    values = table.dropna(subset="value").groupby("quantity")["value"]
    most = values.max()
    quantities = [
        curves.Quantity(*BY_THRESHOLD, "success rate", SUCCESS, by_setting=True),
        curves.Quantity(*BY_THRESHOLD, LOSSES[_loss_metric(runs)], LOSS, "log", by_setting=True),
        FRACTIONS,
    ]
    shown = [q for q in quantities if q.name in most and (q.name != SUCCESS or most[SUCCESS] > 0)]
    if not shown:
        raise ValueError(
            "no run that is done logged a loss or train/clip_fraction: there is nothing to draw."
        )
    return shown


def _one_note(runs: pd.DataFrame, thresholds: Sequence[float]) -> list[str]:
    """Return the sentence that says how to vary the threshold, where there is one."""
    return [] if len(thresholds) > 1 else [f"One threshold: {remedies.vary(runs, THRESHOLD)}."]


def _best_line(table: pd.DataFrame, grid: Grid) -> tuple[Any, pd.DataFrame]:
    """Return the level of the best line that logged clip fractions, and these.

    It has most success; among equals, fewest runs without a final loss; then, the least loss.
    """
    fractions = table[table["quantity"] == FRACTION]
    if grid.level_key is None:
        return None, fractions
    ranks, levels = pd.factorize(grid.runs[grid.level_key], use_na_sentinel=False)  # None is one
    lines = table["point"].map(pd.Series(ranks, grid.runs.index))
    means = table.assign(line=lines).pivot_table(index="line", columns="quantity", values="value")
    means = means[means[FRACTION].notna()].reindex(columns=[SUCCESS, LOSS])
    losses = table[table["quantity"] == LOSS]
    lost = losses["value"].isna().groupby(lines).mean().reindex(means.index)
    ranked = means.assign(lost=lost).sort_values(
        [SUCCESS, "lost", LOSS], ascending=[False, True, True], kind="stable"
    )
    best = ranked.index[0]
    return levels[best], fractions[lines[fractions.index] == best]


def _draw_successes(
    panels: np.ndarray, grid: Grid, rows: pd.DataFrame, quantity: curves.Quantity
) -> None:
    """Draw success rates with their intervals, those of lines side by side."""
    for axes, runs in _with_points(panels, grid, rows):
        shown = curves.curves_of(runs, rows, quantity, "none")
        for number, curve in enumerate(shown):
            rates = curve.band[curve.band["seeds"] > 0]
            counts = zip((rates["mean"] * rates["seeds"]).round(), rates["seeds"], strict=True)
            limits = np.array([bands.proportion_interval(int(won), int(of)) for won, of in counts])
            bars = np.abs(limits.T - rates["mean"].to_numpy())
            x = rates["rank"] + APART * (number - (len(shown) - 1) / 2)
            axes.errorbar(x, rates["mean"], bars, color=curve.colour, **BARS)
        axes.set_ylim(-0.05, 1.05)


def _draw_fractions(
    panels: np.ndarray,
    grid: Grid,
    fractions: pd.DataFrame,
    thresholds: Sequence[float],
    band: bands.Band,
) -> set[int]:
    """Draw the clip fraction over training, a line per threshold; dashed where there is none.

    Returns:
        The numbers of seeds of the lines.
    """
    seeds = set[int]()
    for axes, runs in _with_points(panels, grid, fractions):
        own = fractions[fractions["point"].isin(runs.index)]
        for threshold, look in _looks(thresholds).items():
            rows = own[own["threshold"].isin([threshold])]
            if not np.isfinite(threshold):
                means = rows.groupby("step")["value"].mean()
                marker = "." if len(means) == 1 else ""
                axes.plot(means.index, means, marker=marker, **look)
            elif len(rows):
                curve = curves.curve_of(rows, FRACTIONS, band, look["color"])
                curves.draw_curve(axes, curve, band)
                seeds.add(int(curve.band["seeds"].max()))
        axes.set_ylim(-0.05, 1.05)
    return seeds


def _with_points(
    panels: np.ndarray, grid: Grid, rows: pd.DataFrame
) -> Iterator[tuple[Axes, pd.DataFrame]]:
    """Yield the panels that have some of the rows, with their points; write "none" in others."""
    for axes_row, groups in zip(panels, grid.panels(), strict=True):
        for axes, runs in zip(axes_row, groups, strict=True):
            if rows["point"].isin(runs.index).any():
                yield axes, runs
            else:
                lines.write_none(axes)


def _looks(thresholds: Sequence[float]) -> dict[float, dict[str, Any]]:
    """Return the look of each threshold's line: the tighter the darker blue; grey: no clipping.

    Lightness tells them apart in print and to colour-blind readers; no model of Flax is blue.
    """
    finite = [threshold for threshold in thresholds if np.isfinite(threshold)]
    colours = dict(zip(finite, style.blues(len(finite)), strict=True))
    return {x: {"color": colours[x]} if x in colours else NO_CLIPPING for x in thresholds}


def _threshold_entries(thresholds: Sequence[float]) -> list[legends.Entry]:
    return [
        Line2D([], [], label=f"threshold {value_label(THRESHOLD, threshold)}", **look)
        for threshold, look in _looks(thresholds).items()
    ]


def _success_note(table: pd.DataFrame, runs: pd.DataFrame, criterion: str) -> list[str]:
    """Return the sentence that says what success is, or why it has no panel."""
    if not outcome.is_judged(runs):
        return ["No run logs eval/error_rate or eval/accuracy, so there is no success rate."]
    successes = table.loc[table["quantity"] == SUCCESS, "value"]
    if successes.any():
        return [f"Success: {criterion}; bars: 95 % intervals of its rate (Clopper & Pearson)."]
    flag = "--success-error" if outcome.ERROR_RATE in runs else "--success-accuracy"
    return [
        f"Success ({criterion}) is 0 in all {successes.count()} runs, so its panel is left out; "
        f"{flag} sets another criterion."
    ]


def _loss_note(runs: pd.DataFrame) -> list[str]:
    """Return the sentence that counts the runs whose loss is left out."""
    others = runs.loc[runs["status"] != "done", "status"].value_counts()
    listed = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
    return [f"Losses leave out runs that are not done: {listed}."] if listed else []


def _line_note(grid: Grid, level: Any) -> list[str]:
    """Return the sentence that says of which line the clip fraction is, and what shows another."""
    key = grid.level_key
    levels = selection.levels_of(grid.runs, key) if key else []
    if not key or len(levels) < 2:
        return []
    other = next(x for x in levels if str(x) != str(level))
    where = f"--where {where_flag(key, levels, [other])}"
    return [f"Clip fraction: of the best line, {level_label(key, level)}; another: {where}."]


def _band_note(
    quantities: Sequence[curves.Quantity], seeds: Collection[int], band: bands.Band
) -> list[str]:
    """Return the sentence on seeds, where no panel of losses has brought it."""
    has_loss = any(quantity.name == LOSS for quantity in quantities)
    note = "" if has_loss else bands.band_note(band, seeds)
    return [note] if note else []
