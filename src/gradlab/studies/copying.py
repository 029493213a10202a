"""The copying memory problem: losses over training, and how far the whole state's gradient reaches.

Arjovsky, Shah & Bengio 2016. What is computed is a sweep of trainings; here it is
drawn, from columns that the study's `points` name: `at_U`, the loss at update U, and `start_L`, the
mean log norm at lag L before training.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.studies.networks import NETWORKS, legend

DECADE = np.log(10)  # nats
NAMES = {  # in conf/network, by what tells them apart in a table of runs
    ("rnn", "identity", "orthogonal"): "linear_orthogonal",
    ("rnn", "tanh", "orthogonal"): "tanh_orthogonal",
    ("rnn", "tanh", "glorot"): "tanh_glorot",
    ("lstm", "", "forget_bias"): "lstm_forget_1",
    ("lstm", "", "chrono"): "lstm_chrono",
}


def networks(table: pd.DataFrame) -> pd.Series:
    """The name in conf/network of each row's network.

    Args:
        table: a row a training, with `model.name`, `init._target_`, `bias._target_` and, of an RNN,
            `model.cell.activation` (missing: tanh).

    Raises:
        KeyError: a network that this study does not compare.
    """

    def named(row: pd.Series) -> str:
        rnn = row["model.name"] == "rnn"
        given = row.get("model.cell.activation")
        activation = given if isinstance(given, str) else "tanh"
        start = row["init._target_"] if rnn else row["bias._target_"]
        key = (row["model.name"], activation if rnn else "", start.rpartition(".")[2])
        return NAMES[key]

    return table.apply(named, axis=1)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Loss over the baseline during training, gradient over lag before it and after it.

    A row of panels a length; before training the lags are those that `points` asks for.
    """
    rows = table.assign(network=networks(table))
    lengths = sorted(rows["task.length"].unique())
    figure, axes = drawing.panels(len(lengths), 3, "The copying memory problem", height=3.1)
    for i, length in enumerate(lengths):
        _draw(axes[3 * i : 3 * i + 3], rows[rows["task.length"] == length], f"T = {length}")
    legend(axes[0], rows["network"].unique())
    seeds = table["seed"].nunique()
    note = f"Lines: medians of {seeds} seeds; bands: from the least to the most. "
    return drawing.close(figure, note + "s: the whole state, of an LSTM c and h.")


def _draw(axes: Sequence[Axes], rows: pd.DataFrame, length: str) -> None:
    for name, some in rows.groupby("network"):
        label, colour, _ = NETWORKS[str(name)]
        updates, losses = drawing.numbered(some, "at_")
        relative = losses / some["eval.baseline"].to_numpy()[:, None]
        drawing.band(axes[0], updates, relative, colour, label)
        for panel, prefix in zip(axes[1:], ("start_", "jacobian.log_norm.lag_"), strict=True):
            lags, log_norms = drawing.numbered(some, prefix)
            drawing.band(panel, lags, log_norms / DECADE, colour, label, marker="o", ms=3)
    axes[0].axhline(1, **drawing.THEORY)
    axes[0].set_yscale("log")
    drawing.dress(axes[0], f"{length}: held-out loss", "update", "loss / baseline", legend=False)
    lowest = min(panel.get_ylim()[0] for panel in axes[1:])
    highest = max(panel.get_ylim()[1] for panel in axes[1:])
    label = r"mean $\log_{10}\Vert\partial s^{(t)}/\partial s^{(k)}\Vert_2$"
    for panel, title in zip(axes[1:], ("before training", "after training"), strict=True):
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        limits = (lowest, highest)
        drawing.dress(panel, title, drawing.LAG, label, legend=False, ylim=limits)
