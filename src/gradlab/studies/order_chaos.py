"""Order and chaos: the Lyapunov exponents of random tanh networks, and the gradients they set.

x⁽ᵗ⁺¹⁾ = J tanh(x⁽ᵗ⁾) + √v ξ⁽ᵗ⁾ with J ~ N(0, g²/N): the discrete-time form of Sompolinsky, Crisanti
& Sommers 1988, driven by white noise of variance v at every unit or (v = 0) left alone.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Array, Float, Key
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import decay, jacobian_log_norms, lyapunov_spectrum, theory
from gradlab.cells import Elman
from gradlab.config import Count
from gradlab.figures import style
from gradlab.studies import drawing

UNDRIVEN = tuple((g, 0.0) for g in (0.7, 0.9, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0))
DRIVEN = ((1.0, 0.1), (1.2, 0.1), (1.5, 0.25), (2.0, 1.0), (3.0, 1.0))
CROSSING = tuple((g, 0.1) for g in (1.3, 1.36, 1.41, 1.46, 1.5, 2.0))  # v = 0.1 over its onset
BY_LAG = ((0.9, 0.0), (1.0, 0.1), (2.0, 0.0), (3.0, 0.0))
SPECTRUM_GAIN = 2.0
BURN_IN = 200  # steps before anything is measured


def measure(
    sizes: Sequence[Count],
    steps: Count,
    map_size: Count,
    map_length: Count,
    spectrum_sizes: Sequence[Count],
    spectrum_steps: Count,
    spectrum_share: float,
    seeds: Sequence[int],
    map_seeds: Sequence[int],
) -> pd.DataFrame:
    """Exponents over the gain, log norms over the lag, and spectra.

    Args:
        sizes: N, of the largest exponents.
        steps: that they are averaged over.
        map_size: N, of the maps of all pairs (t, k).
        map_length: T of those.
        spectrum_sizes: N, of the spectra.
        spectrum_steps: that they are averaged over.
        spectrum_share: of the spectrum from the largest exponent down.
        seeds: of J, the noise and the start.
        map_seeds: those of the maps and spectra.

    Returns:
        Rows by `part`: "exponent" (gain, noise, n, seed, rate, theory), "by lag" (gain, noise,
        seed, lag, log_norm, rate), "spectrum" (n, share: i/N, rate); rates in nats per step.
    """
    cases = (*UNDRIVEN, *DRIVEN, *CROSSING)
    parts = {
        "exponent": [_exponent(*case, n, steps, s) for n in sizes for case in cases for s in seeds],
        "by lag": [_by_lag(*case, map_size, map_length, s) for case in BY_LAG for s in map_seeds],
        "spectrum": [
            _spectrum(n, spectrum_steps, spectrum_share, s)
            for n in spectrum_sizes
            for s in map_seeds
        ],
    }
    return pd.concat(
        [rows.assign(part=part) for part, tables in parts.items() for rows in tables],
        ignore_index=True,
    )


class DrivenNetwork(NamedTuple):
    """J, a state x after the burn-in, and the noise of the steps that follow it."""

    coupling: Float[Array, "n n"]
    start: Float[Array, "n"]
    noise: Float[Array, "steps n"]

    @property
    def cell(self) -> Elman:
        """The same network in h = tanh(x): h⁽ᵗ⁾ = tanh(J h⁽ᵗ⁻¹⁾ + noise), as gradlab's cell."""
        n = self.start.size
        cell = Elman(n, n, rngs=nnx.Rngs(0))
        cell.dense_i.kernel[...] = jnp.eye(n)
        cell.dense_h.kernel[...] = self.coupling.T
        return cell


@partial(jax.jit, static_argnames=("n", "steps"))
def _network(key: Key[Array, ""], gain: float, noise: float, n: int, steps: int) -> DrivenNetwork:
    keys = jax.random.split(key, 4)
    coupling = gain / jnp.sqrt(n) * jax.random.normal(keys[0], (n, n))
    before, after = (
        jnp.sqrt(noise) * jax.random.normal(k, (length, n))
        for k, length in zip(keys[1:], (BURN_IN, steps), strict=False)
    )

    def step(x: Array, xi: Array) -> tuple[Array, None]:
        return coupling @ jnp.tanh(x) + xi, None

    start, _ = jax.lax.scan(step, jax.random.normal(keys[3], (n,)), before)
    return DrivenNetwork(coupling, start, after)


@jax.jit
def _largest(network: DrivenNetwork) -> Float[Array, ""]:
    """λ₁ from one tangent vector v: of a large network no Jacobian J diag(tanh′) need be formed."""

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
    network = _network(jax.random.key(seed), gain, noise, n, BURN_IN + steps)
    rate, expected = float(_largest(network)), theory.mean_field(gain, noise).rate
    columns = {"gain": gain, "noise": noise, "n": n, "seed": seed, "theory": expected}
    return pd.DataFrame([columns | {"rate": rate}])


