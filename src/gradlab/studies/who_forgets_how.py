"""Measure how recurrent networks forget: at their published starts, and trained on two tasks.

A sweep trains networks matched in the number of weights of their recurrent layer; this file makes
the table of those runs: norms of ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ over the lag in the worst case (spectral) and the
typical one (rms), decay rates and horizons. s is the part that carries the
memory: c of the LSTMs, positions and velocities of the coRNN, h of all others.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from gradlab import components, decay, jacobian_log_norms, records
from gradlab.cells import MinGRU
from gradlab.claims.statistics import Estimate, bootstrap_median, sample_mean
from gradlab.figures import legends, style, units
from gradlab.records import load_gradients, load_metrics
from gradlab.studies import drawing
from gradlab.theory.of_cells import diagonal_log_norms, mingru_log_factors

CELLS = {  # of conf/network/, as a panel calls them; those that mix their units come first
    "tanh_glorot": "Elman RNN",
    "linear_gaussian": "linear, dense",
    "leaky": "leaky RNN",
    "exprnn": "expRNN",
    "cornn": "coRNN: (y, z)",
    "lstm_1997": "LSTM of 1997: c",
    "lstm_forget_1": "LSTM: c",
    "gru": "GRU",
    "janet": "JANET",
    "minimal_rnn": "MinimalRNN",
    "slstm": "sLSTM: c",
    "mingru": "minGRU",
    "minlstm": "minLSTM",
    "indrnn": "IndRNN",
    "lru": "LRU, disk",
    "lru_ring": "LRU, ring",
}
NORMS = {"worst": "jacobian", "typical": "jacobian_rms"}  # sections of conf/probe
DASHES: dict[str, Any] = {"worst": "-", "typical": (0, (2.5, 1.2))}
BEFORE, AFTER = "before", "after"
TASKS = ("copying", "adding")
COLOURS = {BEFORE: "0.45", "copying": "#0072b2", "adding": "#d55e00"}
SHOWN = (-14.0, 8.0)  # decades: all that was measured, bands too


def rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the norms over the lag, and their summaries, before training and after.

    Args:
        runs: from `gradlab.load_runs`, with the probes `jacobian` and `jacobian_rms` before
            training and after.

    Returns:
        Rows by `part`, each with `point` (the index of the runs) and `task`:

        - "lag": `when` ("before", "after"), `lag`, `worst` and `typical` (mean log norms, nats);
        - "network": `when`, `weights` (of the recurrent layer), and of both cases `rate_worst`, …
          (decay rates, nats per step), `horizon_worst`, … (steps) and `zeros_worst`, … (share of
          the pairs that are exactly zero);
        - "identity", of minGRUs: `deviation`, the largest difference (nats) between the log norms
          measured of such a minGRU at its start and those of the product of diag(1 − z).
    """
    tables, weights = [], dict[str, int]()
    for point, path in runs["path"].items():
        config = records.load_yaml(Path(path) / records.CONFIG)
        shape = repr((config["model"], config["task"]))  # the same of every seed
        weights[shape] = weights.get(shape) or recurrent_weights(config)
        networks = _networks(path).assign(weights=weights[shape])
        task = config["task"]["_target_"].rpartition(".")[2]
        place: dict[str, Any] = {"point": point, "task": task}
        parts = (_lags(path), networks, _identity(config))
        tables += [table.assign(**place) for table in parts]
    return pd.concat(tables, ignore_index=True)


def _lags(path: str) -> pd.DataFrame:
    gradients = load_gradients(path)
    tables = []
    for when, step in _measured(gradients["step"].to_numpy()).items():
        maps = gradients.sel(step=step)
        profiles = {
            case: decay.lag_profile(maps[f"{section}_log_norm"]).to_series()
            for case, section in NORMS.items()
        }
        tables.append(pd.DataFrame(profiles).rename_axis("lag").reset_index().assign(when=when))
    return pd.concat(tables).assign(part="lag")


