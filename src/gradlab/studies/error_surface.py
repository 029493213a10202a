"""The error surface of one unit: fixed points, the wall, and gradient descent at the wall.

Figures 3 and 6 of Pascanu, Mikolov & Bengio 2013, whose unit is in `gradlab.studies.one_unit`.
`measure` and `figure` are the study. analysis/error_surface.py draws `error_surface_figure`: the
same surface, with descent from one start of the user's choice.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from scipy.special import expit

from gradlab import theory
from gradlab.config import Count, Positive
from gradlab.figures import legends, style
from gradlab.studies import drawing
from gradlab.studies.one_unit import descend, unit_error, wall, wall_slope

FOLD_WEIGHT = 5.0
WEIGHTS, BIASES = (4.0, 7.0), (-4.0, -1.5)  # the surface; the source's text gives no ranges
WALL_WEIGHTS = (4.5, 5.0, 5.5, 6.0, 6.5, 7.0)
STARTS = ((5.0, -2.45), (5.2, -2.6), (5.5, -2.8), (5.0, -2.55))  # (w, b) of the descents
BESIDE = 1e-3  # from the wall: the rows of `mesh` next to it
EARLY, EVERY = 500, 10  # updates of a descent that are kept: the first ones, and every tenth
THROW = 0.1  # length of a step that leaves the wall
SCRIPT_CELLS = 201  # along an axis of the surface of `error_surface_table`
FLOOR = 1e-6  # of the errors' colours in `error_surface_figure`
ERRORS = (0.0, 0.5)  # range of the axis
COLOURS = {"unclipped": "#e69f00", "clipped": "#56b4e9"}  # orange, light blue


def measure(
    grid: Count,
    drawn: Count,
    learning_rate: Positive,
    threshold: Positive,
    updates: Count,
) -> pd.DataFrame:
    """Compute fixed points over b, the surface and its wall over (w, b), and descents on it.

    Args:
        grid: points along each side of the even grid that the gradient's median is of.
        drawn: points along each side of the surface that is drawn.
        learning_rate: of gradient descent.
        threshold: of clipping by the gradient's norm.
        updates: number of updates of each descent.

    Returns:
        Rows by `part`: "fixed point" (b, x, stable), "fold" (b, expected), "surface" (w, b, error:
        row by row of `mesh`), "gradient" (its norm's median over an even grid), "wall" (w, b of the
        largest slope, expected: b of `wall`, largest_slope, slope: on the wall, expected_slope),
        "walk" (walker, clipped, update, w, b, error, step: the length of the largest step so far).
    """
    shown = np.unique([*range(min(EARLY, updates)), *range(0, updates, EVERY), updates])
    parts = {
        "fixed point": _fixed_points(),
        "fold": _folds(),
        "surface": _surface(drawn),
        "gradient": pd.DataFrame({"gradient": [_median_slope(grid)]}),
        "wall": _walls(),
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


def mesh(cells: int) -> tuple[Float[np.ndarray, "cells cells"], Float[np.ndarray, "cells cells"]]:
    """Return w and b of a mesh over the surface whose rows run along the wall, closest beside it.

    An even grid would draw the wall as a staircase.

    Args:
        cells: number of values of w (the columns), and of b at each (the rows, ascending).
    """
    w = np.linspace(*WEIGHTS, cells)
    rows = (cells // 2, cells - cells // 2)
    low, high = (
        BESIDE + np.outer(np.linspace(0, 1, count) ** 2, np.abs(edge - wall(w)) - BESIDE)
        for count, edge in zip(rows, BIASES, strict=True)
    )
    return np.tile(w, (cells, 1)), np.concatenate([wall(w) - low[::-1], wall(w) + high])


def _surface(cells: int) -> pd.DataFrame:
    """Tabulate the error on `mesh`, row by row."""
    w, b = mesh(cells)
    return pd.DataFrame({"w": w.ravel(), "b": b.ravel(), "error": unit_error(w, b).error.ravel()})


def _median_slope(cells: int) -> float:
    grid = np.meshgrid(np.linspace(*WEIGHTS, cells), np.linspace(*BIASES, cells))
    return float(np.median(unit_error(*grid).grad_norm))


def _walls() -> pd.DataFrame:
    """Find the steepest slope at each of WALL_WEIGHTS, beside the wall and its slope by theory.

    The slope is a smooth function of the logarithm of the distance from the wall: at w = 7 it is
    steepest 1e-11 beside it, where no even grid has a point.
    """
    distance = np.geomspace(1e-13, 1.0, 4001)
    rows = []
    for w in WALL_WEIGHTS:
        b = wall(w) + np.concatenate([-distance[::-1], [0.0], distance])
        slopes = unit_error(w, b).grad_norm
        at = int(np.argmax(slopes))
        columns = {"w": w, "b": b[at], "expected": wall(w), "largest_slope": slopes[at]}
        rows.append(columns | {"slope": slopes[len(distance)], "expected_slope": wall_slope(w)})
    return pd.DataFrame(rows)


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
    """Draw figures 3 and 6 of the source, the descents from above, and the slope of the wall."""
    look = style.current_style()
    figure, body = style.new_figure(look.width, 7.2, "One unit: bifurcation, wall and clipping")
    parts = dict(list(table.groupby("part")))
    _draw_bifurcation(body.add_subplot(2, 2, 1), parts["fixed point"], parts["fold"])
    surface = body.add_subplot(2, 2, 2, projection="3d", computed_zorder=False)
    _draw_wall(surface, parts["surface"], parts["walk"])
    _draw_descents(body.add_subplot(2, 2, 3), parts["surface"], parts["walk"])
    median = float(parts["gradient"]["gradient"].iloc[0])
    _draw_slopes(body.add_subplot(2, 2, 4), parts["wall"], median)
    wall_slope = float(wall(0) - wall(1))
    return style.finish(
        figure,
        [
            f"Dashed: closed forms: folds; the wall b = ½ − {wall_slope:.4f} w; its slope.",
            "Circles: starts. Orange: the descent as it is, until it leaves; an arrow shows that "
            "step's direction. Blue: clipped at norm 1, 3000 updates, which slide down the wall "
            "(above: on its lower side).",
            "The source's text gives no ranges of the axes: these are ours.",
        ],
    )


def _draw_bifurcation(axes: Axes, points: pd.DataFrame, folds: pd.DataFrame) -> None:
    for stable, label, line in ((True, "stable", "-"), (False, "unstable", ":")):
        y = points["x"].where(points["stable"] == stable)
        axes.plot(points["b"], y, line, color=drawing.HUES[0], linewidth=1.8, label=label)
    for fold in folds["expected"]:
        axes.axvline(fold, **drawing.THEORY_STYLE)
    title = f"fixed points at w = {FOLD_WEIGHT:g}, as figure 3"
    drawing.label_axes(axes, title, "b", "x*", xlim=(-3.6, -1.4))
    axes.locator_params(axis="x", nbins=5)


def _drawn_surface(surface: pd.DataFrame) -> list[Float[np.ndarray, "cells cells"]]:
    """Return w, b and E on the mesh that a table's rows are of."""
    cells = int(np.sqrt(len(surface)))
    return [surface[name].to_numpy().reshape(cells, cells) for name in ("w", "b", "error")]


