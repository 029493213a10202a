"""The linear recurrent unit against its paper's equations; training a complex state."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from gradlab import clipping, jacobian_log_norms, lyapunov_exponents
from gradlab.cells import LRU, Elman, EncoderDecoder, set_gate_biases
from gradlab.cells.lru import draw_gap
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.components import ConfigError
from gradlab.models import Stack
from gradlab.point import checkpoints
from gradlab.theory import of_cells
from gradlab.training.program import Program, hyperparameters_of

FEATURES, HIDDEN, STATE, BATCH, STEPS = 3, 4, 5, 2, 7
SMALL = ("model=lru", "model.hidden_size=8", "task=echo", "task.length=12", "task.delay=2")


class Conjugated(LRU):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        return super().__call__(carry.conj(), inputs)


def cell_of(kind: type[LRU] = LRU, features: int = FEATURES, seed: int = 1, **options: Any) -> LRU:
    options = {"state_features": STATE, "r_min": 0.3, "r_max": 0.95} | options
    return kind(features, HIDDEN, rngs=nnx.Rngs(seed), **options)


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def weights_of(cell: LRU) -> dict[str, np.ndarray]:
    state = nnx.to_pure_dict(nnx.state(cell, nnx.Param))
    return {name: np.asarray(value, np.float64) for name, value in state.items()}


def thin_ring(radius: float) -> tuple[float, float]:
    return radius, float(np.nextafter(radius, 0))


def by_the_paper(
    cell: LRU, x: np.ndarray, start: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the states and outputs of one sequence, by equation 7 and appendix A."""
    w = weights_of(cell)
    eigenvalues = np.exp(-np.exp(w["nu_log"]) + 1j * np.exp(w["theta_log"]))
    b, c = w["b_re"].T + 1j * w["b_im"].T, w["c_re"].T + 1j * w["c_im"].T
    gamma = np.exp(w["gamma_log"]) if "gamma_log" in w else np.ones(len(eigenvalues))
    h = np.zeros(len(eigenvalues), complex) if start is None else start
    states, outputs = [], []
    for u in x:
        h = eigenvalues * h + gamma * (b @ u)
        d = w.get("d", np.zeros(()))
        through = d.T @ u if d.ndim == 2 else d * (u if d.ndim else 0)
        states.append(h)
        outputs.append((c @ h).real + through)
    return np.stack(states), np.stack(outputs)