def _networks(path: str) -> pd.DataFrame:
    metrics = load_metrics(path).set_index("train/step")
    names: dict[str, str] = {}
    for case, section in NORMS.items():
        quantities = {"rate": "decay_rate", "horizon": "horizon", "zeros": "zero_share"}
        names |= {f"{short}_{case}": f"{section}/{name}" for short, name in quantities.items()}
    measured = metrics[list(names.values())].dropna(how="all")
    steps = _measured(measured.index.to_numpy())
    table = measured.loc[list(steps.values())].set_axis(list(names), axis="columns")
    return table.assign(when=list(steps), part="network")


def _measured(steps: np.ndarray) -> dict[str, Any]:
    """Return the first update measured and the last, without one that diverged in between."""
    return {BEFORE: steps[0]} | ({AFTER: steps[-1]} if len(steps) > 1 else {})


def recurrent_weights(config: dict[str, Any]) -> int:
    """Return the number of weights of a network's recurrent layer, biases included.

    Input, recurrent and, of an LRU, output weights of the cell count; those of the readout do not.

    Args:
        config: of a point, with the sections `model` and `task`.
    """
    features = components.build(config["task"]).features
    model = config["model"]

    def build() -> nnx.RNNCellBase:
        sizes = {"in_features": features, "hidden_features": model["hidden_size"]}
        cell: nnx.RNNCellBase = components.build(model["cell"], **sizes, rngs=nnx.Rngs(0))
        return cell

    weights = nnx.state(nnx.eval_shape(build), nnx.Param)
    return sum(array.size for array in jax.tree.leaves(weights))


