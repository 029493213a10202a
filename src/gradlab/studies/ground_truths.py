"""The measuring engine against systems whose gradients are known in closed form.

The systems have ids E1 … E15 (E12 to E15 are in `gradlab.studies.identities`). Log norms are in
nats.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import initialisers, jacobian_log_norms, lyapunov_spectrum, theory
from gradlab.cells import LSTM, Elman, set_gate_biases
from gradlab.config import Count
from gradlab.figures import style
from gradlab.jacobian import map_log_norms
from gradlab.jacobian.pairs import Norm
from gradlab.models import Stack
from gradlab.studies import drawing
from gradlab.studies.identities import Row, bound, explicit_sum, memory, table_rows, white_noise

GAINS = (0.7, 1.0, 1.2)
FORGET_BIASES = (0.0, 1.0, 2.0, 3.0, 5.0)
TIME_CONSTANTS = (20, 100, 500)
CHRONO_LAGS = (1, 5, 25, 50, 100, 200)
CHRONO_LONGEST, CHRONO_UNITS, CHRONO_DRAWS = 200.0, 64, 20


def measure(
    size: Count,
    length: Count,
    jordan_length: Count,
    ginibre_size: Count,
    ginibre_draws: Count,
    product_size: Count,
    product_length: Count,
    seed: int,
) -> pd.DataFrame:
    """Measure every system.

    Args:
        size: n of the orthogonal matrices.
        length: T of most systems.
        jordan_length: T of the Jordan blocks, which grow for 69 steps.
        ginibre_size: n of the Gaussian matrix whose powers are taken.
        ginibre_draws: number of such matrices.
        product_size: n of the independent Gaussian factors.
        product_length: number of factors.
        seed: of everything that is drawn.

    Returns:
        One row per value: `truth`, `system`, `x` (lag, index or size), `measured`, `expected`, and
        `standard_error` where the value is a mean over draws.
    """
    rng = np.random.default_rng(seed)
    rows = [
        *_orthogonal(rng, size, length),
        *_jordan(jordan_length),
        *_ginibre_powers(rng, ginibre_size, ginibre_draws),
        *_ginibre_products(rng, product_size, product_length),
        *_stacked(length),
        *_fixed_points(length),
        *_resting_lstm(length),
        *_chrono(seed),
        *explicit_sum(seed),
        *bound(seed, size, length),
        *memory(rng),
        *white_noise(),
    ]
    return pd.DataFrame(rows)


def _powers(
    matrix: Float[np.ndarray, "n n"], length: int, norm: Norm = "spectral"
) -> Float[np.ndarray, "T+1 T+1"]:
    """Return the map over (t, k) of the log norms of a float64 matrix's powers."""
    steps = np.tile(matrix, (length, 1, 1))  # NumPy: jnp would make them float32
    return np.asarray(map_log_norms(steps, norm=norm))  # type: ignore[arg-type]


def _orthogonal(rng: np.random.Generator, n: int, length: int) -> Iterator[Row]:
    """E1, E2: ‖Wᵐ‖ = gᵐ for W = g Q with Q orthogonal, in the spectral and the rms norm."""
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    lag = np.subtract.outer(np.arange(length + 1), np.arange(length + 1))
    norms: tuple[Norm, ...] = ("spectral", "rms")
    for gain in GAINS:
        for norm in norms:
            log_norms = _powers(gain * q, length, norm)
            error = np.abs(log_norms - lag * np.log(gain))[lag >= 0].max()
            truth = "E1" if gain == 1 else "E2"
            expected = np.arange(length + 1) * np.log(gain)
            if norm == "spectral":
                yield from table_rows(
                    truth, f"g = {gain}", range(length + 1), log_norms[:, 0], expected
                )
            yield from table_rows(truth, f"g = {gain}, all pairs, {norm}", [0], [error], [0])


def _jordan(length: int) -> Iterator[Row]:
    """E3, E4: a Jordan block grows before it decays."""
    lags = np.arange(length + 1)
    for size in (2, 8):
        block = np.zeros((8, 8))
        block[:size, :size] = 0.9 * np.eye(size) + np.eye(size, k=1)
        log_norms = _powers(block, length)[:, 0]
        expected = [_jordan_log_norm(size, int(lag)) for lag in lags]
        yield from table_rows(
            "E3" if size == 2 else "E4", f"{size} × {size}", lags, log_norms, expected
        )


