"""What the card's arithmetic gives: its rates, and whether gradlab's products are float32's own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_reference import float64_jacobians  # type: ignore[import-not-found, unused-ignore]
from accelerator_run import timed  # type: ignore[import-not-found, unused-ignore]
from accelerator_table import Case, Outcome  # type: ignore[import-not-found, unused-ignore]
from timing import tanh_layer  # type: ignore[import-not-found, unused-ignore]

from gradlab.jacobian import step_jacobians

GAIN = 1.2
HIGHEST = jax.lax.Precision.HIGHEST
_rates: dict[str, float] = {}  # by precision, in operations a second


def rates(size: int) -> list[Case]:
    """Return the cases of a square matrix product of `size` in JAX."""
    default = partial(_rate, size, "float32", jax.lax.Precision.DEFAULT)
    cases = [
        Case("JAX, Precision.HIGHEST", x, partial(_rate, size, x, HIGHEST), 15)
        for x in ("float32", "float64")
    ]
    return [*cases, Case("JAX", "JAX's default", default, 5)]


def _rate(size: int, dtype: str, precision: jax.lax.Precision) -> Outcome:
    with jax.enable_x64(dtype == "float64"):
        left, right = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
        product = jax.jit(partial(jnp.matmul, precision=precision))
        _, outcome = timed(partial(product, left, right))
    outcome, rate = with_rate(outcome, size)
    if precision == HIGHEST:
        _rates[dtype] = rate
    return outcome


def with_rate(outcome: Outcome, size: int) -> tuple[Outcome, float]:
    """Return the outcome of a product of `size` with its rate, and the rate."""
    rate = 2 * size**3 / float(np.median(outcome.repeats))
    return outcome._replace(result=f"{rate / 1e12:.4g} TFLOP/s, n = {size}"), rate


def floor(operations: float, precision: str) -> Outcome:
    """Return the seconds of so many operations at the rate of the large product."""
    if precision not in _rates:
        raise ValueError(f"the rate of a {precision} product was not measured")
    return Outcome(repeats=[operations / _rates[precision]], estimated=True)


def roundings(size: int) -> list[Case]:
    """Return the cases of the rounding error of a product, and of a cell's step Jacobians."""

    def ours() -> Outcome:
        from gradlab.jacobian.products import multiply

        return _rounding(multiply, size)

    notes = "float32 rounds to about 1e-7, TF32 to 1e-4 or more"
    steps = partial(_rounding_of_steps, size)
    return [
        Case("gradlab's product", "float32", ours, 5, notes=notes),
        Case("jnp.matmul", "JAX's default", partial(_rounding, jnp.matmul, size), 5, notes=notes),
        Case("step_jacobians", "float32", steps, 15, notes=notes),
    ]


def _rounding(multiply: Callable[..., Any], size: int) -> Outcome:
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((size, size)).astype(np.float32) for _ in range(2))
    exact = left.astype(np.float64) @ right.astype(np.float64)
    product = np.asarray(jax.jit(multiply)(jnp.asarray(left), jnp.asarray(right)))
    return _error(product, exact, size)


def _rounding_of_steps(size: int) -> Outcome:
    layer = tanh_layer(8, size, GAIN)
    return _error(np.asarray(step_jacobians(*layer)), float64_jacobians(layer), size)


def _error(found: np.ndarray, exact: np.ndarray, size: int) -> Outcome:
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    return Outcome(result=f"relative error {error:.1e}, n = {size}")
