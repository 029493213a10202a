"""DeltaNet against its papers' equations in float64, and its Jacobian against the closed form."""

from functools import partial
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
    FEATURES,
    STEPS,
    assert_batch_axes_are_free,
    assert_unrolls_as_its_steps,
    in_float64,
    loss_after,
    random_carry,
    random_inputs,
    run,
    step_jacobian,
    with_random_weights,
)

from gradlab import jacobian_log_norms, lyapunov_exponents
from gradlab.cells import DeltaNet, gates, set_gate_biases
from gradlab.cells.recurrence import unroll
from gradlab.jacobian.blocks import falls_into_blocks
from gradlab.jacobian.flat_cell import flatten_cell
from gradlab.models import Stack
from gradlab.theory import of_cells
from gradlab.training.program import Program, hyperparameters_of

N, HEADS, KEYS = 6, 2, 4
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "keys of the size of values": {"key_features": None},
    "one head": {"heads": 1},
    "positive keys": {"key_map": "elu"},
    "reflections": {"negative_eigenvalues": True},
    "with biases": {"use_bias": True},
}


class Halved(DeltaNet):
    def advance(self, carry: Any, from_x: Any) -> Any:
        return super().advance(carry / 2, from_x)


def cell_of(kind: type[DeltaNet] = DeltaNet, features: int = FEATURES, **options: Any) -> DeltaNet:
    options = {"heads": HEADS, "key_features": KEYS} | options
    cell: DeltaNet = with_random_weights(kind(features, N, rngs=nnx.Rngs(0), **options))
    return cell


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def parts(cell: DeltaNet, x: np.ndarray) -> list[list[np.ndarray]]:
    """Return q, k, v and β of one input, head by head."""
    bias = cell.dense_i.bias
    net = np.asarray(x, float) @ np.asarray(cell.dense_i.kernel[...], float)
    net = net if bias is None else net + np.asarray(bias[...], float)
    keys, heads = cell.heads * cell.key_features, cell.heads
    raw_q, raw_k, raw_v, raw_strength = np.split(net, [keys, 2 * keys, 2 * keys + N])

    def key(values: np.ndarray) -> np.ndarray:
        if cell.key_map == "elu":
            positive = np.where(values > 0, values + 1, np.exp(np.minimum(values, 0)))
            return positive / positive.sum()
        swish = values * sigmoid(values)
        return swish / np.sqrt(np.sum(swish**2) + 1e-6)

    strength = sigmoid(raw_strength) * (2 if cell.negative_eigenvalues else 1)
    return [
        [key(q) for q in np.split(raw_q, heads)],
        [key(k) for k in np.split(raw_k, heads)],
        [v * sigmoid(v) for v in np.split(raw_v, heads)],
        list(strength),
    ]


