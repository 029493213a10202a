"""Single precision, whatever JAX is told elsewhere."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

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
