"""Continual prediction of embedded Reber strings, with and without forget gates.

Gers, Schmidhuber & Cummins 2000, section 4: how many networks of each kind find a perfect solution
(Table 2), and their cells' states over a stream (figures 5 to 7).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.claims.statistics import rate
from gradlab.config import Count
from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.studies.continual_streams import PERFECT, Algorithm, Limits, cell_states, train
from gradlab.studies.online_lstm import Weights

STREAM, LATE, DRAWN = 2000, 200, 150  # symbols: of a stream, of its end, in the figure
STREAMS = 30_000  # the source's limit; networks that end before it were given up for their symbols
PRINTED_NETWORKS = 100
OURS: dict[str, Any] = {"color": drawing.HUES[0], "ms": 7, "mew": 0}


class Row(NamedTuple):
    """A row of Table 2: its networks, and how many of 100 found a perfect solution."""

    label: str
    algorithm: Algorithm
    perfect: int


ROWS = {
    "reset": Row("no forget gate,\nreset by hand", Algorithm(False, is_reset=True), 74),
    "standard": Row("no forget gate", Algorithm(False), 0),
    "forget": Row("forget gate", Algorithm(True), 18),
    "forget_decay": Row("forget gate,\ndecaying rate", Algorithm(True, decay=0.99), 62),
}
DRAWN_ROWS = ("standard", "forget_decay")


def measure(seeds: Count, streams: Count, symbols: Count, whole: Count) -> pd.DataFrame:
    """Train networks of each row until they predict ten whole streams or are given up.

    Args:
        seeds: number of networks of each row.
        streams: the most training streams of a network.
        symbols: the most symbols of a network, of training and test streams together.
        whole: symbols of a whole stream.

    Returns:
        Rows by `part`: "network" (row, seed, perfect: 0 or 1, streams, symbols, state: the mean of
        |c| at the end of a stream of 2000 symbols) and "state" (row, seed, t, cell, c, begins:
        whether a string begins at t), of one network of a row at the beginning of that stream: the
        first that is perfect, else the first.
    """
    limits = Limits(streams, symbols, whole)
    return pd.concat([_row(name, limits, seeds) for name in ROWS], ignore_index=True)


def _row(name: str, limits: Limits, seeds: int) -> pd.DataFrame:
    algorithm = ROWS[name].algorithm
    networks = train(algorithm, limits, seeds)
    perfect = (networks.phase == PERFECT).astype(int)
    states, begins = _states(algorithm, networks.weights, seeds)
    of_networks = {
        "seed": range(seeds),
        "perfect": perfect,
        "streams": networks.streams,
        "symbols": networks.symbols,
        "state": np.abs(states[:, -LATE:]).mean(axis=(1, 2)),
    }
    seed = int(perfect.argmax())
    drawn = states[seed, :DRAWN]
    t, cell = (x.ravel() for x in np.indices(drawn.shape))
    drawn_states = {
        "seed": seed,
        "t": t,
        "cell": cell,
        "c": drawn.ravel(),
        "begins": begins[seed][t],
    }
    parts = {"network": of_networks, "state": drawn_states}
    return pd.concat(
        [pd.DataFrame(rows).assign(part=part, row=name) for part, rows in parts.items()]
    )


def _states(
    algorithm: Algorithm, weights: Weights, seeds: int
) -> tuple[Float[np.ndarray, "networks symbols cells"], Bool[np.ndarray, "networks symbols"]]:
    keys = jax.random.split(jax.random.key(1), seeds)
    of_network = partial(cell_states, algorithm, symbols=STREAM)
    states, begins = jax.vmap(of_network, in_axes=(-1, 0))(weights, keys)
    return np.asarray(states), np.asarray(begins)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the shares of perfect solutions, printed and ours, and two networks' cell states."""
    figure, panels = drawing.panels(1, 3, "Learning to forget", height=3.0)
    _draw_shares(panels[0], table[table["part"] == "network"])
    states = table[table["part"] == "state"]
    for axes, name in zip(panels[1:], DRAWN_ROWS, strict=True):
        _draw_states(axes, states[states["row"] == name])
        title = ROWS[name].label.replace("\n", " ")
        label = "cell state c" if name == DRAWN_ROWS[0] else ""
        drawing.label_axes(axes, title, "symbols of a stream", label, legend=False)
    drawing.legend_above(panels[0])
    notes = [
        "Left: networks that predict ten streams of a million symbols; bars: 95 % interval.",
        "Grey: as many more were given up before 30,000 training streams.",
        "Right: the eight cells of one trained network each; vertical lines: a string begins.",
    ]
    return style.finish(figure, notes)


def _draw_shares(axes: Axes, networks: pd.DataFrame) -> None:
    for place, (name, row) in enumerate(ROWS.items()):
        own = networks[networks["row"] == name]
        share = rate(own["perfect"].to_numpy(bool))
        given_up = ((own["perfect"] == 0) & (own["streams"] < STREAMS)).mean()
        axes.barh(place, 100 * given_up, 0.5, 100 * share.value, color="0.9", zorder=0)
        axes.hlines(place, 100 * share.low, 100 * share.high, color="0.1", linewidth=1.4)
        axes.plot([100 * share.value], [place], "o", **OURS)
        axes.plot([100 * row.perfect / PRINTED_NETWORKS], [place], "D", **drawing.AS_PRINTED)
    axes.plot([], [], "o", label="ours", **OURS)
    axes.plot([], [], "D", label="as printed (second-hand)", **drawing.AS_PRINTED)
    axes.set_yticks(range(len(ROWS)), [row.label for row in ROWS.values()])
    axes.set_ylim(len(ROWS) - 0.5, -0.5)
    drawing.label_axes(axes, "perfect solutions", "networks (%)", "", legend=False, xlim=(-4, 104))


def _draw_states(axes: Axes, states: pd.DataFrame) -> None:
    begins = states.loc[states["begins"].astype(bool), "t"].unique()
    axes.vlines(begins, 0, 1, transform=axes.get_xaxis_transform(), color="0.88", linewidth=0.8)
    for colour, (_, line) in zip(drawing.HUES, states.groupby("cell"), strict=True):
        axes.plot(line["t"], line["c"], color=colour, linewidth=1.2)
