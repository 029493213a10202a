"""Labels and line styles of the networks of conf/network, the same in every study."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.figures import legends


class Look(NamedTuple):
    """A network's name in a legend, and its line."""

    label: str
    colour: str
    dashes: Any = "-"


NETWORKS = {
    "tanh_glorot": Look("tanh, Glorot", "#7f7f7f"),
    "tanh_orthogonal": Look("tanh, orthogonal", "#0072b2"),
    "linear_orthogonal": Look("linear, orthogonal", "#56b4e9"),
    "irnn": Look("IRNN", "#8c564b", (0, (3, 2))),  # often lies on the line above
    "lstm_forget_0": Look("LSTM, forget bias 0", "#cc79a7"),
    "lstm_forget_1": Look("LSTM, forget bias 1", "#009e73"),
    "lstm_chrono": Look("LSTM, chrono", "#e69f00"),
}


def network_legend(axes: Axes, networks: Iterable[str]) -> None:
    """Write one legend of networks above all panels of a figure, of which `axes` is one."""
    looks = [look for network, look in NETWORKS.items() if network in set(networks)]
    entries = [
        Line2D([], [], color=look.colour, linestyle=look.dashes, linewidth=2, label=look.label)
        for look in looks
    ]
    legends.legend(axes.figure, entries)  # type: ignore[arg-type]
