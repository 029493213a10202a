"""The reach of a gradient in bfloat16 and float16, held against float64.

The weights are float32's and the same in all types; `gradlab.cells.precision` says what is rounded.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from gradlab import decay, initialisers, jacobian_log_norms
from gradlab.cells import GRU, LRU, LSTM, Elman, set_gate_biases
from gradlab.cells.precision import InPrecision
from gradlab.config import Count, Positive
from gradlab.figures import style
from gradlab.models import by_gate
from gradlab.studies import drawing

FEATURES = 4
TRUTH, SINGLE = "float64", "float32"
HALF = ("bfloat16", "float16")
LOOKS: dict[str, tuple[str, str]] = {  # a type's colour and name
    SINGLE: (drawing.HUES[4], SINGLE),
    "bfloat16": (drawing.HUES[1], "bfloat16"),
    "float16": (drawing.HUES[7], "float16"),
}
Radius = Annotated[float, Field(ge=0, le=1)]


class Format(NamedTuple):
    """The definition of a type: bits of a significand, and the smallest positive number."""

    digits: int
    smallest: float


# IEEE 754 (float16, with numbers below the smallest normal one); bfloat16 is float32's upper half.
FORMATS = {"bfloat16": Format(8, 2.0**-133), "float16": Format(11, 2.0**-24)}


def measure(
    units: Count,
    steps: Count,
    drive: Positive,
    ring: tuple[Radius, Radius],
    loss_scale: Positive,
    seeds: Sequence[int],
) -> pd.DataFrame:
    """Measure maps and backpropagated gradients of networks at their start, in four types.

    Args:
        units: n.
        steps: T.
        drive: standard deviation of the inputs, white noise.
        ring: r_min and r_max of the LRU's eigenvalues.
        loss_scale: factor of the loss in the second backward pass.
        seeds: of weights and inputs.

    Returns:
        Rows by `part`: "format" (dtype, roundoff: the largest relative error of rounding a number
        from 1 to 2, smallest: the smallest power of two that rounding leaves above 0, and `u` and
        `least`, what the definitions say of both), "lag" (kind, dtype, seed, lag, norm: mean log₁₀
        of the spectral norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ over pairs, error: mean absolute difference of it from
        float64's, decades, gradient: largest entry of ∂L/∂s⁽ᵀ⁻ˡᵃᵍ⁾, gradient_scaled: the same,
        backpropagated at the loss scale and divided by it) and "network" (kind, dtype, seed,
        horizon: steps, shift: the horizon over float64's less 1, growth: the exponent of the
        error's growth with lag, alive: the lags at which the gradient is not exactly zero,
        alive_scaled).
    """
    tables = [_formats()]
    for kind, build in _kinds(ring).items():
        for seed in seeds:
            inputs = drive * np.random.default_rng(seed).normal(size=(steps, FEATURES))
            tables.append(
                _of_network(
                    build(units, seed), jnp.asarray(inputs, jnp.float32), loss_scale
                ).assign(kind=kind, seed=seed)
            )
    return pd.concat(tables, ignore_index=True)


def _kinds(ring: tuple[float, float]) -> dict[str, Callable[[int, int], Any]]:
    gaussian = by_gate(initialisers.gaussian)  # of gain 1, where a tanh network becomes critical

    def rnn(n: int, seed: int) -> Any:
        return Elman(FEATURES, n, recurrent_kernel_init=gaussian, rngs=nnx.Rngs(seed))

    def lstm(n: int, seed: int) -> Any:
        cell = LSTM(FEATURES, n, rngs=nnx.Rngs(seed))
        set_gate_biases(cell, {"forget": jnp.ones(n)})
        return cell

    def gru(n: int, seed: int) -> Any:
        return GRU(FEATURES, n, rngs=nnx.Rngs(seed))

    def lru(n: int, seed: int) -> Any:
        return LRU(FEATURES, n, r_min=ring[0], r_max=ring[1], rngs=nnx.Rngs(seed))

    return {"RNN": rnn, "LSTM": lstm, "GRU": gru, "LRU": lru}


def _of_network(cell: Any, inputs: Float[Array, "T features"], scale: float) -> pd.DataFrame:
    """Return the rows of one network in all types."""
    maps, tables = {}, []
    for dtype in (TRUTH, SINGLE, *HALF):
        with jax.enable_x64(dtype == TRUTH):
            typed = InPrecision(cell, dtype)
            maps[dtype] = np.asarray(jacobian_log_norms(typed, inputs, of="h", wrt="h"), float)
            parts = nnx.split(typed)
            gradient, scaled = (np.asarray(_gradients(*parts, inputs, s)) for s in (1.0, scale))
        error = _by_lag(np.abs(_difference(maps[dtype], maps[TRUTH]))) / np.log(10)
        lags = np.arange(1, len(inputs) + 1)
        columns = {
            "lag": lags,
            "norm": _by_lag(maps[dtype])[lags] / np.log(10),
            "error": error[lags],
            "gradient": gradient[lags - 1],
            "gradient_scaled": scaled[lags - 1],
        }
        horizons = [decay.horizon(maps[x]) for x in (dtype, TRUTH)]
        network = {
            "part": "network",
            "horizon": horizons[0],
            "shift": horizons[0] / horizons[1] - 1,
            "growth": _exponent(lags, error[lags]),
            "alive": int(np.count_nonzero(gradient)),
            "alive_scaled": int(np.count_nonzero(scaled)),
        }
        both = [pd.DataFrame(columns).assign(part="lag"), pd.DataFrame([network])]
        tables += [table.assign(dtype=dtype) for table in both]
    return pd.concat(tables, ignore_index=True)


def _difference(log_norms: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the differences of two maps; NaN where either norm is zero."""
    both = np.isfinite(log_norms) & np.isfinite(exact)
    return np.where(both, log_norms, np.nan) - np.where(both, exact, np.nan)


