"""Critical gains of tanh networks, GRUs and LSTMs: where the state no longer returns to rest.

Without input and bias the state 0 is a fixed point, whose largest eigenvalue is known as n → ∞ for
recurrent weights of variance g²/n (`gradlab.theory.at_rest`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from gradlab import initialisers
from gradlab.cells import GRU, LSTM, Elman, set_gate_biases
from gradlab.config import Count, Positive
from gradlab.figures import style
from gradlab.models import by_gate
from gradlab.studies import drawing
from gradlab.theory.at_rest import AtRest, gru_at_rest, leaky_at_rest, lstm_at_rest

AT_REST = 1e-2  # share of the start's norm below which a state has returned to rest


class Kind(NamedTuple):
    """A cell's class, what it is at rest, and its forget bias."""

    cell: Callable[..., Any]
    rest: AtRest
    forget_bias: float = 0.0

    @property
    def critical(self) -> float:
        """Return the gain at which the largest eigenvalue is 1."""
        return self.rest.critical_gain


KINDS = {
    "tanh": Kind(Elman, leaky_at_rest()),
    "GRU": Kind(GRU, gru_at_rest()),
    "LSTM": Kind(LSTM, lstm_at_rest()),
    "LSTM, forget bias 1": Kind(LSTM, lstm_at_rest(1.0), 1.0),
}


def measure(
    shares: Sequence[Positive], units: Count, steps: Count, seeds: Sequence[int]
) -> pd.DataFrame:
    """Run networks from random states, and measure whether they return to rest and λ₁.

    Args:
        shares: gains as multiples of each cell's critical gain, ascending.
        units: n.
        steps: number of steps; λ₁ is that of the second half.
        seeds: of weights and start.

    Returns:
        Rows by `part`: "network" (kind, share, gain, seed, rate: λ₁ in nats per step, rested: 0 or
        1, expected: ln of the largest eigenvalue at rest of this network, infinite: that of
        n → ∞) and "onset" (kind, seed, onset: the multiple of the critical gain, midway between
        two of `shares`, from which on the network does not return to rest).
    """
    tables = [
        _networks(name, kind, np.asarray(shares), units, steps, seed)
        for name, kind in KINDS.items()
        for seed in seeds
    ]
    networks = pd.concat(tables, ignore_index=True)
    onsets = [
        {"kind": kind, "seed": seed, "onset": _onset(rows["share"], rows["rested"])}
        for (kind, seed), rows in networks.groupby(["kind", "seed"], sort=False)
    ]
    return pd.concat([networks, pd.DataFrame(onsets).assign(part="onset")], ignore_index=True)


def _networks(
    name: str, kind: Kind, shares: Float[np.ndarray, "gains"], n: int, steps: int, seed: int
) -> pd.DataFrame:
    gains = shares * kind.critical
    cell = _cell(kind, n, seed)
    rates, sizes = _run(*nnx.split(cell), jnp.asarray(gains), seed, steps)
    columns = {
        "share": shares,
        "gain": gains,
        "rate": np.asarray(rates, float),
        "rested": (np.asarray(sizes) < AT_REST).astype(int),
        "expected": [
            log_eigenvalue_at_rest(cell, gain) if gain < kind.critical else np.nan for gain in gains
        ],
        "infinite": [kind.rest.rate(gain) for gain in gains],
    }
    return pd.DataFrame(columns).assign(part="network", kind=name, seed=seed)


def _cell(kind: Kind, n: int, seed: int) -> Any:
    init = by_gate(initialisers.gaussian)
    cell = kind.cell(1, n, recurrent_kernel_init=init, rngs=nnx.Rngs(seed))
    if kind.forget_bias:
        set_gate_biases(cell, {"forget": jnp.full(n, kind.forget_bias)})
    return cell


def _step(cell: Any, gain: Float[Array, ""] | float, carry: Any) -> Any:
    """Take a step without input of a cell whose recurrent weights are multiplied by the gain."""
    graph, state = nnx.split(cell)

    def scaled(path: Any, weights: Array) -> Array:
        is_recurrent = all(name in jax.tree_util.keystr(path) for name in ("dense_h", "kernel"))
        return gain * weights if is_recurrent else weights

    state = jax.tree_util.tree_map_with_path(scaled, state)
    return nnx.merge(graph, state)(carry, jnp.zeros(1))[0]


