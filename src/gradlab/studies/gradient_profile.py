"""What of the loss's gradient arrives at each step: ‖∂L/∂h⁽ᵏ⁾‖, before training and after.

The figure is that of Arjovsky, Shah & Bengio 2016 (their figure 4), for networks of which an LSTM
keeps most of what it remembers in c, so that h alone would hide it.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures import lines, style
from gradlab.records import load_gradients
from gradlab.studies import drawing
from gradlab.studies.networks import NETWORKS, legend

VARIABLES = {"h": "adjoint_log_norm", "c": "adjoint_c_log_norm"}
LAST = {"h": -1, "c": -2}  # the last step with an adjoint: the loss reads h⁽ᵀ⁾, and c⁽ᵀ⁻¹⁾ by it
PARTS = {"h": "hidden state", "c": "cell state"}
RANGE = (-25, 3)  # powers of ten


def profiles(runs: pd.DataFrame) -> pd.DataFrame:
    """Adjoints over time, relative to the last one, from probes of h and, of LSTMs, of c.

    ∂L/∂c⁽ᵏ⁾ is taken with h⁽ᵏ⁾ held, as everywhere in gradlab, so that the last one of c is that of
    step T − 1: the loss reads h⁽ᵀ⁾ alone.

    Args:
        runs: as of `gradlab.load_runs`, with `probe=adjoint` and, where there is a c, a second such
            probe by the name of `adjoint_c` with `wrt: c`.

    Returns:
        A row a point, training step, part and k: `point` (the index of the runs), `step` (updates),
        `part` ("h", "c"), `k` (time steps, from 1: the initial state is no part of the sequence),
        `log_norm` (nats, mean over samples) and `ratio`, the mean over samples of
        ‖∂L/∂s⁽ᵏ⁾‖ over that of the last one.
    """
    tables = []
    for point, path in runs["path"].items():
        found = load_gradients(path).sel(k=slice(1, None))
        for part, variable in VARIABLES.items():
            if variable in found:
                log_norm = found[variable].astype(float).isel(k=slice(LAST[part] + 1 or None))
                ratio = xr.apply_ufunc(np.exp, log_norm - log_norm.isel(k=-1))
                columns = log_norm.mean("sample").rename("log_norm").to_dataframe()
                columns = columns.assign(ratio=ratio.mean("sample").to_series()).reset_index()
                place: dict[str, Any] = {"point": point, "part": part}
                tables.append(columns.assign(**place))
    table = pd.concat(tables, ignore_index=True)
    return table[["point", "step", "part", "k", "log_norm", "ratio"]]


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Two rows (h, c), two columns (before training, after): log₁₀ of the ratio against k."""
    figure, axes = drawing.panels(
        2, 2, "How much of the loss's gradient each step gets", height=2.6
    )
    steps = sorted(table["step"].unique())
    whens = ["before training", f"after {steps[-1]} updates"]
    for row, part in zip((axes[:2], axes[2:]), PARTS, strict=True):
        last = f"T{LAST[part] + 1}" if LAST[part] < -1 else "T"
        norms = rf"\Vert\partial L/\partial {part}^{{(k)}}\Vert"
        norms += rf"\,/\,\Vert\partial L/\partial {part}^{{({last})}}\Vert"
        for panel, step, when in zip(row, (steps[0], steps[-1]), whens, strict=True):
            _draw(panel, table[(table["part"] == part) & (table["step"] == step)])
            label = rf"$\log_{{10}}\;{norms}$" if panel is row[0] else ""
            title = f"{PARTS[part]}, {when}"
            drawing.dress(panel, title, "step k", label, legend=False, ylim=RANGE)
    legend(axes[0], NETWORKS)
    notes = [
        "Ratios: means over samples. Lines: geometric means over seeds, bands: least to greatest.",
        "The loss reads h⁽ᵀ⁾, which c⁽ᵀ⁻¹⁾ is the last to reach; only LSTMs have a c.",
    ]
    return style.finish(figure, notes)


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color=style.GREY, linewidth=0.6)
    for network, look in NETWORKS.items():
        mine = rows[rows["network"] == network]
        logs = mine.assign(log_ratio=np.log10(mine["ratio"])).groupby("k")["log_ratio"]
        if len(mine):
            k, mean = logs.mean().index, logs.mean()
            axes.plot(k, mean, color=look.colour, linestyle=look.dashes, linewidth=1.6)
            around: dict[str, Any] = {"color": look.colour, "alpha": lines.BAND, "linewidth": 0}
            axes.fill_between(k, logs.min(), logs.max(), **around)
