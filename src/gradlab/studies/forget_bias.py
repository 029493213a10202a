"""Memory of an LSTM's cell state before training, by the bias of its forget gate.

Gers et al. 2000 and Jozefowicz et al. 2015 set that bias to 1 or more; chrono of Tallec & Ollivier
2018 spreads it over the time scales of the task. Norms are rms norms: those of a typical vector.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import seaborn as sns
from flax import nnx
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from gradlab import decay, initialisers, jacobian_log_norms, theory
from gradlab.cells import LSTM, set_gate_biases
from gradlab.config import Count
from gradlab.figures import style
from gradlab.models import by_gate
from gradlab.studies import drawing

CHRONO = "chrono"
CHRONO_COLOUR = "#d55e00"  # told apart from viridis, which the biases have


def measure(
    biases: Sequence[float],
    units: Count,
    length: Count,
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Measure mean log norms over the lag, of cells without weights and with Glorot weights.

    Args:
        biases: b_f; chrono, with `length` as its longest memory, is measured beside them.
        units: n.
        length: T; the inputs are the pixels of handwritten digits, one after another.
        seeds: of weights, chrono biases and digits.

    Returns:
        One row per cell and lag: `weights` ("zero", "glorot"), `rule`, `bias` (NaN: chrono), `part`
        ("c": of ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾; "h"), `seed`, `lag`, `log_norm` (nats, mean over t), and `expected`
        (of cells without weights).
    """
    cases = [("zero", "c", seed) for seed in seeds[:1]]
    cases += [("glorot", part, seed) for seed in seeds for part in ("c", "h")]
    tables = [
        _norms_over_lag(weights, part, units, bias, length, seed)
        for bias in (*biases, np.nan)
        for weights, part, seed in cases
    ]
    return pd.concat(tables, ignore_index=True)


def _norms_over_lag(
    weights: str, part: str, units: int, bias: float, length: int, seed: int
) -> pd.DataFrame:
    cell = _cell(weights, units, bias, length, seed)
    profile = _profile(cell, part, length, seed)
    columns: dict[str, Any] = {"lag": range(length + 1), "log_norm": profile, "seed": seed}
    if weights == "zero":
        columns["expected"] = _expected(cell, length)
    rule = CHRONO if np.isnan(bias) else f"b = {bias:g}"
    return pd.DataFrame(columns).assign(weights=weights, rule=rule, bias=bias, part=part)


def _cell(weights: str, units: int, bias: float, longest: int, seed: int) -> LSTM:
    zero, glorot = nnx.initializers.zeros_init(), nnx.initializers.glorot_uniform()
    cell = LSTM(
        1,
        units,
        kernel_init=zero if weights == "zero" else glorot,
        recurrent_kernel_init=zero if weights == "zero" else by_gate(initialisers.glorot),
        rngs=nnx.Rngs(seed),
    )
    key = jax.random.key(seed)
    chrono = initialisers.chrono(key, units, float(longest))
    set_gate_biases(cell, chrono if np.isnan(bias) else {"forget": jnp.full(units, bias)})
    return cell


def _profile(cell: LSTM, part: str, length: int, seed: int) -> decay.Profile:
    pixels = load_digits().data.reshape(-1) / 16
    inputs = pixels[seed * length : (seed + 1) * length, None].astype(np.float32)
    log_norms = jacobian_log_norms(cell, inputs, norm="rms", of=part, wrt=part)
    return decay.lag_profile(np.asarray(log_norms))


def _expected(cell: LSTM, length: int) -> Float[np.ndarray, "lags"]:
    """Return ln √(mean f^(2 lag)) of gates f at their biases; lag · ln f if all are equal."""
    columns = cell.learned.index("forget") * cell.hidden_features
    bias: Array = cell.dense_h.bias[...]  # type: ignore[index]
    logs = [theory.forget_rate(float(b)) for b in bias[columns : columns + cell.hidden_features]]
    lags = np.arange(length + 1)[:, None]
    return 0.5 * np.log(np.mean(np.exp(2 * lags * np.array(logs)), axis=1))


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the cell state without weights and with them, and the hidden state."""
    figure, panels = drawing.panels(1, 3, "Forget bias and memory at the start", height=3.1)
    parts = (
        ("zero", "c", "no weights: gates at their bias"),
        ("glorot", "c", "Glorot weights, cell state"),
        ("glorot", "h", "Glorot weights, hidden state"),
    )
    for axes, (weights, part, title) in zip(panels, parts, strict=True):
        _draw(axes, table[(table["weights"] == weights) & (table["part"] == part)])
        label = rf"mean $\log_{{10}}\Vert\partial {part}^{{(t)}}/\partial {part}^{{(k)}}\Vert$"
        drawing.label_axes(axes, title, drawing.LAG, label, legend=False, ylim=(-16, 4))
        axes.set_yticks(range(-16, 5, 4))
    drawing.legend_above(panels[0])
    return drawing.finish_with_theory_note(
        figure, "Rms norms, means over seeds and their range. Inputs: pixels of digits."
    )


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    rules = rows["rule"].unique()
    shades = list(sns.color_palette("viridis", len(rules) - 1).as_hex())
    for (rule, line), colour in zip(
        rows.groupby("rule", sort=False), [*shades, CHRONO_COLOUR], strict=True
    ):
        decades = line.assign(value=line["log_norm"] / np.log(10))
        look: dict[str, Any] = {"linewidth": 2.2, "linestyle": "-." if rule == CHRONO else "-"}
        drawing.band(axes, *drawing.by_seed(decades, "lag"), colour, str(rule), np.nanmean, **look)
        expected = line.groupby("lag")["expected"].mean() / np.log(10)
        axes.plot(expected.index, expected, **drawing.THEORY_STYLE)
