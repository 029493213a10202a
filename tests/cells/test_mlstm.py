"""The mLSTM against its paper's equations without a stabiliser, in float64."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from step_checks import (
    FEATURES,
    STEPS,
    assert_batch_axes_are_free,
    assert_unrolls_as_its_steps,
    in_float64,
    random_carry,
    random_inputs,
    run,
    step_jacobian,
    with_random_weights,
)

from gradlab import jacobian_log_norms
from gradlab.cells import MLSTM, gates, set_gate_biases
from gradlab.theory import of_cells
from gradlab.training.program import Program, hyperparameters_of

N, HEADS = 6, 2
VARIANTS: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "exponential": {"forget_gate": "exponential"},
    "one head": {"heads": 1},
    "without biases": {"heads": 3, "use_bias": False},
}


class Halved(MLSTM):
    def scales(self, log_i: Any, f: Any, carry: Any) -> Any:
        kept, added, m = super().scales(log_i, f, carry)
        return kept / 2, added, m


def cell_of(kind: type[MLSTM] = MLSTM, scale: float = 0.7, **options: Any) -> MLSTM:
    cell: MLSTM = kind(FEATURES, N, rngs=nnx.Rngs(0), **{"heads": HEADS} | options)
    return with_random_weights(cell, scale) if scale else cell  # type: ignore[no-any-return]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def read(cell: MLSTM, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return q, k, v and o of each step, (T, heads, d), ln i and ln f, by equations 22 to 27.

    b_k is divided by √d as well.
    """
    bias = cell.dense_i.bias
    net = np.asarray(x, float) @ np.asarray(cell.dense_i.kernel[...], float)
    net = net if bias is None else net + np.asarray(bias[...], float)
    q, k, v, o, log_i, f = np.split(net, [N, 2 * N, 3 * N, 4 * N, 4 * N + cell.heads], axis=-1)
    d = N // cell.heads
    vectors = [part.reshape(len(x), cell.heads, d) for part in (q, k / np.sqrt(d), v, sigmoid(o))]
    return vectors, log_i, f if cell.forget_gate == "exponential" else -np.logaddexp(0, -f)


def by_the_paper(cell: MLSTM, x: np.ndarray) -> np.ndarray:
    """Return the output of every step from zeros by equations 19 to 21, head after head."""
    (q, k, v, o), log_i, log_f = read(cell, x)
    outputs = np.zeros_like(q)
    for head in range(cell.heads):
        c, n = np.zeros((q.shape[-1], q.shape[-1])), np.zeros(q.shape[-1])
        for t in range(len(x)):
            i, f = np.exp(log_i[t, head]), np.exp(log_f[t, head])
            c = f * c + i * np.outer(v[t, head], k[t, head])
            n = f * n + i * k[t, head]
            size = max(abs(n @ q[t, head]), 1.0)
            outputs[t, head] = o[t, head] * (c @ q[t, head]) / size
    return outputs.reshape(len(x), N)


def all_at_once(cell: MLSTM, x: np.ndarray) -> np.ndarray:
    """Return the same by the parallel form of appendix A.3, which nothing overflows."""
    (q, k, v, o), log_i, log_f = read(cell, x)
    since, outputs = np.cumsum(log_f, axis=0), np.zeros_like(q)
    for t in range(len(x)):
        logs = log_i[: t + 1] + since[t] - since[: t + 1]
        largest = logs.max(axis=0)
        weights = np.exp(logs - largest) * np.einsum("jhd,hd->jh", k[: t + 1], q[t])
        floor = np.exp(np.minimum(-largest, 600))
        size = np.maximum(np.abs(weights.sum(axis=0)), floor)
        read_out = np.einsum("jh,jhd->hd", weights, v[: t + 1])
        outputs[t] = o[t] * read_out / size[:, None]
    return outputs.reshape(len(x), N)


def from_zeros(cell: MLSTM, x: Any) -> Any:
    return run(cell, cell.initialize_carry(x.shape[1:]), jnp.asarray(x))


