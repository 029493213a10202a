"""Cells that keep state outside their carry are measured with it held, or refused."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import Array

import gradlab
from gradlab.jacobian import step_jacobians

INPUTS = jax.random.normal(jax.random.key(0), (5, 3))


class Wrapped(nnx.GRUCell):
    """A GRU whose state goes through another layer."""

    def __init__(self, layer: nnx.Module) -> None:
        super().__init__(3, 4, rngs=nnx.Rngs(0))
        self.layer = layer

    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        layer: Any = self.layer
        h = layer(super().__call__(carry, inputs)[0])
        return h, h


class Counting(nnx.Module):
    """Multiplies by the number of its calls, and notes what it was given."""

    def __init__(self) -> None:
        self.count = nnx.Variable(jnp.array(0))

    def __call__(self, h: Array) -> Array:
        self.count[...] += 1
        self.sow(nnx.Intermediate, "seen", h)
        return h * self.count[...]


class Remembering(nnx.Module):
    """Keeps a state that the carry should hold."""

    def __init__(self, dtype: Any = jnp.float32) -> None:
        self.memory = nnx.Variable(jnp.zeros(4, dtype))

    def __call__(self, h: Array) -> Array:
        self.memory[...] = 0.5 * self.memory[...] + h
        return self.memory[...].real


def by_hand(cell: Wrapped) -> np.ndarray:
    """Return log ‖∂s⁽ᵗ⁾/∂s⁽⁰⁾‖ with Flax's own loop over the cell and float64 products."""
    state, logs = jnp.zeros(4), []
    product = np.eye(4)
    for x in INPUTS:
        product = np.asarray(jax.jacrev(step_of(cell, x))(state), np.float64) @ product
        logs.append(np.log(np.linalg.norm(product, 2)))
        state = cell(state, x)[0]  # the cell's own state goes on
    return np.array(logs)


def step_of(cell: Wrapped, x: Array) -> Callable[[Array], Array]:
    """Return the next step as a function of the state alone, run on a copy of the cell."""
    definition, variables = nnx.split(cell)

    def step(state: Array) -> Array:
        return nnx.merge(definition, jax.tree.map(lambda leaf: leaf, variables))(state, x)[0]

    return step


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
@pytest.mark.parametrize("layer", ["dropout", "dropout.eval", "batch norm.eval", "counter"])
def test_state_outside_the_carry_goes_on_and_is_held(layer: str) -> None:
    def make() -> Wrapped:
        layers: dict[str, Any] = {
            "dropout": lambda: nnx.Dropout(0.3, rngs=nnx.Rngs(1)),
            "batch norm": lambda: nnx.BatchNorm(4, rngs=nnx.Rngs(1)),
            "counter": Counting,
        }
        cell = Wrapped(layers[layer.removesuffix(".eval")]())
        if layer.endswith(".eval"):
            cell.eval()
        return cell

    measured = gradlab.jacobian_log_norms(make(), INPUTS)
    np.testing.assert_allclose(measured[1:, 0], by_hand(make()), atol=1e-5)


def test_a_measurement_leaves_the_cell_as_it_was() -> None:
    cell = Wrapped(nnx.Dropout(0.3, rngs=nnx.Rngs(1)))
    before = jax.tree.leaves(nnx.split(cell)[1])
    first = gradlab.jacobian_log_norms(cell, INPUTS)
    np.testing.assert_array_equal(gradlab.jacobian_log_norms(cell, INPUTS), first)
    for old, new in zip(before, jax.tree.leaves(nnx.split(cell)[1]), strict=True):
        assert jnp.array_equal(old, new)


