"""The forward pass of linear recurrent units at the start, by the ring of their eigenvalues.

The layer is x⁽ᵗ⁾ = Λ x⁽ᵗ⁻¹⁾ + γ ⊙ B u⁽ᵗ⁾ with Λ = diag(λ₁ … λ_n) drawn uniformly from a ring of
the complex plane (Orvieto et al. 2023, lemma 3.2) and γ = 1, or γᵢ = √(1 − |λᵢ|²) (section 3.4).
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Complex, Float, Key
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

from gradlab import jacobian_log_norms
from gradlab.config import Count
from gradlab.figures import style
from gradlab.studies import drawing

Radius = Annotated[float, Field(ge=0, lt=1)]
Ring = tuple[Radius, Radius]  # r_min, r_max
Input = Literal["white", "constant"]
R_MAX = r"r_{\mathrm{max}}"
Scalar = float | Float[Array, ""]
PHASES = {"full circle": 2 * np.pi, "π/10": np.pi / 10}


class Layer(NamedTuple):
    """Eigenvalues λ, input weights B and input scale γ of a layer of n units and m inputs."""

    eigenvalues: Complex[Array, "n"]
    input_weights: Complex[Array, "n m"]
    scale: Float[Array, "n"]


def measure(
    rings: Sequence[Ring],
    constant_rings: Sequence[Ring],
    units: Count,
    inputs: Count,
    steps: Count,
    reach_ring: Ring,
    reach_steps: Count,
    reach_units: Count,
    seeds: Count,
    reach_seeds: Count,
    first_seed: int = 0,
) -> pd.DataFrame:
    """Measure by how much layers amplify their input, and how far their gradients reach.

    Args:
        rings: (r_min, r_max) of the layers driven by white noise, with γ = 1 and with the other γ.
        constant_rings: the same of those driven by a constant input.
        units: n.
        inputs: m, the number of input features.
        steps: number of steps before anything is measured, and again of the mean over time.
        reach_ring: (r_min, r_max) of the layers whose Jacobians are measured.
        reach_steps: T of those.
        reach_units: n of those.
        seeds: number of layers drawn for each ring.
        reach_seeds: the same, of those whose Jacobians are measured.
        first_seed: the seed of the first layer.

    Returns:
        Rows by `part`: "forward" (r_min, r_max, input, normalised: 0 or 1, phase, seed, gain: mean
        ‖x‖² over mean ‖Bu‖², expected) and "reach" (r_min, r_max, seed, gain: the sum over lags of
        the squared rms norm of ∂x⁽ᵗ⁾/∂x⁽ᵏ⁾, expected: the mean of 1/(1 − |λ|²)).
    """
    all_seeds = range(first_seed, first_seed + seeds)
    forward = partial(_forward, units=units, inputs=inputs, steps=steps, seeds=all_seeds)
    circle, slice_ = PHASES
    tables = [forward(ring, "white", normalised, circle) for ring in rings for normalised in (0, 1)]
    tables += [forward(ring, "constant", 0, circle) for ring in constant_rings]
    tables += [forward(ring, "constant", 1, slice_) for ring in constant_rings]
    tables += [
        _reach(reach_ring, reach_units, reach_steps, seed) for seed in list(all_seeds)[:reach_seeds]
    ]
    return pd.concat(tables, ignore_index=True)


def expected_gain(r_min: float, r_max: float) -> float:
    """Return E 1/(1 − |λ|²) of a uniform ring, E‖x‖² over E‖Bu‖² in the limit of long sequences.

    Orvieto et al. 2023, proposition 3.3: ln[(1 − r_min²)/(1 − r_max²)]/(r_max² − r_min²), and
    1/(1 − r²) where both radii are r.

    Args:
        r_min: inner radius of the ring, at least 0.
        r_max: outer radius, at least r_min and below 1.

    Returns:
        The gain, at least 1.

    Example:
        >>> from gradlab.studies.lru_forward import expected_gain
        >>> round(expected_gain(0.9, 0.999), 1)
        24.2
    """
    inner, outer = 1 - r_min**2, 1 - r_max**2
    return 1 / outer if r_min == r_max else float(np.log(inner / outer) / (inner - outer))


def draw_layer(
    key: Key[Array, ""],
    ring: tuple[Scalar, Scalar],
    n: int,
    m: int,
    phase: float = 2 * np.pi,
    normalised: bool = False,
) -> Layer:
    """Draw a layer with eigenvalues uniform on a ring (or a slice of it) and Glorot input weights.

    Args:
        key: random key.
        ring: r_min and r_max.
        n: number of units.
        m: number of inputs.
        phase: the largest phase of an eigenvalue, radians; 2π is the whole ring.
        normalised: whether γᵢ is √(1 − |λᵢ|²), else 1.

    Returns:
        The layer.
    """
    radius, angle, real, imaginary = jax.random.split(key, 4)
    r_min, r_max = ring
    squared = jax.random.uniform(radius, (n,)) * (r_max**2 - r_min**2) + r_min**2
    theta = phase * jax.random.uniform(angle, (n,))
    parts = [jax.random.normal(k, (n, m)) for k in (real, imaginary)]
    weights = (parts[0] + 1j * parts[1]) / jnp.sqrt(2 * m)
    scale = jnp.sqrt(1 - squared) if normalised else jnp.ones(n)
    return Layer(jnp.sqrt(squared) * jnp.exp(1j * theta), weights, scale)


def gain(key: Key[Array, ""], layer: Layer, driven_by: Input, steps: int) -> Float[Array, ""]:
    """Run a layer and return the mean of ‖x‖² over the mean of ‖Bu‖², after `steps` steps.

    Args:
        key: random key of the input.
        layer: the layer.
        driven_by: "white" (u⁽ᵗ⁾ ~ N(0, I), drawn anew at each step) or "constant" (drawn once).
        steps: number of steps before, and of, the mean over time.

    Returns:
        The ratio.
    """
    m = layer.input_weights.shape[1]
    once = jax.random.normal(key, (m,))

    def advance(x: Array, t: Array) -> tuple[Array, tuple[Array, Array]]:
        drawn = jax.random.normal(jax.random.fold_in(key, t), (m,))
        drive = layer.input_weights @ (drawn if driven_by == "white" else once)
        x = layer.eigenvalues * x + layer.scale * drive
        return x, (jnp.sum(jnp.abs(x) ** 2), jnp.sum(jnp.abs(drive) ** 2))

    x, _ = jax.lax.scan(advance, jnp.zeros_like(layer.eigenvalues), jnp.arange(steps))
    _, sizes = jax.lax.scan(advance, x, jnp.arange(steps, 2 * steps))
    return jnp.mean(sizes[0]) / jnp.mean(sizes[1])


@partial(jax.jit, static_argnames=("n", "m", "steps", "driven_by", "normalised", "phase"))
def _gains(
    seeds: Array,
    ring: Array,
    n: int,
    m: int,
    steps: int,
    driven_by: Input,
    normalised: bool,
    phase: float,
) -> Float[Array, "seeds"]:
    def of_seed(seed: Array) -> Array:
        layer_key, input_key = jax.random.split(jax.random.key(seed))
        layer = draw_layer(layer_key, (ring[0], ring[1]), n, m, phase, normalised)
        return gain(input_key, layer, driven_by, steps)

    return jax.vmap(of_seed)(seeds)


def _forward(
    ring: Ring,
    driven_by: Input,
    normalised: int,
    phase: str,
    units: int,
    inputs: int,
    steps: int,
    seeds: Sequence[int],
) -> pd.DataFrame:
    gains = _gains(
        jnp.asarray(list(seeds)),
        jnp.asarray(ring),
        units,
        inputs,
        steps,
        driven_by,
        bool(normalised),
        PHASES[phase],
    )
    expected = 1.0 if normalised else expected_gain(*ring)
    columns = {"seed": list(seeds), "gain": np.asarray(gains, float), "expected": expected}
    return pd.DataFrame(columns).assign(
        part="forward",
        r_min=ring[0],
        r_max=ring[1],
        input=driven_by,
        normalised=normalised,
        phase=phase,
    )


def _reach(ring: Ring, n: int, steps: int, seed: int) -> pd.DataFrame:
    layer = draw_layer(jax.random.split(jax.random.key(seed))[0], ring, n, 1)

    def step(x: Array, u: Array) -> tuple[Array, Array]:
        x = layer.eigenvalues * x + layer.input_weights @ u
        return x, x

    log_norms = jacobian_log_norms(
        step, jnp.ones((steps, 1)), initial_carry=jnp.zeros(n, jnp.complex64), norm="rms"
    )
    reach = float(np.sum(np.exp(2 * np.asarray(log_norms)[-1, 1:])))
    radii = np.abs(np.asarray(layer.eigenvalues, complex))
    row = {"part": "reach", "r_min": ring[0], "r_max": ring[1], "seed": seed, "gain": reach}
    return pd.DataFrame([row | {"expected": float(np.mean(1 / (1 - radii**2)))}])


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw the gain over 1 − r_max² for white noise, and for a constant input."""
    figure, panels = drawing.panels(1, 2, "By how much a linear recurrent unit amplifies", 3.4)
    forward = table[table["part"] == "forward"]
    _draw_white(panels[0], forward[forward["input"] == "white"])
    _draw_constant(panels[1], forward[forward["input"] == "constant"])
    note = "Marks: means over layers with 95 % intervals. No figure of the source's."
    return style.finish(
        figure, ["Dashed lines and bars: proposition 3.3, as printed; with γ, 1.", note]
    )


