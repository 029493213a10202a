"""Steps whose derivative is a jax.custom_vjp: forward mode refuses them, reverse mode measures."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

import gradlab
from gradlab.jacobian import step_jacobians
from gradlab.jacobian.closure import closure_convert

INPUTS = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
TARGETS = jnp.zeros((5, 3))
Function = Callable[[Array], Array]


def slope(v: Array) -> Array:
    return 1 / (1 + jnp.abs(v)) ** 2


@jax.custom_vjp
def spike(v: Array) -> Array:
    """A spike whose surrogate gradient has a rule in reverse mode only."""
    return jnp.heaviside(v, 0.0)


spike.defvjp(lambda v: (spike(v), v), lambda v, g: (g * slope(v),))


@jax.custom_jvp
def twin(v: Array) -> Array:
    """The same spike, with a rule in forward mode."""
    return jnp.heaviside(v, 0.0)


twin.defjvp(lambda primals, tangents: (twin(*primals), tangents[0] * slope(*primals)))


class Spiking(nnx.RNNCellBase):
    """h ← spike(W h + x)."""

    def __init__(self, activation: Function) -> None:
        self.kernel = nnx.Param(WEIGHTS)
        self.activation = activation

    def __call__(self, carry: Array, inputs: Array) -> tuple[Array, Array]:
        carry = self.activation(self.kernel[...] @ carry + inputs)
        return carry, carry

    def initialize_carry(self, *_: Any, **__: Any) -> Array:
        return jnp.zeros(3)


def loss(h: Array, target: Array) -> Array:
    return jnp.sum((h - target) ** 2)


def contributions(cell: Any, **options: Any) -> Array:
    if options:  # a plain function
        options["parameters"] = jnp.zeros(3)
        step = lambda w, h, x: cell(h, x + w)  # noqa: E731
        terms = gradlab.contribution_log_norms(step, INPUTS, loss, TARGETS, **options)
        return terms["weights"]
    return gradlab.contribution_log_norms(cell, INPUTS, loss, TARGETS)["kernel"]


MEASURES: dict[str, Callable[..., Any]] = {
    "map": lambda cell, **o: gradlab.jacobian_log_norms(cell, INPUTS, **o),
    "step Jacobians": lambda cell, **o: step_jacobians(cell, INPUTS, **o),
    "singular values": lambda cell, **o: gradlab.log_singular_values(cell, INPUTS, [(5, 3)], **o),
    "exponents": lambda cell, **o: gradlab.lyapunov_spectrum(cell, INPUTS, **o).exponents,
    "adjoints": lambda cell, **o: gradlab.adjoint_log_norms(
        cell, INPUTS, loss, TARGETS, each=True, **o
    ),
    "contributions": contributions,
}


@pytest.mark.parametrize("measured", list(MEASURES))
def test_a_surrogate_in_reverse_mode_is_its_twin_in_forward_mode(measured: str) -> None:
    measure = MEASURES[measured]
    expected = measure(Spiking(twin))
    assert np.isfinite(np.asarray(expected)).any()
    np.testing.assert_allclose(measure(Spiking(spike)), expected, atol=1e-5)
    step = lambda h, x: (spike(WEIGHTS @ h + x), h)  # noqa: E731
    if measured == "contributions":
        expected = contributions(
            lambda h, x: (twin(WEIGHTS @ h + x), h), initial_carry=jnp.zeros(3)
        )
    np.testing.assert_allclose(measure(step, initial_carry=jnp.zeros(3)), expected, atol=1e-5)


def test_the_certificate_of_a_surrogate_compares_with_float64() -> None:
    log_norms, certificate = gradlab.jacobian_log_norms(
        Spiking(spike), INPUTS, norm="frobenius", certify=True
    )
    assert np.isfinite(log_norms[5, 0])
    assert certificate.largest_error < 1e-5


AROUND: dict[str, Callable[[Function], Function]] = {
    "jit": jax.jit,
    "vmap": jax.vmap,
    "remat": jax.checkpoint,
    "scan": lambda f: lambda v: jax.lax.scan(lambda c, u: (c, f(u)), 0.0, v)[1],
    "cond": lambda f: lambda v: jax.lax.cond(v[0] < jnp.inf, f, lambda v: v, v),
    "loop": lambda f: lambda v: jax.lax.fori_loop(0, 1, lambda i, v: f(v), v),
    "all": lambda f: jax.jit(
        lambda v: jax.lax.scan(lambda c, u: (c, jax.checkpoint(jax.vmap(f))(u)), 0.0, v[:, None])[
            1
        ][:, 0]
    ),
    "twice": lambda f: lambda v: jax.jit(f)(v) - jax.checkpoint(f)(v - 0.5),
}


@pytest.mark.parametrize("around", list(AROUND))
def test_a_surrogate_within_a_transformation(around: str) -> None:
    cells = [Spiking(AROUND[around](f)) for f in (spike, twin)]
    measured, expected = (step_jacobians(cell, INPUTS) for cell in cells)
    np.testing.assert_allclose(measured, expected, atol=1e-6)
    if around == "all":
        measured, expected = (contributions(cell) for cell in cells)
        np.testing.assert_allclose(measured, expected, atol=1e-5)


def with_rule(rule: Callable[[Array, Array], Array]) -> Function:
    """Return the identity with a rule (v, gradient) -> gradient."""
    function = jax.custom_vjp(lambda v: v)
    function.defvjp(lambda v: (v, v), lambda v, g: (rule(v, g),))
    return function


CLIPPING: dict[str, Callable[[Array, Array], Array]] = {
    "by value": lambda v, g: jnp.clip(g, -0.1, 0.1),
    "by norm": lambda v, g: g / jnp.maximum(1, jnp.linalg.norm(g)),
    "above a threshold": lambda v, g: jnp.where(jnp.abs(g) > 1, 0, g),
    "in a compiled part": lambda v, g: jax.jit(jnp.sign)(g),
}


@pytest.mark.parametrize("rule", list(CLIPPING))
def test_a_rule_that_clips_the_adjoint_leaves_no_jacobian(rule: str) -> None:
    """Its result for each unit vector would not be that for the gradient that arrives."""
    clip = with_rule(CLIPPING[rule])
    sentence = "backward rule is not linear in the gradient.*has no Jacobian. Measure it without"
    for measured, measure in MEASURES.items():
        if rule == "by value" or measured == "map":
            with pytest.raises(ValueError, match=sentence):
                measure(Spiking(lambda v: jnp.tanh(clip(v))))
    with pytest.raises(ValueError, match=sentence):  # one of the weights alone
        gradlab.backpropagate(
            lambda w, h, x: (jnp.tanh(clip(w) @ h + x), h),
            INPUTS,
            loss,
            TARGETS,
            initial_carry=jnp.zeros(3),
            parameters=WEIGHTS,
        )


LINEAR: dict[str, tuple[Callable[[Array, Array], Array], float]] = {  # with their gains
    "scaled": (lambda v, g: 0.5 * g, 0.5),
    "of a window": (lambda v, g: g * (jnp.abs(v) < 10), 1.0),
    "no NaN": (lambda v, g: jnp.nan_to_num(g), 1.0),
    "lower precision": (lambda v, g: g.astype(jnp.bfloat16).astype(jnp.float32), 1.0),
}


@pytest.mark.parametrize("rule", list(LINEAR))
def test_a_rule_that_is_linear_in_the_adjoint_is_measured(rule: str) -> None:
    function, gain = LINEAR[rule]
    scaled = with_rule(function)
    step = lambda h, x: (WEIGHTS @ scaled(h), h)  # noqa: E731
    jacobian = step_jacobians(step, INPUTS, initial_carry=jnp.zeros(3))[0]
    np.testing.assert_allclose(jacobian, gain * WEIGHTS, rtol=5e-3)


@pytest.mark.parametrize(
    "function", [spike, AROUND["all"](spike), jax.nn.softplus, lambda v: jnp.logaddexp(v, 0)]
)
def test_a_rule_is_known_again_by_what_it_does(function: Function) -> None:
    one, other = (closure_convert(lambda v: function(v), WEIGHTS[0]).program for _ in range(2))
    assert one == other


def test_a_gradient_through_a_measurement_takes_the_present_rule() -> None:
    """Two rules of one function of the weights, which no derivative of the state shows."""

    def straight_through(gain: Any, kind: str) -> Function:
        if kind == "vjp":
            function = jax.custom_vjp(lambda w: jnp.round(w))
            function.defvjp(lambda w: (jnp.round(w), None), lambda _, g: (gain * g,))
            return function
        forward: Any = jax.custom_jvp(lambda w: jnp.round(w))
        forward.defjvp(lambda w, t: (jnp.round(w[0]), gain * t[0]))
        return lambda w: jax.jit(forward)(w)

    def reach(weights: Array, quantised: Function) -> Array:
        step = lambda h, x: (quantised(weights) @ h, h)  # noqa: E731
        return gradlab.jacobian_log_norms(
            step, INPUTS[:1], initial_carry=jnp.ones(3), norm="frobenius"
        )[1, 0]

    weights = 2.2 * jnp.eye(3)
    gains: dict[str, list[Any]] = {"vjp": [1.0, jnp.float32(3)], "jvp": [1.0, np.float32(3)]}
    for kind, two in gains.items():
        for gain in two:
            gradient = jax.grad(reach)(weights, straight_through(gain, kind))
            np.testing.assert_allclose(gradient, gain * 2 * np.eye(3) / 12, rtol=1e-5)
