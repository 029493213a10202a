"""With and without the forget gate: accuracy over training, and the size of the cell state.

Gers, Schmidhuber & Cummins 2000. A sweep of trainings computes it; this file draws the study's
table, the rows of `gradlab.figures.training_table` beside the columns of their training.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.figures import style
from gradlab.studies import drawing

ACCURACY = "eval/accuracy"
GATES = {False: "forget gate learned", True: "no forget gate"}


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw accuracy on the outer symbols over training, and the cell state's norm after it."""
    figure, panels = drawing.panels(1, 2, "With and without the forget gate", height=3.1)
    without_gate = table["model.cell.forget_gate"] == 1
    jitter = np.random.default_rng(0)
    for (without, name), colour in zip(GATES.items(), drawing.HUES, strict=False):
        rows = table[without_gate == without]
        updates, accuracies = drawing.by_seed(rows[rows["quantity"] == ACCURACY], "step")
        drawing.band(panels[0], updates, 100 * accuracies, colour, name)
        norms = rows.drop_duplicates("seed")["statistics.c.norm"]
        x = float(without) + jitter.uniform(-0.15, 0.15, len(norms))
        panels[1].plot(x, norms, "o", color=colour, alpha=0.8, ms=5)
    panels[0].axhline(50, **drawing.THEORY_STYLE)
    label = "second outer symbol right (%)"
    drawing.label_axes(panels[0], "accuracy", "update", label, legend=False, ylim=(-2, 102))
    panels[1].set_yscale("log")
    panels[1].set_xticks([0, 1], list(GATES.values()))
    drawing.label_axes(
        panels[1], "cell state after training", "", "mean norm of c", xlim=(-0.5, 1.5)
    )
    drawing.legend_above(panels[0])
    length, held_out = table["task.length"].iloc[0], table["task.test_length"].iloc[0]
    seeds = table["seed"].nunique()
    note = (
        f"Chance: one half. Trained on {length:g} steps, judged on {held_out:g}. Left: medians of "
        f"{seeds} seeds and their range. Right: a mark a seed."
    )
    return drawing.finish_with_theory_note(figure, note)
