"""Weights that a step function reads are those of the present, and nothing is compiled twice."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

import gradlab
from gradlab.jacobian import step_jacobians
from gradlab.jacobian.closure import _value, closure_convert

INPUTS = jnp.ones((5, 3))
H0 = jnp.zeros(3)

MEASURE: dict[str, Callable[..., Any]] = {
    "map": lambda step: gradlab.jacobian_log_norms(step, INPUTS, initial_carry=H0)[1, 0],
    "exponents": lambda step: gradlab.lyapunov_exponents(step, INPUTS, initial_carry=H0)[0],
    "singular values": lambda step: gradlab.log_singular_values(
        step, INPUTS, [(1, 0)], initial_carry=H0
    )[0, 0],
    "step Jacobians": lambda step: jnp.log(step_jacobians(step, INPUTS, initial_carry=H0)[0, 0, 0]),
    "adjoints": lambda step: gradlab.adjoint_log_norms(
        step, INPUTS[:1], lambda h, target: h[0], jnp.zeros(1), initial_carry=H0
    )[0],
    "contributions": lambda step: gradlab.contribution_log_norms(
        lambda w, h, x: (step(h + w, x)[0], h),
        INPUTS[:1],
        lambda h, target: h[0],
        jnp.zeros(1),
        initial_carry=H0,
        parameters=jnp.zeros(3),
    )["weights"][1, 1],
}
W = jnp.eye(3)


def global_step(h: Array, x: Array) -> tuple[Array, Array]:
    return W @ h, h


class Network:
    """A network of somebody's: its weights are an attribute, which training replaces."""

    def __init__(self) -> None:
        self.weights = jnp.eye(3)

    def step(self, h: Array, x: Array) -> tuple[Array, Array]:
        return self.weights @ h, h


class LinearCell(nnx.RNNCellBase):
    """h⁽ᵗ⁾ = W h⁽ᵗ⁻¹⁾."""

    def __init__(self) -> None:
        self.kernel = nnx.Param(jnp.eye(3))

    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        return self.kernel[...] @ carry, carry

    def initialize_carry(self, input_shape: Any, rngs: Any = None, carry_init: Any = None) -> Array:
        return H0


def set_global(gain: float) -> Callable[..., Any]:
    global W
    W = gain * jnp.eye(3)
    return global_step


