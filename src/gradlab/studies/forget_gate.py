"""With and without the forget gate: accuracy over training, and the cell state over a stream.

After Gers, Schmidhuber & Cummins 2000, who draw the cell states of trained networks over a stream.
A sweep of trainings computes it.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import records
from gradlab.figures import style, training_table
from gradlab.studies import drawing

ACCURACY, CELL_STATE = "eval/accuracy", "cell state"
GATES = {False: "forget gate learned", True: "no forget gate"}
FORGET_GATE = "model.cell.forget_gate"  # 1: none, as the LSTM of 1997
TRACED_SEED, TRACED_STEPS = 0, 300


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """Tabulate training curves, and the cell state over a held-out stream after training.

    Args:
        runs: from `gradlab.load_runs`, with the probe `traces`.

    Returns:
        The rows of `gradlab.figures.training_table`, and for the networks of one seed rows of the
        quantity "cell state": `step` is the symbol of the stream, `unit` the unit of c.
    """
    traced = runs[runs["seed"] == TRACED_SEED]
    traces = [
        _trace(path).assign(point=point)
        for point, path in zip(traced.index, traced["path"], strict=True)
    ]
    return pd.concat([training_table(runs), *traces], ignore_index=True)


def _trace(path: str) -> pd.DataFrame:
    """Tabulate c along the beginning of the first probed stream, after training."""
    states = records.load_gradients(path)["traces_c"].isel(step=-1, sample=0)
    states = states.sel(t=slice(TRACED_STEPS))
    columns = {
        "step": np.tile(states["t"].to_numpy(), len(states)),
        "unit": np.repeat(np.arange(len(states)), states.sizes["t"]),
        "value": states.to_numpy().ravel(),
    }
    return pd.DataFrame(columns).assign(quantity=CELL_STATE, diverged=False)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw accuracy on the outer symbols, the cell state's norm, and its units over a stream."""
    figure, panels = drawing.panels(2, 2, "With and without the forget gate", height=2.6)
    _draw_accuracy(panels[0], table)
    _draw_norms(panels[1], table)
    for axes, (without, name), colour in zip(panels[2:], GATES.items(), drawing.HUES, strict=False):
        states = table[(table["quantity"] == CELL_STATE) & _lacks_gate(table, without)]
        _draw_states(axes, states, name, colour)
    drawing.legend_above(panels[0])
    length, held_out = table["task.length"].iloc[0], table["task.test_length"].iloc[0]
    seeds = table["seed"].nunique()
    note = (
        f"Chance: one half. Trained on {length:g} steps, judged on {held_out:g}. Above, left: "
        f"medians of {seeds} seeds and their range; right: a mark a seed. Below: a line for each "
        f"unit of the network of seed {TRACED_SEED}, along the first {TRACED_STEPS} symbols, as "
        "the source draws cell states; mind the scales."
    )
    return drawing.finish_with_theory_note(figure, note)


def _lacks_gate(table: pd.DataFrame, without: bool) -> "pd.Series[bool]":
    return (table[FORGET_GATE] == 1) == without


def _draw_accuracy(axes: Axes, table: pd.DataFrame) -> None:
    for (without, name), colour in zip(GATES.items(), drawing.HUES, strict=False):
        rows = table[(table["quantity"] == ACCURACY) & _lacks_gate(table, without)]
        updates, accuracies = drawing.by_seed(rows, "step")
        drawing.band(axes, updates, 100 * accuracies, colour, name)
    axes.axhline(50, **drawing.THEORY_STYLE)
    label = "second outer symbol right (%)"
    drawing.label_axes(axes, "accuracy", "update", label, legend=False, ylim=(-2, 102))


def _draw_norms(axes: Axes, table: pd.DataFrame) -> None:
    jitter = np.random.default_rng(0)
    for (without, _), colour in zip(GATES.items(), drawing.HUES, strict=False):
        norms = table[_lacks_gate(table, without)].drop_duplicates("seed")["statistics.c.norm"]
        x = float(without) + jitter.uniform(-0.15, 0.15, len(norms))
        axes.plot(x, norms, "o", color=colour, alpha=0.8, ms=5)
    axes.set_yscale("log")
    axes.set_xticks([0, 1], list(GATES.values()))
    title = "cell state after training"
    drawing.label_axes(axes, title, "", "mean norm of c", xlim=(-0.5, 1.5))


def _draw_states(axes: Axes, states: pd.DataFrame, name: str, colour: str) -> None:
    look: dict[str, Any] = {"color": colour, "linewidth": 0.8, "alpha": 0.8}
    for _, line in states.groupby("unit"):
        axes.plot(line["step"], line["value"], **look)
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    drawing.label_axes(axes, f"{name}: cell states", "symbol of the stream", "c of each unit")
