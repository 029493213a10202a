"""The sentences below figures of lines: where lines end and why, and which runs are in none."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from gradlab.figures import bands, moments, selection
from gradlab.figures.curves import Curve, Quantity
from gradlab.figures.labels import point_label

LOOKS = ["line", "colour"]  # columns of `layout.with_line_style`, which are no config keys


def notes_on_lines(
    runs: pd.DataFrame,
    table: pd.DataFrame,
    quantities: Sequence[Quantity],
    curves: Sequence[Curve],
    band: bands.Band,
    coincide: bool,
) -> list[str]:
    """Return the sentences that say what the lines of a figure are.

    Args:
        runs: the points of the figure, from `layout.with_line_style`.
        table: what is drawn of them.
        quantities: name its columns.
        curves: all that are drawn.
        band: over seeds.
        coincide: whether some lines are wider because others lie on them.
    """
    seeds = [int(curve.seeds.notna().sum(axis=1).max()) for curve in curves]
    return [
        note
        for note in (
            bands.band_note(band, seeds, [curve.marks() for curve in curves]),
            missing_note(runs, table, quantities),
            *zero_notes(runs, table, quantities),
            end_note(curves),
            "Where lines coincide, those below are wider." if coincide else "",
        )
        if note
    ]


def zero_notes(
    runs: pd.DataFrame, table: pd.DataFrame, quantities: Sequence[Quantity]
) -> list[str]:
    """Return a sentence per x axis that counts and names the runs that are exactly zero there.

    Zero is where the log is −inf, or what the column `zero` of the table says, if it has one.
    """
    notes = []
    for x, y, scale in dict.fromkeys((entry.x, entry.y, entry.scale) for entry in quantities):
        zeros = table[table.get("zero", np.isneginf(table[y]))]
        if len(zeros):
            first, last = zeros[x].min(), zeros[x].max()
            where = f"some {x} from {first:g} to {last:g}" if last > first else f"{x} {first:g}"
            points = zeros["point"].unique()
            zero = "−∞" if scale == "rate" else "Exactly zero"
            count = f"{len(points)} of {len(runs)} runs"
            notes.append(f"{zero} at {where}: {count}{_names(runs, points)}.")
    return notes


def end_note(curves: Sequence[Curve]) -> str:
    """Return the sentence that says why the lines of several seeds end early; "" if none does."""
    if not any(curve.partial().any() for curve in curves):
        return ""
    return "A line ends where a seed is zero or has no value; the others go on as thin lines."


def missing_note(runs: pd.DataFrame, table: pd.DataFrame, quantities: Sequence[Quantity]) -> str:
    """Return the sentence that counts the runs that the last moment of a table lacks; "" if none.

    Of a table without moments, which is not from `lines.measured_table`, there is no sentence.
    """
    if "when" not in table:
        return ""
    last = table["when"].iloc[int(table["step"].argmax())]
    at_last = table[table["when"] == last]
    has_value = at_last[[quantity.y for quantity in quantities]].notna().any(axis=1)
    own = at_last.columns.intersection(["point", "quantity"])
    has_all = has_value.groupby([at_last[key] for key in own]).any().groupby("point").all()
    missing = runs.drop(has_all.index[has_all])
    if missing.empty:
        return ""
    why = moments.reasons(missing)
    return f"Missing from lines {last}: {len(missing)} of {len(runs)} runs ({why})."


def _names(runs: pd.DataFrame, points: Collection[object]) -> str:
    """Return the names of the first points in brackets; "" if there is but one run."""
    keys = selection.varying_keys(runs.drop(columns=LOOKS))
    named = runs[runs.index.isin(points)]
    names = [point_label(run, keys) for _, run in named.iterrows()]
    return f" ({selection.first_names(names)})" if keys else ""
