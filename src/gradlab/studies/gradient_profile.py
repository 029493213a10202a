"""The loss's gradient at each step, ‖∂L/∂h⁽ᵏ⁾‖ and ‖∂L/∂c⁽ᵏ⁾‖, before training and after.

The figure follows figure 4 of Arjovsky, Shah & Bengio 2016, and adds the cell state: an LSTM keeps
most of its memory in c, which h alone would not show.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import curves, style
from gradlab.records import load_gradients
from gradlab.studies import drawing
from gradlab.studies.networks import NETWORKS, network_legend

VARIABLES = {"h": "adjoint_log_norm", "c": "adjoint_c_log_norm"}
LAST = {"h": -1, "c": -2}  # last step with an adjoint: the loss reads h⁽ᵀ⁾, and c⁽ᵀ⁻¹⁾ through it
PARTS = {"h": "hidden state", "c": "cell state"}
RANGE = (-25, 3)  # powers of ten


def profiles(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the adjoints of h, and of an LSTM's c, over time and relative to the last one.

    ∂L/∂c⁽ᵏ⁾ is taken with h⁽ᵏ⁾ held, as everywhere in gradlab. The loss reads only h⁽ᵀ⁾, so the
    last adjoint of c is that of step T − 1.

    Args:
        runs: from `gradlab.load_runs`, with `probe=adjoint` and, of an LSTM, a second
            such probe named `adjoint_c` with `wrt: c`.

    Returns:
        One row per point, training step, part and k: `point` (the index of the runs), `step`
        (updates), `part` ("h", "c"), `k` (time steps from 1, without the initial state), `log_norm`
        (nats, mean over samples) and `ratio`, the mean over samples of ‖∂L/∂s⁽ᵏ⁾‖ over that of the
        last step.
    """
    tables = []
    for point, path in runs["path"].items():
        gradients = load_gradients(path).sel(k=slice(1, None))
        for part, variable in VARIABLES.items():
            if variable in gradients:
                log_norm = gradients[variable].astype(float).isel(k=slice(LAST[part] + 1 or None))
                ratio = xr.apply_ufunc(np.exp, log_norm - log_norm.isel(k=-1))
                columns = log_norm.mean("sample").rename("log_norm").to_dataframe()
                columns = columns.assign(ratio=ratio.mean("sample").to_series()).reset_index()
                place: dict[str, Any] = {"point": point, "part": part}
                tables.append(columns.assign(**place))
    table = pd.concat(tables, ignore_index=True)
    return table[["point", "step", "part", "k", "log_norm", "ratio"]]


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw log₁₀ of the ratio over k: rows h and c, columns before training and after."""
    figure, panels = drawing.panels(
        2, 2, "How much of the loss's gradient each step gets", height=2.6
    )
    steps = sorted(table["step"].unique())
    whens = ["before training", f"after {steps[-1]} updates"]
    for row, part in zip((panels[:2], panels[2:]), PARTS, strict=True):
        last = f"T{LAST[part] + 1}" if LAST[part] < -1 else "T"
        norms = rf"\Vert\partial L/\partial {part}^{{(k)}}\Vert"
        norms += rf"\,/\,\Vert\partial L/\partial {part}^{{({last})}}\Vert"
        for axes, step, when in zip(row, (steps[0], steps[-1]), whens, strict=True):
            _draw(axes, table[(table["part"] == part) & (table["step"] == step)])
            label = rf"$\log_{{10}}\;{norms}$" if axes is row[0] else ""
            title = f"{PARTS[part]}, {when}"
            drawing.label_axes(axes, title, "step k", label, legend=False, ylim=RANGE)
    network_legend(panels[0], NETWORKS)
    notes = [
        "Ratios: means over samples. Lines: geometric means over seeds, bands: least to greatest.",
        "The loss reads h⁽ᵀ⁾, which c⁽ᵀ⁻¹⁾ is the last to reach; only LSTMs have a c.",
    ]
    return style.finish(figure, notes)


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color=style.GREY, linewidth=0.6)
    for network, look in NETWORKS.items():
        of_network = rows[rows["network"] == network]
        log_ratio = np.log10(of_network["ratio"])
        logs = of_network.assign(log_ratio=log_ratio).groupby("k")["log_ratio"]
        if len(of_network):
            k, mean = logs.mean().index, logs.mean()
            axes.plot(k, mean, color=look.colour, linestyle=look.dashes, linewidth=1.6)
            band: dict[str, Any] = {"color": look.colour, "alpha": curves.BAND, "linewidth": 0}
            axes.fill_between(k, logs.min(), logs.max(), **band)
