"""An LSTM's ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ with and without the path through its cell state.

Some tools multiply the blocks ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ at a frozen c. That product leaves out the path that an
LSTM was built for.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.special import expit

from gradlab import log_singular_values
from gradlab.cells import LSTM, set_gate_biases
from gradlab.config import Count
from gradlab.figures import style
from gradlab.jacobian import step_jacobians
from gradlab.studies import drawing

FEATURES = 8
DIFFERENCE = 1e-5  # of the central differences


def measure(
    biases: Sequence[float],
    units: Count,
    lags: Sequence[Count],
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Measure log₁₀ of the spectral norm of ∂h⁽ᵗ⁾/∂h⁽⁰⁾ in three ways.

    Args:
        biases: of the forget gate; recurrent weights are orthogonal, inputs are white noise.
        units: n.
        lags: t.
        seeds: of weights and inputs.

    Returns:
        One row per bias, seed and lag: `bias`, `seed`, `lag`, `total` (the total derivative),
        `frozen` (the product of the blocks at frozen c), and `differences` (central differences of
        a float64 LSTM in NumPy; NaN except at the longest lag).
    """
    tables = [_norms_over_lag(bias, units, lags, seed) for bias in biases for seed in seeds]
    return pd.concat(tables, ignore_index=True)


def _norms_over_lag(bias: float, n: int, lags: Sequence[int], seed: int) -> pd.DataFrame:
    cell = LSTM(FEATURES, n, rngs=nnx.Rngs(seed))
    set_gate_biases(cell, {"forget": jnp.full(n, bias)})
    noise = np.random.default_rng(seed).normal(size=(max(lags), FEATURES))
    inputs = jnp.asarray(noise, jnp.float32)
    total = log_singular_values(cell, inputs, [(lag, 0) for lag in lags], of="h", wrt="h")
    blocks = np.asarray(step_jacobians(cell, inputs), np.float64)[:, n:, n:]  # carry: (c, h)
    columns = {
        "lag": lags,
        "total": np.asarray(total, float)[:, 0] / np.log(10),
        "frozen": _log10_product_norms(blocks)[np.subtract(lags, 1)],
    }
    differences = np.full(len(lags), np.nan)
    with np.errstate(divide="ignore"):  # differences below rounding are zero
        differences[-1] = np.log10(np.linalg.norm(_differences(cell, noise.astype(np.float32)), 2))
    return pd.DataFrame(columns).assign(bias=bias, seed=seed, differences=differences)


def _log10_product_norms(steps: Float[np.ndarray, "T n n"]) -> Float[np.ndarray, "T"]:
    """Return log₁₀ norms of the products of the first 1, 2, … matrices."""
    log_norms, product, scale = [], np.eye(steps.shape[1]), 0.0
    for step in steps:
        product = step @ product
        size = np.linalg.norm(product, 2)
        product, scale = product / size, scale + np.log10(size)
        log_norms.append(scale)
    return np.array(log_norms)


def _differences(cell: LSTM, inputs: Float[np.ndarray, "T features"]) -> Float[np.ndarray, "n n"]:
    """Compute ∂h⁽ᵀ⁾/∂h⁽⁰⁾ by central differences of an LSTM written out in NumPy."""
    n = cell.hidden_features
    w_x, w_h = (np.asarray(x.kernel[...], float) for x in (cell.dense_i, cell.dense_h))
    bias = np.asarray(cell.dense_h.bias[...], float)  # type: ignore[index]
    h = np.concatenate([np.eye(n), -np.eye(n)]) * DIFFERENCE
    c = np.zeros_like(h)
    for x in inputs.astype(float):
        i, f, g, o = np.split(x @ w_x + h @ w_h + bias, 4, axis=1)
        c = expit(f) * c + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(c)
    return (h[:n] - h[n:]).T / (2 * DIFFERENCE)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the norm over the lag, with one panel per forget bias."""
    biases = sorted(table["bias"].unique())
    figure, panels = drawing.panels(1, len(biases), "The way through the cell state", height=3.0)
    for axes, bias in zip(panels, biases, strict=True):
        rows = table[table["bias"] == bias]
        curves = (("total", "total derivative"), ("frozen", "c frozen: blocks ∂h/∂h alone"))
        for (column, label), colour in zip(curves, drawing.HUES, strict=False):
            for seed, line in rows.groupby("seed"):
                shown = label if seed == rows["seed"].min() else "_"
                axes.plot(line["lag"], line[column], color=colour, label=shown, linewidth=1.3)
        exact = rows[rows["differences"] > -7]  # smaller differences are rounding
        if len(exact):
            marks: dict[str, Any] = {
                "color": "0.15",
                "markersize": 5,
                "label": "central differences, float64",
            }
            axes.plot(exact["lag"], exact["differences"], "x", **marks)
        label = r"$\log_{10}\Vert\partial h^{(t)}/\partial h^{(0)}\Vert_2$"
        drawing.label_axes(
            axes, f"forget bias {bias:g}", "lag t (steps)", label, legend=False, ylim=(-110, 5)
        )
    drawing.legend_above(panels[-1])
    return style.finish(figure, ["A line a seed; LSTM of 32 units at initialisation."])