def _by_lag(values: Float[np.ndarray, "t k"]) -> Float[np.ndarray, "lags"]:
    """Return the mean of a map's entries at each lag, without zero norms; NaN if there are none."""
    diagonals = [np.diagonal(values, -lag) for lag in range(len(values))]
    found = [x[np.isfinite(x)] for x in diagonals]
    return np.array([x.mean() if x.size else np.nan for x in found])


def _exponent(lags: np.ndarray, errors: np.ndarray) -> float:
    """Return the slope of log error over log lag, lags evenly spaced in their logarithm; or NaN."""
    known = np.isfinite(errors) & (errors > 0)
    if known.sum() < 2:
        return float("nan")
    logs = np.log(lags[known])
    even = np.linspace(logs[0], logs[-1], 20)
    return float(np.polyfit(even, np.interp(even, logs, np.log(errors[known])), 1)[0])


@partial(jax.jit, static_argnums=0)
def _gradients(
    definition: Any, state: Any, inputs: Float[Array, "T features"], scale: float
) -> Float[Array, "T"]:
    """Return the largest entry of ∂L/∂s⁽ᵀ⁻ˡᵃᵍ⁾ for lags 1 to T, as backpropagation computes it.

    L = Σ aᵢ yᵢ⁽ᵀ⁾ / n with a ~ N(0, 1) is multiplied by the scale, and the entries divided by it.
    """
    cell = nnx.merge(definition, state)
    start = cell.initialize_carry(inputs.shape[1:], nnx.Rngs(0))
    _, carries = jax.lax.scan(lambda s, x: (cell(s, x)[0], s), start, inputs)
    last, output = jax.tree.map(lambda x: x[-1], carries), cell(start, inputs[0])[1]
    weights = jax.random.normal(jax.random.key(0), output.shape, jnp.float32) / output.size
    (adjoint,) = jax.vjp(lambda s: cell(s, inputs[-1])[1], last)[1](
        (scale * weights).astype(output.dtype)
    )

    def back(adjoint: Any, at: tuple[Any, Array]) -> tuple[Any, Array]:
        carry, x = at
        (before,) = jax.vjp(lambda s: cell(s, x)[0], carry)[1](adjoint)
        return before, _largest(adjoint)

    earlier = jax.tree.map(lambda x: x[:-1], (carries, inputs))
    first, sizes = jax.lax.scan(back, adjoint, earlier, reverse=True)
    return jnp.concatenate([sizes[::-1], _largest(first)[None]]) / scale


