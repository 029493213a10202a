"""What the card's arithmetic gives: its rates, and whether gradlab's numbers are float32's own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_maps import float64_jacobians  # type: ignore[import-not-found, unused-ignore]
from accelerator_table import (  # type: ignore[import-not-found, unused-ignore]
    Case,
    LeftOut,
    Outcome,
    timed,
)
from flax import nnx
from timing import FEATURES, tanh_layer  # type: ignore[import-not-found, unused-ignore]

from gradlab.jacobian import jacobian_log_norms, step_jacobians

AGREE = 1e-4  # largest relative error of a norm between two devices, and of a float32 product
GAIN = 1.2  # driven by noise the network is not chaotic: rounding errors do not grow
HIGHEST = "under jax.default_matmul_precision('highest')"
CELLS: dict[str, Any] = {"RNN": nnx.SimpleCell, "LSTM": nnx.OptimizedLSTMCell}


def rates(size: int) -> list[Case]:
    """Return the cases of a square matrix product of `size` in both libraries."""
    highest, default = jax.lax.Precision.HIGHEST, jax.lax.Precision.DEFAULT
    return [
        Case("PyTorch", "float32", partial(_torch_rate, size, tf32=False), 10),
        Case("JAX, Precision.HIGHEST", "float32", partial(_jax_rate, size, highest), 10),
        Case("PyTorch, allow_tf32", "TF32", partial(_torch_rate, size, tf32=True), 10),
        Case("JAX", "JAX's default", partial(_jax_rate, size, default), 10),
        Case("JAX", "float64", partial(_jax_rate, size, highest, "float64"), 10),
    ]


def _jax_rate(size: int, precision: jax.lax.Precision, dtype: str = "float32") -> Outcome:
    with jax.enable_x64(dtype == "float64"):
        left, right = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
        product = jax.jit(partial(jnp.matmul, precision=precision))
        _, outcome = timed(partial(product, left, right))
    return _with_rate(outcome, size)


def _torch_rate(size: int, tf32: bool) -> Outcome:
    import torch
    from torch_peers import device  # type: ignore[import-not-found, unused-ignore]

    if tf32 and not torch.cuda.is_available():
        raise LeftOut("no CUDA device that PyTorch could multiply in TF32 on")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        left, right = (torch.randn(size, size, device=device()) for _ in range(2))
        _, outcome = timed(partial(torch.matmul, left, right))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    return _with_rate(outcome, size)


def _with_rate(outcome: Outcome, size: int) -> Outcome:
    rate = 2 * size**3 / float(np.median(outcome.repeats))
    return outcome._replace(result=f"{rate / 1e12:.4g} TFLOP/s, n = {size}")


def roundings(size: int) -> list[Case]:
    """Return the cases of the rounding error of a product, and of a cell's step Jacobians."""

    def ours() -> Outcome:
        from gradlab.jacobian.products import multiply

        return _rounding(multiply, size)

    notes = "float32 rounds to about 1e-7, TF32 to 1e-4 or more"
    highest = partial(_at_highest, partial(_rounding_of_steps, size))
    return [
        Case("gradlab's product", "float32", ours, 5, notes=notes),
        Case("jnp.matmul", "JAX's default", partial(_rounding, jnp.matmul, size), 5, notes=notes),
        Case("step_jacobians", "JAX's default", partial(_rounding_of_steps, size), 10, notes=notes),
        Case("step_jacobians", "highest", highest, 10, notes=HIGHEST),
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


def agreement(length: int, size: int) -> list[Case]:
    """Return the cases of maps on this device against those of the same weights on the CPU.

    One map of each cell is also taken with JAX's products at their highest precision everywhere: if
    only that one agrees, the cell's own products are rounded to TF32.
    """
    whats = [("spectral", "float32"), ("frobenius", "float32"), ("spectral", "float64")]
    cases = []
    for norm, precision in whats:
        for kind in CELLS:
            name = f"{kind}, {norm}"
            measure = partial(_agreement, kind, length, size, norm, precision)
            cases.append(Case(name, precision, measure, 30, notes=f"T = {length}, n = {size}"))
            if norm == "frobenius":
                within = partial(_at_highest, measure)
                notes = f"T = {length}, n = {size}; {HIGHEST}"
                cases.append(Case(f"{name}, highest", precision, within, 30, notes=notes))
    return cases


def _at_highest(measure: Callable[[], Outcome]) -> Outcome:
    with jax.default_matmul_precision("highest"):
        return measure()


def _agreement(kind: str, length: int, size: int, norm: str, precision: str) -> Outcome:
    cell, inputs = network(kind, length, size)
    measure = partial(_map, cell, inputs, norm=norm, precision=precision)
    here, outcome = timed(partial(measure, jax.devices()[0]), repeats=2)
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        there = np.asarray(measure(cpu))
    here = np.asarray(here)
    if not np.array_equal(np.isfinite(here), np.isfinite(there)):
        return outcome._replace(result="finite entries differ from the CPU's: DISAGREES")
    finite = np.isfinite(there)
    errors = np.abs(np.expm1(here[finite].astype(np.float64) - there[finite]))
    verdict = f"≤ {AGREE:g}, agrees" if errors.max() <= AGREE else f"> {AGREE:g}, DISAGREES"
    text = f"largest relative error {errors.max():.1e}, median {np.median(errors):.1e}: {verdict}"
    return outcome._replace(result=text)


def _map(cell: nnx.Module, inputs: Any, device: jax.Device, **options: Any) -> Any:
    if device == jax.devices()[0]:  # already there
        return jacobian_log_norms(cell, inputs, **options)
    moved = nnx.clone(cell)
    nnx.update(moved, jax.device_put(nnx.state(cell), device))
    return jacobian_log_norms(moved, jax.device_put(inputs, device), **options)


def network(kind: str, length: int, size: int) -> tuple[nnx.Module, jax.Array]:
    """Return a layer and the noise that drives it."""
    rngs = nnx.Rngs(0)
    kernel = jax.nn.initializers.normal(GAIN / np.sqrt(size))
    cell = CELLS[kind](FEATURES, size, recurrent_kernel_init=kernel, rngs=rngs)
    return cell, jax.random.normal(rngs(), (length, FEATURES), jnp.float32)