def _by_lag(gain: float, noise: float, n: int, length: int, seed: int) -> pd.DataFrame:
    network = _network(jax.random.key(seed), gain, noise, n, BURN_IN + length)
    rate, start, inputs = float(_largest(network)), jnp.tanh(network.start), network.noise
    # The same stretch of time as the exponent's.
    start, _ = jax.lax.scan(lambda h, x: network.cell(h, x), start, inputs[:BURN_IN])
    found = jacobian_log_norms(network.cell, inputs[BURN_IN:], initial_carry=start)
    columns = {"lag": range(length + 1), "log_norm": decay.lag_profile(np.asarray(found))}
    return pd.DataFrame(columns).assign(gain=gain, noise=noise, seed=seed, n=n, rate=rate)


def _spectrum(n: int, steps: int, share: float, seed: int) -> pd.DataFrame:
    network = _network(jax.random.key(seed), SPECTRUM_GAIN, 0.0, n, steps)
    start, count = jnp.tanh(network.start), max(1, round(share * n))
    found = lyapunov_spectrum(network.cell, network.noise, initial_carry=start, count=count)
    columns = {"share": np.arange(1, count + 1) / n, "rate": np.asarray(found.exponents)}
    return pd.DataFrame(columns).assign(n=n, gain=SPECTRUM_GAIN, noise=0.0, seed=seed)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """λ₁ over the gain, log norms over the lag, and the spectrum of several sizes."""
    figure, axes = drawing.panels(1, 3, "Order and chaos in random tanh networks", height=3.1)
    parts = dict(list(table.groupby("part")))
    _draw_exponents(axes[0], parts["exponent"])
    _draw_by_lag(axes[1], parts["by lag"])
    _draw_spectra(axes[2], parts["spectrum"])
    return drawing.close(
        figure,
        "Left: mean field, N → ∞; a mark a seed. Middle: slope λ₁. Right: means over seeds.",
    )


def _draw_exponents(axes: Axes, rows: pd.DataFrame) -> None:
    gains = np.geomspace(0.65, 5.2, 200)
    for noise in (0.0, 0.1):
        expected = [theory.mean_field(float(gain), noise).rate for gain in gains]
        axes.plot(gains, expected, **drawing.THEORY)
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    markers = dict(zip(sorted(rows["n"].unique()), ("x", "+", "o", "s"), strict=False))
    for noise, colour in ((0.0, drawing.HUES[0]), (0.1, drawing.HUES[1])):
        for n, marker in markers.items():
            some = rows[(rows["n"] == n) & (rows["noise"] == noise)]
            label = f"N = {n:g}" if noise == 0 else "_"
            face: dict[str, Any] = {} if marker in "x+" else {"markerfacecolor": "none"}
            axes.plot(some["gain"], some["rate"], marker, color=colour, label=label, ms=5, **face)
    axes.text(
        0.97,
        0.06,
        "green: v = 0, orange: v = 0.1",
        transform=axes.transAxes,
        ha="right",
        fontsize="small",
    )
    axes.set_xscale("log")
    axes.set_xticks([0.7, 1, 2, 3, 5], ["0.7", "1", "2", "3", "5"])
    axes.minorticks_off()
    drawing.dress(axes, "largest exponent", "gain g", "λ₁ (nats/step)", loc="upper left")


def _draw_by_lag(axes: Axes, rows: pd.DataFrame) -> None:
    cases = rows.groupby(["gain", "noise"], sort=False)
    for ((gain, noise), case), colour in zip(cases, drawing.HUES, strict=False):
        for seed, line in case.groupby("seed"):
            label = f"g = {gain:g}, v = {noise:g}" if seed == case["seed"].min() else "_"
            axes.plot(line["lag"], line["log_norm"], color=colour, label=label, linewidth=1.6)
            lag = line["lag"].to_numpy()
            at_20 = float(line["log_norm"][line["lag"] == 20].iloc[0])
            axes.plot(lag, at_20 + line["rate"].iloc[0] * (lag - 20), **drawing.THEORY)
    label = r"mean $\log\,\Vert\partial h^{(t)}/\partial h^{(k)}\Vert_2$ (nats)"
    drawing.dress(axes, "gradient over lag", drawing.LAG, label)


def _draw_spectra(axes: Axes, rows: pd.DataFrame) -> None:
    means = rows.groupby(["n", "share"], as_index=False)["rate"].mean()
    for (n, line), colour in zip(
        means.groupby("n"), style.shades(drawing.HUES[0], 3), strict=False
    ):
        axes.plot(line["share"], line["rate"], color=colour, label=f"N = {n:g}", linewidth=1.6)
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    title = f"spectrum at g = {SPECTRUM_GAIN:g}"
    drawing.dress(axes, title, "index / N", "Lyapunov exponent (nats/step)")
