"""The leaky RNN against its equations in float64, its closed forms and the Elman network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from step_checks import (
    BATCH,
    FEATURES,
    HIDDEN,
    STEPS,
    assert_batch_axes_are_free,
    assert_unrolls_as_its_steps,
    configured,
    in_float64,
    loss_after,
    random_carry,
    random_inputs,
    run,
    step_jacobian,
    weights_of,
    with_random_weights,
)

from gradlab.cells import Elman, Leaky, set_gate_biases
from gradlab.cells.affine import affine_form
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.theory import of_cells

FORMS = ("rate", "current")
PHI: dict[str, tuple[Any, Any]] = {  # φ and φ′
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2),
    "relu": (lambda a: np.maximum(a, 0), lambda a: 1.0 * (a > 0)),
    "sigmoid": (lambda a: 1 / (1 + np.exp(-a)), lambda a: np.exp(-a) / (1 + np.exp(-a)) ** 2),
    "identity": (lambda a: a, np.ones_like),
}
ENDS = [0.05, 0.9]
SPREAD = np.exp(np.linspace(np.log(ENDS[0]), np.log(ENDS[1]), HIDDEN))


def cell_of(**options: Any) -> Leaky:
    """A leaky cell with random weights; learned α stay at their start."""
    cell = Leaky(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **options)
    with_random_weights(cell.dense_i)
    with_random_weights(cell.dense_h, seed=3)
    return cell


def by_the_equations(
    cell: Leaky, form: str, alpha: Any, phi: Any, state: np.ndarray, inputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    (w_x, b), (w_h, _) = weights_of(cell.dense_i), weights_of(cell.dense_h)
    outputs = []
    for x in inputs:
        drive = x @ w_x.T + b
        if form == "rate":
            state = (1 - alpha) * state + alpha * phi(drive + state @ w_h.T)
            outputs.append(state)
        else:
            state = (1 - alpha) * state + alpha * (drive + phi(state) @ w_h.T)
            outputs.append(phi(state))
    return state, np.stack(outputs)


@settings(max_examples=15)
@given(
    form=st.sampled_from(FORMS),
    activation=st.sampled_from(sorted(PHI)),
    alpha=st.floats(0.001, 1),
    use_bias=st.booleans(),
)
def test_steps_are_those_of_the_equations(
    form: Any, activation: Any, alpha: float, use_bias: bool
) -> None:
    cell = cell_of(form=form, activation=activation, alpha=alpha, use_bias=use_bias)
    carry, inputs = random_carry(cell, BATCH), random_inputs(STEPS, BATCH)
    expected = by_the_equations(
        cell, form, alpha, PHI[activation][0], np.asarray(carry, float), np.asarray(inputs, float)
    )
    last, outputs = run(cell, carry, inputs)
    np.testing.assert_allclose(last, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs, expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("learn_alpha", [False, True])
def test_units_have_time_constants_evenly_spread_in_their_logarithm(
    form: Any, learn_alpha: bool
) -> None:
    cell = cell_of(form=form, alpha=ENDS, learn_alpha=learn_alpha)
    np.testing.assert_allclose(cell.alpha(), SPREAD, rtol=1e-6)
    carry, inputs = random_carry(cell, BATCH), random_inputs(STEPS, BATCH)
    expected = by_the_equations(
        cell, form, SPREAD, np.tanh, np.asarray(carry, float), np.asarray(inputs, float)
    )
    np.testing.assert_allclose(run(cell, carry, inputs)[1], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("activation", PHI)
@pytest.mark.parametrize("alpha", [0.3, ENDS])
def test_the_step_jacobian_has_its_closed_form_and_bound(
    form: Any, activation: Any, alpha: Any
) -> None:
    with jax.enable_x64(True):
        cell = in_float64(cell_of(form=form, activation=activation, alpha=alpha))
        state, x = random_carry(cell, dtype=jnp.float64), random_inputs(dtype=jnp.float64)
        jacobian = step_jacobian(cell, state, x)
    (w_x, b), (w_h, _) = weights_of(cell.dense_i), weights_of(cell.dense_h)
    own, slope = SPREAD if alpha == ENDS else np.full(HIDDEN, alpha), PHI[activation][1]
    state, x = np.asarray(state), np.asarray(x)
    if form == "rate":
        through = slope(w_x @ x + b + w_h @ state)[:, None] * w_h
    else:
        through = w_h * slope(state)
    np.testing.assert_allclose(jacobian, np.diag(1 - own) + own[:, None] * through, atol=1e-12)
    bound = of_cells.leaky_jacobian_bound(w_h, own, activation)
    assert np.log(np.linalg.norm(jacobian, 2)) <= bound + 1e-12


def test_the_bound_is_reached_by_linear_units_on_their_own() -> None:
    cell = Leaky(
        FEATURES,
        HIDDEN,
        activation="identity",
        alpha=0.25,
        recurrent_kernel_init=lambda key, shape, dtype: 1.5 * jnp.eye(*shape),
        rngs=nnx.Rngs(0),
    )
    with jax.enable_x64(True):
        in_float64(cell)
        state, x = random_carry(cell, dtype=jnp.float64), random_inputs(dtype=jnp.float64)
        norm = np.linalg.norm(step_jacobian(cell, state, x), 2)
    bound = of_cells.leaky_jacobian_bound(1.5 * np.eye(HIDDEN), 0.25, "identity")
    assert np.log(norm) == pytest.approx(bound) == pytest.approx(np.log(0.75 + 0.25 * 1.5))


@settings(max_examples=10)
@given(alpha=st.floats(0.01, 1), activation=st.sampled_from(sorted(PHI)))
def test_rates_and_currents_are_one_network_under_a_constant_input(
    alpha: float, activation: Any
) -> None:
    rate, current = (cell_of(form=form, alpha=alpha, activation=activation) for form in FORMS)
    h, x = random_carry(rate), random_inputs()

    def current_of(h: jax.Array) -> jax.Array:
        return rate.dense_h(h) + rate.dense_i(x)

    inputs = jnp.broadcast_to(x, (STEPS, FEATURES))
    last_u, _ = run(current, current_of(h), inputs)
    last_h, _ = run(rate, h, inputs)
    np.testing.assert_allclose(last_u, current_of(last_h), rtol=1e-4, atol=1e-4)


def test_without_a_leak_it_is_the_elman_network() -> None:
    init = nnx.initializers.orthogonal()
    leaky, elman = (
        kind(FEATURES, HIDDEN, recurrent_kernel_init=init, rngs=nnx.Rngs(5), **options)
        for kind, options in ((Leaky, {"alpha": 1.0}), (Elman, {}))
    )
    carry, inputs = random_carry(leaky, BATCH), random_inputs(STEPS, BATCH)
    of_leaky, of_elman = (run(cell, carry, inputs)[1] for cell in (leaky, elman))
    np.testing.assert_allclose(of_leaky, of_elman, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alpha", [0.3, ENDS])
@pytest.mark.parametrize("learn_alpha", [False, True])
def test_it_unrolls_as_its_steps(form: Any, alpha: Any, learn_alpha: bool) -> None:
    cell = cell_of(form=form, alpha=alpha, learn_alpha=learn_alpha)
    assert (affine_form(cell) is not None) == (form == "rate")
    assert_unrolls_as_its_steps(cell)


def test_batch_axes_are_free() -> None:
    assert_batch_axes_are_free(cell_of(alpha=ENDS))


class Thrice(Leaky):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        new, output = super().__call__(carry, inputs)
        return new, 3 * output


class Held(Leaky):
    def advance(self, carry: Any, from_x: Any) -> Any:
        return carry + from_x, from_x


@pytest.mark.parametrize("kind", [Thrice, Held])
@pytest.mark.parametrize("form", FORMS)
def test_a_subclass_runs_by_its_own_step(kind: Any, form: Any) -> None:
    cell = kind(FEATURES, HIDDEN, form=form, rngs=nnx.Rngs(0))
    carry, inputs = random_carry(cell, BATCH), random_inputs(STEPS, BATCH)
    assert affine_form(cell) is None
    fast, slow = (way(cell, carry, inputs)[1] for way in (unroll, step_by_step))
    np.testing.assert_allclose(fast, slow, atol=1e-6)
    np.testing.assert_allclose(fast, run(cell, carry, inputs)[1], atol=1e-6)


def test_its_start_is_a_gaussian_of_variance_1_over_n_and_no_bias(composed: Compose) -> None:
    cell = Leaky(FEATURES, 400, rngs=nnx.Rngs(0))
    w_h, _ = weights_of(cell.dense_h)
    assert w_h.std() == pytest.approx(1 / np.sqrt(400), rel=0.02)
    assert np.abs(w_h).max() > 3.5 / np.sqrt(400)  # not truncated
    assert np.abs(np.linalg.eigvals(w_h)).max() == pytest.approx(1, rel=0.1)
    np.testing.assert_array_equal(cell.dense_i.bias[...], 0)
    assert cell.alpha() == pytest.approx(0.2)
    plain, doubled = (
        weights_of(configured(composed, "model=leaky", f"init.gain={gain}").dense_h)[0]
        for gain in (1, 2)
    )
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-6)


def test_its_options_are_configured(composed: Compose) -> None:
    cell = configured(
        composed,
        *("model=leaky", "model.hidden_size=3", "model.cell.alpha=[0.01,1]", "bias=chrono"),
        *("model.cell.form=current", "model.cell.activation=relu", "model.cell.use_bias=false"),
    )
    np.testing.assert_allclose(cell.alpha(), [0.01, 0.1, 1], rtol=1e-6)
    assert (cell.form, cell.activation, cell.dense_i.bias) == ("current", "relu", None)


def test_rules_for_gates_leave_it_as_it_is() -> None:
    cell = cell_of()
    before = np.asarray(cell.dense_i.bias[...])
    set_gate_biases(cell, {"forget": jnp.ones(HIDDEN)})
    np.testing.assert_array_equal(cell.dense_i.bias[...], before)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"form": "potential"}, "form must be one of rate, current; got 'potential'"),
        ({"activation": "elu"}, "activation must be one of tanh, relu, sigmoid, identity"),
        ({"alpha": 0.0}, "alpha must be a number above 0 and at most 1, or two"),
        ({"alpha": 1.5}, r"between which the units are spread; got 1\.5"),
        ({"alpha": [0.1, 0.2, 0.3]}, "alpha must be a number above 0 and at most 1, or two"),
        ({"alpha": [0.1, 1.0], "learn_alpha": True}, "learn_alpha needs an alpha below 1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Leaky(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize(
    "options",
    [(), ("model.cell.form=current", "model.cell.alpha=[0.1,0.9]", "model.cell.learn_alpha=true")],
)
def test_it_learns(composed: Compose, options: tuple[str, ...]) -> None:
    assert loss_after(composed, 150, "model=leaky", *options) < 0.6
