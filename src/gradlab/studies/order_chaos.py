"""Order and chaos: Lyapunov exponents of random tanh networks, and the growth of their gradients.

The network is x⁽ᵗ⁺¹⁾ = J tanh(x⁽ᵗ⁾) + √v ξ⁽ᵗ⁾ with J ~ N(0, g²/N): the discrete-time form of
Sompolinsky, Crisanti & Sommers 1988, with white noise of variance v at every unit (v = 0: none).
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Array, Float, Key
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from gradlab import decay, jacobian_log_norms, lyapunov_spectrum, theory
from gradlab.cells import Elman
from gradlab.config import Count, Positive
from gradlab.figures import style
from gradlab.studies import drawing

BURN_IN = 200  # steps before anything is measured

Case = tuple[Positive, Annotated[float, Field(ge=0)]]  # gain g, variance v of the noise


def measure(
    cases: Sequence[Case],
    sizes: Sequence[Count],
    steps: Count,
    map_cases: Sequence[Case],
    map_size: Count,
    map_length: Count,
    spectrum_gain: Positive,
    spectrum_sizes: Sequence[Count],
    spectrum_steps: Count,
    spectrum_share: float,
    seeds: Sequence[int],
    map_seeds: Sequence[int],
    spectrum_seeds: Sequence[int],
) -> pd.DataFrame:
    """Measure exponents over the gain, log norms over the lag, and spectra.

    Args:
        cases: (gain, variance of the noise) of the largest exponents.
        sizes: N of the largest exponents.
        steps: number of steps that the largest exponents are averaged over.
        map_cases: (gain, variance of the noise) of the maps of all pairs (t, k).
        map_size: N of the maps.
        map_length: T of the maps.
        spectrum_gain: gain of the spectra, which have no noise.
        spectrum_sizes: N of the spectra.
        spectrum_steps: number of steps that the spectra are averaged over.
        spectrum_share: share of each spectrum that is measured, from the largest exponent down.
        seeds: of J, the noise and the start, for the largest exponents.
        map_seeds: the same, for the maps.
        spectrum_seeds: the same, for the spectra, of which those of each size have as many units
            in all: for each seed one network of the largest size, two of half of it, and so on.

    Returns:
        Rows by `part`: "exponent" (gain, noise, n, seed, rate, theory), "by lag" (gain, noise,
        seed, lag, log_norm, rate: λ₁ of another trajectory of the same network, over `steps`),
        "spectrum" (n, seed, network, share: i/N, rate); rates in nats per step.
    """
    by_lag = partial(_by_lag, map_size, map_length, steps)
    spectrum = partial(_spectrum, spectrum_gain, spectrum_steps, spectrum_share)
    parts = {
        "exponent": [_exponent(*case, n, steps, s) for n in sizes for case in cases for s in seeds],
        "by lag": [by_lag(*case, s) for case in map_cases for s in map_seeds],
        "spectrum": [
            spectrum(n, seed, network)
            for n in spectrum_sizes
            for seed in spectrum_seeds
            for network in range(max(spectrum_sizes) // n)
        ],
    }
    return pd.concat(
        [rows.assign(part=part) for part, tables in parts.items() for rows in tables],
        ignore_index=True,
    )


class DrivenNetwork(NamedTuple):
    """The coupling J, the state x after the burn-in, and the noise of the steps after it."""

    coupling: Float[Array, "n n"]
    start: Float[Array, "n"]
    noise: Float[Array, "steps n"]

    @property
    def cell(self) -> Elman:
        """Return the network as a cell of h = tanh(x), with h⁽ᵗ⁾ = tanh(J h⁽ᵗ⁻¹⁾ + noise)."""
        n = self.start.size
        cell = Elman(n, n, rngs=nnx.Rngs(0))
        cell.dense_i.kernel[...] = jnp.eye(n)
        cell.dense_h.kernel[...] = self.coupling.T
        return cell


@partial(jax.jit, static_argnames=("n", "steps"))
def _network(
    weights: Key[Array, ""],
    trajectory: Key[Array, ""],
    gain: float,
    noise: float,
    n: int,
    steps: int,
) -> DrivenNetwork:
    """Draw J from one key, and the noise and the start before the burn-in from the other."""
    coupling = gain / jnp.sqrt(n) * jax.random.normal(weights, (n, n))
    *drives, at_first = jax.random.split(trajectory, 3)
    before, after = (
        jnp.sqrt(noise) * jax.random.normal(key, (length, n))
        for key, length in zip(drives, (BURN_IN, steps), strict=True)
    )

    def step(x: Array, xi: Array) -> tuple[Array, None]:
        return coupling @ jnp.tanh(x) + xi, None

    start, _ = jax.lax.scan(step, jax.random.normal(at_first, (n,)), before)
    return DrivenNetwork(coupling, start, after)


def _keys(seed: int, count: int) -> Key[Array, "count"]:
    """Return the key of a seed's weights, and those of its trajectories."""
    return jax.random.split(jax.random.key(seed), count)


@jax.jit
def _largest(network: DrivenNetwork) -> Float[Array, ""]:
    """Compute λ₁ from the growth of a tangent vector, without the Jacobians J diag(tanh′)."""

    def advance(state: tuple[Array, Array], xi: Array) -> tuple[tuple[Array, Array], Array]:
        x, tangent = state
        h = jnp.tanh(x)
        x, tangent = (network.coupling @ jnp.stack([h, (1 - h**2) * tangent], axis=1)).T
        size = jnp.linalg.norm(tangent)
        return (x + xi, tangent / size), jnp.log(size)

    n = network.start.size
    _, growth = jax.lax.scan(advance, (network.start, jnp.ones(n) / jnp.sqrt(n)), network.noise)
    return jnp.mean(growth[BURN_IN:])


