"""The error surface of one unit: fixed points, the wall, and gradient descent at the wall.

Figures 3 and 6 of Pascanu, Mikolov & Bengio 2013, whose unit is in `gradlab.studies.one_unit`.
`measure` and `figure` are the study. analysis/error_surface.py draws `error_surface_figure`: the
same surface, with descent from one start of the user's choice.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.special import expit

from gradlab import theory
from gradlab.config import Count, Positive
from gradlab.figures import style
from gradlab.studies import drawing
from gradlab.studies.one_unit import descend, unit_error, wall

FOLD_WEIGHT = 5.0
WEIGHTS, BIASES = (4.0, 7.0), (-4.0, -1.5)  # the surface; the source does not say which it drew
WALL_WEIGHTS = (4.5, 5.0, 5.5, 6.0)
STARTS = ((5.0, -2.45), (5.2, -2.6), (5.5, -2.8), (5.0, -2.55))  # (w, b) of the descents
SCRIPT_CELLS = 201  # along an axis of the surface of `error_surface_table`
FLOOR = 1e-6  # of the errors' colours
COLOURS = {"clipped": drawing.HUES[0], "unclipped": drawing.HUES[2]}  # green, pink


def measure(
    grid: Count,
    drawn: Count,
    learning_rate: Positive,
    threshold: Positive,
    updates: Count,
) -> pd.DataFrame:
    """Compute fixed points over b, the surface and its wall over (w, b), and descents on it.

    Args:
        grid: points along each side of the surface.
        drawn: number of those along each side that the table keeps.
        learning_rate: of gradient descent.
        threshold: of clipping by the gradient's norm.
        updates: number of updates of each descent.

    Returns:
        Rows by `part`: "fixed point" (b, x, stable), "fold" (b, expected), "surface" (w, b, error,
        gradient: the norm), "gradient" (its largest value and its median over the whole grid, in
        `of`), "wall" (w, b, expected), "cut" (w, b, distance from it, gradient), "walk" (walker,
        clipped, update, w, b, error, step: the length of the largest step so far).
    """
    # Updates that are evenly spaced on a log axis.
    shown = np.unique([0, *np.geomspace(1, updates, 150).astype(int), updates])
    parts = {
        "fixed point": _fixed_points(),
        "fold": _folds(),
        **_thinned_surface(grid, drawn),
        "wall": _walls(),
        "cut": _cuts(),
        "walk": _descents(STARTS, learning_rate, threshold, shown),
    }
    return pd.concat([rows.assign(part=part) for part, rows in parts.items()], ignore_index=True)


# The parts of the study's table


def _fixed_points() -> pd.DataFrame:
    """Tabulate all solutions of x = w σ(x) + b: b as a function of x."""
    x = np.linspace(-5, 4, 1801)
    b = x - FOLD_WEIGHT * expit(x)
    stable = FOLD_WEIGHT * expit(x) * expit(-x) < 1
    shown = (b > -4) & (b < -1)
    return pd.DataFrame({"b": b, "x": x, "stable": stable})[shown]


def _folds() -> pd.DataFrame:
    """Find the b at which two fixed points meet, by bisection from inside the three-root region."""

    def root_count(b: float) -> int:
        x = np.linspace(-6, 6, 40_001)
        return int(np.count_nonzero(np.diff(np.sign(FOLD_WEIGHT * expit(x) + b - x))))

    folds = []
    for inside, outside in ((-2.5, -3.0), (-2.5, -2.0)):
        while abs(inside - outside) > 1e-7:
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if root_count(middle) == 3 else (inside, middle)
        folds.append(inside)
    return pd.DataFrame({"b": folds, "expected": theory.fold_points(FOLD_WEIGHT)})


def _surface(cells: int) -> dict[str, Float[np.ndarray, "cells cells"]]:
    """Compute the error and the gradient's norm on a grid over (w, b), as columns of a table."""
    w, b = np.meshgrid(np.linspace(*WEIGHTS, cells), np.linspace(*BIASES, cells))
    unit = unit_error(w, b)
    return {"w": w, "b": b, "error": unit.error, "gradient": unit.grad_norm}


