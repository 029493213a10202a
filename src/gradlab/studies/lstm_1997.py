"""The LSTM of 1997 on its own tasks: how many sequences until each network has learned.

Hochreiter & Schmidhuber 1997, Tables 7, 8 and 9. A sweep of trainings over `+hs97=ROW` computes it;
this file makes the study's table and draws it beside the printed numbers.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.claims.statistics import bootstrap_mean
from gradlab.figures import style
from gradlab.studies import drawing

TEST_SIZE = 2560
NETWORK: dict[str, Any] = {"color": drawing.HUES[0], "ms": 4, "alpha": 0.6, "mew": 0}
MEAN: dict[str, Any] = {"color": "0.1", "ms": 11, "mew": 1.6}


class Printed(NamedTuple):
    """A row of the paper's tables."""

    label: str
    sequences: int  # until the stopping rule is satisfied, mean over the networks
    wrong: int  # of 2560 held-out sequences


PRINTED = {
    "4_T100": Printed("adding, T = 100", 74_000, 1),
    "4_T500": Printed("adding, T = 500", 209_000, 0),
    "4_T1000": Printed("adding, T = 1000", 853_000, 1),
    "5_n140": Printed("multiplication, < 140 wrong", 482_000, 139),
    "5_n13": Printed("multiplication, < 13 wrong", 1_273_000, 14),
    "6a": Printed("order of 2 symbols (6a)", 31_390, 1),
    "6b": Printed("order of 3 symbols (6b)", 571_100, 2),
}


def networks(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each network.

    Args:
        runs: from `gradlab.load_runs`, of points with a preset `+hs97=ROW`.

    Returns:
        Columns point (the index of `runs`), solved (whether its stopping rule was satisfied),
        sequences (until it was; all that it saw, if it was not), and of the 2560 held-out
        sequences: wrong (how many), squared_error and absolute_error (means).
    """
    missing = pd.Series(np.nan, index=runs.index)
    stopped_at = runs.get("stop/sequences", missing)
    return pd.DataFrame(
        {
            "point": runs.index,
            "solved": stopped_at.notna(),
            "sequences": stopped_at.fillna(runs["train/step"] * runs["train.batch_size"]),
            "wrong": (runs["eval/error_rate"] * TEST_SIZE).round().astype(int),
            "squared_error": runs["eval/loss"],
            "absolute_error": runs["eval/absolute_error"],
        }
    )


@style.theme()
def figure(table: pd.DataFrame, title: str = "The LSTM of 1997 on its own tasks") -> Figure:
    """Draw sequences until success and wrong held-out sequences, printed and ours; list both.

    Args:
        table: of the study: `networks`, beside the columns of their points.
        title: above the figure.
    """
    rows = [row for row in PRINTED if row in set(table["hs97"])]
    figure, panels = drawing.panels(1, 3, title, height=1.1 + 0.42 * len(rows))
    _draw(panels[0], table, rows, "sequences")
    _draw(panels[1], table, rows, "wrong")
    _list(panels[2], table, rows)
    panels[0].set_xscale("log")
    panels[1].set_xscale("symlog", linthresh=1)
    panels[1].set_xlim(-0.3, 2 * TEST_SIZE)
    panels[1].set_yticklabels([])
    drawing.label_axes(panels[0], "until learned", "training sequences", "", legend=False)
    label = f"wrong of {TEST_SIZE:,} sequences"
    drawing.label_axes(panels[1], "after that", label, "", legend=False)
    drawing.legend_above(panels[0])
    note = (
        "A dot a network; ▸: not learned within the sequences that it saw. Bars: 95 % bootstrap "
        "interval of the mean. Grey: half to twice the printed mean. Right: means, and networks "
        "that learned."
    )
    return style.finish(figure, [note])


def _draw(axes: Axes, table: pd.DataFrame, rows: list[str], column: str) -> None:
    """Draw a column's numbers, their means and the printed ones, a row of the tables a line."""
    jitter = np.random.default_rng(0)
    for place, row in enumerate(rows):
        own, printed = table[table["hs97"] == row], getattr(PRINTED[row], column)
        spread = place + jitter.uniform(-0.16, 0.16, len(own))
        solved = own["solved"].to_numpy(bool)
        mean = bootstrap_mean(own[column].to_numpy(float))
        if column == "sequences":
            axes.barh(place, 1.5 * printed, 0.8, printed / 2, color="0.9", zorder=0)
        axes.plot(own[column][solved], spread[solved], "o", **NETWORK)
        axes.plot(own[column][~solved], spread[~solved], ">", **NETWORK)
        axes.hlines(place, mean.low, mean.high, color="0.1", linewidth=1.4)
        axes.plot([mean.value], [place], "|", **MEAN)
        axes.plot([printed], [place], "D", **drawing.AS_PRINTED)
    for label, marker, look in (
        ("a network", "o", NETWORK),
        ("mean of ours", "|", MEAN),
        ("mean as printed", "D", drawing.AS_PRINTED),
    ):
        axes.plot([], [], marker, label=label, **look)
    axes.set_yticks(range(len(rows)), [PRINTED[row].label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.9)


def _list(axes: Axes, table: pd.DataFrame, rows: list[str]) -> None:
    """Write the means of sequences as a table: printed, ours, and how many networks learned."""
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.9))
    places = (0.36, 0.76, 1.12)
    for x, heading in zip(places, ("printed", "ours", "learned"), strict=True):
        axes.text(x, -0.7, heading, ha="right", va="center", color=style.GREY)
    for place, row in enumerate(rows):
        own = table[table["hs97"] == row]
        solved, mean = int(own["solved"].sum()), own["sequences"].mean()
        at_least = "" if solved == len(own) else "> "
        texts = f"{PRINTED[row].sequences:,}", f"{at_least}{mean:,.0f}", f"{solved} of {len(own)}"
        for x, text in zip(places, texts, strict=True):
            axes.text(x, place, text, ha="right", va="center", fontsize="small", clip_on=False)
