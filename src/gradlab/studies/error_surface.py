"""Figures 3 and 6 of Pascanu, Mikolov & Bengio 2013: one unit, its fixed points and its wall.

x⁽ᵗ⁾ = w σ(x⁽ᵗ⁻¹⁾) + b without input, x⁽⁰⁾ = ½, and E = (σ(x⁽⁵⁰⁾) − 0.7)² (eq. 8). Everything is in
float64.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expit

from gradlab import theory
from gradlab.config import Count, Positive
from gradlab.figures import style
from gradlab.studies import drawing

START, GOAL, STEPS = 0.5, 0.7, 50
FOLD_WEIGHT = 5.0
WEIGHTS, BIASES = (4.0, 7.0), (-4.0, -1.5)  # the surface; the source does not say which it drew
WALL_WEIGHTS = (4.5, 5.0, 5.5, 6.0)
WALKERS = ((5.0, -2.45), (5.2, -2.6), (5.5, -2.8), (5.0, -2.55))


def measure(
    grid: Count,
    drawn: Count,
    learning_rate: Positive,
    threshold: Positive,
    updates: Count,
) -> pd.DataFrame:
    """Fixed points over b, the surface and its wall over (w, b), and gradient descent on it.

    Args:
        grid: points along each side of the surface.
        drawn: of those, how many along each side are kept.
        learning_rate: of the descent.
        threshold: of the clip by the gradient's norm.
        updates: how many.

    Returns:
        Rows by `part`: "fixed point" (b, x, stable), "fold" (b, expected), "surface" (w, b, error,
        gradient: the norm), "gradient" (its largest value and its median over the whole grid, in
        `of`), "wall" (w, b, expected), "cut" (w, b, distance from it, gradient), "walk" (walker,
        clipped, update, w, b, error, step: the length of the largest step so far).
    """
    parts = {
        "fixed point": _fixed_points(),
        "fold": _folds(),
        **_surface(grid, drawn),
        "wall": _walls(),
        "cut": _cuts(),
        "walk": _walks(learning_rate, threshold, updates),
    }
    return pd.concat([rows.assign(part=part) for part, rows in parts.items()], ignore_index=True)


def error(w: Float[Array, ""], b: Float[Array, ""]) -> Float[Array, ""]:
    """E of one network."""
    x = jax.lax.fori_loop(0, STEPS, lambda _, x: w * jax.nn.sigmoid(x) + b, jnp.full_like(w, START))
    return (jax.nn.sigmoid(x) - GOAL) ** 2


class _Slope(NamedTuple):
    error: Float[np.ndarray, "*points"]
    w: Float[np.ndarray, "*points"]  # ∂E/∂w
    b: Float[np.ndarray, "*points"]

    @property
    def norm(self) -> Float[np.ndarray, "*points"]:
        return np.hypot(self.w, self.b)


def _slope(w: Float[np.ndarray, "*points"], b: Float[np.ndarray, "*points"]) -> _Slope:
    w, b = np.broadcast_arrays(w, b)
    with jax.enable_x64(True):
        values, gradients = _value_and_grad(jnp.asarray(w.ravel()), jnp.asarray(b.ravel()))
        flat = (values, *gradients)
        return _Slope(*(np.asarray(x).reshape(w.shape) for x in flat))


_value_and_grad = jax.jit(jax.vmap(jax.value_and_grad(error, argnums=(0, 1))))


def _fixed_points() -> pd.DataFrame:
    """All solutions of x = w σ(x) + b: a curve in x, on which b is a function."""
    x = np.linspace(-5, 4, 1801)
    b = x - FOLD_WEIGHT * expit(x)
    stable = FOLD_WEIGHT * expit(x) * expit(-x) < 1
    kept = (b > -4) & (b < -1)
    return pd.DataFrame({"b": b, "x": x, "stable": stable})[kept]


def _folds() -> pd.DataFrame:
    """Where two fixed points meet, by following both ends of the middle branch in b."""

    def roots(b: float) -> int:
        x = np.linspace(-6, 6, 40_001)
        return int(np.count_nonzero(np.diff(np.sign(FOLD_WEIGHT * expit(x) + b - x))))

    found = []
    for inside, outside in ((-2.5, -3.0), (-2.5, -2.0)):
        while abs(inside - outside) > 1e-7:
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if roots(middle) == 3 else (inside, middle)
        found.append(inside)
    return pd.DataFrame({"b": found, "expected": theory.fold_points(FOLD_WEIGHT)})


def _surface(grid: int, drawn: int) -> dict[str, pd.DataFrame]:
    w, b = np.meshgrid(np.linspace(*WEIGHTS, grid), np.linspace(*BIASES, grid))
    slope = _slope(w, b)
    every = max(1, (grid - 1) // (drawn - 1))
    columns = {"w": w, "b": b, "error": slope.error, "gradient": slope.norm}
    kept = {name: x[::every, ::every].ravel() for name, x in columns.items()}
    extremes = {"gradient": [slope.norm.max(), np.median(slope.norm)], "of": ["max", "median"]}
    return {"surface": pd.DataFrame(kept), "gradient": pd.DataFrame(extremes)}


def _walls() -> pd.DataFrame:
    """For some w, the b of the steepest slope, to 1e-6; and where x⁽⁰⁾ is an unstable fixed point.

    The slope is the steepest at the wall because x stays near x⁽⁰⁾ and grows apart from it by
    w σ'(x⁽⁰⁾) > 1 a step.
    """
    found = []
    for w in WALL_WEIGHTS:
        low, high = BIASES
        while high - low > 1e-5:
            b = np.linspace(low, high, 20_001)
            at = int(np.argmax(_slope(np.asarray(w), b).norm))
            low, high = b[max(at - 20, 0)], b[min(at + 20, len(b) - 1)]
        found.append((low + high) / 2)
    expected = START - np.array(WALL_WEIGHTS) * expit(START)
    return pd.DataFrame({"w": WALL_WEIGHTS, "b": found, "expected": expected})


def _cuts() -> pd.DataFrame:
    """The slope beside the wall, for some w, down to distances that only a walker meets."""
    distance = np.geomspace(1e-9, 0.1, 401)
    parts = []
    for w in WALL_WEIGHTS[1:]:
        b = START - w * expit(START) + distance
        norm = _slope(np.asarray(w), b).norm
        parts.append(pd.DataFrame({"w": w, "b": b, "distance": distance, "gradient": norm}))
    return pd.concat(parts)


def _walks(learning_rate: float, threshold: float, updates: int) -> pd.DataFrame:
    """Gradient descent from each start, with and without the clip; a row a kept update."""
    walk = jax.vmap(partial(_walk, learning_rate, updates), in_axes=(None, 0))
    kept = np.unique([0, *np.geomspace(1, updates, 150).astype(int), updates])
    parts = []
    with jax.enable_x64(True):
        for clipped in (True, False):
            paths = walk(threshold if clipped else np.inf, jnp.array(WALKERS))
            for walker, path in enumerate(zip(*paths, strict=True)):
                columns = dict(zip(("w", "b", "error", "step"), path, strict=True))
                rows = pd.DataFrame({k: np.asarray(x)[kept] for k, x in columns.items()})
                parts.append(rows.assign(walker=walker, clipped=clipped, update=kept))
    return pd.concat(parts)


def _walk(
    learning_rate: float, updates: int, threshold: float, start: Float[Array, "2"]
) -> tuple[Float[Array, "updates+1"], ...]:
    def update(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], list[Array]]:
        at, largest = state
        value, gradient = jax.value_and_grad(lambda at: error(at[0], at[1]))(at)
        change = learning_rate * jnp.minimum(1, threshold / jnp.linalg.norm(gradient)) * gradient
        new = (at - change, jnp.maximum(largest, jnp.linalg.norm(change)))
        return new, [at[0], at[1], value, largest]

    return tuple(jax.lax.scan(update, (start, jnp.zeros(())), None, length=updates + 1)[1])


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """The bifurcation, the surface with the descents, and the slope across the wall."""
    figure, axes = drawing.panels(1, 3, "One unit: bifurcation, wall and clipping", height=3.1)
    parts = dict(list(table.groupby("part")))
    _draw_bifurcation(axes[0], parts["fixed point"], parts["fold"])
    _draw_surface(axes[1], parts["surface"], parts["walk"])
    _draw_cuts(axes[2], parts["cut"])
    return style.finish(
        figure,
        [
            "Dashed: closed forms (folds; the wall b = ½ − 0.6225 w). Circles: starts of descent;",
            "green: clipped at norm 1; orange: not clipped, which leaves the picture.",
        ],
    )


def _draw_bifurcation(axes: Axes, points: pd.DataFrame, folds: pd.DataFrame) -> None:
    for stable, label, line in ((True, "stable", "-"), (False, "unstable", ":")):
        y = points["x"].where(points["stable"] == stable)
        axes.plot(points["b"], y, line, color=drawing.HUES[0], linewidth=1.8, label=label)
    for fold in folds["expected"]:
        axes.axvline(fold, **drawing.THEORY)
    drawing.dress(axes, f"fixed points at w = {FOLD_WEIGHT:g}", "b", "x*", xlim=(-3.6, -1.4))


def _draw_surface(axes: Axes, surface: pd.DataFrame, walks: pd.DataFrame) -> None:
    errors = surface.pivot_table(index="b", columns="w", values="error")
    drawn = axes.pcolormesh(errors.columns, errors.index, errors, cmap="Greys", rasterized=True)
    axes.figure.colorbar(drawn, ax=axes, label="E", pad=0.02)
    ends = np.array(WEIGHTS)
    axes.plot(ends, START - ends * expit(START), **drawing.THEORY)
    # Not clipped below clipped: it covers more.
    for (clipped, _), walk in walks.sort_values("update").groupby(["clipped", "walker"]):
        colour, marks = (drawing.HUES[0], "") if clipped else (drawing.HUES[1], ".")
        width = 1.8 if clipped else 0.7
        axes.plot(walk["w"], walk["b"], marker=marks, markersize=3, color=colour, linewidth=width)
    axes.plot(*zip(*WALKERS, strict=True), "o", color="white", markeredgecolor="0.1", markersize=4)
    drawing.dress(axes, "surface and descents", "w", "b", xlim=(4.4, 6), ylim=(-3.2, -2.1))


def _draw_cuts(axes: Axes, cuts: pd.DataFrame) -> None:
    for (w, line), colour in zip(cuts.groupby("w"), drawing.HUES[2:], strict=False):
        axes.loglog(line["distance"], line["gradient"], color=colour, label=f"w = {w:g}")
    drawing.dress(axes, "slope beside the wall", "b − b of the wall", r"$\Vert\nabla E\Vert$")