def setters() -> dict[str, Callable[[float], Callable[..., Any]]]:
    """Return, for each way to read weights, a function that sets them and returns the step."""
    network, cell, weights, array = Network(), LinearCell(), [jnp.eye(3)], np.eye(3)

    def closing(h: Array, x: Array) -> tuple[Array, Array]:
        return weights[0] @ h, h

    def set_weights(gain: float) -> Callable[..., Any]:
        weights[0] = gain * jnp.eye(3)
        return closing

    def set_array(gain: float) -> Callable[..., Any]:
        array[...] = gain * np.eye(3)
        return lambda h, x: (array @ h, h)

    def set_network(gain: float) -> Callable[..., Any]:
        network.weights = gain * jnp.eye(3)
        return network.step

    def set_cell(gain: float) -> nnx.RNNCellBase:
        cell.kernel[...] = gain * jnp.eye(3)
        return cell

    def set_cell_in_lambda(gain: float) -> Callable[..., Any]:
        set_cell(gain)
        return lambda h, x: cell(h, x)

    return {
        "global": set_global,
        "closure": set_weights,
        "NumPy array": set_array,
        "bound method": set_network,
        "cell": set_cell,
        "lambda over a cell": set_cell_in_lambda,
    }


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Events of XLA compiling a program."""
    events: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("measured", list(MEASURE))
def test_the_present_weights_are_measured_without_compiling_again(
    measured: str, compilations: list[str]
) -> None:
    for reads, set_gain in setters().items():
        if measured == "contributions" and "cell" in reads:
            continue  # its kernel is among the weights then
        before = MEASURE[measured](set_gain(0.5))
        count = len(compilations)
        after = MEASURE[measured](set_gain(2.0))
        assert len(compilations) == count, reads
        np.testing.assert_allclose([before, after], np.log([0.5, 2.0]), atol=1e-6, err_msg=reads)


def test_a_loss_is_that_of_the_present() -> None:
    scale = [1.0]
    steps: dict[str, Any] = {"parameters": jnp.ones(()), "initial_carry": H0}

    def loss(h: Array, target: Array) -> Array:
        return scale[0] * h[0]

    def adjoint() -> Array:
        return gradlab.adjoint_log_norms(
            lambda h, x: (h, x), INPUTS, loss, jnp.zeros(5), initial_carry=H0
        )[-1]

    def contribution() -> Array:
        step = lambda w, h, x: (w * h + x, h)  # noqa: E731
        terms = gradlab.contribution_log_norms(step, INPUTS, loss, jnp.zeros(5), **steps)
        return terms["weights"][5, 5]

    first = adjoint(), contribution()
    scale[0] = np.e
    np.testing.assert_allclose(adjoint() - first[0], 1, atol=1e-6)
    np.testing.assert_allclose(contribution() - first[1], 1, atol=1e-6)


def test_a_custom_derivative_is_that_of_the_present() -> None:
    slope = [1.0]

    @jax.custom_jvp
    def surrogate(v: Array) -> Array:
        return jnp.heaviside(v, 0.0)

    @surrogate.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        return surrogate(*primals), slope[0] * tangents[0]

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        return surrogate(h), h

    for value in (1.0, 3.0):
        slope[0] = value
        np.testing.assert_allclose(MEASURE["map"](step), np.log(value), atol=1e-6)


def test_a_derivative_in_reverse_mode_only() -> None:
    """A spiking cell whose surrogate gradient is a jax.custom_vjp, against products in NumPy."""

    @jax.custom_vjp
    def spike(v: Array) -> Array:
        return jnp.heaviside(v, 0.0)

    spike.defvjp(lambda v: (spike(v), v), lambda v, g: (g / (1 + jnp.abs(v)) ** 2,))
    weights = np.random.default_rng(0).normal(size=(3, 3))
    step = lambda h, x: (spike(weights.astype(np.float32) @ h + x), h)  # noqa: E731
    measured = gradlab.jacobian_log_norms(step, INPUTS, initial_carry=H0, norm="frobenius")
    h, product = np.zeros(3), np.eye(3)
    for t in range(5):
        v = weights @ h + 1
        product = np.diag(1 / (1 + np.abs(v)) ** 2) @ weights @ product
        h = np.heaviside(v, 0)
        assert measured[t + 1, 0] == pytest.approx(np.log(np.linalg.norm(product)), abs=1e-5)


def test_operations_that_differ_in_a_constant_differ() -> None:
    steps = [lambda h, x, a=a: (a * h, h) for a in (0.5, 2.0, -0.0)]
    assert [float(MEASURE["map"](step)) for step in steps] == pytest.approx(
        [np.log(0.5), np.log(2.0), -np.inf]
    )


def straight_through(function: Callable[[Array], Array], a: Array) -> Array:
    with_slope_one = jax.custom_jvp(function)
    with_slope_one.defjvp(lambda primals, tangents: (function(*primals), tangents[0]))
    return with_slope_one(a)


@pytest.mark.parametrize(
    "pair",
    [
        (lambda a, b: a - b, lambda a, b: b - a),
        (lambda a, b: a * 0.0, lambda a, b: a * -0.0),
        (lambda a, b: a.astype(int), lambda a, b: b.astype(int)),
        (lambda a, b: jax.lax.cond(a[0] > 0, lambda: a, lambda: b), lambda a, b: a),
        (
            lambda a, b: jax.lax.fori_loop(0, 3, lambda i, x: x * 2, a),
            lambda a, b: jax.lax.fori_loop(0, 3, lambda i, x: x * 3, a),
        ),
        (
            lambda a, b: jax.lax.fori_loop(0, 3, lambda i, x: x * 2, a),
            lambda a, b: jax.lax.fori_loop(0, 4, lambda i, x: x * 2, a),
        ),
        (lambda a, b: jnp.sum(a, axis=0), lambda a, b: jnp.max(a, axis=0)),
        (lambda a, b: jax.nn.relu(a), lambda a, b: jax.nn.relu6(a)),
        (lambda a, b: jax.checkpoint(jnp.sin)(a), lambda a, b: jax.checkpoint(jnp.cos)(a)),
        (lambda a, b: straight_through(jnp.sin, a), lambda a, b: straight_through(jnp.cos, a)),
        (
            lambda a, b: jnp.einsum("ij,j", jnp.outer(a, b), b),
            lambda a, b: jnp.einsum("ji,j", jnp.outer(a, b), b),
        ),
        (lambda a, b: (a, b), lambda a, b: (b, a)),
        (lambda a, b: (a, b), lambda a, b: [a, b]),
        (
            lambda a, b: jax.pure_callback(np.sin, a, a),
            lambda a, b: jax.pure_callback(np.cos, a, a),
        ),
    ],
)
def test_programs_are_equal_only_if_they_do_the_same(
    pair: tuple[Callable[..., Any], Callable[..., Any]],
) -> None:
    examples = (jnp.ones(3), jnp.zeros(3))
    one, other = (closure_convert(function, *examples).program for function in pair)
    assert one != other
    for function in pair:
        again = closure_convert(function, *examples)
        expected, got = function(*examples), again(*examples)
        jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_a_custom_derivative_does_not_keep_programs_apart() -> None:
    """Its rule is a new object in every trace."""
    one, other = (
        closure_convert(lambda a: straight_through(jnp.sin, a), jnp.ones(3)).program
        for _ in range(2)
    )
    assert one == other


def test_parameters_are_compared_by_value_and_type() -> None:
    values = [0.0, -0.0, 1, 1.0, np.float32(1), np.ones(1), np.ones(1, int), np.ones((1, 1))]
    assert len({_value(value) for value in values}) == len(values)
    assert _value((float("nan"), [np.ones(2)])) == _value((float("nan"), [np.ones(2)]))
    ones, same = np.ones(2), {"a": []}
    assert _value(ones) == _value(ones.copy())
    assert _value(same) == _value(same) != _value({"a": []})  # of no type that it knows


def test_a_jitted_function_keeps_the_arrays_that_it_was_traced_with() -> None:
    """JAX itself fixes them; two functions traced with different arrays stay apart."""

    def jitted(gain: float) -> Callable[..., Any]:
        weights = gain * jnp.eye(3)
        return jax.jit(lambda h, x: (weights @ h, h))

    for gain in (0.5, 2.0):
        np.testing.assert_allclose(MEASURE["map"](jitted(gain)), np.log(gain), atol=1e-6)
