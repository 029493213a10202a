"""Checks of a caller's arguments: each sentence says what was given and what is allowed."""

import math
import operator
import reprlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Check that an argument is one of a few values.

    Raises:
        ValueError: it is not.
    """
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")


def whole_number(name: str, value: Any, low: int, high: int, limit: str) -> int:
    """Return an argument as an integer.

    Args:
        name: of the argument.
        value: what was given.
        low, high: least and greatest value.
        limit: describes `high`, such as "the number of steps".

    Raises:
        ValueError: it is no integer, or out of range.
    """
    try:
        number = operator.index(value)
        is_whole = not isinstance(value, bool) and low <= number <= high
    except TypeError:  # no integer, or one that is not known while it is traced
        is_whole = False
    if not is_whole:
        raise ValueError(
            f"{name} must be a whole number from {low} to {limit}, {high}; got "
            f"{reprlib.repr(value)}."
        )
    return number


def check_at_least_zero(name: str, value: Any) -> None:
    """Check that an argument is a number of at least 0; inf is one.

    Raises:
        ValueError: it is none.
    """
    try:
        is_number = bool(value >= 0) and not isinstance(value, bool)
    except (TypeError, ValueError):
        is_number = False
    if not is_number:
        raise ValueError(f"{name} must be a number of at least 0; got {reprlib.repr(value)}.")


def check_memory(needed: float, memory_budget: float, steps: int, n: int) -> None:
    """Check that the work arrays of a measurement fit.

    Args:
        needed, memory_budget: in bytes.
        steps: that are measured.
        n: components of the state.

    Raises:
        ValueError: they do not.
    """
    check_fits(
        f"measuring {steps} steps of a state of {n} numbers",
        needed,
        memory_budget,
        f"use a stride of {math.ceil(needed / max(1, memory_budget))} or more times the present "
        "one, or method='sampled', which takes no step Jacobians.",
    )


def check_fits(work: str, needed: float, memory_budget: float, instead: str) -> None:
    """Check that work fits.

    Args:
        work: what it is.
        needed, memory_budget: in bytes.
        instead: what to do if it does not, besides raising memory_budget.

    Raises:
        ValueError: it does not.
    """
    if needed > memory_budget:
        raise ValueError(
            f"{work} takes about {needed / 2**30:.1f} GiB, more than "
            f"memory_budget={memory_budget / 2**30:.1f} GiB: raise memory_budget, {instead}"
        )


def numbers(name: str, value: Any) -> Array:
    """Return an argument as an array of numbers or booleans.

    Raises:
        ValueError: it is none.
    """
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be an array of numbers; got {reprlib.repr(value)}."
        ) from error


def real_numbers(name: str, value: Any) -> Array:
    """Return an argument as an array of real numbers, integers or booleans.

    Raises:
        ValueError: it is none.
    """
    array = numbers(name, value)
    if jnp.iscomplexobj(array):
        raise ValueError(f"complex {name} are not measured: pass real and imaginary parts apart.")
    return array


def arrays(name: str, tree: Any) -> Any:
    """Return a pytree with each leaf as an array.

    Raises:
        ValueError: a leaf is no number and no array.
    """
    try:
        return jax.tree.map(jnp.asarray, tree)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must hold arrays of numbers; got {reprlib.repr(tree)}."
        ) from error


def check_finite_jacobians(jacobians: Float[Array, "T n n"]) -> None:
    """Check that step Jacobians are finite, where their values are known.

    Raises:
        FloatingPointError: one is not; the message names its step.
    """
    finite = jnp.isfinite(jacobians).all(axis=(1, 2))
    if not isinstance(finite, jax.core.Tracer) and not finite.all():
        raise FloatingPointError(
            f"the step Jacobian is not finite at step {int(jnp.argmin(finite)) + 1}; every log "
            "norm past it is undefined."
        )


def is_plain(error: Exception) -> bool:
    """Return whether an error is one of Python's own kinds; another has a sentence of its own."""
    return type(error).__module__ == "builtins"


def first_line(error: BaseException) -> str:
    """Return an error's kind and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
