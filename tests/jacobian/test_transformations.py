"""The engine's functions under jax.jit, jax.vmap and jax.grad, and with 64-bit types enabled."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import Array

import gradlab
from gradlab.cells import Elman
from gradlab.jacobian import map_log_norms, step_jacobians

CELL = nnx.GRUCell(2, 3, rngs=nnx.Rngs(0))
INPUTS = jax.random.normal(jax.random.key(0), (6, 2))
TARGETS = jnp.zeros((6, 3))


def loss(h: Array, target: Array) -> Array:
    return jnp.sum((h - target) ** 2)


def contribution(cell: Any, x: Array) -> Array:
    terms = gradlab.contribution_log_norms(cell, x, loss, TARGETS)["dense_h.kernel"]
    return jnp.exp(terms).sum(axis=(-2, -1))


DIFFERENTIABLE: dict[str, Callable[..., Array]] = {
    "frobenius": lambda cell, x: gradlab.jacobian_log_norms(cell, x, norm="frobenius")[..., 5, 1],
    "rms": lambda cell, x: gradlab.jacobian_log_norms(cell, x, norm="rms")[..., 5, 1],
    "whole map": lambda cell, x: jnp.sum(
        jnp.tril(jnp.nan_to_num(gradlab.jacobian_log_norms(cell, x, norm="rms"), neginf=0.0), -1),
        axis=(-2, -1),
    ),
    "exponents": lambda cell, x: gradlab.lyapunov_exponents(cell, x, count=2)[..., 0],
    "adjoint": lambda cell, x: gradlab.adjoint_log_norms(cell, x, loss, TARGETS)[..., 1],
    "adjoints": lambda cell, x: gradlab.adjoint_log_norms(cell, x, loss, TARGETS, each=True)[
        ..., 5, 1
    ],
    "contribution": contribution,
}
OTHERS: dict[str, Callable[..., Array]] = {
    "spectral": lambda cell, x: gradlab.jacobian_log_norms(cell, x)[..., 5, 1],
    "singular values": lambda cell, x: gradlab.log_singular_values(cell, x, [(5, 1)])[0, 0],
}
MEASURE = DIFFERENTIABLE | OTHERS


@pytest.mark.filterwarnings("error::UserWarning")  # 64-bit types lost on the way
@pytest.mark.parametrize("measured", list(MEASURE))
def test_jit_and_vmap_change_nothing(measured: str) -> None:
    def measure(x: Array) -> Array:
        return MEASURE[measured](CELL, x)

    alone = measure(INPUTS)
    np.testing.assert_allclose(jax.jit(measure)(INPUTS), alone, atol=1e-6)
    batch = jnp.stack([INPUTS, -INPUTS])
    for together in (jax.vmap(measure), jax.jit(jax.vmap(measure))):
        np.testing.assert_allclose(together(batch), [alone, measure(-INPUTS)], atol=1e-6)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    ("measured", "kind"),
    [(measured, "gru") for measured in DIFFERENTIABLE]
    + [(measured, "relu") for measured in ("frobenius", "adjoint", "contribution")],
)
def test_gradients_are_those_of_finite_differences(measured: str, kind: str) -> None:
    """In float64, of inputs and of weights that a function closes over."""
    with jax.enable_x64(True):
        cell: Any = (
            Elman(2, 3, activation="relu", rngs=nnx.Rngs(0))
            if kind == "relu"
            else nnx.GRUCell(2, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        )
        definition, weights = nnx.split(cell)
        weights = jax.tree.map(lambda w: w.astype(jnp.float64), weights)
        inputs = jnp.asarray(INPUTS, jnp.float64)

        def measure(weights: Any, x: Array) -> Array:
            return MEASURE[measured](nnx.merge(definition, weights), x)

        gradient = jax.grad(measure, argnums=(0, 1))(weights, inputs)
        compiled = jax.jit(jax.grad(measure, argnums=(0, 1)))(weights, inputs)
        rng = np.random.default_rng(0)
        step = jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape)), (weights, inputs))
        size = 1e-3  # results are float32

        def moved(sign: float) -> Array:
            return measure(*jax.tree.map(lambda x, d: x + sign * size * d, (weights, inputs), step))

        expected = (moved(1) - moved(-1)) / (2 * size)
        for found in (gradient, compiled):
            products = jax.tree.map(lambda g, d: jnp.sum(g * d), found, step)
            total = sum(jax.tree.leaves(products))
            np.testing.assert_allclose(total, expected, rtol=0.02, atol=2e-3)


Function = Callable[[Array], Array]  # of inputs
AROUND: dict[str, Callable[[Function], Function]] = {  # each leaves the value as it is
    "jit": jax.jit,
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([-x, x]))[1],
    "map": lambda f: lambda x: jax.lax.map(f, jnp.stack([x, -x]))[0],
    "map in batches": lambda f: lambda x: jax.lax.map(f, jnp.stack([x] * 3), batch_size=2)[2],
    "cond": lambda f: lambda x: jax.lax.cond(x[0, 0] < jnp.inf, f, lambda x: jnp.float32(0), x),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, x: (c, f(x)), 0, x[None])[1][0],
    "checkpoint": jax.checkpoint,
    "a traced scale": lambda f: lambda x: jax.jit(lambda scale: f(scale * x))(1.0),
}


@pytest.mark.filterwarnings("error::UserWarning")  # 64-bit types lost on the way
@settings(max_examples=6, derandomize=True)
@given(
    measured=st.sampled_from(list(MEASURE)),
    around=st.lists(st.sampled_from(list(AROUND)), min_size=1, max_size=3),
    with_gradient=st.booleans(),
    with_64_bit_types=st.booleans(),
    seed=st.integers(0, 9),
)
@example("frobenius", ["jit", "vmap", "vmap"], True, False, 0)
def test_transformations_within_each_other_change_nothing(
    measured: str, around: list[str], with_gradient: bool, with_64_bit_types: bool, seed: int
) -> None:
    inputs = jax.random.normal(jax.random.key(seed), INPUTS.shape)

    def alone(x: Array) -> Array:
        return MEASURE[measured](CELL, x)

    nested: Function = alone
    for name in around:
        nested = AROUND[name](nested)
    if not with_gradient:
        expected = alone(inputs)
        with jax.enable_x64(with_64_bit_types):
            np.testing.assert_allclose(nested(inputs), expected, rtol=1e-6, atol=2e-6)
    elif measured in DIFFERENTIABLE:
        slope = jax.grad(alone)(inputs)
        with jax.enable_x64(with_64_bit_types):
            found = jax.grad(nested)(inputs)
        np.testing.assert_allclose(found, slope, rtol=0, atol=1e-4 * np.max(np.abs(slope)))
    else:
        with pytest.raises(TypeError, match="cannot be differentiated here: use"):
            jax.grad(nested)(inputs)


@pytest.mark.parametrize("measured", list(OTHERS))
def test_what_has_no_derivative_says_so(measured: str) -> None:
    with pytest.raises(TypeError, match="cannot be differentiated here: use"):
        jax.grad(lambda x: MEASURE[measured](CELL, x))(INPUTS)
    if measured == "spectral":
        with pytest.raises(TypeError, match="cannot be differentiated here: use"):
            jax.grad(lambda jacobians: map_log_norms(jacobians)[1, 0])(jnp.eye(2)[None])


def test_a_step_over_weights_that_are_traced() -> None:
    """The weights of a function are an outer function's argument."""

    def reach(weights: Array) -> Array:
        step = lambda h, x: (jnp.tanh(weights @ h), h)  # noqa: E731
        norms = gradlab.jacobian_log_norms(
            step, INPUTS, initial_carry=jnp.zeros(3), norm="frobenius"
        )
        return norms[6, 0]

    weights = 0.7 * jnp.eye(
        3
    )  # at h = 0: W⁶, whose log norm has the derivative 6 tr(dW) / (3 · 0.7)
    np.testing.assert_allclose(jax.grad(reach)(weights), 6 / 2.1 * np.eye(3), rtol=1e-4)
    np.testing.assert_allclose(jax.jit(reach)(weights), 6 * np.log(0.7) + np.log(3) / 2, rtol=1e-5)
    gains = jnp.array([0.5, 1.0])
    maps = jax.vmap(lambda gain: reach(gain * weights))(gains)
    np.testing.assert_allclose(maps[1] - maps[0], 6 * np.log(2), rtol=1e-5)


