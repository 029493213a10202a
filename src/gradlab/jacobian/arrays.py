"""One text for two array libraries: NumPy where values are known, JAX where they are traced.

On a CPU NumPy needs no compiler, uses every core, and takes shapes that depend on the data. An
accelerator, and JAX's transformations, need a program that is traced once.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped
from threadpoolctl import ThreadpoolController

AnyArray: TypeAlias = Any  # numpy.ndarray or jax.Array
State = TypeVar("State")

PIECE = 2**21  # bytes: what one thread works on stays in its core's cache


def library(array: Any) -> Any:
    """Return the library of an array: numpy or jax.numpy."""
    return np if isinstance(array, np.ndarray) else jnp


def are_known(tree: Any) -> bool:
    """Return whether NumPy may compute with arrays: on a CPU, and with no JAX transformation."""
    leaves = [*jax.tree.leaves(tree), jnp.asarray(0)]  # a tracer within a function that is traced
    is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    return jax.default_backend() == "cpu" and not is_traced


def inner(left: Shaped[Array, "*rows n"], right: Shaped[Array, "*rows n"]) -> Any:
    """Return the inner products of rows; in JAX no matrix product, which a GPU would round."""
    if library(left) is jnp:
        return jnp.sum(left * right, axis=-1)
    return np.einsum("...i,...i->...", left, right)


def while_loop(
    condition: Callable[[State], Any], body: Callable[[State], State], state: State, like: Any
) -> State:
    """Return the state after body(state) as long as condition(state), as jax.lax.while_loop."""
    if library(like) is jnp:
        return jax.lax.while_loop(condition, body, state)
    while condition(state):
        state = body(state)
    return state


def fori_loop(
    lower: Any, upper: Any, body: Callable[[Any, State], State], state: State, like: Any
) -> State:
    """Return the state after body(i, state) for each i, as jax.lax.fori_loop."""
    if library(like) is jnp:
        return jax.lax.fori_loop(lower, upper, body, state)
    for i in range(lower, upper):
        state = body(i, state)
    return state


def put(table: Shaped[Array, "..."], place: Any, value: Any) -> Shaped[Array, "..."]:
    """Return the table with another value at a place; one of NumPy is changed itself."""
    if library(table) is jnp:
        return table.at[place].set(value)
    table[place] = value
    return table


def in_threads(work: Callable[..., None], tasks: Sequence[tuple[Any, ...]]) -> None:
    """Do the work of each task, work(*task), in threads; not from within one of them."""

    def quietly(task: tuple[Any, ...]) -> None:
        with np.errstate(all="ignore"):  # which threads do not share
            work(*task)

    list(_threads().map(quietly, tasks) if len(tasks) > 1 else map(quietly, tasks))


def pieces(count: int, length: int, size: int, together: int = PIECE) -> list[tuple[slice, slice]]:
    """Cut (count, length) items of `size` bytes each into pieces of at most so many together."""
    fitting = max(1, together // size)
    step, part = max(1, fitting // length), min(fitting, length)
    return [
        (slice(i, i + step), slice(j, j + part))
        for i in range(0, count, step)
        for j in range(0, length, part)
    ]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gradlab")


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


_limit_lock = threading.Lock()
_limits: list[Any] = []  # one for each caller within; the first holds the limit


@contextmanager
def own_threads() -> Iterator[None]:
    """Let BLAS use one thread for each of ours, whichever caller comes first or leaves last.

    Its own threads would wait for each other at every small product, and spin meanwhile.
    """
    with _limit_lock:
        if not _limits:
            _limits.append(_libraries().limit(limits=1, user_api="blas"))
        _limits.append(None)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        with _limit_lock:
            _limits.pop()
            if len(_limits) == 1:
                _limits.pop().restore_original_limits()
