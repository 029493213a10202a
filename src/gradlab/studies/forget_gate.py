"""With and without the forget gate: accuracy over training, and the size of the cell state.

Gers, Schmidhuber & Cummins 2000. What is computed is a sweep of trainings; here it is drawn, from
columns `at_U`, the accuracy at update U, that the study's `points` name.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.figures import style
from gradlab.studies import drawing

GATES = {False: "forget gate learned", True: "no forget gate"}


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Accuracy on the outer symbols over training, and norm of the cell state after it."""
    figure, axes = drawing.panels(1, 2, "With and without the forget gate", height=3.1)
    left_out = table["model.cell.forget_gate"] == 1
    spread = np.random.default_rng(0)
    for (without, name), colour in zip(GATES.items(), drawing.HUES, strict=False):
        some = table[left_out == without]
        updates, accuracies = drawing.numbered(some, "at_")
        drawing.band(axes[0], updates, 100 * accuracies, colour, name)
        place = float(without) + spread.uniform(-0.15, 0.15, len(some))
        axes[1].plot(place, some["statistics.c.norm"], "o", color=colour, alpha=0.8, ms=5)
    axes[0].axhline(50, **drawing.THEORY)
    label = "second outer symbol right (%)"
    drawing.dress(axes[0], "accuracy", "update", label, legend=False, ylim=(-2, 102))
    axes[1].set_yscale("log")
    axes[1].set_xticks([0, 1], list(GATES.values()))
    drawing.dress(axes[1], "cell state after training", "", "mean norm of c", xlim=(-0.5, 1.5))
    drawing.legend_above(axes[0])
    length, held_out = table["task.length"].iloc[0], table["task.test_length"].iloc[0]
    seeds = table["seed"].nunique()
    note = (
        f"Chance: one half. Trained on {length:g} steps, judged on {held_out:g}. Left: medians of "
        f"{seeds} seeds and their range. Right: a mark a seed."
    )
    return drawing.close(figure, note)
