"""Single precision, whatever JAX is told elsewhere, and double for networks that ask for it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_float32(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run the decorated function with JAX's 64-bit types off, in whichever thread calls it.

    `JAX_ENABLE_X64`, or a module that sets this flag as it is imported, would change the random
    numbers that are drawn and the precision of tasks, weights and losses. Float64 that is asked for
    inside, as the measuring engine does, is still float64.
    """

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return run


def types_of(dtype: str) -> AbstractContextManager[Any]:
    """Have JAX's 64-bit types on where `model.dtype` is float64, and off where it is not."""
    return jax.enable_x64(dtype == "float64")


def in_types_of_network(
    function: Callable[Concatenate[Any, Arguments], Result],
) -> Callable[Concatenate[Any, Arguments], Result]:
    """Run a function of a program, its first argument, in the types of the program's network.

    Data and starts are drawn in 32 bits all the same, so that networks of all types get the same.
    """

    @wraps(function)
    def run(program: Any, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with types_of(program.config.model.dtype):
            return function(program, *args, **kwargs)

    return run