OPTIONS: dict[str, dict[str, Any]] = {
    "published": {},
    "without γ": {"normalise": False},
    "without D": {"feedthrough": "none"},
    "with a D of a vector": {"features": HIDDEN},
    "with a dense D": {"features": HIDDEN, "feedthrough": "dense"},
    "of as many numbers as outputs": {"state_features": None},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_outputs_are_those_of_the_papers_equations(name: str) -> None:
    cell = cell_of(**OPTIONS[name])
    x = inputs(STEPS, cell.in_features)
    states, expected = by_the_paper(cell, x)
    carry = cell.initialize_carry((cell.in_features,))
    assert carry.dtype == jnp.complex64
    for t, u in enumerate(jnp.asarray(x, jnp.float32)):
        carry, output = cell(carry, u)
        np.testing.assert_allclose(carry, states[t], atol=1e-5)
        np.testing.assert_allclose(output, expected[t], atol=1e-5)
    assert output.dtype == jnp.float32
    assert ("gamma_log" in weights_of(cell)) == (name != "without γ")


def test_an_activation_acts_on_the_output() -> None:
    x = inputs(STEPS, FEATURES)
    cell = cell_of(activation="tanh")
    _, expected = by_the_paper(cell, x)
    carry, _ = unroll(cell, cell.initialize_carry((1, 1)), jnp.asarray(x[:-1, None], jnp.float32))
    _, output = cell(carry[0], jnp.asarray(x[-1], jnp.float32))
    np.testing.assert_allclose(output, np.tanh(expected[-1]), atol=1e-5)


def test_any_leading_axes() -> None:
    cell = cell_of()
    x = jnp.asarray(inputs(2, 3, FEATURES), jnp.float32)
    carry = cell.initialize_carry(x.shape) + (0.1 - 0.2j)
    states, outputs = cell(carry, x)
    assert states.shape == (2, 3, STATE)
    assert outputs.shape == (2, 3, HIDDEN)
    alone = cell(carry[1, 2], x[1, 2])
    np.testing.assert_allclose(states[1, 2], alone[0], atol=1e-6)
    np.testing.assert_allclose(outputs[1, 2], alone[1], atol=1e-6)


def with_gradients(run_cell: Any, cell: LRU, rule: Any = None) -> Any:
    """Return a function that computes the last carry, the outputs and the gradient of all."""
    definition, weights = nnx.split(cell)

    def run(weights: Any, carry: Any, x: Any) -> Any:
        return run_cell(nnx.merge(definition, weights), carry, x, rule)

    def differentiated(carry: Any, x: Any) -> Any:
        values, pull = jax.vjp(run, weights, carry, x)
        return values, pull(jax.tree.map(lambda y: 0.3 * y + 1, values))

    return jax.jit(differentiated)


def assert_same(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        scale = max(1.0, float(jnp.max(jnp.abs(y))))
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * scale)


def problem(cell: LRU, steps: int, batch: int) -> tuple[Any, Any]:
    carry = cell.initialize_carry((batch, cell.in_features)) + (0.4 - 0.3j)
    return carry, jnp.asarray(inputs(steps, batch, cell.in_features), jnp.float32)


@settings(max_examples=3, derandomize=True)
@given(steps=st.integers(1, 9), batch=st.integers(1, 3), normalise=st.booleans())
def test_the_parallel_scan_is_the_plain_one_forward_and_backward(
    steps: int, batch: int, normalise: bool
) -> None:
    cell = cell_of(normalise=normalise)
    arguments = problem(cell, steps, batch)
    assert_same(
        with_gradients(unroll, cell)(*arguments), with_gradients(step_by_step, cell)(*arguments)
    )


def test_a_long_sequence_has_no_loop_over_time_unless_a_rule_or_another_step_needs_it() -> None:
    cell, rule = cell_of(), partial(jax.tree.map, lambda x: x / 2)
    arguments = problem(cell, 40, BATCH)

    def loops(cell: LRU, rule: Any = None) -> bool:
        return " scan[" in str(jax.make_jaxpr(partial(unroll, cell, on_adjoint=rule))(*arguments))

    assert not loops(cell)
    assert loops(cell, rule)
    assert loops(cell_of(Conjugated))
    clipped = with_gradients(unroll, cell, rule)(*arguments)
    assert_same(clipped, with_gradients(step_by_step, cell, rule)(*arguments))


def in_float64(cell: LRU) -> LRU:
    nnx.update(cell, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(cell)))
    return cell


def test_in_float64_the_parallel_scan_is_exact_to_its_digits() -> None:
    with jax.enable_x64(True):
        cell = in_float64(cell_of())
        carry = cell.initialize_carry((BATCH, FEATURES))
        assert carry.dtype == jnp.complex128
        x = jnp.asarray(inputs(STEPS, BATCH, FEATURES))
        assert " scan[" not in str(jax.make_jaxpr(partial(unroll, cell))(carry, x))
        fast, slow = (with_gradients(run, cell)(carry, x) for run in (unroll, step_by_step))
        for found, expected in zip(*map(jax.tree.leaves, (fast, slow)), strict=True):
            assert found.dtype == expected.dtype in (jnp.float64, jnp.complex128)
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
        _, outputs = unroll(cell, carry, x)
        for i in range(BATCH):
            _, expected = by_the_paper(cell, np.asarray(x[:, i]))
            np.testing.assert_allclose(outputs[:, i], expected, rtol=1e-11, atol=1e-12)


def test_a_carry_of_more_digits_than_the_weights_keeps_them() -> None:
    cell = cell_of()
    with jax.enable_x64(True):
        carry = cell.initialize_carry((BATCH, FEATURES)) + (0.4 - 0.3j)
        x = jnp.asarray(inputs(STEPS, BATCH, FEATURES), jnp.float32)
        found, expected = (run(cell, carry, x)[0] for run in (unroll, step_by_step))
        assert found.dtype == expected.dtype == jnp.complex128
        np.testing.assert_array_equal(found, expected)


