"""The error surface of one unit, and what gradient descent does at its wall, clipped and not.

x⁽ᵗ⁾ = w σ(x⁽ᵗ⁻¹⁾) + b without input, x⁽⁰⁾ = ½, and E = (σ(x⁽⁵⁰⁾) − 0.7)²
(Pascanu, Mikolov & Bengio 2013, eq. 8 and figure 6).
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from scipy.special import expit

from gradlab.figures import style

Grid = Float[np.ndarray, "..."]
START, TARGET, STEPS = 0.5, 0.7, 50
WEIGHTS, BIASES = (4.0, 7.0), (-4.0, -1.5)
CELLS = 201  # along an axis of the surface
FLOOR = 1e-6  # of the errors' colours
WALL: dict[str, Any] = {"color": "white", "linewidth": 0.8, "linestyle": "--"}
COLOURS = {"clipped": "#e69f00", "unclipped": "#cc79a7"}


class Error(NamedTuple):
    """E and its gradient."""

    error: Grid
    by_weight: Grid
    by_bias: Grid

    @property
    def grad_norm(self) -> Grid:
        """‖∂E/∂(w, b)‖."""
        return np.hypot(self.by_weight, self.by_bias)


def unit_error(weight: Grid | float, bias: Grid | float, steps: int = STEPS) -> Error:
    """E after so many steps, and ∂E/∂w and ∂E/∂b, which are carried forward beside the state."""
    weight, bias = np.broadcast_arrays(np.float64(weight), np.float64(bias))
    x = np.full(weight.shape, START)
    by_weight, by_bias = np.zeros_like(x), np.zeros_like(x)
    for _ in range(steps):
        s = expit(x)
        slope = weight * s * (1 - s)
        x, by_weight, by_bias = weight * s + bias, s + slope * by_weight, 1 + slope * by_bias
    s = expit(x)
    outer = 2 * (s - TARGET) * s * (1 - s)
    return Error((s - TARGET) ** 2, outer * by_weight, outer * by_bias)


def wall(weight: Grid | float) -> Grid:
    """The bias at which x⁽⁰⁾ is the unstable fixed point, w > 4.255: where the cliff is."""
    return START - np.asarray(weight) * expit(START)


def descend(
    weight: float, bias: float, *, learning_rate: float, threshold: float, updates: int
) -> pd.DataFrame:
    """Gradient descent from one start: a row an update, `update`, `weight`, `bias` and `error`.

    Args:
        weight, bias: the start.
        learning_rate: of plain gradient descent.
        threshold: the gradient's norm is clipped to it; inf: never.
        updates: how many.
    """
    rows = []
    for update in range(updates + 1):
        found = unit_error(weight, bias)
        rows.append((update, weight, bias, float(found.error)))
        norm = float(found.grad_norm)
        step = learning_rate * (threshold / norm if norm > threshold else 1.0)
        weight -= step * float(found.by_weight)
        bias -= step * float(found.by_bias)
    return pd.DataFrame(rows, columns=["update", "weight", "bias", "error"])


def error_surface_table(
    start: tuple[float, float] = (5.0, -2.45),
    *,
    learning_rate: float = 0.01,
    threshold: float = 1.0,
    updates: int = 3000,
    cells: int = CELLS,
) -> pd.DataFrame:
    """The surface and both paths, tidy.

    Returns:
        `part` ("surface", "unclipped", "clipped"), `update` (NaN of the surface), `weight`, `bias`,
        `error`, and `grad_norm` (of the surface).
    """
    weights, biases = np.meshgrid(np.linspace(*WEIGHTS, cells), np.linspace(*BIASES, cells))
    found = unit_error(weights, biases)
    columns = {"weight": weights, "bias": biases, "error": found.error}
    surface = {name: values.ravel() for name, values in columns.items()}
    paths = [
        descend(*start, learning_rate=learning_rate, threshold=at, updates=updates).assign(
            part=name
        )
        for name, at in {"unclipped": np.inf, "clipped": threshold}.items()
    ]
    parts = [pd.DataFrame(surface | {"grad_norm": found.grad_norm.ravel(), "part": "surface"})]
    return pd.concat([*parts, *paths], ignore_index=True)[
        ["part", "update", "weight", "bias", "error", "grad_norm"]
    ]


@style.theme()
def error_surface_figure(table: pd.DataFrame) -> style.Drawn:
    """Draw the surface with the paths on it, and the error of each over the updates.

    Args:
        table: as of `error_surface_table`.
    """
    look = style.present()
    figure, body = style.frame(look.column * 1.2, 0.75 * look.column)
    over, along = body.subplots(1, 2)
    surface = table[table["part"] == "surface"].pivot_table(
        index="bias", columns="weight", values="error"
    )
    norm = LogNorm(FLOOR, 1)
    over.pcolormesh(
        surface.columns, surface.index, surface.clip(lower=FLOOR), norm=norm, cmap=style.amounts()
    )
    over.plot(surface.columns, wall(surface.columns.to_numpy()), **WALL)
    frame: dict[str, Any] = {"xlim": WEIGHTS, "ylim": BIASES}
    over.set(xlabel="weight w", ylabel="bias b", **frame)
    body.colorbar(ScalarMappable(norm, style.amounts()), ax=over, label="error E", extend="min")
    handles = []
    for name, colour in COLOURS.items():
        path = table[table["part"] == name]
        _draw_path(over, path, colour)
        handles += along.plot(
            path["update"], path["error"], color=colour, label=name, linewidth=0.6
        )
    along.set(xlabel="update", ylabel="error E", yscale="log")
    along.locator_params(axis="x", nbins=4)  # more run into each other in large type
    over.locator_params(axis="x", nbins=4)
    along.spines[["top", "right"]].set_visible(False)
    style.legend(body, handles)
    notes = ["Dashed: where theory puts the wall.", *_largest_steps(table)]
    return style.Drawn(style.finish(figure, notes), table)


def _draw_path(axes: Axes, path: pd.DataFrame, colour: str) -> None:
    axes.plot(path["weight"], path["bias"], color=colour, linewidth=0.9)
    axes.plot(*path[["weight", "bias"]].iloc[0], color="white", marker="o", markersize=4)


def _largest_steps(table: pd.DataFrame) -> list[str]:
    paths = table[table["part"] != "surface"]
    steps = paths.groupby("part", sort=False)[["weight", "bias"]].diff()
    sizes = pd.Series(np.hypot(steps["weight"], steps["bias"]), paths.index)
    largest = sizes.groupby(paths["part"], sort=False).max()
    return [f"Largest step {name}: {step:.3g}." for name, step in largest.items()]