def _until_thrown(walk: pd.DataFrame) -> pd.DataFrame:
    """Return a descent's updates up to the first step that leaves the wall, and the one after."""
    return walk[walk["step"].shift(1, fill_value=0.0) < THROW]


def _paths(walks: pd.DataFrame) -> Iterator[tuple[bool, pd.DataFrame]]:
    for (clipped, _), walk in walks.sort_values("update").groupby(["clipped", "walker"]):
        yield bool(clipped), walk if clipped else _until_thrown(walk)


def _draw_wall(axes: Any, surface: pd.DataFrame, walks: pd.DataFrame) -> None:
    """Draw the surface as the source does, in an Axes3D, with the descents of one walker."""
    w, b, error = _drawn_surface(surface)
    colours = style.sequential_colours()(Normalize(*ERRORS)(error))
    every: dict[str, Any] = {
        "rcount": len(w),
        "ccount": len(w),
        "antialiased": False,
        "rasterized": True,
    }
    axes.plot_surface(w, b, error, facecolors=colours, shade=False, linewidth=0, **every)
    for clipped, path in _paths(walks[walks["walker"] == 0]):
        colour = COLOURS["clipped" if clipped else "unclipped"]
        if clipped:
            path = path[path["error"] < 0.05]  # the lower side of the wall
        else:
            path, (start, end) = path[:-1], path[["w", "b"]].to_numpy()[-2:]
            along = (end - start) / np.linalg.norm(end - start)
            arrow = {"color": colour, "linewidth": 1.6, "arrow_length_ratio": 0.15}
            axes.quiver(*start, path["error"].iloc[-1], *along, 0, **arrow)
        lifted = path["error"] + 0.01  # so that the surface hides none of it
        axes.plot(path["w"], path["b"], lifted, color=colour, linewidth=1.6)
    axes.view_init(elev=32, azim=50)
    axes.set_box_aspect((1, 1, 0.75), zoom=1.1)
    axes.set(xlim=WEIGHTS, ylim=BIASES, zlim=ERRORS, title="error surface, as figure 6")
    axes.set(xlabel="w", ylabel="b", zlabel="E")
    axes.locator_params(nbins=4)