def by_the_paper(cell: DeltaNet, carry: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the last state and the outputs: the old value is removed, the new one written."""
    state, outputs = np.array(carry, float), []
    for now in x:
        output = []
        for head, (q, k, v, strength) in enumerate(zip(*parts(cell, now), strict=True)):
            old = state[head] @ k
            new = strength * v + (1 - strength) * old
            state[head] += np.outer(new, k) - np.outer(old, k)
            output.append(state[head] @ q)
        outputs.append(np.concatenate(output))
    return state, np.stack(outputs)


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_are_those_of_the_papers_equations(name: str) -> None:
    cell = cell_of(**VARIANTS[name])
    carry, x = random_carry(cell), random_inputs(12)
    state, outputs = by_the_paper(cell, carry, np.asarray(x))
    found_state, found = run(cell, carry, x)
    np.testing.assert_allclose(found, outputs, atol=1e-5)
    np.testing.assert_allclose(found_state, state, atol=1e-5)


def test_any_leading_axes() -> None:
    assert_batch_axes_are_free(cell_of())


def test_reading_all_inputs_first_changes_nothing() -> None:
    assert_unrolls_as_its_steps(cell_of())
    own = cell_of(Halved)
    carry, x = random_carry(own, 2), random_inputs(STEPS, 2)
    np.testing.assert_allclose(unroll(own, carry, x)[1], run(own, carry, x)[1], atol=1e-5)


def factors(cell: DeltaNet, x: np.ndarray) -> list[np.ndarray]:
    """Return the step Jacobian of one input by the closed form, head by head."""
    _, keys, _, strengths = parts(cell, x)
    return [
        of_cells.delta_rule_jacobian(k, float(b), N // cell.heads)
        for k, b in zip(keys, strengths, strict=True)
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_step_jacobian_is_the_closed_form_and_that_of_finite_differences(name: str) -> None:
    with jax.enable_x64(True):
        cell = in_float64(cell_of(**VARIANTS[name]))
        x = random_inputs(dtype=jnp.float64)
        found = step_jacobian(cell, random_carry(cell, dtype=jnp.float64), x)
        expected = jax.scipy.linalg.block_diag(*factors(cell, np.asarray(x)))
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("norm", ["spectral", "frobenius"])
@pytest.mark.parametrize("name", ["published", "reflections"])
def test_the_map_is_that_of_products_of_the_closed_form(name: str, norm: Any) -> None:
    cell, x = cell_of(**VARIANTS[name]), random_inputs(STEPS)
    found = np.asarray(jacobian_log_norms(cell, x, norm=norm, of="h", wrt="h"))
    by_step = [factors(cell, now) for now in np.asarray(x)]
    for k in range(STEPS + 1):
        products = [np.eye(len(factor)) for factor in by_step[0]]
        for t in range(k, STEPS + 1):
            if norm == "spectral":
                size = max(np.linalg.norm(product, 2) for product in products)
            else:
                size = np.sqrt(sum(np.sum(product**2) for product in products))
            assert found[t, k] == pytest.approx(np.log(size), abs=2e-5)
            if t < STEPS:
                products = [f @ p for f, p in zip(by_step[t], products, strict=True)]


def test_rows_of_the_matrices_are_measured_as_independent_parts() -> None:
    x = random_inputs(STEPS)
    flat = flatten_cell(DeltaNet(FEATURES, 32, rngs=nnx.Rngs(0)), x)
    assert falls_into_blocks(flat, x, flat.form.span("h", "of"), flat.form.span("h", "wrt"))


def test_exponents_add_up_to_what_each_step_shrinks() -> None:
    """Σ λ is the mean of ln |det J|, Σ over heads of values · ln |1 − β ‖k‖²|."""
    cell, x = cell_of(negative_eigenvalues=True), random_inputs(60)
    shrunk = 0.0
    for now in np.asarray(x):
        _, keys, _, strengths = parts(cell, now)
        shrunk += sum(
            np.log(abs(1 - b * (k @ k))) * N / HEADS for k, b in zip(keys, strengths, strict=True)
        )
    exponents = np.asarray(lyapunov_exponents(cell, x))
    assert exponents.sum() == pytest.approx(shrunk / 60, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    key=st.lists(st.floats(-3, 3), min_size=2, max_size=5).filter(lambda k: np.dot(k, k) > 1e-3),
    share=st.floats(0, 2),
    values=st.integers(1, 3),
)
def test_the_closed_form_has_norm_1(key: list[float], share: float, values: int) -> None:
    k = np.array(key)
    jacobian = of_cells.delta_rule_jacobian(k, share / (k @ k), values)
    found = np.linalg.svd(jacobian, compute_uv=False)
    expected = np.sort(np.repeat([abs(1 - share), *[1.0] * (len(k) - 1)], values))[::-1]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_what_is_written_is_answered() -> None:
    """With β = 1, S k = v after a step, whatever was stored before."""
    cell = cell_of(use_bias=True)
    bias: Any = cell.dense_i.bias
    bias[...] = bias[...].at[-HEADS:].set(100.0)
    carry, x = random_carry(cell), random_inputs()
    state, _ = cell(carry, x)
    _, k, v, _ = cell.read(cell.dense_i(x))
    # A key's norm is 1 to 1e-6/‖SiLU‖².
    np.testing.assert_allclose(jnp.einsum("hvk,hk->hv", state, k), v, atol=1e-4)


def test_inputs_of_zeros_change_nothing_and_have_gradients() -> None:
    cell = cell_of()
    carry = random_carry(cell)
    state, outputs = cell(carry, jnp.zeros(FEATURES))
    np.testing.assert_array_equal(state, carry)
    np.testing.assert_array_equal(outputs, 0)
    gradient = jax.grad(lambda x: jnp.sum(cell(carry, x)[1]))(jnp.zeros(FEATURES))
    assert np.isfinite(gradient).all()


def test_the_start_is_that_of_the_authors_code() -> None:
    cell = DeltaNet(300, 400, rngs=nnx.Rngs(0))
    assert (cell.heads, cell.key_features, cell.dense_i.bias) == (4, 100, None)
    blocks = np.split(np.asarray(cell.dense_i.kernel[...]), [400, 800, 1200], axis=1)
    for block in blocks:
        limit = 2**-2.5 * np.sqrt(6 / sum(block.shape))
        assert np.abs(block).max() <= limit
        assert block.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)


def test_options_that_do_not_fit_are_refused() -> None:
    make: Any = partial(DeltaNet, 2, 6, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="heads must divide the number of outputs, 6; got 4"):
        make()
    with pytest.raises(ValueError, match="key_map must be one of silu, elu; got 'relu'"):
        make(heads=2, key_map="relu")


def test_its_gate_is_the_strength_of_writing() -> None:
    cell = cell_of(negative_eigenvalues=True)
    carry, x = random_carry(cell), random_inputs()
    _, _, _, strengths = parts(cell, np.asarray(x))
    np.testing.assert_allclose(2 * gates(cell, carry, x)["write"], strengths, rtol=1e-5)
    with pytest.raises(TypeError, match="knows no gates of Halved"):
        gates(cell_of(Halved), carry, x)
    before = np.asarray(cell.dense_i.kernel[...])
    set_gate_biases(cell, {"forget": jnp.ones(N)})
    np.testing.assert_array_equal(cell.dense_i.kernel[...], before)


def test_stacks() -> None:
    stack = Stack([cell_of(), cell_of(features=N)])
    x = random_inputs(STEPS, 2)
    start = stack.initialize_carry(x.shape[1:], nnx.Rngs(0))
    _, found = unroll(stack, start, x)
    _, below = by_the_paper(cell_of(), start["layer0"].h[0], np.asarray(x[:, 0]))
    _, expected = by_the_paper(cell_of(features=N), start["layer1"].h[0], below)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)
    measured = jacobian_log_norms(stack, x[:, 0], of="layer1.h", wrt="layer0.h")
    assert np.isfinite(np.asarray(measured)[1, 0])


def test_it_learns_digits_from_its_published_start(composed: Compose) -> None:
    words = ("model=deltanet", "model.hidden_size=16", "task.length=8")
    assert loss_after(composed, 200, *words) < 0.6


def test_with_biases_it_learns_an_echo_and_probes_measure_its_matrix(composed: Compose) -> None:
    config = composed(
        *("model=deltanet", "model.hidden_size=16", "task=echo", "task.length=10", "task.delay=1"),
        *("model.cell.use_bias=true", "optim.learning_rate=0.02", "task.test_size=100"),
        "probe=[spectral,typical,statistics]",
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, telemetry = program.advance(hyperparameters, program.initialise(hyperparameters), 200)
    assert not telemetry.nonfinite.any()
    assert program.evaluate(state)["eval/loss"] < 0.5 * program.task.baseline
    metrics = program.measure(hyperparameters, state).metrics
    assert metrics["jacobian/log_norm/lag_1"] == pytest.approx(0, abs=1e-5)
    assert metrics["jacobian_rms/log_norm/lag_1"] < 0
    assert 0 < metrics["statistics/write_gate/mean"] < 1