def _identity(config: dict[str, Any]) -> pd.DataFrame:
    """Measure a minGRU of this size at its start, against the product of diag(1 − z)."""
    if config["model"]["name"] != "mingru":
        return pd.DataFrame()
    task, seed = components.build(config["task"]), config["seed"]
    cell = MinGRU(task.features, config["model"]["hidden_size"], rngs=nnx.Rngs(seed))
    inputs = task.sample(jax.random.key(seed), 1).inputs[0]
    measured = np.asarray(jacobian_log_norms(cell, inputs, norm="spectral"))
    forget, _ = cell.net_inputs(jnp.asarray(inputs))
    expected = diagonal_log_norms(mingru_log_factors(-np.asarray(forget, np.float64)))
    later = np.tri(len(expected), k=-1, dtype=bool)
    deviation = float(np.abs(measured[later] - expected[later]).max())
    return pd.DataFrame({"part": ["identity"], "deviation": deviation})


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a network and task: means, or medians, over seeds with 95 % intervals.

    Args:
        table: the study's results.

    Returns:
        `network`, `cell`, `task`, `units`, `weights`, `seeds` (of which "before" was measured),
        `trained` (of which "after" was); of each quantity and time, such as `rate_worst_before`,
        the number and its `…_low` and `…_high`: `rate_worst` and `rate_typical` (nats per step)
        and `zeros_worst` (share), means with Student's intervals; `horizon_worst` and
        `horizon_typical` (steps, medians with bootstrap intervals; inf: longer than the sequence);
        and `loss`, the held-out loss over the baseline after training (mean).
    """
    networks = table[table["part"] == "network"]
    order = {network: i for i, network in enumerate(CELLS)}
    summaries = []
    for (network, task), of_network in networks.groupby(["network", "task"]):
        times = {when: of_network[of_network["when"] == when] for when in (BEFORE, AFTER)}
        row: dict[str, Any] = {
            "network": network,
            "cell": CELLS[str(network)],
            "task": task,
            "units": of_network["model.hidden_size"].iloc[0],
            "weights": of_network["weights"].iloc[0],
            "seeds": len(times[BEFORE]),
            "trained": len(times[AFTER]),
        }
        for quantity in ("rate_worst", "rate_typical", "zeros_worst"):
            for when, at in times.items():
                row |= _with_interval(f"{quantity}_{when}", sample_mean(at[quantity].to_numpy()))
        for quantity in ("horizon_worst", "horizon_typical"):
            for when, at in times.items():
                row |= _with_interval(
                    f"{quantity}_{when}", bootstrap_median(at[quantity].to_numpy())
                )
        losses = times[AFTER]["eval.loss"] / times[AFTER]["eval.baseline"]
        summaries.append(row | _with_interval("loss", sample_mean(losses.to_numpy())))
    table = pd.DataFrame(summaries)
    return table.sort_values(["task", "network"], key=lambda x: x.replace(order)).reset_index(
        drop=True
    )


def _with_interval(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the norms over the lag, a panel a network: worst and typical, before and after."""
    lags = table[table["part"] == "lag"]
    networks = [name for name in CELLS if name in set(lags["network"])]
    columns = 4
    title = "Who forgets how: recurrent networks of about 2000 weights"
    figure, panels = drawing.panels(-(-len(networks) // columns), columns, title, height=1.9)
    for i, axes in enumerate(panels):
        if i >= len(networks):
            axes.set_visible(False)
            continue
        _draw(axes, lags[lags["network"] == networks[i]])
        axes.set_yscale("symlog", linthresh=1)  # a decade and less is what horizons are about
        axes.set(title=CELLS[networks[i]], ylim=SHOWN, xlim=(0, lags["lag"].max()))
        axes.set_yticks([-10, -3, -1, 0, 1, 3], ["−10", "−3", "−1", "0", "1", "3"])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.spines[["top", "right"]].set_visible(False)
        if i % columns:
            axes.set_yticklabels([])
        if i < len(networks) - columns:
            axes.set_xticklabels([])
    figure.subfigs[0].supylabel(r"$\log_{10}\,\Vert\partial s^{(t)}/\partial s^{(k)}\Vert$")
    figure.subfigs[0].supxlabel(drawing.LAG)
    _legend(panels[0])
    seeds = lags["seed"].nunique()
    notes = [f"Lines: geometric means over {seeds} seeds; bands: from the least to the greatest."]
    notes += ["s: h, or what the panel's title says. Before training: both tasks together."]
    notes += ["Dotted: 1/e, at which horizons end. Linear between −1 and 1, logarithmic beyond."]
    notes += ["Products that are exactly zero are left out."]
    return style.finish(figure, notes)


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color=style.GREY, linewidth=0.5)
    axes.axhline(-1 / units.DECADE, color=style.GREY, linewidth=0.5, linestyle=":")
    lines = {BEFORE: rows[rows["when"] == BEFORE]}
    trained = rows[rows["when"] == AFTER]
    lines |= {task: trained[trained["task"] == task] for task in TASKS}
    for name, line in lines.items():
        for case, dashes in DASHES.items():
            if len(line):
                logs = line[case].where(np.isfinite(line[case])) / units.DECADE
                by_lag = logs.groupby(line["lag"])
                look: dict[str, Any] = {"color": COLOURS[name], "linestyle": dashes}
                axes.plot(by_lag.mean(), linewidth=1.3, **look)
                band: dict[str, Any] = {"color": COLOURS[name], "alpha": 0.15, "linewidth": 0}
                axes.fill_between(by_lag.mean().index, by_lag.min(), by_lag.max(), **band)


def _legend(axes: Axes) -> None:
    labels = {BEFORE: "before training"} | {task: f"after {task}" for task in TASKS}
    entries = [
        Line2D([], [], color=COLOURS[name], linewidth=2, label=label)
        for name, label in labels.items()
    ]
    cases = {"worst": "worst case (spectral)", "typical": "typical case (rms)"}
    entries += [
        Line2D([], [], color="0.2", linestyle=DASHES[case], linewidth=1.3, label=label)
        for case, label in cases.items()
    ]
    legends.legend(axes.figure, entries)  # type: ignore[arg-type]