def _draw_white(axes: Axes, rows: pd.DataFrame) -> None:
    plain, normalised = rows[rows["normalised"] == 0], rows[rows["normalised"] == 1]
    outer = 1 - np.geomspace(1e-3, 0.3, 100) / 2
    is_thin, is_disk = plain["r_min"] == plain["r_max"], plain["r_min"] == 0
    families = (
        ("0", "o", drawing.HUES[7], is_disk, 0 * outer),
        ("0.9", "s", drawing.HUES[1], ~is_thin & ~is_disk, np.where(outer > 0.9, 0.9, np.nan)),
        (R_MAX, "^", drawing.HUES[2], is_thin, outer),
    )
    for name, marker, colour, chosen, inner in families:
        label = rf"$r_{{\mathrm{{min}}}} = {name}$"
        _draw_means(axes, plain[chosen], marker, colour, label)
        gains = [expected_gain(*radii) for radii in zip(inner, outer, strict=True)]
        axes.plot(1 - outer**2, gains, **drawing.THEORY_STYLE)
    _draw_means(axes, normalised, "D", drawing.HUES[0], "with γ")
    axes.axhline(1, **drawing.THEORY_STYLE)
    _finish(axes, "driven by white noise", 1000)


def _draw_constant(axes: Axes, rows: pd.DataFrame) -> None:
    plain, normalised = rows[rows["normalised"] == 0], rows[rows["normalised"] == 1]
    _draw_means(axes, plain, "o", drawing.HUES[7], "phases in [0, 2π]")
    axes.plot(1 - plain["r_max"] ** 2, plain["expected"], "_", color="0.15", ms=16, mew=1)
    _draw_means(axes, normalised, "D", drawing.HUES[0], "with γ, phases in [0, π/10]")
    axes.axhline(1, **drawing.THEORY_STYLE)
    _finish(axes, "driven by a constant", 40)


def _draw_means(axes: Axes, rows: pd.DataFrame, marker: str, colour: str, name: str) -> None:
    of_ring = rows.groupby(["r_max", "r_min"])["gain"].agg(["mean", "sem"]).reset_index()
    interval = 1.96 * of_ring["sem"]
    look: dict[str, Any] = {"fmt": marker, "color": colour, "ms": 5, "capsize": 3, "linewidth": 1.2}
    axes.errorbar(1 - of_ring["r_max"] ** 2, of_ring["mean"], interval, label=name, **look)


def _finish(axes: Axes, title: str, highest: float) -> None:
    axes.set(xscale="log", yscale="log", xlim=(0.4, 1e-3), ylim=(0.6, highest))
    y = r"$E\,\Vert x\Vert^2\;/\;E\,\Vert Bu\Vert^2$"
    drawing.label_axes(axes, title, f"$1 - {R_MAX}^2$", y, loc="upper left")