def test_a_drawn_initial_carry_is_the_same_each_time() -> None:
    class Drawing(nnx.GRUCell):
        def __init__(self) -> None:
            super().__init__(3, 4, rngs=nnx.Rngs(0))
            self.own = nnx.Rngs(carry=5)

        def initialize_carry(self, *_: Any, **__: Any) -> Array:
            return jax.random.normal(self.own.carry(), (4,))

    cell = Drawing()
    first, second = (gradlab.jacobian_log_norms(cell, INPUTS) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    drawn = cell.initialize_carry()
    np.testing.assert_allclose(
        gradlab.jacobian_log_norms(cell, INPUTS, initial_carry=drawn), first, atol=1e-6
    )


@pytest.mark.parametrize("base", [nnx.Module, nnx.RNNCellBase])
def test_a_module_without_an_initial_carry_of_its_own_takes_one(base: Any) -> None:
    class Gain(base):
        def __init__(self) -> None:
            self.gain = nnx.Param(jnp.array(0.5))

        def __call__(self, h: Array, x: Array) -> list[Array]:
            return [self.gain[...] * h, h]

    cell: Any = Gain()
    measured = gradlab.jacobian_log_norms(cell, INPUTS, initial_carry=jnp.ones(4))
    np.testing.assert_allclose(measured[5, 0], 5 * np.log(0.5), rtol=1e-6)
    with pytest.raises(ValueError, match="initial_carry is needed"):
        gradlab.jacobian_log_norms(cell, INPUTS)
    with pytest.raises(ValueError, match="a Flax cell holds its own"):
        gradlab.backpropagate(cell, INPUTS, lambda h, y: h.sum(), INPUTS, parameters={"w": 1.0})


@pytest.mark.parametrize(
    "layer", [nnx.BatchNorm(4, rngs=nnx.Rngs(1)), Remembering(), Remembering(jnp.complex64)]
)
def test_real_state_outside_the_carry_is_refused(layer: Any) -> None:
    with pytest.raises(ValueError, match=r"the cell changes layer\.\w+.* call cell.eval\(\)"):
        gradlab.jacobian_log_norms(Wrapped(layer), INPUTS)


class Dense(nnx.RNNCellBase):
    """h ← f(layer, h) + x."""

    def __init__(self, call: Callable[[nnx.Linear, Array], Array]) -> None:
        self.layer = nnx.Linear(3, 3, rngs=nnx.Rngs(0))
        self.call = call

    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        carry = self.call(self.layer, carry) + inputs
        return carry, carry

    def initialize_carry(self, *_: Any, **__: Any) -> Array:
        return jnp.zeros(3)


def dense(layer: nnx.Linear, h: Array) -> Array:
    return jnp.tanh(layer(h))


dense_in_reverse = nnx.custom_vjp(dense)


def dense_forward(layer: nnx.Linear, h: Array) -> tuple[Array, Any]:
    y = dense(layer, h)
    return y, (y, layer.kernel[...], h)


def dense_backward(residual: Any, gradients: Any) -> tuple[Any, Array]:
    (layer, _), y_gradient = gradients
    y, kernel, h = residual
    slope = y_gradient * (1 - y**2)
    layer["kernel"][...], layer["bias"][...] = jnp.outer(h, slope), slope
    return layer, kernel @ slope


dense_in_reverse.defvjp(dense_forward, dense_backward)
TRANSFORMED: dict[str, Callable[[nnx.Linear, Array], Array]] = {
    "jit": nnx.jit(dense),
    "remat": nnx.remat(dense),
    "remat within jit": nnx.jit(lambda layer, h: nnx.remat(dense)(layer, h)),
    "vmap": lambda layer, h: nnx.vmap(dense, in_axes=(None, 0))(layer, h[None])[0],
    "scan": lambda layer, h: nnx.scan(
        lambda h, layer: dense(layer, h), in_axes=(nnx.Carry, None), out_axes=nnx.Carry, length=1
    )(h, layer),
    "cond": lambda layer, h: nnx.cond(h[0] < 9, dense, lambda _, h: h, layer, h),
    "custom_vjp": dense_in_reverse,
}


@pytest.mark.parametrize("transformed", list(TRANSFORMED))
def test_layers_within_transformations_of_flax_are_measured(transformed: str) -> None:
    """Flax writes their weights back, which are the same."""
    loss: Any = lambda h, target: jnp.sum((h - target) ** 2)  # noqa: E731
    cell, expected = Dense(TRANSFORMED[transformed]), Dense(dense)
    measured = step_jacobians(cell, INPUTS)
    np.testing.assert_allclose(measured, step_jacobians(expected, INPUTS), atol=1e-6)
    if transformed in ("jit", "custom_vjp"):
        ours, theirs = (
            gradlab.contribution_log_norms(cell, INPUTS, loss, INPUTS) for cell in (cell, expected)
        )
        for name, terms in theirs.items():
            np.testing.assert_allclose(ours[name], terms, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
def test_a_change_within_a_transformation_of_flax_is_seen() -> None:
    counting = Wrapped(Counting())
    counting.layer = Jitted(counting.layer)
    logs = gradlab.jacobian_log_norms(counting, INPUTS)
    plain = gradlab.jacobian_log_norms(Wrapped(Counting()), INPUTS)
    np.testing.assert_allclose(logs, plain, atol=1e-6)
    for layer in (Remembering(), nnx.BatchNorm(4, rngs=nnx.Rngs(1)), Swapping()):
        with pytest.raises(ValueError, match=r"the cell changes layer\.layer\.\w+.*eval\(\)"):
            gradlab.jacobian_log_norms(Wrapped(Jitted(layer)), INPUTS)


class Jitted(nnx.Module):
    """Calls a layer within nnx.jit."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, h: Array) -> Array:
        return nnx.jit(lambda layer, h: layer(h))(self.layer, h)


class Swapping(nnx.Module):
    """Exchanges its weights at each call."""

    def __init__(self) -> None:
        self.a, self.b = nnx.Param(jnp.array(0.5)), nnx.Param(jnp.array(2.0))

    def __call__(self, h: Array) -> Array:
        self.a[...], self.b[...] = self.b[...], self.a[...]
        return self.a[...] * h


def test_a_function_over_a_cell_with_state_is_refused() -> None:
    cell = Wrapped(nnx.Dropout(0.3, rngs=nnx.Rngs(1)))
    with pytest.raises(ValueError, match=r"call that module's eval\(\) first, or pass the cell"):
        gradlab.jacobian_log_norms(lambda h, x: cell(h, x), INPUTS, initial_carry=jnp.zeros(4))


def test_a_linen_cell_is_refused_with_what_to_pass() -> None:
    cell: Any = linen.GRUCell(4)
    with pytest.raises(TypeError, match=r"lambda carry, x: cell.apply\(variables, carry, x\)"):
        gradlab.jacobian_log_norms(cell, INPUTS)
    carry = cell.initialize_carry(jax.random.key(0), (3,))
    variables = cell.init(jax.random.key(1), carry, INPUTS[0])
    step = lambda carry, x: cell.apply(variables, carry, x)  # noqa: E731
    measured = gradlab.jacobian_log_norms(step, INPUTS, initial_carry=carry)
    product, state = np.eye(4), carry
    for t, x in enumerate(INPUTS):
        jacobian = jax.jacrev(lambda h, x=x: step(h, x)[0])(state)
        product, state = np.asarray(jacobian, np.float64) @ product, step(state, x)[0]
        assert measured[t + 1, 0] == pytest.approx(np.log(np.linalg.norm(product, 2)), abs=1e-5)


class Learned(nnx.GRUCell):
    """A GRU whose initial state is learned."""

    def __init__(self) -> None:
        super().__init__(3, 4, rngs=nnx.Rngs(0))
        self.start = nnx.Param(jnp.ones(4))

    def initialize_carry(self, *_: Any, **options: Any) -> Array:
        return self.start[...]


def test_weights_of_the_initial_state_have_no_terms() -> None:
    """They act before the first step; without them the terms would not add up to the gradient."""
    arguments: Any = (Learned(), INPUTS, lambda h, target: jnp.sum(h), jnp.zeros(5))
    with pytest.raises(ValueError, match=r"depends on its weights start.*pass it as initial_carry"):
        gradlab.backpropagate(*arguments)
    terms = gradlab.backpropagate(*arguments, initial_carry=jnp.ones(4))
    assert float(jnp.abs(terms.by_lag["start"]).max()) == 0
    assert gradlab.adjoint_log_norms(*arguments).shape == (6,)


def test_arguments_that_would_be_misread_are_refused() -> None:
    cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
    convolution: Any = linen.ConvLSTMCell(2, (3,))
    loss: Any = lambda h, target: jnp.sum(h)  # noqa: E731
    with pytest.raises(TypeError, match=r"pass the cell, rnn\.cell"):
        gradlab.jacobian_log_norms(nnx.RNN(cell), INPUTS)
    with pytest.raises(TypeError, match="Linen"):
        gradlab.jacobian_log_norms(convolution, INPUTS)
    with pytest.raises(ValueError, match=r"a row for each step.*\(5,\) and more; got \(4, 4\)"):
        gradlab.adjoint_log_norms(cell, INPUTS, loss, jnp.zeros((4, 4)))