def _thinned_surface(grid: int, drawn: int) -> dict[str, pd.DataFrame]:
    """Tabulate part of the surface, and the extremes of the gradient over all of it."""
    surface = _surface(grid)
    every = max(1, (grid - 1) // (drawn - 1))
    thinned = {name: values[::every, ::every].ravel() for name, values in surface.items()}
    norms = surface["gradient"]
    extremes = {"gradient": [norms.max(), np.median(norms)], "of": ["max", "median"]}
    return {"surface": pd.DataFrame(thinned), "gradient": pd.DataFrame(extremes)}


def _walls() -> pd.DataFrame:
    """Find the b of the steepest slope to 1e-6, beside that of `wall`, for each WALL_WEIGHTS."""
    steepest = []
    for w in WALL_WEIGHTS:
        low, high = BIASES
        while high - low > 1e-5:
            b = np.linspace(low, high, 20_001)
            at = int(np.argmax(unit_error(w, b).grad_norm))
            low, high = b[max(at - 20, 0)], b[min(at + 20, len(b) - 1)]
        steepest.append((low + high) / 2)
    return pd.DataFrame(
        {"w": WALL_WEIGHTS, "b": steepest, "expected": wall(np.array(WALL_WEIGHTS))}
    )


def _cuts() -> pd.DataFrame:
    """Tabulate the slope beside the wall, down to distances that only a descent comes to."""
    distance = np.geomspace(1e-9, 0.1, 401)
    parts = []
    for w in WALL_WEIGHTS[1:]:
        b = wall(w) + distance
        columns = {"w": w, "b": b, "distance": distance, "gradient": unit_error(w, b).grad_norm}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts)


def _descents(
    starts: Sequence[tuple[float, float]],
    learning_rate: float,
    threshold: float,
    shown: Int[np.ndarray, "shown"],
) -> pd.DataFrame:
    """Tabulate descent from each start, clipped and not, at the updates `shown` (ascending)."""
    parts = []
    for clipped in (True, False):
        paths = descend(
            starts,
            learning_rate=learning_rate,
            threshold=threshold if clipped else np.inf,
            updates=int(shown[-1]),
        )
        for walker, (w, b, error, step) in enumerate(zip(*paths, strict=True)):
            path = pd.DataFrame({"w": w, "b": b, "error": error, "step": step}).iloc[shown]
            parts.append(path.assign(walker=walker, clipped=clipped, update=shown))
    return pd.concat(parts)