@partial(jax.jit, static_argnames=("graph", "steps"))
def _run(
    graph: Any, state: Any, gains: Float[Array, "gains"], seed: int, steps: int
) -> tuple[Float[Array, "gains"], Float[Array, "gains"]]:
    """Return λ₁ over the second half of a run, and the last state's norm over the first's."""
    cell = nnx.merge(graph, state)
    zero, unravel = ravel_pytree(cell.initialize_carry((1,), nnx.Rngs(0)))
    start, tangent = 0.5 * jax.random.normal(jax.random.key(seed), (2, zero.size))

    def of_gain(gain: Array) -> tuple[Array, Array]:
        def step(s: Array) -> Array:
            return ravel_pytree(_step(cell, gain, unravel(s)))[0]

        def advance(both: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
            s, v = jax.jvp(step, both[:1], both[1:])
            size = jnp.linalg.norm(v)
            return (s, v / size), jnp.log(size)

        (last, _), growth = jax.lax.scan(advance, (start, tangent), length=steps)
        size = jnp.linalg.norm(last) / jnp.linalg.norm(start)
        return jnp.mean(growth[steps // 2 :]), size

    return jax.vmap(of_gain)(gains)


def log_eigenvalue_at_rest(cell: Any, gain: float) -> float:
    """Return the log of the largest eigenvalue of the step Jacobian at state 0, without input.

    Args:
        cell: a cell whose recurrent weights are for gain 1.
        gain: g, which multiplies them.

    Returns:
        The log of the modulus, nats: below 0 if the state 0 is stable.
    """
    zero, unravel = ravel_pytree(cell.initialize_carry((1,), nnx.Rngs(0)))
    jacobian = jax.jacfwd(lambda s: ravel_pytree(_step(cell, gain, unravel(s)))[0])(zero)
    return float(np.log(np.abs(np.linalg.eigvals(np.asarray(jacobian))).max()))


def _onset(shares: pd.Series, rested: pd.Series) -> float:
    """Return the midpoint between the last gain of a network at rest and the next; NaN if none."""
    order = np.argsort(shares.to_numpy())
    x, is_at_rest = shares.to_numpy()[order], rested.to_numpy()[order]
    (active,) = np.nonzero(is_at_rest == 0)
    if not len(active) or active[0] == 0:
        return float("nan")
    return float((x[active[0] - 1] + x[active[0]]) / 2)


@style.theme()
def figure(table: pd.DataFrame) -> Figure:
    """Draw λ₁ and the share of networks that return to rest over the gain."""
    figure, panels = drawing.panels(1, 2, "Where rest loses its stability, and chaos", height=3.2)
    networks = table[table["part"] == "network"]
    looks = zip(KINDS, "os^D", (drawing.HUES[i] for i in (7, 1, 2, 0)), strict=True)
    for kind, marker, colour in looks:
        rows = networks[networks["kind"] == kind]
        look: dict[str, Any] = {"marker": marker, "ms": 3.5, "linewidth": 1.3}
        label = f"{kind}: {KINDS[kind].critical:.3g}"
        places, rates = drawing.by_seed(rows.assign(value=rows["rate"]), "share")
        drawing.band(panels[0], places, rates, colour, label, **look)
        below = np.linspace(places[0], 1, 60)
        rest = KINDS[kind].rest
        theory = [rest.rate(share * rest.critical_gain) for share in below]
        panels[0].plot(below, theory, **drawing.THEORY_STYLE)
        rested = rows.groupby("share")["rested"].mean()
        panels[1].plot(rested.index, rested, color=colour, label="_", **look)
    for axes, y in zip(panels, ("λ₁ (nats/step)", "share at rest at the end"), strict=True):
        axes.axvline(1, color="0.5", linewidth=1, linestyle=":")
        drawing.label_axes(axes, "", "gain / critical gain", y, legend=False)
    panels[0].axhline(0, color=style.GREY, linewidth=0.8)
    panels[1].set(xlim=(0.85, 1.15))
    drawing.legend_above(panels[0])
    notes = "Legend: critical gains. Line: median over seeds; band: their range."
    return style.finish(figure, ["Dashed: eigenvalue at rest as n → ∞.", notes])
