"""One text for two array libraries: NumPy where values are known, JAX where they are traced.

On a CPU NumPy needs no compiler, uses every core, and takes shapes that depend on the data. An
accelerator, and JAX's transformations, need a program that is traced once.
"""

import os
import threading
from collections.abc import Callable, Iterator
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


def in_pieces(function: Callable[..., Any], *arrays: Any, size: int = 0) -> Any:
    """Return function(*arrays), of NumPy's arrays for pieces of their first axis in threads.

    Of JAX's it is one call on an accelerator, and one for each item on a CPU, where XLA is slow
    with batched products, and fails on some whose batches are nested.

    Args:
        function: of arrays, item by item along the first axis; returns such arrays.
        arrays: with the same first axis.
        size: bytes that the work on an item takes; by default those of the first array.
    """
    if library(arrays[0]) is jnp:
        if jax.default_backend() != "cpu":
            return function(*arrays)
        return jax.lax.map(lambda item: function(*(x[None] for x in item))[0], arrays)
    count = len(arrays[0])
    size = size or arrays[0].nbytes // count
    step = max(1, PIECE // size)
    if count <= step:
        return function(*arrays)
    pieces = [slice(i, i + step) for i in range(0, count, step)]
    first = function(*(x[pieces[0]] for x in arrays))
    results = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), first)

    def keep(piece: slice, result: Any) -> None:
        jax.tree.map(lambda x, part: x.__setitem__(piece, part), results, result)

    def work(piece: slice) -> None:
        with np.errstate(all="ignore"):  # which threads do not share
            keep(piece, function(*(x[piece] for x in arrays)))

    keep(pieces[0], first)
    list(_threads().map(work, pieces[1:]))
    return results


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
