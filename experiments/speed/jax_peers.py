"""The norms of all pairs by JAX's jacrev or jacfwd, in one call."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from timing import Layer  # type: ignore[import-not-found, unused-ignore]

MODES: dict[str, Callable] = {"jacrev": jax.jacrev, "jacfwd": jax.jacfwd}


def largest_program(layer: Layer, mode: str, memory: float) -> tuple[jax.stages.Compiled, int]:
    """Return the program for T steps, with T halved until it fits in `memory` bytes, and T."""
    length = len(layer.inputs)
    while True:
        program = compiled(layer, length, mode)
        if length < 2 or bytes_of(program) <= memory:
            return program, length
        length //= 2


def bytes_of(program: jax.stages.Compiled) -> int:
    """Return the bytes of a program's work arrays; 0 where the compiler does not say."""
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes if analysis else 0


def compiled(layer: Layer, length: int, mode: str) -> jax.stages.Compiled:
    """Return the compiled function from inputs to log ‖∂h⁽ᵗ⁾/∂h⁽ᵏ⁾‖, [t − 1, k].

    All states are differentiated with respect to a zero added to each h⁽ᵏ⁾. The (T·n)² derivatives
    include those with k ≥ t, which are zero but computed by both modes.
    """
    n = layer.cell.hidden_features

    def states(nudges: Float[Array, "T n"], inputs: Float[Array, "T features"]) -> Array:
        def advance(h: Float[Array, "n"], step: tuple[Array, Array]) -> tuple[Array, Array]:
            nudge, x = step
            h, _ = layer.cell(h + nudge, x)
            return h, h

        return jax.lax.scan(advance, jnp.zeros(n, nudges.dtype), (nudges, inputs))[1]

    def log_norms(inputs: Float[Array, "T features"]) -> Float[Array, "T T"]:
        nudges = jnp.zeros((length, n), inputs.dtype)
        return jnp.log(jnp.linalg.norm(MODES[mode](states)(nudges, inputs), axis=(1, 3)))

    return jax.jit(log_norms).lower(layer.inputs[:length]).compile()


def all_at_once(layer: Layer, program: jax.stages.Compiled, length: int) -> np.ndarray:
    """Run the program; return the map, nan for pairs beyond its length."""
    total = len(layer.inputs)
    log_norms = np.full((total + 1, total + 1), np.nan)
    log_norms[1 : length + 1, :length] = program(layer.inputs[:length])
    return log_norms
