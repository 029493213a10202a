"""Truncated backpropagation points the wrong way until its window is long enough.

The system is the influence balancing of Tallec & Ollivier 2017 (UORO): s⁽ᵗ⁺¹⁾ = A s⁽ᵗ⁾ + θ v with
A = ½ I + ½ on the superdiagonal, n = 23, v = +1 for the first 10 units and −1 for the other 13, and
the loss ½ (s₁ − 1)². The influence of θ is positive at first and negative in the long run, so that
only a window of more than 40 steps gets the sign of the gradient right.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import backpropagate, lyapunov_exponents, truncation
from gradlab.cells import Elman
from gradlab.config import Count, Positive
from gradlab.figures import style
from gradlab.studies import drawing

UNITS, POSITIVE = 23, 10
A = 0.5 * np.eye(UNITS) + 0.5 * np.eye(UNITS, k=1)
V = np.where(np.arange(UNITS) < POSITIVE, 1.0, -1.0)
THETA = 0.5  # at the start, where every s is 1
FEATURES = 8

WindowLoss = Literal["end", "sum"]  # at the window's last step, or summed over its steps


def measure(
    windows: Sequence[Count],
    longest: Count,
    learning_rate: Positive,
    updates: Count,
    units: Count,
    gain: Positive,
    length: Count,
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Measure the truncated derivative by window, descents, and the error in a tanh network.

    Args:
        windows: K of the descents.
        longest: the derivative is measured for windows from 1 to this length.
        learning_rate: of the descents.
        updates: number of updates of each descent, one after each window.
        units: of the tanh network.
        gain: of the tanh network's recurrent weights.
        length: of the tanh network's sequences; its loss is at their end.
        seeds: of the tanh network's weights and inputs.

    Returns:
        Rows by `part`: "derivative" (window, measured: D_K, expected, cumulative, by_autodiff: the
        derivative over a window whose first state is held), "descent" (window, loss, update,
        theta), "truncation" (seed, window, relative_error, and the network's Lyapunov exponent).
    """
    parts = {
        "derivative": _derivatives(longest),
        "descent": _descents(windows, learning_rate, updates),
        "truncation": pd.concat([_truncation(units, gain, length, seed) for seed in seeds]),
    }
    return pd.concat([rows.assign(part=part) for part, rows in parts.items()], ignore_index=True)


def _step(theta: Array, s: Array, x: Array) -> tuple[Array, Array]:
    del x
    s = jnp.asarray(A) @ s + theta * jnp.asarray(V)
    return s, s


def _derivatives(longest: int) -> pd.DataFrame:
    """Compute D_K = e₁ᵀ Σ_{j<K} Aʲ v by the engine's terms, in closed form, and by autodiff."""
    loss_weights = np.zeros(longest)
    loss_weights[-1] = 1.0
    with jax.enable_x64(True):
        theta = jnp.array(THETA)
        terms = backpropagate(
            _step,
            jnp.zeros((longest, 1)),
            lambda s, weight: weight * s[0],
            jnp.asarray(loss_weights),
            initial_carry=jnp.ones(UNITS),
            parameters=theta,
        )
        held = jax.jit(jax.vmap(_held_derivative, in_axes=(0, None)))
        by_autodiff = held(jnp.arange(1, longest + 1), theta)
    (by_lag,) = terms.by_lag.values()
    measured = np.cumsum(np.asarray(by_lag, float)) * float(np.exp(terms.log_scale))
    powers = [V]
    for _ in range(longest - 1):
        powers.append(A @ powers[-1])
    return pd.DataFrame(
        {
            "window": np.arange(1, longest + 1),
            "measured": measured,
            "expected": np.cumsum([power[0] for power in powers]),
            "cumulative": np.cumsum(measured),
            "by_autodiff": np.asarray(by_autodiff),
        }
    )


def _window(
    theta: Array, s: Float[Array, "n"], steps: Array, most: int
) -> tuple[Float[Array, "n"], Float[Array, "most"]]:
    """Run some steps from a held state; return the last state, and s₁ by step (0 past the end)."""

    def advance(s: Array, t: Array) -> tuple[Array, Array]:
        s = jnp.where(t < steps, _step(theta, s, t)[0], s)
        return s, jnp.where(t < steps, s[0], 0.0)

    return jax.lax.scan(advance, jax.lax.stop_gradient(s), jnp.arange(most))


def _held_derivative(steps: Array, theta: Array) -> Array:
    return jax.grad(lambda theta: _window(theta, jnp.ones(UNITS), steps, 200)[0][0])(theta)


