"""Measurements in 64-bit types, also where JAX transforms them.

`jax.enable_x64` holds while a function is traced. The backward pass of an outer `jax.grad` is
traced later, when the user's own setting holds again; here it gets 64-bit types of its own.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree


def in_float64(
    measure: Callable[..., Any], *arguments: PyTree, not_differentiable: str = ""
) -> Any:
    """Return measure(*arguments), run with 64-bit types.

    `jax.jit` and `jax.vmap` may stand around it, and `jax.grad` unless a reason against it is
    given.

    Args:
        measure: a function of pytrees of arrays.
        arguments: its arguments.
        not_differentiable: the sentence of the TypeError that a derivative raises.
    """

    @jax.custom_vjp
    def run(*arguments: PyTree) -> Any:
        with jax.enable_x64(True):
            return measure(*arguments)

    def forward(*arguments: PyTree) -> tuple[Any, Callable[..., Any]]:
        if not_differentiable:
            raise TypeError(not_differentiable)
        with jax.enable_x64(True):
            return jax.vjp(measure, *arguments)

    def backward(pullback: Callable[..., Any], cotangents: Any) -> Any:
        with jax.enable_x64(True):
            return pullback(cotangents)

    run.defvjp(forward, backward)
    return run(*arguments)