def _jordan_log_norm(size: int, lag: int) -> float:
    if lag == 0:
        return 0.0
    if size == 2:
        return theory.jordan_log_norm(0.9, 1.0, lag)
    binomials = np.cumprod([1.0, *((lag - j) / (j + 1) for j in range(size - 1))])
    power = sum(
        binomials[j] * 0.9 ** (lag - j) * np.eye(size, k=j) for j in range(min(size, lag + 1))
    )
    return float(np.log(np.linalg.norm(power, 2)))


def _ginibre_powers(rng: np.random.Generator, n: int, draws: int) -> Iterator[Row]:
    """E5: the spectral norm of Wᵐ grows, though a typical vector keeps its length."""
    lags = np.arange(1, 6)
    worst, typical = np.zeros((2, 5))
    for _ in range(draws):
        w = rng.normal(size=(n, n)) / np.sqrt(n)
        worst += np.exp(_powers(w, 5)[1:, 0]) / draws
        typical += np.exp(_powers(w, 5, "rms")[1:, 0]) / draws
    edge = [np.exp(theory.ginibre_power_edge(int(lag))) for lag in lags]
    yield from table_rows("E5", "spectral", lags, worst, edge)
    yield from table_rows("E5", "rms", lags, typical, 1.0)


def _ginibre_products(rng: np.random.Generator, n: int, length: int) -> Iterator[Row]:
    """E6: products of independent factors have Newman's exponents.

    The diagonal of each R is of independent χ variables, of n, n − 1, … degrees of freedom, so that
    each exponent's standard error is known, and they are independent.
    """

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        return x.reshape(n, n) @ h, h

    factors = jnp.asarray(rng.normal(size=(length, n * n)) / np.sqrt(n), jnp.float32)
    spectrum = lyapunov_spectrum(step, factors, initial_carry=jnp.zeros(n))
    errors = [theory.ginibre_fluctuation(n - i) / np.sqrt(length) for i in range(n)]
    rows = table_rows(
        "E6", "exponents", range(1, n + 1), spectrum.exponents, theory.ginibre_exponents(n)
    )
    for row, error in zip(rows, errors, strict=True):
        yield row | {"standard_error": error}


def _stacked(length: int) -> Iterator[Row]:
    """E7: stacked layers multiply the paths of a gradient."""
    for count in (1, 2, 3):
        layers: list[nnx.RNNCellBase] = [_linear(0.9, 0.7 if i else 1.0) for i in range(count)]
        log_norms = jacobian_log_norms(
            Stack(layers),
            jnp.zeros((length, 1)),
            norm="frobenius",
            of=f"layer{count - 1}.h",
            wrt="layer0.h",
        )
        lags = np.arange(length)  # see theory.stacked_linear for the step and the factor between
        expected = [theory.stacked_linear(0.9, 0.7, count, int(x)) + np.log(0.9) for x in lags]
        yield from table_rows(
            "E7", f"L = {count}", lags + 1, np.asarray(log_norms)[1:, 0], expected
        )


def _linear(recurrent: float, driving: float) -> Elman:
    cell = Elman(1, 1, activation="identity", rngs=nnx.Rngs(0))
    cell.dense_h.kernel[...] = jnp.array([[recurrent]])
    cell.dense_i.kernel[...] = jnp.array([[driving]])
    return cell


def _fixed_points(length: int) -> Iterator[Row]:
    """E8: a tanh unit at its fixed point."""
    for weight in (1.25, 2.0):
        at, factor = theory.scalar_fixed_point(weight)

        def step(h: Array, x: Array, weight: float = weight) -> tuple[Array, Array]:
            return jnp.tanh(weight * h), h

        with jax.enable_x64(True):
            inputs, start = jnp.zeros((length, 1)), jnp.array([at])
            log_norms = jacobian_log_norms(step, inputs, initial_carry=start, norm="rms")
        rate = float(np.asarray(log_norms)[-1, 0]) / length
        yield from table_rows("E8", f"w = {weight}", [length], [rate], [np.log(factor)])


