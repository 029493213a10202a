"""The sLSTM against its paper's equations without a stabiliser, in float64."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx

from gradlab import jacobian_log_norms
from gradlab.cells import SLSTM, gates, set_gate_biases
from gradlab.cells.affine import affine_form
from gradlab.cells.recurrence import step_by_step, unroll
from gradlab.cells.slstm import Carry
from gradlab.models import by_gate
from gradlab.training.program import Program, hyperparameters_of

# Float64 values in float32 weights, which a later JAX refuses.
pytestmark = pytest.mark.filterwarnings("error:scatter inputs:FutureWarning")
FEATURES, HIDDEN, HEADS, BATCH, STEPS = 3, 6, 2, 2, 9
VARIANTS: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "exponential": {"forget_gate": "exponential"},
    "one head": {"heads": 1},
    "without biases": {"heads": 3, "use_bias": False},
}


class Halved(SLSTM):
    def update(self, blocks: Any, carry: Any) -> Any:
        return jax.tree.map(lambda x: x / 2, super().update(blocks, carry))


def cell_of(kind: type[SLSTM] = SLSTM, noise: float = 0.7, **options: Any) -> SLSTM:
    cell = kind(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **{"heads": HEADS} | options)
    draw = np.random.default_rng(1)
    state = nnx.state(cell, nnx.Param)
    nnx.update(
        cell, jax.tree.map(lambda x: x + (noise * draw.normal(size=x.shape)).astype("f4"), state)
    )
    return cell


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def recurrent_weights(cell: SLSTM) -> np.ndarray:
    """Return R as [gate, head, from, to] in float64."""
    kernel = np.asarray(cell.recurrent_kernel[...], np.float64)
    size = len(kernel)
    return kernel.reshape(size, 4, cell.heads, size).transpose(1, 2, 0, 3)


def by_the_paper(cell: SLSTM, x: np.ndarray) -> np.ndarray:
    """Return h at every step by equations 8 to 14, head after head."""
    w, r = np.asarray(cell.dense_i.kernel[...], np.float64), recurrent_weights(cell)
    bias = cell.dense_i.bias
    b = np.zeros(w.shape[1]) if bias is None else np.asarray(bias[...], np.float64)
    size = HIDDEN // cell.heads
    c, n, h, outputs = np.zeros(HIDDEN), np.zeros(HIDDEN), np.zeros(HIDDEN), []
    for now in x:
        from_x = (now @ w + b).reshape(4, cell.heads, size)
        before = h.reshape(cell.heads, size)
        nets = np.stack(
            [
                np.concatenate([from_x[g, k] + before[k] @ r[g, k] for k in range(cell.heads)])
                for g in range(4)
            ]
        )
        i, z, o = np.exp(nets[0]), np.tanh(nets[2]), sigmoid(nets[3])
        f = np.exp(nets[1]) if cell.forget_gate == "exponential" else sigmoid(nets[1])
        c, n = f * c + i * z, f * n + i
        h = o * c / n
        outputs.append(h)
    return np.stack(outputs)


def run(cell: SLSTM, x: Any) -> jax.Array:
    start = cell.initialize_carry(x.shape[1:])
    return jax.lax.scan(lambda carry, now: cell(carry, now), start, jnp.asarray(x))[1]


@pytest.mark.parametrize("stabilise", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_are_those_of_the_paper_with_and_without_the_stabiliser(
    name: str, stabilise: bool
) -> None:
    cell = cell_of(stabilise=stabilise, **VARIANTS[name])
    x = inputs(STEPS, FEATURES)
    np.testing.assert_allclose(run(cell, x), by_the_paper(cell, x), atol=1e-5)
    batch = inputs(STEPS, 2, 3, FEATURES)
    expected = by_the_paper(cell, batch[:, 1, 2])
    np.testing.assert_allclose(run(cell, batch)[:, 1, 2], expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_gates_beyond_the_range_of_float32_change_nothing(scale: float, forget_gate: str) -> None:
    """c/n is the mean of z with the weights i Π f, a softmax over time of ln i + Σ ln f."""
    cell = cell_of(noise=0, forget_gate=forget_gate, forget_bias="zero")  # R = 0
    x = scale * inputs(STEPS, FEATURES)
    log_i, raw_f, z, o = np.split(x @ np.asarray(cell.dense_i.kernel[...], np.float64), 4, axis=1)
    log_f = raw_f if forget_gate == "exponential" else -np.logaddexp(0, -raw_f)
    since = np.cumsum(log_f, axis=0)
    expected = []
    for t in range(STEPS):
        logs = log_i[: t + 1] + since[t] - since[: t + 1]
        weights = np.exp(logs - logs.max(axis=0))
        mean = (weights * np.tanh(z[: t + 1])).sum(axis=0) / weights.sum(axis=0)
        expected.append(np.exp(-np.logaddexp(0, -o[t])) * mean)
    found, pull = jax.vjp(lambda x: run(cell, x), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=2e-5 * scale)
    assert np.isfinite(pull(jnp.ones_like(found))[0]).all()


def in_float64(cell: SLSTM) -> SLSTM:
    nnx.update(cell, jax.tree.map(lambda x: x.astype(jnp.float64), nnx.state(cell, nnx.Param)))
    return cell


def reached(cell: SLSTM, x: np.ndarray) -> Carry:
    """Return the carry after the inputs, from 0."""
    carry = cell.initialize_carry((FEATURES,))
    for now in jnp.asarray(x):
        carry, _ = cell(carry, now)
    return carry


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_the_step_jacobian_of_all_four_parts_is_that_of_finite_differences(
    forget_gate: str,
) -> None:
    with jax.enable_x64(True):
        cell = in_float64(cell_of(forget_gate=forget_gate))
        x = inputs(4, FEATURES)
        start = jnp.concatenate(reached(cell, x[:-1]))

        def step(s: Any) -> Any:
            return jnp.concatenate(cell(Carry(*jnp.split(s, 4)), jnp.asarray(x[-1]))[0])

        jacobian = np.asarray(jax.jacobian(step)(start))
        numeric = [
            np.asarray(step(start + change) - step(start - change)) / 2e-5
            for change in 1e-5 * np.eye(4 * HIDDEN)
        ]
        np.testing.assert_allclose(jacobian, np.transpose(numeric), rtol=1e-6, atol=1e-7)


def test_each_unit_has_a_direction_that_no_output_sees() -> None:
    """A step takes (c, n, −1) of (c, n, m) to that of the new state, or to 0 where i sets m."""
    kept = []
    with jax.enable_x64(True):
        cell = in_float64(cell_of())
        before = cell.initialize_carry((FEATURES,))
        for x in jnp.asarray(inputs(STEPS, FEATURES)):
            after, _ = cell(before, x)
            unseen = Carry(before.c, before.n, -jnp.ones(HIDDEN), jnp.zeros(HIDDEN))
            _, moved = jax.jvp(lambda s, x=x: cell(s, x)[0], (before,), (unseen,))
            kept.append(np.asarray(after.m > cell.preactivations(before, x)[0]))
            np.testing.assert_allclose(moved.c, after.c * kept[-1], atol=1e-12)
            np.testing.assert_allclose(moved.n, after.n * kept[-1], atol=1e-12)
            np.testing.assert_allclose(moved.m, -1.0 * kept[-1], atol=1e-12)
            np.testing.assert_allclose(moved.h, 0, atol=1e-12)
            before = after
    assert 0 < np.mean(kept) < 1


HELD: dict[str, dict[str, Any]] = {
    "differentiated": {},
    "held": {"differentiate_m": False},
    "absent": {"stabilise": False},
}


def test_m_changes_no_jacobian_of_h_and_no_gradient_of_a_loss() -> None:
    maps, gradients = {}, {}
    with jax.enable_x64(True):
        x = jnp.asarray(inputs(STEPS, FEATURES))
        for name, options in HELD.items():
            cell = in_float64(cell_of(**options))
            maps[name] = np.asarray(jacobian_log_norms(cell, x, of="h", wrt="h", norm="frobenius"))
            gradient = nnx.grad(lambda cell: jnp.sum(jnp.sin(run(cell, x))))(cell)
            gradients[name] = jax.tree.leaves(gradient)
    assert np.isfinite(maps["held"][STEPS, 0])
    for name in ("held", "absent"):
        np.testing.assert_allclose(maps[name], maps["differentiated"], atol=1e-5)
        for found, expected in zip(gradients[name], gradients["differentiated"], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_derivatives_of_c_have_the_scale_of_m() -> None:
    """With R = 0, ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ is Π f for each unit; the stabiliser adds m⁽ᵏ⁾ − m⁽ᵗ⁾ to its log."""
    x = inputs(STEPS, FEATURES)
    options: dict[str, Any] = {"noise": 0, "forget_bias": "linear"}
    cell = cell_of(differentiate_m=False, **options)
    nets = x @ np.asarray(cell.dense_i.kernel[...], np.float64) + np.asarray(cell.dense_i.bias[...])
    since = np.concatenate(
        [np.zeros((1, HIDDEN)), np.cumsum(np.log(sigmoid(nets[:, HIDDEN : 2 * HIDDEN])), axis=0)]
    )
    scale = np.stack([np.asarray(reached(cell, x[:t]).m) for t in range(STEPS + 1)])
    of_c = {"of": "c", "wrt": "c", "norm": "frobenius"}
    for logs, own in ((since - scale, cell), (since, cell_of(stabilise=False, **options))):
        measured = np.asarray(jacobian_log_norms(own, jnp.asarray(x, jnp.float32), **of_c))  # type: ignore[arg-type]
        for t in range(STEPS + 1):
            for k in range(t + 1):
                expected = 0.5 * np.log(np.sum(np.exp(2 * (logs[t] - logs[k]))))
                assert measured[t, k] == pytest.approx(expected, abs=2e-4)


def with_gradients(run_cell: Any, cell: SLSTM, rule: Any = None) -> Any:
    definition, weights = nnx.split(cell)

    def apply(weights: Any, carry: Any, x: Any) -> Any:
        return run_cell(nnx.merge(definition, weights), carry, x, rule)

    def differentiated(carry: Any, x: Any) -> Any:
        values, pull = jax.vjp(apply, weights, carry, x)
        return values, pull(jax.tree.map(lambda y: jnp.cos(3 * y + 1), values))

    return jax.jit(differentiated)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_fast_path_is_the_plain_scan_forward_and_backward(name: str) -> None:
    with jax.enable_x64(True):
        cell = in_float64(cell_of(**VARIANTS[name]))
        assert affine_form(cell) is not None
        x = jnp.asarray(inputs(STEPS, BATCH, FEATURES))
        carry = cell.initialize_carry((BATCH, FEATURES))
        rule = partial(jax.tree.map, jnp.tanh) if name == "sigmoid" else None
        fast, plain = (
            with_gradients(run_cell, cell, rule)(carry, x) for run_cell in (unroll, step_by_step)
        )
        assert jax.tree.structure(fast) == jax.tree.structure(plain)
        for found, expected in zip(*map(jax.tree.leaves, (fast, plain)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def test_a_step_or_a_layer_of_another_kind_has_no_fast_path() -> None:
    assert affine_form(cell_of(Halved)) is None
    own: Any = cell_of()
    object.__setattr__(own, "update", Halved.update.__get__(cell_of(Halved)))
    assert affine_form(own) is None
    changed: Any = cell_of()
    changed.dense_i = nnx.LoRALinear(FEATURES, 4 * HIDDEN, lora_rank=1, rngs=nnx.Rngs(0))
    assert affine_form(changed) is None
    narrow: Any = cell_of()
    narrow.dense_i = nnx.Linear(FEATURES, 1, rngs=nnx.Rngs(0))
    assert affine_form(narrow) is None
    own: Any = cell_of()
    own.update = lambda blocks, carry: carry
    assert affine_form(own) is None


def test_the_start_is_that_of_the_authors_code() -> None:
    cell = SLSTM(400, 32, rngs=nnx.Rngs(0))
    assert cell.heads == 4
    np.testing.assert_array_equal(cell.recurrent_kernel[...], 0)
    kernel, bias = (np.asarray(w[...]) for w in (cell.dense_i.kernel, cell.dense_i.bias))
    assert kernel.std() == pytest.approx(np.sqrt(2 / (5 * 400)), rel=0.02)
    expected = [5 - 12 * (unit / 7) ** 0.3 for unit in range(8)]
    by_head = bias.reshape(4, 4, 8)
    np.testing.assert_allclose(by_head[1], [expected] * 4, atol=1e-5)
    assert expected[0] == 5
    assert expected[-1] == -7
    np.testing.assert_array_equal(by_head[[0, 2, 3]], 0)
    last = SLSTM(2, 3, heads=1, depth=1.0, rngs=nnx.Rngs(0)).dense_i.bias
    np.testing.assert_allclose(last[3:6], [5, 5 - 12 * 0.5**1.6, -7], atol=1e-5)
    linear = SLSTM(2, 4, heads=2, forget_bias="linear", rngs=nnx.Rngs(0)).dense_i.bias
    np.testing.assert_allclose(linear[4:8], [3, 6, 3, 6])
    single = SLSTM(2, 2, heads=2, rngs=nnx.Rngs(0)).dense_i.bias
    np.testing.assert_array_equal(single[2:4], 5)


def test_recurrent_weights_start_within_heads() -> None:
    eye = by_gate(lambda key, n: jnp.eye(n))
    make = partial(SLSTM, FEATURES, HIDDEN, heads=HEADS, rngs=nnx.Rngs(0))
    cell = make(recurrent_start="init", recurrent_kernel_init=eye)
    np.testing.assert_array_equal(cell.recurrent_matrix(), np.tile(np.eye(HIDDEN), 4))
    cell = make(recurrent_start="uniform")
    matrix = np.asarray(cell.recurrent_matrix()).reshape(HEADS, 3, 4, HEADS, 3)
    assert np.abs(matrix).max() <= HIDDEN**-0.5
    for head in range(HEADS):
        assert (matrix[head, :, :, head] != 0).all()
        assert (matrix[head, :, :, 1 - head] == 0).all()


def test_gates_are_the_shares_of_old_and_new_in_the_mean_and_do_not_depend_on_m() -> None:
    x = inputs(STEPS, FEATURES)
    found = {}
    for stabilise in (True, False):
        cell = cell_of(stabilise=stabilise)
        before = reached(cell, jnp.asarray(x[:-1], jnp.float32))
        now = jnp.asarray(x[-1], jnp.float32)
        found[stabilise] = gates(cell, before, now)
        z = np.tanh(cell.preactivations(before, now)[2])
        kept, added = found[stabilise]["forget"], found[stabilise]["input"]
        np.testing.assert_allclose(kept + added, 1, atol=1e-6)
        after, _ = cell(before, now)
        mean = kept * before.c / before.n + added * z
        np.testing.assert_allclose(after.c / after.n, mean, atol=1e-5)
        np.testing.assert_allclose(after.h, found[stabilise]["output"] * mean, atol=1e-5)
    for name, values in found[True].items():
        assert ((values >= 0) & (values <= 1)).all()
        np.testing.assert_allclose(values, found[False][name], atol=1e-5)
    for kind in (Halved, type("Own", (SLSTM,), {"__call__": lambda *_: None})):
        with pytest.raises(TypeError, match=f"knows no gates of {kind.__name__}"):
            gates(cell_of(kind), before, now)


def test_rules_set_the_biases_of_its_gates() -> None:
    cell = cell_of(noise=0)
    set_gate_biases(cell, {"forget": jnp.full(HIDDEN, 2.0), "input": jnp.full(HIDDEN, -1.0)})
    expected = np.repeat([-1, 2, 0, 0], HIDDEN)
    np.testing.assert_array_equal(cell.dense_i.bias[...], expected)


def test_options_that_do_not_fit_are_refused() -> None:
    make: Any = partial(SLSTM, 2, 6, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="heads must divide the number of units, 6; got 4"):
        make()
    for option in ("forget_gate", "forget_bias", "recurrent_start"):
        with pytest.raises(ValueError, match=f"{option} must be one of .*; got 'other'"):
            make(heads=2, **{option: "other"})


@pytest.mark.parametrize("words", [(), ("model.cell.forget_gate=exponential",)])
def test_it_learns_an_echo_from_its_published_start(
    words: tuple[str, ...], composed: Compose
) -> None:
    config = composed(
        *("model=slstm", "model.hidden_size=16", "task=echo", "task.length=10", "task.delay=1"),
        *("optim.learning_rate=0.02", "task.test_size=100", *words),
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, telemetry = program.advance(hyperparameters, program.initialise(hyperparameters), 400)
    assert not telemetry.nonfinite.any()
    assert program.evaluate(state)["eval/loss"] < 0.7 * program.task.baseline
