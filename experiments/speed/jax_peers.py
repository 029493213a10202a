"""The norms of all pairs from JAX's jacrev or jacfwd, every pair in one call."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from timing import Layer  # type: ignore[import-not-found, unused-ignore]

MODES: dict[str, Callable] = {"jacrev": jax.jacrev, "jacfwd": jax.jacfwd}


def largest_program(layer: Layer, mode: str, memory: float) -> tuple[jax.stages.Compiled, int]:
    """The program for as many of the T steps as fit in `memory` bytes (T halved until it does)."""
    length = len(layer.inputs)
    while True:
        program = compiled(layer, length, mode)
        if length < 2 or bytes_of(program) <= memory:
            return program, length
        length //= 2


def bytes_of(program: jax.stages.Compiled) -> int:
    """What it needs beside its inputs and outputs, where the compiler says so."""
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes if analysis else 0


def compiled(layer: Layer, length: int, mode: str) -> jax.stages.Compiled:
    """Inputs to log ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖, t = 1..length, k = 0..length − 1.

    All states are differentiated with respect to a zero added to each h⁽ᵏ⁾; the (T·n)² derivatives
    include the zeros above the diagonal, which neither mode knows of.
    """
    n = layer.cell.hidden_features

    def visited(nudges: Float[Array, "T n"], inputs: Float[Array, "T features"]) -> Array:
        def advance(h: Float[Array, "n"], step: tuple[Array, Array]) -> tuple[Array, Array]:
            nudge, x = step
            h, _ = layer.cell(h + nudge, x)
            return h, h

        return jax.lax.scan(advance, jnp.zeros(n, nudges.dtype), (nudges, inputs))[1]

    def log_norms(inputs: Float[Array, "T features"]) -> Float[Array, "T T"]:
        nudges = jnp.zeros((length, n), inputs.dtype)
        return jnp.log(jnp.linalg.norm(MODES[mode](visited)(nudges, inputs), axis=(1, 3)))

    return jax.jit(log_norms).lower(layer.inputs[:length]).compile()


def all_at_once(layer: Layer, program: jax.stages.Compiled, length: int) -> np.ndarray:
    """Run the program; pairs beyond its length stay nan."""
    total = len(layer.inputs)
    found = np.full((total + 1, total + 1), np.nan)
    found[1 : length + 1, :length] = program(layer.inputs[:length])
    return found