def _resting_lstm(length: int) -> Iterator[Row]:
    """E9, E10: without weights, ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ is σ(b_f) to the power of the lag."""
    zero = jax.nn.initializers.zeros
    cell = LSTM(1, 1, kernel_init=zero, recurrent_kernel_init=zero, rngs=nnx.Rngs(0))
    inputs, lags = jnp.zeros((length, 1)), np.arange(length + 1)
    logs = np.log(np.subtract(TIME_CONSTANTS, 1))
    cases = [("E9", f"b = {bias:g}", bias) for bias in FORGET_BIASES]
    cases += [("E10", f"T = {t}", b) for t, b in zip(TIME_CONSTANTS, logs.tolist(), strict=True)]
    for truth, system, bias in cases:
        set_gate_biases(cell, {"forget": jnp.array([bias])})
        log_norms = jacobian_log_norms(cell, inputs, of="c", wrt="c", norm="frobenius")
        expected = lags * theory.forget_rate(bias)
        yield from table_rows(truth, system, lags, np.asarray(log_norms)[:, 0], expected)


def _chrono(seed: int) -> Iterator[Row]:
    """E11: chrono's gates have many time scales, so their mean memory has a heavy tail.

    The mean square of ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ over the units of an LSTM without weights is the mean of
    f^(2 (t − k)) over their gates, of which `theory.chrono_mean` is the expectation.
    """
    zero = jax.nn.initializers.zeros
    weights = {"kernel_init": zero, "recurrent_kernel_init": zero, "rngs": nnx.Rngs(0)}
    cell = LSTM(1, CHRONO_UNITS, **weights)  # type: ignore[arg-type]
    inputs, lags = jnp.zeros((max(CHRONO_LAGS), 1)), np.array(CHRONO_LAGS)
    squares = []
    for key in jax.random.split(jax.random.key(seed), CHRONO_DRAWS):
        set_gate_biases(cell, initialisers.chrono(key, CHRONO_UNITS, CHRONO_LONGEST))
        log_norms = jacobian_log_norms(cell, inputs, of="c", wrt="c", norm="rms")
        squares.append(np.exp(2 * np.asarray(log_norms, float)[lags, 0]))
    expected = [theory.chrono_mean(2 * lag, CHRONO_LONGEST) for lag in CHRONO_LAGS]
    errors = np.std(squares, axis=0, ddof=1) / np.sqrt(CHRONO_DRAWS)
    rows = table_rows("E11", "chrono", lags, np.mean(squares, axis=0), expected)
    for row, error in zip(rows, errors, strict=True):
        yield row | {"standard_error": error}


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw six of the systems, measured and in closed form."""
    figure, panels = drawing.panels(2, 3, "The instrument against closed forms")
    log_norm = r"$\log\,\Vert\cdot\Vert_2$ (nats)"
    curves = table[~table["system"].str.contains("pairs")]

    def draw(axes: Axes, truths: list[str], rename: Callable[[str], str] = str) -> None:
        rows = curves[curves["truth"].isin(truths)].sort_values("system", kind="stable")
        drawing.overlay(axes, rows, "x", "system", [rename(x) for x in rows["system"].unique()])

    draw(panels[0], ["E1", "E2"])
    drawing.label_axes(panels[0], "W = g Q, Q orthogonal", drawing.LAG, log_norm)
    draw(panels[1], ["E3", "E4"])
    drawing.label_axes(panels[1], "Jordan block, λ = 0.9", drawing.LAG, log_norm)
    draw(panels[2], ["E5"], {"spectral": "spectral: worst case", "rms": "rms: typical"}.__getitem__)
    drawing.label_axes(panels[2], "powers of one Gaussian matrix", "power", "norm", ylim=(0, None))
    draw(panels[3], ["E6"])
    panels[3].get_lines()[0].set_label("_")
    drawing.label_axes(
        panels[3], "product of independent Gaussians", "index", "Lyapunov exponent (nats/step)"
    )
    draw(panels[4], ["E7"])
    drawing.label_axes(
        panels[4],
        "stack of L linear layers",
        drawing.LAG,
        r"$\log\,|\partial h^L/\partial h^1|$ (nats)",
    )
    draw(panels[5], ["E9"])
    drawing.label_axes(
        panels[5],
        "LSTM, gates at their bias",
        drawing.LAG,
        r"$\log\,|\partial c^{(t)}/\partial c^{(k)}|$ (nats)",
    )
    return drawing.finish_with_theory_note(figure, "Monte Carlo panels: Gaussian matrices.")
