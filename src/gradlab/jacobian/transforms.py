"""Measurements in 64-bit types, also where JAX transforms them.

`jax.enable_x64` holds while a function is traced. JAX takes derivatives and batches of what was
traced later, when the user's own setting holds again; here these get 64-bit types of their own.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.custom_batching import custom_vmap
from jaxtyping import PyTree


def in_float64(
    measure: Callable[..., Any], *arguments: PyTree, not_differentiable: str = ""
) -> Any:
    """Return measure(*arguments), run with 64-bit types.

    `jax.jit` and `jax.vmap` may stand around it, and `jax.grad` unless a reason against it is
    given. The backward pass computes the measurement again.

    Args:
        measure: a function of pytrees of arrays.
        arguments: its arguments.
        not_differentiable: the sentence of the TypeError that a derivative raises.
    """

    @jax.custom_vjp
    def run(*arguments: PyTree) -> Any:
        return _batched_in_float64(measure, arguments)

    def forward(*arguments: PyTree) -> tuple[Any, tuple[PyTree, ...]]:
        if not_differentiable:
            raise TypeError(not_differentiable)
        return run(*arguments), arguments

    def backward(arguments: tuple[PyTree, ...], cotangents: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(cotangents)
        real = [None if leaf.dtype == jax.dtypes.float0 else leaf for leaf in leaves]

        def pull_back(arguments: tuple[PyTree, ...], real: list[Array | None]) -> PyTree:
            chosen = [leaf if new is None else new for leaf, new in zip(leaves, real, strict=True)]
            gradients = jax.vjp(measure, *arguments)[1](jax.tree.unflatten(structure, chosen))
            return jax.tree.map(lambda x: None if x.dtype == jax.dtypes.float0 else x, gradients)

        return in_float64(pull_back, arguments, real)

    run.defvjp(forward, backward)
    return run(*arguments)


def _batched_in_float64(measure: Callable[..., Any], arguments: tuple[PyTree, ...]) -> Any:
    run = custom_vmap(measure)

    @run.def_vmap
    def batched(size: int, is_batched: list[PyTree], *arguments: PyTree) -> tuple[Any, PyTree]:
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(is_batched))
        results = _batched_in_float64(jax.vmap(measure, axes, axis_size=size), arguments)
        return results, jax.tree.map(lambda _: True, results)

    with jax.enable_x64(True):
        return run(*arguments)