def test_the_step_jacobian_is_the_diagonal_of_eigenvalues_as_finite_differences_have_it() -> None:
    with jax.enable_x64(True):
        cell = in_float64(cell_of())
        x, h = inputs(FEATURES), inputs(STATE) + 1j * inputs(STATE)[::-1]

        def step(h: Any) -> Any:
            return cell(jnp.asarray(h, jnp.complex128), jnp.asarray(x))[0]

        jacobian = jax.jacobian(step, holomorphic=True)(jnp.asarray(h))
        numeric = [
            np.asarray((step(h + change) - step(h - change)) / 2e-3)
            for change in 1e-3 * np.eye(STATE)
        ]
        expected = np.asarray(cell.eigenvalues())
    assert jacobian.dtype == np.complex128
    np.testing.assert_allclose(jacobian, np.diag(expected), atol=1e-14)
    np.testing.assert_allclose(jacobian, np.transpose(numeric), atol=1e-10)


@pytest.mark.parametrize("norm", ["spectral", "frobenius", "rms"])
def test_norms_of_the_map_are_the_closed_form_at_every_input(norm: Any) -> None:
    cell = cell_of()
    measured = np.asarray(
        jacobian_log_norms(cell, jnp.asarray(inputs(STEPS, FEATURES)), norm=norm, of="h", wrt="h")
    )
    eigenvalues = np.asarray(cell.eigenvalues(), complex)
    for lag in range(STEPS + 1):
        expected = of_cells.diagonal_log_norm(eigenvalues, lag, norm)
        np.testing.assert_allclose(np.diagonal(measured, -lag), expected, atol=2e-5)


def test_other_norms_have_no_closed_form() -> None:
    with pytest.raises(ValueError, match="norm must be spectral, frobenius or rms; got 'nuclear'"):
        of_cells.diagonal_log_norm(np.ones(2), 1, "nuclear")


def test_lyapunov_exponents_are_the_rates_of_decay() -> None:
    cell = cell_of()
    exponents = lyapunov_exponents(cell, jnp.asarray(inputs(1000, FEATURES)))
    rates = np.sort(-np.exp(weights_of(cell)["nu_log"]))[::-1]
    np.testing.assert_allclose(exponents, rates, atol=1e-2)


def test_closed_forms_of_diagonal_networks() -> None:
    eigenvalues = np.array([0.9j, -0.5, 0.0])
    for lag in (0, 1, 6):
        power = np.linalg.matrix_power(np.diag(eigenvalues), lag)
        norms = {
            "spectral": np.linalg.norm(power, 2),
            "frobenius": np.linalg.norm(power),
            "rms": np.linalg.norm(power) / np.sqrt(3),
        }
        for norm, value in norms.items():
            found = of_cells.diagonal_log_norm(eigenvalues, lag, norm)
            assert found == pytest.approx(np.log(value), abs=1e-12)
    assert of_cells.diagonal_log_norm(np.zeros(2), 3) == -np.inf
    assert of_cells.ring_log_norm(0.7, 0.7, 4) == pytest.approx(4 * np.log(0.7))
    gap = np.asarray(draw_gap(jax.random.key(0), 100_000, 0.2, 0.9), float)
    for lag in (1, 10, 60):
        powers = (1 - gap) ** lag
        error = 4 * powers.std() / np.sqrt(gap.size)
        expected = np.exp(2 * of_cells.ring_log_norm(0.2, 0.9, lag))
        assert powers.mean() == pytest.approx(expected, abs=error)


@settings(max_examples=50)
@given(
    edges=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)) | st.floats(0.01, 1).map(thin_ring),
    lag=st.integers(0, 5000),
)
def test_the_closed_form_of_a_ring_neither_underflows_nor_cancels(
    edges: tuple[float, float], lag: int
) -> None:
    """E |λ|²ᵐ is the mean of r_max²ʲ r_min²⁽ᵐ⁻ʲ⁾ over j = 0..m, a geometric series."""
    r_min, r_max = sorted(edges)
    j = np.arange(lag + 1)
    logs = 2 * (j * np.log(r_max) + (lag - j) * np.log(r_min))
    expected = 0.5 * (logsumexp(logs) - np.log(lag + 1))
    assert of_cells.ring_log_norm(r_min, r_max, lag) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_closed_form_of_a_ring_at_its_limits() -> None:
    assert of_cells.ring_log_norm(0.0, 0.0, 0) == 0
    assert of_cells.ring_log_norm(0.0, 0.0, 3) == -np.inf
    expected = 2000 * np.log(0.5) - np.log(2001) / 2
    assert of_cells.ring_log_norm(0.0, 0.5, 2000) == pytest.approx(expected)