def _descents(windows: Sequence[int], learning_rate: float, updates: int) -> pd.DataFrame:
    """Tabulate θ over the updates for every window and both losses; inf after an overflow."""
    most = max(windows)

    def descend(steps: Array, whole: Array) -> Float[Array, "updates"]:
        def loss(theta: Array, s: Array) -> tuple[Array, Array]:
            s, s1 = _window(theta, s, steps, most)
            counted = jnp.where(whole, jnp.arange(most) < steps, jnp.arange(most) == steps - 1)
            return 0.5 * jnp.sum(jnp.where(counted, (s1 - 1) ** 2, 0.0)), s

        def update(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            theta, s = state
            slope, s = jax.grad(loss, has_aux=True)(theta, s)
            theta = theta - learning_rate * slope
            return (theta, s), theta

        start = (jnp.array(THETA), jnp.ones(UNITS))
        return jax.lax.scan(update, start, None, length=updates)[1]

    losses: tuple[WindowLoss, ...] = ("end", "sum")
    cases = [(window, loss) for loss in losses for window in windows]
    with jax.enable_x64(True):
        steps = jnp.array([window for window, _ in cases])
        whole = jnp.array([loss == "sum" for _, loss in cases])
        paths = np.asarray(jax.jit(jax.vmap(descend))(steps, whole))
    shown = np.unique(np.append(np.geomspace(1, updates, 120).astype(int), updates))
    paths = np.where(np.isfinite(paths), paths, np.inf)[:, shown - 1]
    return pd.concat(
        [
            pd.DataFrame({"window": window, "loss": loss, "update": shown, "theta": path})
            for (window, loss), path in zip(cases, paths, strict=True)
        ]
    )


def _truncation(units: int, gain: float, length: int, seed: int) -> pd.DataFrame:
    """Tabulate the relative error of a tanh network's gradient by window, for a loss at the end."""
    kernel = nnx.initializers.normal(gain / np.sqrt(units))
    cell = Elman(FEATURES, units, recurrent_kernel_init=kernel, rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    inputs = jnp.asarray(rng.normal(size=(length, FEATURES)), jnp.float32)
    readout = jnp.asarray(np.eye(length)[-1][:, None] * rng.normal(size=units), jnp.float32)
    terms = backpropagate(cell, inputs, lambda h, weights: weights @ h, readout)
    errors = truncation(terms.by_lag).relative_error
    leading = float(lyapunov_exponents(cell, inputs, count=1)[0])
    columns = {"window": range(1, length + 1), "relative_error": errors}
    return pd.DataFrame(columns).assign(seed=seed, lyapunov=leading)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the derivative over the window, the descents, and a nonlinear network's error."""
    figure, panels = drawing.panels(
        1, 3, "A truncated gradient may point the wrong way", height=3.0
    )
    parts = dict(list(table.groupby("part")))
    _draw_derivatives(panels[0], parts["derivative"])
    _draw_descents(panels[1], parts["descent"])
    _draw_truncation(panels[2], parts["truncation"])
    return drawing.finish_with_theory_note(
        figure,
        "Middle: the solution is θ = −1/6. Right: a driven tanh network, a line a seed, against "
        "e^(λ₁ K).",
    )


def _draw_derivatives(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    axes.plot(rows["window"], rows["measured"], color=drawing.HUES[0], **drawing.MEASURED_STYLE)
    axes.plot(rows["window"], rows["expected"], **drawing.THEORY_STYLE)
    mean = rows["cumulative"] / rows["window"]
    axes.plot(rows["window"], mean, color=drawing.HUES[1], label="its mean up to K", linewidth=1.6)
    for curve, colour in ((rows["measured"], drawing.HUES[0]), (mean, drawing.HUES[1])):
        first_negative = int(rows["window"][curve < 0].iloc[0])
        label = f"negative from K = {first_negative}"
        axes.plot(first_negative, 0, "o", color=colour, markersize=5, label=label)
    drawing.label_axes(
        axes, "truncated derivative", "window K (steps)", r"$\partial s_1/\partial\theta$"
    )


def _draw_descents(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(-1 / 6, **drawing.THEORY_STYLE)
    for window, colour in zip((10, 40, 50, 100, 150), drawing.HUES, strict=False):
        for loss, line in (("end", "-"), ("sum", ":")):
            path = rows[(rows["window"] == window) & (rows["loss"] == loss)]
            label = f"K = {window}" if loss == "end" else "_"
            axes.semilogx(path["update"], path["theta"], line, color=colour, label=label)
    for label, line in (("loss at the end", "-"), ("loss summed", ":")):
        axes.plot([], [], line, color="0.3", label=label)
    drawing.label_axes(axes, "descent", "update", "θ", loc="lower left", columns=2, ylim=(-2, 3))


def _draw_truncation(axes: Axes, rows: pd.DataFrame) -> None:
    for _, line in rows.groupby("seed"):
        error = drawing.finite(line["relative_error"].to_numpy())
        axes.semilogy(line["window"], error, color=drawing.HUES[0], linewidth=1.2)
    window = np.sort(rows["window"].unique())
    axes.semilogy(window, np.exp(rows["lyapunov"].mean() * window), **drawing.THEORY_STYLE)
    label = r"$\Vert g_K - g\Vert/\Vert g\Vert$"
    drawing.label_axes(axes, "gradient lost by a window", "window K (steps)", label)
