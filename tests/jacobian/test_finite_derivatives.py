"""States that are not finite are refused, also where a cell's derivative there is a number.

A ReLU has the slope 0 at NaN: products of a network that has diverged would be exact zeros.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jaxtyping import Array

import gradlab

X = jax.random.normal(jax.random.key(0), (12, 3))
TARGETS = jnp.zeros((12, 8))


def loss(h: Array, target: Array) -> Array:
    return jnp.sum((h - target) ** 2)


MEASUREMENTS: dict[str, Callable[[nnx.RNNCellBase, Array], Any]] = {
    "map": gradlab.jacobian_log_norms,
    "sampled": lambda cell, x: gradlab.jacobian_log_norms(cell, x, norm="rms", method="sampled"),
    "exponents": gradlab.lyapunov_exponents,
    "first exponent": lambda cell, x: gradlab.lyapunov_exponents(cell, x, count=1),
    "singular values": lambda cell, x: gradlab.log_singular_values(cell, x, [(12, 0)]),
    "largest value": lambda cell, x: gradlab.log_singular_values(cell, x, [(12, 0)], count=1),
    "adjoints": lambda cell, x: gradlab.adjoint_log_norms(cell, x, loss, TARGETS),
    "contributions": lambda cell, x: gradlab.contribution_log_norms(cell, x, loss, TARGETS),
    "parallel exponent": gradlab.parallel_exponent,
}


def relu(factor: float = 1.0) -> nnx.SimpleCell:
    cell = nnx.SimpleCell(3, 8, activation_fn=jax.nn.relu, rngs=nnx.Rngs(0))
    cell.dense_h.kernel[...] = factor * jnp.abs(cell.dense_h.kernel[...])
    return cell


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_state_that_overflows_is_refused(name: str) -> None:
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(states(relu(), X)))
    with pytest.raises(FloatingPointError, match="the state is not finite at step 8"):
        MEASUREMENTS[name](relu(1e6), X)


def states(cell: nnx.RNNCellBase, x: Array) -> Array:
    """The states by a plain loop."""
    h, visited = jnp.zeros(8), []
    for step in x:
        h, _ = cell(h, step)
        visited.append(h)
    return jnp.stack(visited)


def test_the_step_that_is_named_is_that_of_the_overflow() -> None:
    finite = jnp.isfinite(states(relu(1e6), X)).all(axis=1)
    assert int(jnp.argmin(finite)) + 1 == 8


@pytest.mark.parametrize("step", [6, 12])
def test_an_input_that_is_not_a_number_is_refused(step: int) -> None:
    with pytest.raises(FloatingPointError, match=f"the input is not finite at step {step}"):
        gradlab.jacobian_log_norms(relu(), X.at[step - 1].set(jnp.nan))


def test_a_weight_that_is_not_a_number_is_refused() -> None:
    cell = relu()
    cell.dense_h.kernel[...] = cell.dense_h.kernel[...].at[0, 0].set(jnp.nan)
    with pytest.raises(FloatingPointError, match=r"weights dense_h\.kernel"):
        gradlab.jacobian_log_norms(cell, X)


def test_under_jit_products_past_the_overflow_are_no_numbers() -> None:
    log_norms = jax.jit(lambda x: gradlab.jacobian_log_norms(relu(1e6), x))(X)
    assert jnp.isnan(log_norms[8:, :7]).all()
    assert jnp.isfinite(log_norms[5, :5]).all()
