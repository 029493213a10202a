"""The adding problem: loss over training, by network and sequence length.

The figure follows those of Arjovsky, Shah & Bengio 2016 and Tallec & Ollivier 2018 (figure 2).
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import style, training_table
from gradlab.studies import drawing
from gradlab.studies.networks import NETWORKS, network_legend
from gradlab.tasks.adding import adding

LOSS = "train/loss"
CONSTANT = "constant 1"  # the answer that needs no memory: the mean of the targets
LOSSES = (5e-5, 1)  # an IRNN may begin far above
UPDATES = 100  # that a loss is the mean of; a run that its rule ends has fewer in its last row
SEQUENCES = 10_000  # that the constant's loss is taken over


def curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics over training, and the loss of the constant answer 1.

    Args:
        runs: from `gradlab.load_runs`, of task=adding with task.variant=arjovsky.

    Returns:
        The rows of `gradlab.figures.training_table`, and for each run a row of the `quantity`
        "constant 1" at step 0: the mean squared error of that answer on 10,000 sequences.
    """
    first = runs.drop_duplicates("task.length").index
    costs = {length: _constant_loss(length) for length in runs.loc[first, "task.length"]}
    constant = pd.DataFrame(
        {
            "point": runs.index,
            "step": 0,
            "quantity": CONSTANT,
            "value": runs["task.length"].map(costs),
            "diverged": False,
        }
    )
    return pd.concat([training_table(runs), constant], ignore_index=True)


def _constant_loss(length: int) -> float:
    targets = adding(length=length, variant="arjovsky", test_size=SEQUENCES).test.targets
    return float(np.mean((1 - np.asarray(targets, float)[..., -1, :]) ** 2))


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the training loss over updates, with one panel per length."""
    losses = table[table["quantity"] == LOSS]
    lengths = sorted(losses["task.length"].unique())
    figure, panels = drawing.panels(1, len(lengths), "The adding problem", height=3.6)
    for axes, length in zip(panels, lengths, strict=True):
        constant = table[(table["quantity"] == CONSTANT) & (table["task.length"] == length)]
        axes.axhline(constant["value"].iloc[0], **drawing.THEORY_STYLE)
        _draw(axes, losses[losses["task.length"] == length])
        label = f"mean squared error of {UPDATES} updates" if axes is panels[0] else ""
        title = f"{length} steps"
        drawing.label_axes(axes, title, "updates", label, legend=False, yscale="log", ylim=LOSSES)
    network_legend(panels[0], losses["network"].unique())
    notes = [
        "Dashed: the constant answer 1, which remembers nothing (1/6).",
        "Lines: medians over seeds, bands: least to greatest.",
    ]
    if losses["value"].max() > LOSSES[1]:
        notes.append("An IRNN begins above the axis.")
    return style.finish(figure, notes)


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    for network, look in NETWORKS.items():
        own = (rows["network"] == network) & (rows["step"] % UPDATES == 0)
        steps, losses = drawing.by_seed(rows[own], "step")
        if len(losses):
            losses = pd.DataFrame(losses).ffill(axis=1).to_numpy()  # of those that have ended
            line: dict[str, Any] = {"linestyle": look.dashes, "linewidth": 1.6}
            drawing.band(axes, steps, losses, look.colour, look.label, **line)