def _draw_descents(axes: Axes, surface: pd.DataFrame, walks: pd.DataFrame) -> None:
    w, b, error = _drawn_surface(surface)
    look: dict[str, Any] = {"cmap": style.sequential_colours(), "vmin": 0, "vmax": ERRORS[1]}
    drawn = axes.pcolormesh(w, b, error, shading="gouraud", rasterized=True, **look)
    axes.figure.colorbar(drawn, ax=axes, label="E", pad=0.02)
    axes.plot(WEIGHTS, wall(np.array(WEIGHTS)), **drawing.THEORY_STYLE | {"color": "white"})
    for clipped, path in _paths(walks):
        colour = COLOURS["clipped" if clipped else "unclipped"]
        line: dict[str, Any] = {"color": colour, "linewidth": 1.6}
        if not clipped:
            start, end = path[["w", "b"]].to_numpy()[-2:]
            path, along = path[:-1], 0.3 * (end - start) / np.linalg.norm(end - start)
            arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **line}
            axes.annotate("", start + along, start, arrowprops=arrow)
        axes.plot(path["w"], path["b"], **line)
    axes.plot(*zip(*STARTS, strict=True), "o", color="white", markeredgecolor="0.1", markersize=5)
    title = "descents beside the wall, from above"
    drawing.label_axes(axes, title, "w", "b", xlim=(4.4, 5.8), ylim=(-3.2, -2.1))


def _draw_slopes(axes: Axes, walls: pd.DataFrame, median: float) -> None:
    hues = drawing.HUES
    axes.semilogy(
        walls["w"], walls["largest_slope"], "o-", color=hues[0], ms=4, label="steepest beside"
    )
    axes.semilogy(walls["w"], walls["slope"], "s", color=hues[7], ms=5, mfc="none", label="on it")
    w = np.linspace(4.3, WEIGHTS[1], 200)
    axes.semilogy(w, wall_slope(w), **drawing.THEORY_STYLE)
    axes.axhline(median, color=style.GREY, linewidth=1, linestyle=":", label="surface's median")
    drawing.label_axes(axes, "slope of the wall", "w", r"$\Vert\nabla E\Vert$")


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
    surface = _surface(cells)
    surface["gradient"] = unit_error(surface["w"].to_numpy(), surface["b"].to_numpy()).grad_norm
    paths = _descents([start], learning_rate, threshold, np.arange(updates + 1))
    paths["part"] = np.where(paths["clipped"], "clipped", "unclipped")
    paths = paths.sort_values("clipped", kind="stable")  # unclipped first
    table = pd.concat([surface.assign(part="surface"), paths], ignore_index=True)
    table = table.rename(columns={"w": "weight", "b": "bias", "gradient": "grad_norm"})
    return table[["part", "update", "weight", "bias", "error", "grad_norm"]]


@style.theme()
def draw_error_surface(
    start: Sequence[float], learning_rate: float, threshold: float, updates: int
) -> style.Drawn:
    """Compute the surface and both paths, and draw them; see `error_surface_table`."""
    weight, bias = start
    table = error_surface_table(
        (weight, bias), learning_rate=learning_rate, threshold=threshold, updates=updates
    )
    return error_surface_figure(table)


def error_surface_figure(table: pd.DataFrame) -> style.Drawn:
    """Draw the surface with both paths on it, and the error of each over the updates.

    Args:
        table: from `error_surface_table`.
    """
    look = style.current_style()
    figure, body = style.new_figure(look.column * 1.2, 0.75 * look.column)
    over, along = body.subplots(1, 2)
    surface = table[table["part"] == "surface"].rename(columns={"weight": "w", "bias": "b"})
    w, b, error = _drawn_surface(surface)
    norm: dict[str, Any] = {"norm": LogNorm(FLOOR, 1), "cmap": style.sequential_colours()}
    over.pcolormesh(w, b, error.clip(FLOOR), shading="gouraud", rasterized=True, **norm)
    dashes: dict[str, Any] = {"color": "white", "linewidth": 0.8, "linestyle": "--"}
    over.plot(WEIGHTS, wall(np.array(WEIGHTS)), **dashes)
    limits: dict[str, Any] = {"xlim": WEIGHTS, "ylim": BIASES}
    over.set(xlabel="weight w", ylabel="bias b", **limits)
    body.colorbar(ScalarMappable(**norm), ax=over, label="error E", extend="min")
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
    legends.legend(body, handles)
    notes = [f"Largest step {part!s}: {_largest_step(path):.3g}." for part, path in paths.items()]
    notes = ["Dashed: where theory puts the wall.", *notes]
    return style.Drawn(style.finish(figure, notes), table)


def _largest_step(path: pd.DataFrame) -> float:
    changes = path[["weight", "bias"]].diff()
    return float(np.hypot(changes["weight"], changes["bias"]).max())