@pytest.mark.parametrize(("r_min", "r_max", "phase"), [(0.0, 1.0, 2 * np.pi), (0.9, 0.99, 0.3)])
def test_the_start_is_the_published_one(r_min: float, r_max: float, phase: float) -> None:
    """Lemma 3.2 and appendix A: uniform on the ring, γ, and B and C of variance 1/2m and 1/s."""
    many = 4000
    options = {"r_min": r_min, "r_max": r_max, "max_phase": phase}
    cell = LRU(8, 8, state_features=many, **options, rngs=nnx.Rngs(0))  # type: ignore[arg-type]
    w = weights_of(cell)
    squares = np.exp(-2 * np.exp(w["nu_log"]))
    angles = np.exp(w["theta_log"])
    assert squares.min() > r_min**2 - 1e-6
    assert squares.max() < r_max**2 + 1e-6
    for values, low, high in ((squares, r_min**2, r_max**2), (angles, 0, phase)):
        quantiles = (np.sort(values) - low) / (high - low)
        assert np.abs(quantiles - (np.arange(many) + 0.5) / many).max() < 0.04  # Kolmogorov
    np.testing.assert_allclose(np.exp(2 * w["gamma_log"]), 1 - squares, rtol=1e-4)
    for name, variance in (("b_re", 1 / 16), ("b_im", 1 / 16), ("c_re", 1 / many)):
        assert w[name].var() == pytest.approx(variance, rel=0.05)
    assert np.corrcoef(w["b_re"].ravel(), w["b_im"].ravel())[0, 1] == pytest.approx(0, abs=0.03)
    assert w["d"].shape == (8,)
    assert all(np.isfinite(value).all() for value in w.values())


def test_the_ring_reaches_its_edges_without_infinite_weights() -> None:
    for radius in (0.0, 1.0):
        cell = LRU(2, 3, r_min=radius, r_max=radius, rngs=nnx.Rngs(0))
        assert all(np.isfinite(value).all() for value in weights_of(cell).values())
        np.testing.assert_allclose(np.abs(cell.eigenvalues()), radius, atol=5e-4)


def test_the_initialiser_of_other_weights_is_used_and_that_of_recurrent_ones_is_not() -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError

    ones = nnx.initializers.ones_init()
    cell = LRU(2, 3, kernel_init=ones, recurrent_kernel_init=refuse, rngs=nnx.Rngs(0))
    w = weights_of(cell)
    np.testing.assert_allclose(w["b_re"], np.sqrt(0.5), rtol=1e-6)
    for name in ("c_re", "c_im", "d"):
        np.testing.assert_array_equal(w[name], 1)


def test_options_that_do_not_fit_are_refused() -> None:
    make = partial(LRU, 2, 3, rngs=nnx.Rngs(0))
    for radii in ({"r_min": 0.9, "r_max": 0.5}, {"r_max": 1.5}, {"max_phase": 0.0}):
        with pytest.raises(ValueError, match="0 ≤ r_min ≤ r_max ≤ 1 and 0 < max_phase ≤ 2π; got"):
            make(**radii)
    with pytest.raises(ValueError, match="if m = n, diagonal; got 'diagonal', with m = 2"):
        make(feedthrough="diagonal")
    with pytest.raises(ValueError, match="feedthrough must be dense, none or"):
        make(feedthrough="full")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="activation must be one of tanh, relu"):
        make(activation="gelu")  # type: ignore[arg-type]


def test_rules_for_gates_leave_it_as_it_is() -> None:
    cell = cell_of()
    before = weights_of(cell)
    set_gate_biases(cell, {"forget": jnp.ones(HIDDEN)})
    for name, value in weights_of(cell).items():
        np.testing.assert_array_equal(value, before[name])


