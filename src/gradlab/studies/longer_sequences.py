"""Temporal order over longer sequences than a network was trained on.

Pascanu, Mikolov & Bengio 2013, section 4.1.1. A sweep of trainings computes it; this file lays out
its held-out errors by length, and draws them.
"""

import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.studies.temporal_order import METHODS

OF_A_LENGTH = re.compile(r"eval/length_(\d+)/error_rate")
PRINTED = (50, 100, 150, 200, 250, 500, 1000, 2000, 3000, 5000)  # steps; none wrong at any
LONGEST = 200  # steps, of the sequences that their network was trained on
LAGS = (1, 2, 4, 8, 16)  # at which points have the norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾
TIMES = (0.25, 0.5, 1, 2.5, 5, 10, 25)  # ticks
CHANCE = 0.75  # of four classes
LEAST = 1e-4  # share of wrong sequences at which the linear part of the axis begins


def by_length(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each training and length of its held-out sequences.

    Args:
        runs: from `gradlab.load_runs`, of points with `task.test_lengths` and a rule `train.stop`.

    Returns:
        Columns point (the index of `runs`), tested (steps), times (the same, in multiples of the
        longest sequence trained on), wrong (share of the held-out sequences), learned (whether the
        rule ended training) and updates (until then; inf: never).
    """
    names = {name: OF_A_LENGTH.fullmatch(name) for name in map(str, runs)}
    lengths = {name: int(found[1]) for name, found in names.items() if found}
    stopped_at = runs.get("stop/sequences", pd.Series(np.nan, index=runs.index))
    facts = pd.DataFrame(
        {
            "point": runs.index,
            "learned": stopped_at.notna(),
            "updates": (stopped_at / runs["train.batch_size"]).fillna(np.inf),
        }
    )
    rows = [
        facts.assign(tested=length, times=length / runs["task.length"], wrong=runs[name])
        for name, length in sorted(lengths.items(), key=lambda item: item[1])
    ]
    return pd.concat(rows, ignore_index=True)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the share of wrong sequences over their length, and the gradient that is left.

    Args:
        table: of the study: `by_length`, with the points' `lag_1`, `lag_2`, … `lag_16`.
    """
    longest, shortest = table["task.length"].iloc[0], table["task.min_length"].iloc[0]
    title = "Longer sequences than were trained on"
    figure, panels = drawing.panels(1, 2, title, height=3.2)
    panels[0].axvspan(shortest / longest, 1, color="0.92", zorder=-1, label="trained on")
    learned = table[table["learned"]]
    for nth, (method, rows) in enumerate(learned.groupby("method", sort=False)):
        colour, label = drawing.HUES[nth], METHODS[str(method)]
        times, wrong = drawing.by_seed(rows.assign(value=rows["wrong"]), "times")
        drawing.band(panels[0], times, wrong, colour, label, marker="o", markersize=4)
        norms = rows.groupby("seed")[[f"lag_{lag}" for lag in LAGS]].first() / np.log(10)
        drawing.band(panels[1], np.array(LAGS), norms.to_numpy(), colour, label, marker="o")
    printed = np.array(PRINTED) / LONGEST
    panels[0].plot(printed, 0 * printed, "D", color="0.15", mfc="none", label="as printed")
    panels[0].set_yscale("symlog", linthresh=LEAST)
    panels[0].set_ylim(-0.2 * LEAST, 1)
    for axes, known, places in zip(panels, (CHANCE, 0), (TIMES, LAGS), strict=True):
        axes.axhline(known, zorder=0, **drawing.THEORY_STYLE)
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.minorticks_off()
    x = "length / longest trained on"
    drawing.label_axes(panels[0], "errors", x, "share of sequences wrong", legend=False)
    label = r"$\log_{10}\,\|\partial h^{(t)}/\partial h^{(k)}\|$"
    drawing.label_axes(panels[1], "gradient, trained", drawing.LAG, label, legend=False)
    drawing.legend_above(panels[0])
    note = (
        f"Trained on {shortest:g} to {longest:g} steps until none of the last 10,000 sequences was "
        f"wrong; tested on {table['task.test_size'].iloc[0]:,g} of each length. Medians of the "
        f"networks that learned, and their range. Dashed: chance, {CHANCE}; norm 1."
    )
    return style.finish(figure, [note])
