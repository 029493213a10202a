"""Programs for a GPU and a TPU, which JAX lowers without either.

A GPU multiplies float32 matrices in TF32 by default, and a TPU in bfloat16: three digits, or two.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import export

from gradlab import (
    adjoint_log_norms,
    contribution_log_norms,
    jacobian_log_norms,
    log_singular_values,
    lyapunov_exponents,
    parallel_evaluation,
    parallel_exponent,
)
from gradlab.config import Config
from gradlab.training.program import Program, hyperparameters_of

PLATFORMS = ("cuda", "tpu")
LENGTH, FEATURES, SIZE = 18, 3, 5
CELL = nnx.OptimizedLSTMCell(FEATURES, SIZE, rngs=nnx.Rngs(0))


def of_loss(measure: Callable[..., Any], inputs: jax.Array) -> jax.Array:
    """Measure for a loss of the output's distance from 0."""
    targets = jnp.zeros((*inputs.shape[:-1], SIZE))
    return measure(CELL, inputs, lambda carry, target: jnp.sum((carry[1] - target) ** 2), targets)


MEASUREMENTS: dict[str, Callable[[jax.Array], Any]] = {
    **{
        f"map, {norm}, {precision}": partial(
            jacobian_log_norms, CELL, norm=norm, precision=precision, of="h", wrt="h"
        )
        for norm, precision in (
            ("frobenius", "float32"),
            ("spectral", "float32"),
            ("spectral", "float64"),
        )
    },
    "exponents": partial(lyapunov_exponents, CELL),
    "parallel evaluation": partial(parallel_evaluation, CELL),
    "parallel exponent": partial(parallel_exponent, CELL),
    "adjoints": partial(of_loss, adjoint_log_norms),
    "contributions": partial(of_loss, contribution_log_norms),
    "singular values": lambda inputs: log_singular_values(CELL, inputs[0], [(LENGTH, 3)]),
}


def lowered(platform: str, function: Callable[..., Any], *arguments: Any) -> str:
    """Return a function's program for a platform, in StableHLO."""
    return export.export(jax.jit(function), platforms=[platform])(*arguments).mlir_module()


def products(program: str) -> list[str]:
    """Return how each matrix product of a program is computed."""
    found = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(found) == program.count("stablehlo.dot_general")
    return found


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("what", MEASUREMENTS)
def test_a_measurement_lowers_for_an_accelerator_and_rounds_no_product(
    what: str, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the engine's products nor the cell's own, of its trajectory and its derivatives."""
    monkeypatch.setattr(jax, "default_backend", lambda: {"cuda": "gpu"}.get(platform, platform))
    # JAX writes a TPU's SVD out as it lowers it: inside `jax.jit`, with the caller's types.
    with jax.enable_x64(what == "singular values"):
        inputs = jnp.ones((2, LENGTH, FEATURES), jnp.float32)
        program = lowered(platform, MEASUREMENTS[what], inputs)
    found = products(program)
    assert found
    assert all("precision = [HIGHEST, HIGHEST]" in product for product in found)
    assert "@lapack" not in program


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("model", ["rnn", "lstm"])
def test_a_training_step_lowers_for_an_accelerator(
    model: str, platform: str, composed: Callable[..., Config]
) -> None:
    config = composed(
        f"model={model}", "task=adding", "task.length=12", "clip=global_norm", "train.batch_size=2"
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.abstract_state()

    def update(state: Any, hyperparameters: Any) -> Any:
        after, telemetry = program.advance(hyperparameters, state, 1)
        return jax.tree.leaves(after.parameters), telemetry.loss

    with jax.default_matmul_precision("highest"):
        text = lowered(platform, update, state, hyperparameters)
    found = products(text)
    assert found
    assert all("precision = [HIGHEST, HIGHEST]" in product for product in found)