def _largest(tree: Any) -> Float[Array, ""]:
    wide = jnp.promote_types(jnp.result_type(float), jnp.float32)
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)).astype(wide) for x in jax.tree.leaves(tree)]))


def _formats() -> pd.DataFrame:
    """Return what rounding does in each type, as our cells round, and what the definitions say."""
    rows = []
    for dtype in HALF:
        typed = InPrecision(Elman(1, 1, rngs=nnx.Rngs(0)), dtype)
        numbers = np.linspace(1, 2, 2**17 + 1)[:-1]
        rounded = np.asarray(typed.round(jnp.asarray(numbers, jnp.float32)), float)
        powers = 2.0 ** -np.arange(1.0, 150.0)  # to float32's smallest number
        left = np.asarray(typed.round(jnp.asarray(powers, jnp.float32)), float)
        rows.append(
            {
                "dtype": dtype,
                "roundoff": float(np.max(np.abs(rounded - numbers) / numbers)),
                "u": 2.0 ** -FORMATS[dtype].digits,
                "smallest": float(powers[left > 0].min()),
                "least": FORMATS[dtype].smallest,
            }
        )
    return pd.DataFrame(rows).assign(part="format")


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw norms over lag, their error, and gradients that float16 loses, a column a network."""
    lags = table[(table["part"] == "lag")]
    kinds = list(dict.fromkeys(lags["kind"]))
    title = "What half precision does to the reach of a gradient"
    figure, panels = drawing.panels(2, len(kinds), title, 2.6)
    for column, kind in enumerate(kinds):
        of_kind = lags[lags["kind"] == kind]
        _draw_errors(panels[column], of_kind, kind, column == 0)
        _draw_gradients(panels[len(kinds) + column], of_kind, column == 0)
    drawing.legend_above(panels[0])
    notes = [
        "Top: log₁₀ of the norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ against that in float64, mean over pairs. Bottom: "
        "largest entry of ∂L/∂s⁽ᵏ⁾ as backpropagated. Dashed: float64. Dotted: float16, scaled.",
        "Lines: medians over networks, ending where the median is zero; bands (top): their range.",
    ]
    return style.finish(figure, notes)


def _draw_errors(axes: Axes, rows: pd.DataFrame, kind: str, is_first: bool) -> None:
    for dtype, (colour, name) in LOOKS.items():
        of_type = rows[rows["dtype"] == dtype]
        places, values = drawing.by_seed(of_type.assign(value=of_type["error"]), "lag")
        drawing.band(axes, places, values, colour, name, linewidth=1.6)
    axes.set(xscale="log", yscale="log", ylim=(1e-8, 1e1))
    label = "error (decades)" if is_first else ""
    drawing.label_axes(axes, kind, drawing.LAG, label, legend=False)


def _draw_gradients(axes: Axes, rows: pd.DataFrame, is_first: bool) -> None:
    for dtype in HALF:
        _draw_gradient(axes, rows, dtype, "gradient", color=LOOKS[dtype][0], linewidth=1.6)
    _draw_gradient(
        axes, rows, "float16", "gradient_scaled", color=LOOKS["float16"][0], linestyle=":"
    )
    _draw_gradient(axes, rows, TRUTH, "gradient", **drawing.THEORY_STYLE)
    axes.set(yscale="log", ylim=(1e-16, 1))
    label = "gradient" if is_first else ""
    drawing.label_axes(axes, "", "lag T − k (steps)", label, legend=False)


def _draw_gradient(axes: Axes, rows: pd.DataFrame, dtype: str, column: str, **look: Any) -> None:
    median = rows[rows["dtype"] == dtype].groupby("lag")[column].median()
    axes.plot(median.index, drawing.finite(median.to_numpy()), **look)
