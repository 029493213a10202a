"""Glorot's recurrent matrix over long sequences: its spectral radius, and when its powers grow.

In a linear recurrence h⁽ᵗ⁾ = W h⁽ᵗ⁻¹⁾ + …, ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ is W to the power t − k. Entries of
variance 1/n, as Glorot draws them, keep the size of h for a few steps; over long sequences
the largest eigenvalue decides (Bar, Seleznova, Alexander, Kutyniok & Giryes 2025).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from gradlab import initialisers, jacobian_log_norms
from gradlab.cells import Elman
from gradlab.config import Count
from gradlab.figures import style
from gradlab.studies import drawing

VECTORS = 64
GROWN = np.log(2) / 2  # log of the rms norm at which a power counts as grown: its square doubled


def measure(
    sizes: Sequence[Count],
    draws: Count,
    blocks: Count,
    roots: Count,
    first_seed: int = 0,
) -> pd.DataFrame:
    """Measure spectral radii of Glorot's matrices, and rms norms of their powers.

    Args:
        sizes: n.
        draws: number of matrices of each size.
        blocks: number of equal blocks of the draws; an onset is that of a block's median.
        roots: the powers go up to this number times √n.
        first_seed: the seed of the first matrix.

    Returns:
        Rows by `part`: "radius" (n, seed, radius: ρ, last: ln of the rms norm of the highest power;
        rescaled: the same of W/(1 + 1/√n)), "power" (n, block, lag,
        roots: lag/√n, log_norm: median over the block) and "onset" (n, block, onset: the power,
        linear between powers, at which the block's median squared norm has doubled).
    """
    if draws % blocks:
        raise ValueError(f"draws must be a multiple of blocks, {blocks}; got {draws}.")
    radii, powers = [], []
    for n in sizes:
        lags = round(roots * np.sqrt(n))
        log_norms = np.empty((draws, lags + 1))
        for i, seed in enumerate(range(first_seed, first_seed + draws)):
            weights = np.asarray(initialisers.glorot(jax.random.key(seed), n))
            log_norms[i] = power_log_norms(weights, lags)
            radius = float(np.abs(np.linalg.eigvals(weights)).max())
            last = log_norms[i, -1]
            row = {"n": n, "seed": seed, "radius": radius, "last": last}
            radii.append(row | {"rescaled": last - lags * np.log1p(1 / np.sqrt(n))})
        powers.append(_block_medians(n, log_norms.reshape(blocks, -1, lags + 1)))
    power = pd.concat(powers, ignore_index=True)
    onsets = [
        {"n": n, "block": block, "onset": _onset(rows["log_norm"].to_numpy())}
        for (n, block), rows in power.groupby(["n", "block"])
    ]
    parts = {"radius": pd.DataFrame(radii), "power": power, "onset": pd.DataFrame(onsets)}
    tables = [rows.assign(part=part) for part, rows in parts.items()]
    return pd.concat(tables, ignore_index=True)


def power_log_norms(weights: Float[np.ndarray, "n n"], lags: int) -> Float[np.ndarray, "lags+1"]:
    """Return the log rms norms of W⁰ … W^lags, as the Jacobians of a linear network.

    Args:
        weights: W.
        lags: the highest power.

    Returns:
        ln(‖Wᵗ‖_F/√n), nats, estimated from VECTORS vectors.
    """
    n = len(weights)
    cell = Elman(1, n, activation="identity", use_bias=False, rngs=nnx.Rngs(0))
    cell.dense_h.kernel[...] = jnp.asarray(weights.T)
    inputs = jnp.zeros((lags, 1))
    log_norms, _ = jacobian_log_norms(
        cell, inputs, norm="rms", method="sampled", vectors=VECTORS, starts=[0]
    )
    return np.asarray(log_norms, float)[:, 0]


def _block_medians(n: int, log_norms: Float[np.ndarray, "blocks draws lags"]) -> pd.DataFrame:
    medians = np.median(log_norms, axis=1)
    blocks, lags = np.indices(medians.shape)
    columns = {"block": blocks.ravel(), "lag": lags.ravel(), "log_norm": medians.ravel()}
    return pd.DataFrame(columns).assign(n=n, roots=lags.ravel() / np.sqrt(n))


def _onset(log_norms: Float[np.ndarray, "lags"]) -> float:
    """Return the power at which a log norm, linear between powers, reaches GROWN; NaN if none."""
    (grown,) = np.nonzero(log_norms >= GROWN)
    if not len(grown):
        return float("nan")
    i = grown[0]
    return float(i - (log_norms[i] - GROWN) / (log_norms[i] - log_norms[i - 1]))


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw how often ρ is above 1 over n, and the norms of powers over t/√n."""
    figure, panels = drawing.panels(1, 3, "Glorot's matrix over long sequences", height=3.1)
    radius, power = (table[table["part"] == part] for part in ("radius", "power"))
    _draw_shares(panels[0], radius)
    _draw_powers(panels[1], power, rescaled=False)
    _draw_powers(panels[2], power, rescaled=True)
    notes = (
        "Middle, right: median norm of Wᵗ; band: blocks of matrices. Not a figure of the source's."
    )
    return style.finish(figure, [notes])


def _draw_shares(axes: Axes, rows: pd.DataFrame) -> None:
    of_size = rows.groupby("n")["radius"].agg(lambda x: int(np.sum(x > 1)))
    draws = rows.groupby("n").size().to_numpy()
    for n, above, drawn in zip(of_size.index.to_numpy(), of_size, draws, strict=True):
        test = stats.binomtest(int(above), int(drawn))
        low, high = test.proportion_ci(0.95)
        axes.plot([n, n], [low, high], color=drawing.HUES[7], linewidth=1.2)
        axes.plot(n, test.statistic, "o", color=drawing.HUES[7], ms=5)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(of_size.index), [f"{n:g}" for n in of_size.index])
    axes.minorticks_off()
    drawing.label_axes(axes, "spectral radius above 1", "n", "share of matrices", ylim=(0, 1.04))


def _draw_powers(axes: Axes, rows: pd.DataFrame, rescaled: bool) -> None:
    sizes = sorted(rows["n"].unique())
    for n, colour in zip(sizes, style.shades(drawing.HUES[7], len(sizes)), strict=True):
        of_size = rows[rows["n"] == n]
        shift = np.log1p(1 / np.sqrt(n)) if rescaled else 0
        values = (of_size["log_norm"] - shift * of_size["lag"]) / np.log(10)
        table = of_size.assign(value=values, seed=of_size["block"])
        drawing.band(axes, *drawing.by_seed(table, "roots"), colour, f"n = {n:g}", linewidth=1.6)
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    title = "W/(1 + 1/√n)" if rescaled else "W as drawn"
    y = r"$\log_{10}\;\Vert W^t\Vert_F/\sqrt{n}$"
    drawing.label_axes(axes, title, "t/√n", y, legend=not rescaled)