@pytest.mark.parametrize("stabilise", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_are_those_of_the_paper_with_and_without_the_stabiliser(
    name: str, stabilise: bool
) -> None:
    cell = cell_of(stabilise=stabilise, **VARIANTS[name])
    x = np.asarray(random_inputs(12))
    expected = by_the_paper(cell, x)
    np.testing.assert_allclose(from_zeros(cell, x)[1], expected, atol=1e-5)
    np.testing.assert_allclose(all_at_once(cell, x), expected, atol=1e-12)


@pytest.mark.parametrize("scale", [30.0, 300.0])
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_gates_beyond_the_range_of_float32_overflow_nothing(scale: float, forget_gate: str) -> None:
    cell = cell_of(forget_gate=forget_gate)
    kernel: Any = cell.dense_i.kernel
    kernel[...] = kernel[...].at[:, 4 * N :].multiply(scale)
    x = random_inputs(STEPS)
    expected = all_at_once(cell, np.asarray(x))

    def outputs(x: Any) -> Any:
        start = cell.initialize_carry((FEATURES,))
        return jax.lax.scan(lambda carry, now: cell(carry, now), start, x)[1]

    found, pull = jax.vjp(outputs, x)
    np.testing.assert_allclose(found, expected, atol=2e-5 * scale)
    assert np.isfinite(pull(jnp.ones_like(found))[0]).all()


def test_any_leading_axes() -> None:
    assert_batch_axes_are_free(cell_of())


def test_reading_all_inputs_first_changes_nothing() -> None:
    assert_unrolls_as_its_steps(cell_of())


def test_m_changes_no_gradient_of_a_loss() -> None:
    gradients = []
    with jax.enable_x64(True):
        x = random_inputs(STEPS, dtype=jnp.float64)
        for stabilise in (True, False):
            cell = in_float64(cell_of(stabilise=stabilise))
            loss = nnx.grad(lambda cell: jnp.sum(jnp.sin(_scanned(cell, x))))
            gradients.append(jax.tree.leaves(loss(cell)))
    for found, expected in zip(*gradients, strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def _scanned(cell: MLSTM, x: Any) -> Any:
    start = jax.tree.map(lambda s: s.astype(x.dtype), cell.initialize_carry((FEATURES,)))
    return jax.lax.scan(lambda carry, now: cell(carry, now), start, x)[1]


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_the_step_jacobian_is_f_and_that_of_finite_differences(forget_gate: str) -> None:
    with jax.enable_x64(True):
        cell = in_float64(cell_of(forget_gate=forget_gate, stabilise=False))
        x = random_inputs(1, dtype=jnp.float64)
        found = step_jacobian(cell, random_carry(cell, dtype=jnp.float64), x[0])
        f = np.exp(read(cell, np.asarray(x))[2][0])
    d = N // HEADS
    diagonal = np.concatenate([np.repeat(f, d * d), np.repeat(f, d)])
    np.testing.assert_allclose(found, np.diag(diagonal), atol=1e-12)


def test_maps_of_the_memory_are_products_of_f_and_the_scale_of_m() -> None:
    x = random_inputs(STEPS)
    log_f = read(cell_of(), np.asarray(x))[2]
    plain = np.asarray(jacobian_log_norms(cell_of(stabilise=False), x, of="h", wrt="h"))
    np.testing.assert_allclose(plain, of_cells.diagonal_log_norms(log_f), atol=2e-5)
    cell = cell_of()
    carry, scales = cell.initialize_carry((FEATURES,)), []
    for now in [None, *x]:
        carry = carry if now is None else cell(carry, now)[0]
        scales.append(np.asarray(carry.m))
    of_m = np.diff(scales, axis=0)
    stabilised = np.asarray(jacobian_log_norms(cell, x, of="h.c", wrt="h.c"))
    np.testing.assert_allclose(stabilised, of_cells.diagonal_log_norms(log_f - of_m), atol=2e-5)
    held = np.asarray(jacobian_log_norms(cell, x, of="h", wrt="m"))
    assert (held == -np.inf).all()


def test_the_start_is_that_of_the_authors_code() -> None:
    cell = MLSTM(400, 32, rngs=nnx.Rngs(0))
    assert cell.heads == 4
    kernel, bias = (np.asarray(w[...]) for w in (cell.dense_i.kernel, cell.dense_i.bias))
    assert kernel[:, :128].std() == pytest.approx(np.sqrt(2 / (5 * 400)), rel=0.02)
    np.testing.assert_array_equal(kernel[:, 128:], 0)
    np.testing.assert_array_equal(bias[:128], 0)
    np.testing.assert_allclose(bias[132:], [3, 4, 5, 6])
    many = np.asarray(MLSTM(1, 4000, heads=4000, rngs=nnx.Rngs(0)).dense_i.bias[...])
    assert many[16000:20000].std() == pytest.approx(0.1, rel=0.05)
    assert many[16000:20000].mean() == pytest.approx(0, abs=0.01)


def test_its_gates_are_those_of_its_heads_and_of_its_output() -> None:
    cell, x = cell_of(), random_inputs(1)
    carry = random_carry(cell)
    (_, _, _, o), _, log_f = read(cell, np.asarray(x))
    found = gates(cell, carry, x[0])
    np.testing.assert_allclose(found["forget"], np.exp(log_f[0]), rtol=1e-5)
    np.testing.assert_allclose(found["output"], o[0].ravel(), rtol=1e-5)
    assert list(gates(cell_of(forget_gate="exponential"), carry, x[0])) == ["output"]
    with pytest.raises(TypeError, match="knows no gates of Halved"):
        gates(cell_of(Halved), carry, x[0])
    with pytest.raises(ValueError, match="MLSTM has a step of its own: take bias=zero"):
        set_gate_biases(cell, {"forget": jnp.ones(N)})


def test_options_that_do_not_fit_are_refused() -> None:
    make: Any = partial(MLSTM, 2, 6, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="heads must divide the number of units, 6; got 4"):
        make()
    with pytest.raises(
        ValueError, match="forget_gate must be one of sigmoid, exponential; got 'other'"
    ):
        make(heads=2, forget_gate="other")


def test_it_learns_an_echo_from_its_published_start(composed: Compose) -> None:
    config = composed(
        *("model=mlstm", "model.hidden_size=16", "task=echo", "task.length=10", "task.delay=1"),
        *("optim.learning_rate=0.02", "task.test_size=100", "probe=[spectral,statistics]"),
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, telemetry = program.advance(hyperparameters, program.initialise(hyperparameters), 200)
    assert not telemetry.nonfinite.any()
    assert program.evaluate(state)["eval/loss"] < 0.7 * program.task.baseline
    metrics = program.measure(hyperparameters, state).metrics
    assert np.isfinite(metrics["jacobian/log_norm/lag_1"])
    assert metrics["statistics/h.c/norm"] > 0