# The study's figure


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the bifurcation, the surface with the descents, and the slope across the wall."""
    figure, panels = drawing.panels(1, 3, "One unit: bifurcation, wall and clipping", height=3.1)
    parts = dict(list(table.groupby("part")))
    _draw_bifurcation(panels[0], parts["fixed point"], parts["fold"])
    _draw_surface(panels[1], parts["surface"], parts["walk"])
    _draw_cuts(panels[2], parts["cut"])
    wall_slope = float(wall(0) - wall(1))
    return style.finish(
        figure,
        [
            f"Dashed: closed forms (folds; the wall b = ½ − {wall_slope:.4f} w). "
            "Circles: starts of descent;",
            "green: clipped at norm 1; pink: not clipped, which leaves the picture.",
        ],
    )


def _draw_bifurcation(axes: Axes, points: pd.DataFrame, folds: pd.DataFrame) -> None:
    for stable, label, line in ((True, "stable", "-"), (False, "unstable", ":")):
        y = points["x"].where(points["stable"] == stable)
        axes.plot(points["b"], y, line, color=drawing.HUES[0], linewidth=1.8, label=label)
    for fold in folds["expected"]:
        axes.axvline(fold, **drawing.THEORY_STYLE)
    drawing.label_axes(axes, f"fixed points at w = {FOLD_WEIGHT:g}", "b", "x*", xlim=(-3.6, -1.4))


def _draw_surface(axes: Axes, surface: pd.DataFrame, walks: pd.DataFrame) -> None:
    errors = surface.pivot_table(index="b", columns="w", values="error")
    mesh = axes.pcolormesh(errors.columns, errors.index, errors, cmap="Greys", rasterized=True)
    axes.figure.colorbar(mesh, ax=axes, label="E", pad=0.02)
    axes.plot(WEIGHTS, wall(np.array(WEIGHTS)), **drawing.THEORY_STYLE)
    # Unclipped paths first (False sorts before True): they cover more.
    for (clipped, _), walk in walks.sort_values("update").groupby(["clipped", "walker"]):
        colour = COLOURS["clipped" if clipped else "unclipped"]
        marks, width = ("", 1.8) if clipped else (".", 0.7)
        axes.plot(walk["w"], walk["b"], marker=marks, markersize=3, color=colour, linewidth=width)
    axes.plot(*zip(*STARTS, strict=True), "o", color="white", markeredgecolor="0.1", markersize=4)
    drawing.label_axes(axes, "surface and descents", "w", "b", xlim=(4.4, 6), ylim=(-3.2, -2.1))


def _draw_cuts(axes: Axes, cuts: pd.DataFrame) -> None:
    for (w, line), colour in zip(cuts.groupby("w"), drawing.HUES[3:], strict=False):
        axes.loglog(line["distance"], line["gradient"], color=colour, label=f"w = {w:g}")
    drawing.label_axes(axes, "slope beside the wall", "b − b of the wall", r"$\Vert\nabla E\Vert$")


# The table and the figure of analysis/error_surface.py


def error_surface_table(
    start: tuple[float, float] = (5.0, -2.45),
    *,
    learning_rate: float = 0.01,
    threshold: float = 1.0,
    updates: int = 3000,
    cells: int = SCRIPT_CELLS,
) -> pd.DataFrame:
    """Compute the surface, and descent from one start with clipping and without.

    Returns:
        `part` ("surface", "unclipped", "clipped"), `update` (NaN of the surface), `weight`, `bias`,
        `error`, and `grad_norm` (of the surface).
    """
    surface = pd.DataFrame({name: values.ravel() for name, values in _surface(cells).items()})
    paths = _descents([start], learning_rate, threshold, np.arange(updates + 1))
    paths["part"] = np.where(paths["clipped"], "clipped", "unclipped")
    paths = paths.sort_values("clipped", kind="stable")  # unclipped first
    table = pd.concat([surface.assign(part="surface"), paths], ignore_index=True)
    table = table.rename(columns={"w": "weight", "b": "bias", "gradient": "grad_norm"})
    return table[["part", "update", "weight", "bias", "error", "grad_norm"]]


@style.theme()
def error_surface_figure(table: pd.DataFrame) -> style.Drawn:
    """Draw the surface with both paths on it, and the error of each over the updates.

    Args:
        table: from `error_surface_table`.
    """
    look = style.current_style()
    figure, body = style.new_figure(look.column * 1.2, 0.75 * look.column)
    over, along = body.subplots(1, 2)
    surface = table[table["part"] == "surface"].pivot_table(
        index="bias", columns="weight", values="error"
    )
    norm, errors = LogNorm(FLOOR, 1), surface.clip(lower=FLOOR)
    over.pcolormesh(
        surface.columns, surface.index, errors, norm=norm, cmap=style.sequential_colours()
    )
    dashes: dict[str, Any] = {"color": "white", "linewidth": 0.8, "linestyle": "--"}
    over.plot(surface.columns, wall(surface.columns.to_numpy()), **dashes)
    limits: dict[str, Any] = {"xlim": WEIGHTS, "ylim": BIASES}
    over.set(xlabel="weight w", ylabel="bias b", **limits)
    body.colorbar(
        ScalarMappable(norm, style.sequential_colours()), ax=over, label="error E", extend="min"
    )
    paths = dict(list(table[table["part"] != "surface"].groupby("part", sort=False)))
    handles = []
    for part, colour in COLOURS.items():
        path = paths[part]
        over.plot(path["weight"], path["bias"], color=colour, linewidth=0.9)
        start = path[["weight", "bias"]].iloc[0]
        over.plot(*start, color="white", marker="o", markersize=4)
        line: dict[str, Any] = {"color": colour, "label": part, "linewidth": 0.6}
        handles += along.plot(path["update"], path["error"], **line)
    along.set(xlabel="update", ylabel="error E", yscale="log")
    for axes in (over, along):
        axes.locator_params(axis="x", nbins=4)  # more run into each other in large type
    along.spines[["top", "right"]].set_visible(False)
    style.legend(body, handles)
    notes = [f"Largest step {part!s}: {_largest_step(path):.3g}." for part, path in paths.items()]
    notes = ["Dashed: where theory puts the wall.", *notes]
    return style.Drawn(style.finish(figure, notes), table)


def _largest_step(path: pd.DataFrame) -> float:
    changes = path[["weight", "bias"]].diff()
    return float(np.hypot(changes["weight"], changes["bias"]).max())