def test_step_jacobians_and_maps_of_them_under_jit_and_grad() -> None:
    jacobians = step_jacobians(CELL, INPUTS)
    np.testing.assert_allclose(
        jax.jit(lambda x: step_jacobians(CELL, x))(INPUTS), jacobians, atol=1e-6
    )

    def norm(jacobians: Array) -> Array:
        return map_log_norms(jacobians, norm="frobenius")[1, 0]

    expected = jacobians[0] / jnp.sum(jacobians[0] ** 2)
    np.testing.assert_allclose(jax.grad(norm)(jacobians)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("measured", ["spectral", "exponents", "singular values", "contribution"])
def test_64_bit_types_change_nothing(measured: str) -> None:
    """A cell of float32 is one whatever the flag, and so is a step that draws random numbers."""
    alone = MEASURE[measured](CELL, INPUTS)
    with jax.enable_x64(True):
        np.testing.assert_allclose(MEASURE[measured](CELL, INPUTS), alone, atol=1e-6)


@pytest.mark.parametrize(
    ("place", "length", "expected"),  # at (0, 0) every power is nonzero, at (0, 1) only the first
    [((0, 0), 6, sum(lag * (7 - lag) for lag in range(7)) / 2), ((0, 1), 16, 16 / 2)],
)
def test_exact_zeros_have_no_gradient_instead_of_nan(
    place: tuple[int, int], length: int, expected: float
) -> None:
    inputs = jnp.zeros((length, 2))

    def norm(gain: Array) -> Array:
        weights = jnp.zeros((2, 2)).at[place].set(gain)
        norms = gradlab.jacobian_log_norms(
            lambda h, x: (weights @ h, h), inputs, initial_carry=jnp.zeros(2), norm="frobenius"
        )
        return jnp.where(jnp.isfinite(norms), norms, 0).sum()

    assert jax.grad(norm)(jnp.array(2.0)) == pytest.approx(expected)


def test_the_memory_of_the_map_is_counted() -> None:
    step = lambda h, x: (0.99 * jnp.roll(h, 1), h)  # noqa: E731
    inputs = np.zeros((6000, 2), np.float32)

    def measured(inputs: Any, budget: int, n: int = 2, stride: int = 1) -> Array:
        options: dict[str, Any] = {"norm": "frobenius", "stride": stride, "memory_budget": budget}
        return gradlab.jacobian_log_norms(step, inputs, initial_carry=jnp.ones(n), **options)

    with pytest.raises(
        ValueError, match=r"6000 steps of a state of 2 .*use a stride of \d"
    ) as error:
        measured(inputs, 2**26)
    (stride,) = re.findall(r"a stride of (\d+)", str(error.value))
    assert measured(inputs, 2**26, stride=int(stride)).shape[0] == 6000 // int(stride) + 1
    with pytest.raises(ValueError, match="memory_budget"):  # of the map while it is made
        measured(inputs, 2 * 4 * 6001**2)
    with pytest.raises(ValueError, match="memory_budget"):  # of the step Jacobians
        measured(inputs[:50], 12 * 50 * 400**2 * 8, n=400)
    with pytest.raises(ValueError, match="memory_budget"):  # of the maps of a batch
        measured(np.zeros((9000, 50, 2), np.float32), 4 * 50**2 * 9000)
