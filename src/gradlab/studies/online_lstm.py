"""The LSTM of Gers, Schmidhuber & Cummins 2000, which learns online by a truncated gradient.

Every step changes the weights, so there is no backward pass: each cell carries the derivatives of
its state by the weights that it depends on. No error flows back into the net inputs from earlier
activations, so that those derivatives obey a recursion of their own (eqs. 3.10 to 3.12 there),

    ∂c⁽ᵗ⁾/∂w = f ⊙ ∂c⁽ᵗ⁻¹⁾/∂w + (what the weight does at this step).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

SYMBOLS, BLOCKS, BLOCK_SIZE = 7, 4, 2
CELLS = BLOCKS * BLOCK_SIZE
SOURCES = SYMBOLS + CELLS  # what every unit reads, beside its bias
WEIGHT_LIMIT = 0.2


class Weights(NamedTuple):
    """Weights of the units, one row each; the last column is the bias, which cells do not have."""

    input_gate: Float[Array, "blocks sources+1"]
    forget_gate: Float[Array, "blocks sources+1"] | None  # None: f = 1, the LSTM of 1997
    output_gate: Float[Array, "blocks sources+1"]
    cell: Float[Array, "cells sources"]
    output: Float[Array, "symbols sources+1"]


class Traces(NamedTuple):
    """Derivatives of each cell's state by the weights of its gates and of its net input."""

    input_gate: Float[Array, "cells sources+1"]
    forget_gate: Float[Array, "cells sources+1"] | None
    cell: Float[Array, "cells sources"]


class State(NamedTuple):
    """Internal states and outputs of the cells, and the derivatives of the former."""

    c: Float[Array, "cells"]
    y: Float[Array, "cells"]
    traces: Traces


def initial_weights(key: Key[Array, ""], has_forget_gate: bool) -> Weights:
    """Draw weights from U[−0.2, 0.2], with the biases of the gates of block n at ∓n/2.

    Args:
        key: of the random numbers.
        has_forget_gate: without, there are 360 weights instead of 424.

    Returns:
        The weights; biases of input and output gates are −0.5, −1, −1.5, −2, those of forget gates
        the same above 0.
    """
    keys = jax.random.split(key, 5)

    def draw(i: int, rows: int, columns: int) -> Array:
        shape = (rows, columns)
        return jax.random.uniform(keys[i], shape, minval=-WEIGHT_LIMIT, maxval=WEIGHT_LIMIT)

    def gate(i: int, sign: float) -> Array:
        biases = sign * 0.5 * jnp.arange(1, BLOCKS + 1)
        return draw(i, BLOCKS, SOURCES + 1).at[:, -1].set(biases)

    return Weights(
        input_gate=gate(0, -1.0),
        forget_gate=gate(1, 1.0) if has_forget_gate else None,
        output_gate=gate(2, -1.0),
        cell=draw(3, CELLS, SOURCES),
        output=draw(4, SYMBOLS, SOURCES + 1),
    )


def initial_state(has_forget_gate: bool) -> State:
    """Return zeros, as a stream starts."""
    of_gate, cells = jnp.zeros((CELLS, SOURCES + 1)), jnp.zeros(CELLS)
    traces = Traces(of_gate, of_gate if has_forget_gate else None, of_gate[:, :-1])
    return State(cells, cells, traces)


def step(
    weights: Weights,
    state: State,
    symbol: Float[Array, "symbols"],
    target: Float[Array, "symbols"],
) -> tuple[State, Float[Array, "symbols"], Weights]:
    """Read a symbol and predict the next one.

    Args:
        weights: the network's.
        state: of the step before.
        symbol: the input, one-hot.
        target: of the outputs.

    Returns:
        The new state; the errors, target − output; and the descent direction of this step's
        ½ Σ error², by the truncated gradient.
    """
    sources = jnp.concatenate([symbol, state.y, jnp.ones(1)])
    i, slope_i = _logistic(_of_cells(_net(weights.input_gate, sources)))
    o, slope_o = _logistic(_of_cells(_net(weights.output_gate, sources)))
    squashed, slope = _logistic(_net(weights.cell, sources[:-1]))
    g, slope_g = 4 * squashed - 2, 4 * slope
    f, by_forget_gate = jnp.ones(CELLS), None
    if weights.forget_gate is not None:
        f, slope_f = _logistic(_of_cells(_net(weights.forget_gate, sources)))
        by_forget_gate = _outer(slope_f * state.c, sources)
    direct = Traces(
        input_gate=_outer(slope_i * g, sources),
        forget_gate=by_forget_gate,
        cell=_outer(i * slope_g, sources[:-1]),
    )
    traces = jax.tree.map(lambda old, now: f[:, None] * old + now, state.traces, direct)
    c = f * state.c + i * g
    squashed, slope = _logistic(c)
    h, slope_h = 2 * squashed - 1, 2 * slope
    read = jnp.concatenate([symbol, o * h, jnp.ones(1)])
    output, slope_output = _logistic(_net(weights.output, read))

    error = target - output
    delta = error * slope_output
    to_y = jnp.sum(weights.output[:, SYMBOLS:-1] * delta[:, None], axis=0)
    to_c = to_y * o * slope_h
    by_cell = jax.tree.map(lambda trace: to_c[:, None] * trace, traces)
    descent = Weights(
        input_gate=_of_blocks(by_cell.input_gate),
        forget_gate=None if by_forget_gate is None else _of_blocks(by_cell.forget_gate),
        output_gate=_of_blocks(_outer(to_y * h * slope_o, sources)),
        cell=by_cell.cell,
        output=_outer(delta, read),
    )
    return State(c, o * h, traces), error, descent


def _net(weights: Float[Array, "units m"], sources: Float[Array, "m"]) -> Float[Array, "units"]:
    """Return net inputs: a sum, which compiles to faster code for many networks than a product."""
    return jnp.sum(weights * sources, axis=1)


def _logistic(net: Float[Array, "units"]) -> tuple[Float[Array, "units"], Float[Array, "units"]]:
    """Return σ and its slope."""
    value = jax.nn.sigmoid(net)
    return value, value * (1 - value)


def _outer(units: Float[Array, "units"], sources: Float[Array, "m"]) -> Float[Array, "units m"]:
    return units[:, None] * sources


def _of_cells(gates: Float[Array, "blocks"]) -> Float[Array, "cells"]:
    return jnp.repeat(gates, BLOCK_SIZE, total_repeat_length=CELLS)


def _of_blocks(of_cells: Float[Array, "cells m"]) -> Float[Array, "blocks m"]:
    return of_cells.reshape(BLOCKS, BLOCK_SIZE, -1).sum(axis=1)
