"""Parallel evaluation over time: Newton steps of random tanh networks, by their exponent λ₁.

The network is s⁽ᵗ⁾ = W tanh(s⁽ᵗ⁻¹⁾) + u⁽ᵗ⁾, W ~ N(0, g²/n) without self-coupling, and each unit is
driven by a sine, as for figure 2 of Gonzalez et al. 2025 (arXiv:2508.16817, and its code).
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from gradlab.config import Count, Positive
from gradlab.figures import style
from gradlab.jacobian import parallel_evaluation
from gradlab.studies import drawing

DIRECTIONS = 3  # tangent vectors that an exponent is the mean over


class Problem(NamedTuple):
    """Draws of a seed: W at gain 1, s⁽⁰⁾, the inputs u, and a first guess of all states."""

    coupling: Float[np.ndarray, "n n"]
    start: Float[np.ndarray, "n"]
    inputs: Float[np.ndarray, "T n"]
    guess: Float[np.ndarray, "T n"]


def measure(
    units: Count,
    lowest_gain: Positive,
    highest_gain: Positive,
    gains: Count,
    shortest: Count,
    longest: Count,
    lengths: Count,
    shown: Count,
    tolerance: Positive,
    seeds: Sequence[int],
    instrument_gains: Sequence[Positive],
    instrument_length: Count,
    instrument_seeds: Sequence[int],
) -> pd.DataFrame:
    """Count the Newton steps that find whole trajectories, over gain and length.

    Args:
        units: n.
        lowest_gain, highest_gain, gains: the gains g, evenly spaced, and their number.
        shortest, longest, lengths: the lengths T, evenly spaced in their logarithm.
        shown: the length that summaries are of, added to the others.
        tolerance: of the merit function ½ Σ ‖r⁽ᵗ⁾‖²/T at which Newton's method has converged.
        seeds: of weights, start, inputs and guess.
        instrument_gains, instrument_length, instrument_seeds: of the networks that are evaluated by
            `parallel_evaluation` too.

    Returns:
        Rows by `part`: "steps" (seed, gain, length, steps, rate: λ₁ over this length), "seed"
        (seed; at the length shown: rank_correlation of steps with λ₁, onset: λ₁ at which T/10 steps
        are needed, below and above: median steps where λ₁ < −0.1 and > 0.05; growth: the median
        over λ₁ < −0.1 of the steps over those at a tenth of that length), "instrument" (seed, gain,
        length, steps, newton: those of `parallel_evaluation`, rate, lower, upper, from_exponent,
        expected: −½ `log_condition`).
    """
    grid = np.linspace(lowest_gain, highest_gain, gains)
    spaced = np.geomspace(shortest, longest, lengths).round().astype(int)
    all_lengths = np.unique([*spaced, shown, shown // 10])
    of_seed = partial(_of_seed, units, grid, all_lengths, tolerance)
    steps = pd.concat([of_seed(seed) for seed in seeds], ignore_index=True)
    tables = [steps, _summaries(steps, shown)]
    tables += [
        _instrument(units, gain, instrument_length, tolerance, seed)
        for seed in instrument_seeds
        for gain in instrument_gains
    ]
    return pd.concat(tables, ignore_index=True)


def draw_problem(seed: int, n: int, length: int) -> Problem:
    """Draw a network's problem.

    Args:
        seed: of the draw.
        n: number of units.
        length: T.

    Returns:
        W ~ N(0, 1/n) with a zero diagonal, s⁽⁰⁾ and the guess from U(−1, 1), and the inputs
        A sin(ωt + φ), with A from U(0, 0.2), ω from U(0.5, 3) and φ from U(0, 2π) for each unit.
    """
    rng = np.random.default_rng(seed)
    coupling = rng.normal(size=(n, n)) / np.sqrt(n)
    np.fill_diagonal(coupling, 0)
    amplitude, frequency, phase = (
        rng.uniform(low, high, n) for low, high in ((0, 0.2), (0.5, 3), (0, 2 * np.pi))
    )
    inputs = amplitude * np.sin(frequency * np.arange(length)[:, None] + phase)
    return Problem(coupling, rng.uniform(-1, 1, n), inputs, rng.uniform(-1, 1, (length, n)))


def newton_steps(
    problem: Problem,
    gains: Float[np.ndarray, "gains"],
    lengths: Int[np.ndarray, "lengths"],
    tolerance: float,
) -> Int[np.ndarray, "gains lengths"]:
    """Count the Newton steps until the merit function ½ Σ ‖r⁽ᵗ⁾‖²/T is below the tolerance.

    A Newton step linearises each step of the network about the present guess. The recurrence that
    results is solved one step after the other, which gives a parallel scan's numbers for the work
    of a vector instead of a matrix. A state never depends on later ones, so one run counts the
    steps of all lengths.

    Args:
        problem: the network.
        gains: g, which multiply W.
        lengths: T, at most the number of inputs, ascending.
        tolerance: of the merit function.

    Returns:
        The number of steps for each gain and length, at most T: states before the first wrong one
        stay, and that one becomes right.
    """
    total = len(problem.inputs)
    counts = np.broadcast_to(lengths, (len(gains), len(lengths))).copy()
    active = np.arange(len(gains))
    states = np.empty((total + 1, len(gains), problem.start.size))
    states[0], states[1:] = problem.start, problem.guess[:, None]
    first = 0  # states up to here are those of the step before, bit by bit
    for taken in range(total):
        squares, after = _newton_step(problem, gains[active, None], states, first)
        with np.errstate(over="ignore"):
            merit = 0.5 * np.cumsum(squares, axis=0)[lengths - 1].T / lengths
        reached = merit < tolerance
        counts[active] = np.where(reached, np.minimum(counts[active], taken), counts[active])
        first = _first_change(states, after, first)
        is_open = ~reached.all(axis=1)
        if not is_open.any():
            break
        states = after
        if not is_open.all():
            active, states = active[is_open], np.ascontiguousarray(after[:, is_open])
    return counts


def _newton_step(
    problem: Problem,
    gains: Float[np.ndarray, "gains 1"],
    states: Float[np.ndarray, "T+1 gains n"],
    first: int,
) -> tuple[Float[np.ndarray, "T gains"], Float[np.ndarray, "T+1 gains n"]]:
    """Return ‖r⁽ᵗ⁾‖², and s⁽ᵗ⁾ ← f(s⁽ᵗ⁻¹⁾) + J⁽ᵗ⁾ (new s⁽ᵗ⁻¹⁾ − s⁽ᵗ⁻¹⁾).

    Args:
        problem: the network.
        gains: g of each of its copies.
        states: s⁽⁰⁾ and a guess of the states.
        first: a time up to which the states are right, so that they stay.
    """
    count, transposed = len(gains), np.ascontiguousarray(problem.coupling.T)
    after, squares = states.copy(), np.zeros((len(problem.inputs), count))
    fed, images = np.empty((2, 2 * count, states.shape[2]))
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(first, len(problem.inputs)):
            h = np.tanh(states[t])
            np.multiply(gains, h, out=fed[:count])
            np.multiply(gains * (1 - h * h), after[t] - states[t], out=fed[count:])
            fed[count:] += fed[:count]
            np.dot(fed, transposed, out=images)
            images += problem.inputs[t]
            residuals = states[t + 1] - images[:count]
            squares[t] = np.einsum("gn,gn->g", residuals, residuals)
            after[t + 1] = images[count:]
    guess = np.concatenate([problem.start[None], problem.guess])[:, None]
    return squares, after if np.isfinite(after).all() else np.where(
        np.isfinite(after), after, guess
    )


def _first_change(
    states: Float[np.ndarray, "T+1 gains n"], after: Float[np.ndarray, "T+1 gains n"], first: int
) -> int:
    """Return the last time up to which all states are the same, bit by bit."""
    for t in range(first, len(states) - 1):
        if not np.array_equal(states[t + 1], after[t + 1]):
            return t
    return len(states) - 1


def exponents(
    problem: Problem,
    gains: Float[np.ndarray, "gains"],
    lengths: Int[np.ndarray, "lengths"],
    seed: int,
) -> Float[np.ndarray, "gains lengths"]:
    """Return λ₁ over the first T steps, ln ‖J⁽ᵀ⁾ ⋯ J⁽¹⁾ v‖/T, a mean over random vectors v.

    Args:
        problem: the network.
        gains: g, which multiply W.
        lengths: T.
        seed: of the vectors.
    """
    n = problem.start.size
    shape = (DIRECTIONS, len(gains), n)
    tangents = np.broadcast_to(
        np.random.default_rng(seed).uniform(-1, 1, (DIRECTIONS, 1, n)), shape
    )
    tangents = tangents / np.linalg.norm(tangents, axis=2, keepdims=True)
    states = np.broadcast_to(problem.start, (1, len(gains), n))
    growth = np.zeros((len(problem.inputs), len(gains)))
    g = gains[:, None]
    for t, u in enumerate(problem.inputs):
        h = np.tanh(states)
        both = g * (np.concatenate([h, (1 - h**2) * tangents]) @ problem.coupling.T)
        states, tangents = both[:1] + u, both[1:]
        sizes = np.linalg.norm(tangents, axis=2, keepdims=True)
        tangents, growth[t] = tangents / sizes, np.log(sizes[..., 0]).mean(axis=0)
    return (np.cumsum(growth, axis=0)[lengths - 1] / lengths[:, None]).T


def log_condition(rate: float, length: int) -> float:
    """Return −log μ̃ of a network of λ₁ = rate: 2 log Σ_{t<T} e^(λ₁t).

    Gonzalez et al. 2025, theorem 2 with a = 1, as their figure 2 draws it: the Polyak-Łojasiewicz
    constant of the merit function is at least μ̃.

    Args:
        rate: λ₁, nats per step.
        length: T.
    """
    return 2 * float(np.logaddexp.reduce(rate * np.arange(length)))


def _of_seed(
    n: int,
    gains: Float[np.ndarray, "gains"],
    lengths: Int[np.ndarray, "lengths"],
    tolerance: float,
    seed: int,
) -> pd.DataFrame:
    problem = draw_problem(seed, n, int(lengths.max()))
    counts = newton_steps(problem, gains, lengths, tolerance)
    rates = exponents(problem, gains, lengths, seed)
    columns = {
        "gain": np.repeat(gains, len(lengths)),
        "length": np.tile(lengths, len(gains)),
        "steps": counts.ravel(),
        "rate": rates.ravel(),
    }
    return pd.DataFrame(columns).assign(part="steps", seed=seed)


def _summaries(steps: pd.DataFrame, shown: int) -> pd.DataFrame:
    rows = []
    for seed, of_seed in steps.groupby("seed"):
        at_shown = of_seed[of_seed["length"] == shown].set_index("gain")
        at_tenth = of_seed[of_seed["length"] == shown // 10].set_index("gain")
        is_predictable, rate = at_shown["rate"] < -0.1, at_shown["rate"]
        rows.append(
            {
                "seed": seed,
                "rank_correlation": stats.spearmanr(at_shown["steps"], rate).statistic,
                "onset": _onset(at_shown["steps"].to_numpy(), rate.to_numpy(), shown / 10),
                "below": at_shown["steps"][is_predictable].median(),
                "above": at_shown["steps"][rate > 0.05].median(),
                "growth": (at_shown["steps"] / at_tenth["steps"])[is_predictable].median(),
            }
        )
    return pd.DataFrame(rows).assign(part="seed", length=shown)


def _onset(
    steps: Int[np.ndarray, "gains"], rates: Float[np.ndarray, "gains"], level: float
) -> float:
    """Return λ₁, linear between gains, where the steps first reach a level; NaN if they do not."""
    (reached,) = np.nonzero(steps >= level)
    if not len(reached) or reached[0] == 0:
        return float("nan")
    i = reached[0]
    share = (level - steps[i - 1]) / (steps[i] - steps[i - 1])
    return float(rates[i - 1] + share * (rates[i] - rates[i - 1]))


def _instrument(n: int, gain: float, length: int, tolerance: float, seed: int) -> pd.DataFrame:
    problem = draw_problem(seed, n, length)
    coupling = jnp.asarray(gain * problem.coupling)

    def step(state: Array, u: Array) -> tuple[Array, Array]:
        state = coupling.astype(state.dtype) @ jnp.tanh(state) + u
        return state, state

    found = parallel_evaluation(
        step, jnp.asarray(problem.inputs), initial_carry=jnp.asarray(problem.start)
    )
    steps = newton_steps(problem, np.array([gain]), np.array([length]), tolerance)
    bounds = {name: float(x) for name, x in found.conditioning._asdict().items()}
    rate = float(found.exponent)
    row = {"part": "instrument", "seed": seed, "gain": gain, "length": length, "rate": rate}
    row |= {"steps": int(steps[0, 0]), "newton": int(found.steps)}
    return pd.DataFrame([row | bounds | {"expected": -0.5 * log_condition(rate, length)}])


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the theory and the steps over λ₁ and T, and the steps of each network over λ₁."""
    figure, panels = drawing.panels(1, 3, "Newton steps to evaluate a network in parallel", 3.1)
    steps = table[table["part"] == "steps"]
    shown = int(table[table["part"] == "seed"]["length"].iloc[0])
    longest = steps["length"].max()
    at_longest = steps[steps["length"] == longest]
    rates = at_longest.groupby("gain")["rate"].median()
    limits = (float(rates.min()), float(rates.max()))
    _draw_theory(panels[0], limits, np.unique(steps["length"]))
    _draw_steps(panels[1], steps, rates)
    for axes in panels[:2]:
        axes.axhline(shown, color="0.75", linewidth=1.6)
        axes.set(xlim=limits, ylim=(10, longest))
    of_length = steps[steps["length"] == shown]
    panels[2].plot(
        of_length["rate"], of_length["steps"], ".", color=drawing.HUES[7], ms=3, alpha=0.5
    )
    panels[2].set(xlim=(limits[0], 1.05 * of_length["rate"].max()), ylim=(-25, 1.05 * shown))
    drawing.label_axes(
        panels[2], f"experiment: T = {shown}", "λ₁ (nats/step)", "steps to convergence"
    )
    for axes in panels:
        axes.axvline(0, color="0.5", linewidth=1, linestyle=":")
    source = "As figure 2 of Gonzalez et al. 2025, whose T goes to 10,000."
    return style.finish(figure, [source, "λ₁: medians over seeds; right: a mark a network."])


def _draw_theory(
    axes: Axes, limits: tuple[float, float], lengths: Int[np.ndarray, "lengths"]
) -> None:
    rates = np.linspace(*limits, 120)
    values = [[log_condition(rate, length) for rate in rates] for length in lengths]
    _draw_map(axes, rates, lengths, np.array(values), "theory: −log μ̃")
    axes.set_ylabel("T")


def _draw_steps(axes: Axes, steps: pd.DataFrame, rates: pd.Series) -> None:
    means = steps.pivot_table("steps", index="length", columns="gain")
    order = rates.sort_values()
    values = means[order.index].to_numpy()
    _draw_map(axes, order.to_numpy(), means.index.to_numpy(), values, "experiment: steps")


def _draw_map(
    axes: Axes,
    rates: Float[np.ndarray, "rates"],
    lengths: Int[np.ndarray, "lengths"],
    values: Float[np.ndarray, "lengths rates"],
    title: str,
) -> None:
    colours = style.sequential_colours()
    mesh = axes.pcolormesh(
        rates, lengths, values, cmap=colours, shading="gouraud", vmin=0, rasterized=True
    )
    axes.figure.colorbar(mesh, ax=axes, pad=0.02)
    axes.set(title=title, xlabel="λ₁ (nats/step)")
