"""minGRU and minLSTM against the algorithms of their paper in float64, step by step and at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from definitions import outputs_by_steps, sigmoid, step_jacobians, trained_loss, weights_of
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recurrence import assert_same, in_float64, make, problem, with_gradients

from gradlab.cells import MinGRU, MinLSTM, gates, input_gated, set_gate_biases
from gradlab.cells.input_gated import looped_states, parallel_states
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.jacobian import jacobian_log_norms
from gradlab.theory import of_cells

FEATURES, N = 3, 4
KINDS = [MinGRU, MinLSTM]
WAYS = [parallel_states, looped_states]


def minimal(kind: Any, **options: Any) -> Any:
    return make(lambda *sizes, rngs: kind(*sizes, rngs=rngs, **options))


def by_way(states_of: Any) -> Any:
    """Return one way to find all states, as `unroll` returns them."""

    def run(cell: Any, carry: Any, inputs: Any, rule: Any = None) -> Any:
        assert rule is None
        states = states_of(cell, carry, inputs)
        return states[-1], states

    return run


def net_inputs(cell: Any, x: np.ndarray) -> list[np.ndarray]:
    w = weights_of(cell)
    net = x @ w["dense_i.kernel"] + w.get("dense_i.bias", 0)
    return np.split(net, net.shape[-1] // cell.hidden_features, axis=-1)


def log_factors(cell: Any, x: np.ndarray) -> np.ndarray:
    """Return the logarithms of the step Jacobian's diagonal by the closed form."""
    *gate_inputs, _ = net_inputs(cell, x)
    if isinstance(cell, MinGRU):
        return of_cells.mingru_log_factors(-gate_inputs[0])  # the cell's weights are those of 1 − z
    return of_cells.minlstm_log_factors(*gate_inputs)


