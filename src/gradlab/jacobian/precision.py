"""The precision in which a network computes, whatever type its state has."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from gradlab.jacobian.closure import inner_jaxprs
from gradlab.jacobian.flat_cell import FlatCell


def rounding(flat: FlatCell) -> float:
    """Return the largest ε of the types in which a step computes what depends on state or input.

    A cell may keep its state in float32 and compute in bfloat16. The ε of a type is the distance
    from 1 to the next number.
    """
    program = flat.advance.program.jaxpr
    state = jax.tree.leaves(flat.example)
    moving = len(state) + 1  # the last arguments: the state's arrays, and the input
    fixed = len(program.constvars) + len(program.invars) - moving
    own = float(jnp.finfo(flat.example.vector.dtype).eps)
    return max(own, _largest_eps(program, [False] * fixed + [True] * moving))


def _largest_eps(jaxpr: jex.Jaxpr, moves: Sequence[bool]) -> float:
    """Return the largest ε of the arrays of a program that depend on arguments that move."""
    variables = [*jaxpr.constvars, *jaxpr.invars]
    moving: set[Any] = {v for v, moves in zip(variables, moves, strict=True) if moves}
    largest = 0.0
    for equation in jaxpr.eqns:
        operands = [not isinstance(a, jex.Literal) and a in moving for a in equation.invars]
        if not any(operands):
            continue
        moving.update(equation.outvars)
        kinds: list[Any] = [variable.aval for variable in equation.outvars]
        floats = [kind.dtype for kind in kinds if jnp.issubdtype(kind.dtype, jnp.inexact)]
        largest = max([largest, *(float(jnp.finfo(dtype).eps) for dtype in floats)])
        if equation.primitive.name == "reduce_precision":  # rounded, and kept in a longer type
            largest = max(largest, 2.0 ** -equation.params["mantissa_bits"])
        for inner in inner_jaxprs(equation):
            fits = len(inner.invars) == len(operands) and not inner.constvars
            arguments = [*inner.constvars, *inner.invars]
            largest = max(
                largest, _largest_eps(inner, operands if fits else [True] * len(arguments))
            )
    return largest