def test_stacks_with_real_layers_and_encoders_with_decoders() -> None:
    stack = Stack([cell_of(), Elman(HIDDEN, HIDDEN, rngs=nnx.Rngs(2)), cell_of(features=HIDDEN)])
    x = jnp.asarray(inputs(STEPS, BATCH, FEATURES), jnp.float32)
    start = stack.initialize_carry(x.shape[1:], nnx.Rngs(0))
    assert_same(unroll(stack, start, x), step_by_step(stack, start, x))
    measured = jacobian_log_norms(stack, x[:, 0], of="layer2.h", wrt="layer0.h")
    assert np.isfinite(np.asarray(measured)[1, 0])  # each layer reads the one below at its step
    encoder, decoder = cell_of(), cell_of(r_min=0.5, seed=3)
    joined = EncoderDecoder(encoder, decoder)
    flag = jnp.arange(STEPS)[:, None, None] >= 4
    flagged = jnp.concatenate([x, jnp.broadcast_to(flag, (STEPS, BATCH, 1))], axis=-1)
    start = joined.initialize_carry(flagged.shape[1:])
    last, outputs = unroll(joined, start, flagged)
    assert last.dtype == jnp.complex64
    for i, sequence in enumerate(np.asarray(x, float).swapaxes(0, 1)):
        states, encoded = by_the_paper(encoder, sequence[:4])
        _, decoded = by_the_paper(decoder, sequence[4:], states[-1])
        np.testing.assert_allclose(outputs[:, i], np.concatenate([encoded, decoded]), atol=1e-5)


def test_adjoints_of_complex_states_are_clipped_by_their_parts() -> None:
    rule = clipping.adjoint(0.5)
    clipped = rule({"h": jnp.array([2 - 0.1j, -0.2 - 3j]), "x": jnp.array([0.7])})
    np.testing.assert_allclose(clipped["h"], [0.5 - 0.1j, -0.2 - 0.5j], rtol=1e-6)
    np.testing.assert_allclose(clipped["x"], [0.5])


@pytest.mark.parametrize(
    "words",
    [
        ("clip=adjoint", "clip.threshold=1e-6"),
        ("tbptt.window=6", "tbptt.stride=3"),
        ("tbptt.window=4", "tbptt.update=segment", "model.num_layers=2"),
    ],
    ids=["clipped adjoints", "windows", "segments of a stack"],
)
def test_a_complex_state_trains_under_every_backward_pass(
    words: tuple[str, ...], composed: Compose, tmp_path: Path
) -> None:
    config = composed(*SMALL, "task.test_size=8", *words)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, telemetry = program.advance(hyperparameters, program.initialise(hyperparameters), 6)
    assert not telemetry.nonfinite.any()
    assert (telemetry.grad_norm > 0).all()
    assert telemetry.clipped.all() == ("clip=adjoint" in words)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.parameters))
    checkpoints.save(tmp_path, config, state)
    restored = checkpoints.load(tmp_path, config, program.abstract_state)
    assert restored is not None
    for kept, leaf in zip(*map(jax.tree.leaves, (restored.carry, state.carry)), strict=True):
        assert kept.dtype == jnp.complex64
        np.testing.assert_array_equal(kept, leaf)


def test_it_learns_an_echo_and_probes_measure_its_complex_state(composed: Compose) -> None:
    probes = "probe=[spectral,typical,lyapunov,statistics,theory]"
    config = composed(*SMALL, "optim.learning_rate=0.02", "task.test_size=100", probes)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, _ = program.advance(hyperparameters, program.initialise(hyperparameters), 300)
    assert program.evaluate(state)["eval/loss"] < 0.7 * program.task.baseline
    metrics = program.measure(hyperparameters, state).metrics
    eigenvalues = np.asarray(program.merge(state.parameters).cell.eigenvalues(), complex)
    for section, norm in (("jacobian", "spectral"), ("jacobian_rms", "rms")):
        expected = of_cells.diagonal_log_norm(eigenvalues, 4, norm)
        assert metrics[f"{section}/log_norm/lag_4"] == pytest.approx(expected, abs=1e-4)
    assert metrics["statistics/h/norm"] > 0


def test_probes_of_the_loss_say_that_the_output_is_no_part_of_the_carry(composed: Compose) -> None:
    config = composed(*SMALL, "task.test_size=8", "probe=[adjoint]")
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    with pytest.raises(ConfigError, match="leave out the probes adjoint and contribution"):
        program.measure(hyperparameters, state)