def by_the_paper(cell: Any, inputs: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Return the states by algorithms 1 and 3, or 5 and 7 in log space."""
    *gate_inputs, candidates = net_inputs(cell, np.asarray(inputs, np.float64))
    if cell.log_space:
        candidates = np.where(candidates >= 0, candidates + 0.5, sigmoid(candidates))
    if isinstance(cell, MinGRU):
        write = sigmoid(-gate_inputs[0])
        keep = 1 - write
    else:
        f, i = map(sigmoid, gate_inputs)
        keep, write = f / (f + i), i / (f + i)
    states = []
    for kept, written, candidate in zip(keep, write, candidates, strict=True):
        h = kept * h + written * candidate
        states.append(h)
    return np.stack(states)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6)
@given(
    log_space=st.booleans(),
    use_bias=st.booleans(),
    length=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_states_are_those_of_the_paper(
    kind: Any, log_space: bool, use_bias: bool, length: int, seed: int
) -> None:
    cell = minimal(kind, log_space=log_space, use_bias=use_bias)
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(length, FEATURES)).astype(np.float32)
    expected = by_the_paper(cell, inputs, np.zeros(N))
    np.testing.assert_allclose(outputs_by_steps(cell, inputs), expected, rtol=1e-5, atol=1e-5)
    carry = rng.normal(size=(1, N)).astype(np.float32)  # of either sign
    expected = by_the_paper(cell, inputs, carry[0])
    for states_of in WAYS:
        run = jax.jit(lambda carry, x, states_of=states_of: states_of(cell, carry, x))
        states = run(carry, inputs[:, None])
        np.testing.assert_allclose(states[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "log_space"), [*((kind, True) for kind in KINDS), (MinGRU, False)]
)
def test_values_and_gradients_at_once_are_those_of_the_steps(kind: Any, log_space: bool) -> None:
    cell, at_once = minimal(kind, log_space=log_space), by_way(parallel_states)
    args = problem(cell, jnp.float32, length=11)
    expected = with_gradients(step_by_step, cell)(*args)
    for run in (at_once, unroll):
        assert_same(with_gradients(run, cell)(*args), expected, 1e-5)
    with jax.enable_x64(True):
        cell = in_float64(cell)
        args = problem(cell, jnp.float64, length=11)
        expected = with_gradients(step_by_step, cell)(*args)
        assert_same(with_gradients(at_once, cell)(*args), expected, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_where_the_candidate_is_at_the_kink_of_g(kind: Any) -> None:
    cell = kind(FEATURES, N, use_bias=False, rngs=nnx.Rngs(0))
    carry, inputs = jnp.zeros((2, N)), jnp.zeros((5, 2, FEATURES))
    expected = with_gradients(step_by_step, cell)(carry, inputs)
    for states_of in WAYS:
        assert_same(with_gradients(by_way(states_of), cell)(carry, inputs), expected, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [-40.0, 4.0, 40.0])
def test_thousands_of_steps_lose_no_digits(kind: Any, shift: float) -> None:
    cell, steps = minimal(kind), 3000
    bias = cell.dense_i.bias
    bias[...] = bias[...].at[:N].add(shift)
    inputs = np.random.default_rng(0).normal(size=(steps, FEATURES)).astype(np.float32)
    expected = by_the_paper(cell, inputs, np.zeros(N))
    run = jax.jit(lambda x: parallel_states(cell, jnp.zeros((1, N)), x)[:, 0])
    np.testing.assert_allclose(run(inputs[:, None]), expected, rtol=1e-4, atol=1e-30)


def test_cumulative_sums_lose_digits() -> None:
    """Listing 5 of the paper in float32: ln h = a* + ln Σ exp(ln b − a*), a* = Σ ln a."""
    cell = minimal(MinGRU)
    inputs = np.random.default_rng(0).normal(size=(3000, FEATURES)).astype(np.float32)
    expected = by_the_paper(cell, inputs, np.zeros(N))[-1]
    a, candidate = cell.net_inputs(jnp.asarray(inputs))
    log_values = np.asarray(jax.nn.log_sigmoid(-a) + input_gated.log_g(candidate))
    sums = np.cumsum(np.asarray(jax.nn.log_sigmoid(a)), axis=0, dtype=np.float32)
    listed = np.exp(sums + np.logaddexp.accumulate(log_values - sums, axis=0))[-1]
    ours = parallel_states(cell, jnp.zeros(N), jnp.asarray(inputs))[-1]
    errors = [np.abs(h / expected - 1).max() for h in (np.asarray(ours), listed)]
    assert errors[0] < 1e-5
    assert errors[1] > 10 * errors[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("log_space", [True, False])
def test_the_step_jacobian_is_the_diagonal_of_the_closed_form(kind: Any, log_space: bool) -> None:
    cell, rng = minimal(kind, log_space=log_space), np.random.default_rng(0)
    h, x = rng.normal(size=N), rng.normal(size=FEATURES)
    by_jax, numeric = step_jacobians(cell, h, x)
    np.testing.assert_allclose(by_jax, np.diag(np.exp(log_factors(cell, x))), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(by_jax, numeric, rtol=1e-7, atol=1e-8)


def test_closed_forms_are_the_papers_gates() -> None:
    net = np.array([-3.0, 0.0, 5.0])
    np.testing.assert_allclose(np.exp(of_cells.mingru_log_factors(net)), 1 - sigmoid(net))
    f, i = sigmoid(net), sigmoid(net[::-1])
    np.testing.assert_allclose(np.exp(of_cells.minlstm_log_factors(net, net[::-1])), f / (f + i))
    closed = of_cells.minlstm_log_factors(np.array([-800.0]), np.array([-800.0]))
    np.testing.assert_allclose(closed, np.log(0.5))  # where f and i are 0 to rounding


@pytest.mark.parametrize("kind", KINDS)
def test_measured_maps_are_the_products_of_the_gates(kind: Any) -> None:
    cell = minimal(kind)
    inputs = np.random.default_rng(3).normal(size=(12, FEATURES)).astype(np.float32)
    expected = of_cells.diagonal_log_norms(log_factors(cell, inputs))
    measured = np.asarray(jacobian_log_norms(cell, jnp.asarray(inputs)))
    assert measured.shape == expected.shape == (13, 13)
    reached = np.tri(13, dtype=bool)
    assert (measured[~reached] == -np.inf).all()
    np.testing.assert_allclose(measured[reached], expected[reached], atol=5e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gates_of_saturated_weights_are_finite(kind: Any) -> None:
    cell = minimal(kind)
    cell.dense_i.bias[...] = jnp.full(N * len(kind.blocks), -200.0)
    values = gates(cell, jnp.zeros(N), jnp.zeros(FEATURES))
    expected = 0.0 if kind is MinGRU else 0.5
    np.testing.assert_allclose(values["forget"], expected, atol=1e-6)
    np.testing.assert_allclose(values["input"], 1 - expected, atol=1e-6)
    np.testing.assert_allclose(cell(jnp.ones(N), jnp.zeros(FEATURES))[0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bias_rules_open_the_gate_that_keeps(kind: Any) -> None:
    cell, bias = minimal(kind), np.arange(4.0) / 2
    chrono = {"forget": jnp.asarray(bias), "input": jnp.asarray(-bias)}
    set_gate_biases(cell, chrono)
    opened = gates(cell, jnp.zeros(N), jnp.zeros(FEATURES))
    np.testing.assert_allclose(opened["forget"], sigmoid(bias), rtol=1e-6)
    np.testing.assert_allclose(opened["input"], 1 - sigmoid(bias), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_of_the_papers_listings(kind: Any) -> None:
    features, n = 25, 100
    cell = kind(features, n, rngs=nnx.Rngs(0))
    w, limit = weights_of(cell), 1 / np.sqrt(features)
    assert set(w) == {"dense_i.kernel", "dense_i.bias"}
    assert w["dense_i.kernel"].shape == (features, len(kind.blocks) * n)
    for values in w.values():
        assert 0.97 * limit < np.abs(values).max() <= limit * (1 + 1e-6)
        assert values.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
    np.testing.assert_array_equal(cell.initialize_carry((7, features)), np.zeros((7, n)))
    assert cell.log_space
    without = kind(
        features,
        n,
        use_bias=False,
        recurrent_kernel_init=nnx.initializers.zeros_init(),
        rngs=nnx.Rngs(0),
    )
    np.testing.assert_array_equal(weights_of(without)["dense_i.kernel"], w["dense_i.kernel"])
    assert without.dense_i.bias is None


class Doubled(MinGRU):
    def step_map(self, inputs: Any) -> Any:
        f, written = super().step_map(inputs)
        return f, 2 * written


class Leaky(MinLSTM):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        h, _ = super().__call__(carry, inputs)
        return 0.5 * carry + 0.5 * h, h


@pytest.mark.parametrize("kind", [Doubled, Leaky])
def test_a_subclass_with_a_step_of_its_own_runs_by_it(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_gated, "runs_in_parallel", lambda: True)
    cell = make(kind)
    args = problem(cell, jnp.float32)
    assert_same(unroll(cell, *args), step_by_step(cell, *args), 0.0)


@pytest.mark.parametrize("kind", [Doubled, Leaky])
def test_gates_of_a_step_of_its_own_are_not_guessed(kind: Any) -> None:
    sentence = f"no gates of {kind.__name__}, whose step is not that of InputGated"
    with pytest.raises(TypeError, match=sentence):
        gates(make(kind), jnp.zeros(N), jnp.zeros(FEATURES))


def test_a_map_replaced_on_the_instance_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_gated, "runs_in_parallel", lambda: True)
    cell = minimal(MinGRU)
    object.__setattr__(cell, "step_map", lambda x: (jnp.ones((*x.shape[:-1], N)),) * 2)
    carry, inputs = problem(cell, jnp.float32)
    last, _ = unroll(cell, carry, inputs)
    np.testing.assert_allclose(last, carry + len(inputs), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_for_adjoints_is_kept_to(kind: Any) -> None:
    cell = minimal(kind)
    args = problem(cell, jnp.float32)
    ruled, plain = (with_gradients(unroll, cell, rule)(*args) for rule in (jnp.tanh, None))
    assert_same(ruled, with_gradients(step_by_step, cell, jnp.tanh)(*args), 0.0)
    assert np.abs(np.asarray(ruled[1][1]) - np.asarray(plain[1][1])).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_an_accelerator_runs_no_loop(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = minimal(kind)
    args = problem(cell, jnp.float32)

    def runs_a_loop() -> bool:
        jaxpr = jax.make_jaxpr(lambda carry, inputs: unroll(cell, carry, inputs))(*args)
        return any(equation.primitive.name == "scan" for equation in jaxpr.jaxpr.eqns)

    for in_parallel in (True, False):
        monkeypatch.setattr(input_gated, "runs_in_parallel", lambda own=in_parallel: own)
        assert runs_a_loop() != in_parallel
        assert_same(unroll(cell, *args), step_by_step(cell, *args), 1e-5)


@pytest.mark.parametrize("model", ["mingru", "minlstm"])
@pytest.mark.parametrize("log_space", ["true", "false"])
def test_it_trains(composed: Compose, model: str, log_space: str) -> None:
    assert trained_loss(composed, f"model={model}", f"model.cell.log_space={log_space}") < 0.8