def _exponent(gain: float, noise: float, n: int, steps: int, seed: int) -> pd.DataFrame:
    network = _network(*_keys(seed, 2), gain, noise, n, BURN_IN + steps)
    rate, expected = float(_largest(network)), theory.mean_field(gain, noise).rate
    columns = {"gain": gain, "noise": noise, "n": n, "seed": seed, "theory": expected}
    return pd.DataFrame([columns | {"rate": rate}])


def _by_lag(n: int, length: int, steps: int, gain: float, noise: float, seed: int) -> pd.DataFrame:
    """Tabulate log norms over the lag, and λ₁ of a trajectory that they are not of."""
    weights, mapped, other = _keys(seed, 3)
    rate = float(_largest(_network(weights, other, gain, noise, n, BURN_IN + steps)))
    network = _network(weights, mapped, gain, noise, n, length)
    start = jnp.tanh(network.start)
    log_norms = jacobian_log_norms(network.cell, network.noise, initial_carry=start)
    columns = {"lag": range(length + 1), "log_norm": decay.lag_profile(np.asarray(log_norms))}
    return pd.DataFrame(columns).assign(gain=gain, noise=noise, seed=seed, n=n, rate=rate)


def _spectrum(
    gain: float, steps: int, share: float, n: int, seed: int, network: int
) -> pd.DataFrame:
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), network))
    drawn = _network(*keys, gain, 0.0, n, steps)
    start, count = jnp.tanh(drawn.start), max(1, round(share * n))
    spectrum = lyapunov_spectrum(drawn.cell, drawn.noise, initial_carry=start, count=count)
    columns = {"share": np.arange(1, count + 1) / n, "rate": np.asarray(spectrum.exponents)}
    return pd.DataFrame(columns).assign(n=n, gain=gain, noise=0.0, seed=seed, network=network)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw λ₁ over the gain, log norms over the lag, and the spectrum of several sizes."""
    figure, panels = drawing.panels(1, 3, "Order and chaos in random tanh networks", height=3.1)
    parts = dict(list(table.groupby("part")))
    _draw_exponents(panels[0], parts["exponent"])
    _draw_by_lag(panels[1], parts["by lag"])
    _draw_spectra(panels[2], parts["spectrum"])
    return drawing.finish_with_theory_note(
        figure,
        "Left: mean field, N → ∞. Middle: slope λ₁ of other trajectories of the same networks. "
        "Means over seeds; bars and bands: their range.",
    )


def _draw_exponents(axes: Axes, rows: pd.DataFrame) -> None:
    gains = np.geomspace(0.65, 5.2, 200)
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    markers = dict(zip(sorted(rows["n"].unique()), "xosd", strict=False))
    for noise, colour in ((0.0, drawing.HUES[0]), (0.1, drawing.HUES[1])):
        expected = [theory.mean_field(float(gain), noise).rate for gain in gains]
        axes.plot(gains, expected, **drawing.THEORY_STYLE)
        for n, marker in markers.items():
            measured = rows[(rows["n"] == n) & (rows["noise"] == noise)]
            rates = measured.groupby("gain")["rate"].agg(["mean", "min", "max"])
            ends = [rates["mean"] - rates["min"], rates["max"] - rates["mean"]]
            look: dict[str, Any] = {"color": colour, "ms": 5, "mfc": "none", "elinewidth": 1}
            axes.errorbar(rates.index, rates["mean"], ends, fmt=marker, **look)
        axes.plot([], [], "s", color=colour, ms=5, label=f"v = {noise:g}")
    for n, marker in markers.items():
        axes.plot([], [], marker, color="0.15", ms=5, mfc="none", label=f"N = {n:g}")
    axes.set_xscale("log")
    axes.set_xticks([0.7, 1, 2, 3, 5], ["0.7", "1", "2", "3", "5"])
    axes.minorticks_off()
    drawing.label_axes(axes, "largest exponent", "gain g", "λ₁ (nats/step)", loc="lower right")


def _draw_by_lag(axes: Axes, rows: pd.DataFrame) -> None:
    cases = rows.groupby(["gain", "noise"], sort=False)
    for ((gain, noise), case), colour in zip(cases, drawing.HUES, strict=False):
        lags, log_norms = drawing.by_seed(case.rename(columns={"log_norm": "value"}), "lag")
        drawing.band(axes, lags, log_norms, colour, f"g = {gain:g}, v = {noise:g}", np.nanmean)
        at_20 = float(log_norms[:, lags == 20].mean())
        axes.plot(lags, at_20 + case["rate"].mean() * (lags - 20), **drawing.THEORY_STYLE)
    label = r"mean $\log\,\Vert\partial h^{(t)}/\partial h^{(k)}\Vert_2$ (nats)"
    drawing.label_axes(axes, "gradient over lag", drawing.LAG, label)


def _draw_spectra(axes: Axes, rows: pd.DataFrame) -> None:
    sizes = list(rows.groupby("n"))
    looks = zip(sizes, (drawing.HUES[i] for i in (1, 3, 7, 4)), strict=False)
    for (n, spectra), colour in looks:
        shares, rates = drawing.by_seed(spectra.rename(columns={"rate": "value"}), "share")
        drawing.band(axes, shares, rates, colour, f"N = {n:g}", np.nanmean)
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    title = f"spectrum at g = {rows['gain'].iloc[0]:g}"
    drawing.label_axes(axes, title, "index / N", "Lyapunov exponent (nats/step)")
