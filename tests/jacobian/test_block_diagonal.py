"""Networks whose state falls into independent parts are found, and their maps are right."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import jacobian_log_norms
from gradlab.jacobian import block_maps, blocks, map_log_norms, step_jacobians
from gradlab.jacobian.blocks import block_log_norms, independent_blocks
from gradlab.jacobian.flat_cell import flatten_cell
from gradlab.jacobian.lengths import resting
from gradlab.jacobian.structure import Moving, dependence
from gradlab.models import Stack

UNITS, FEATURES, LENGTH = 16, 3, 21
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(LENGTH, FEATURES)).astype(np.float32)
W_XH = RNG.normal(size=(FEATURES, UNITS)).astype(np.float32)
WEIGHTS = RNG.normal(size=UNITS).astype(np.float32)
HALF = UNITS // 2

Step = Callable[[Any, Any], tuple[Any, Any]]


def min_gru(h: Any, x: Any) -> tuple[Any, Any]:
    z = jax.nn.sigmoid(x @ W_XH)
    return (1 - z) * h + z * (x @ W_XH), h


def ind_rnn(h: Any, x: Any) -> tuple[Any, Any]:
    return jax.nn.relu(x @ W_XH + WEIGHTS * h), h


def lru(s: Any, x: Any) -> tuple[Any, Any]:
    state = (s["re"] + 1j * s["im"]) * np.exp(-0.1 + 1j * WEIGHTS[:HALF]) + x @ W_XH[:, :HALF]
    return {"re": state.real, "im": state.imag}, state.real


def ind_lstm(s: Any, x: Any) -> tuple[Any, Any]:
    c, h = s["re"], s["im"]
    gate = jax.nn.sigmoid(x @ W_XH[:, :HALF] + WEIGHTS[:HALF] * h)
    c = gate * c + jnp.tanh(WEIGHTS[HALF:] * h + x @ W_XH[:, HALF:])
    return {"re": c, "im": jnp.tanh(c)}, c


def two_networks(order: np.ndarray | None = None) -> Step:
    w_hh = np.zeros((UNITS, UNITS), np.float32)
    w_hh[:HALF, :HALF], w_hh[HALF:, HALF:] = RNG.normal(size=(2, HALF, HALF)) / 2
    if order is not None:
        w_hh = w_hh[np.ix_(order, order)]
    return lambda h, x: (jnp.tanh(w_hh @ h + x @ W_XH), h)


VECTOR, PARTS = jnp.zeros(UNITS), {"re": jnp.ones(HALF), "im": jnp.zeros(HALF)}
NETWORKS: list[tuple[str, Step, Any, list[tuple[int, int]]]] = [
    ("minGRU", min_gru, VECTOR, [(UNITS, 1)]),
    ("IndRNN", ind_rnn, VECTOR, [(UNITS, 1)]),
    ("LRU", lru, PARTS, [(HALF, 2)]),
    ("IndyLSTM", ind_lstm, PARTS, [(HALF, 2)]),
    ("two networks", two_networks(), VECTOR, [(2, HALF)]),
    ("two networks, permuted", two_networks(RNG.permutation(UNITS)), VECTOR, [(2, HALF)]),
]
BY_NAME = {"argnames": "network", "argvalues": NETWORKS, "ids": [name for name, *_ in NETWORKS]}


def multiplied_out(
    jacobians: np.ndarray,
    norm: str,
    of: slice = slice(None),
    wrt: slice = slice(None),
    stride: int = 1,
) -> np.ndarray:
    """Return the log norms of all products in float64, whose range these few steps do not leave."""
    count, logs = len(jacobians) // stride + 1, []
    for k in range(count):
        product, column = np.eye(jacobians.shape[1]), [0.0] * k
        for t in range(k, count):
            block = product[of, wrt]
            size = np.linalg.norm(block, 2 if norm == "spectral" else None)
            column.append(size / (np.sqrt(block.shape[1]) if norm == "rms" else 1))
            for jacobian in jacobians[t * stride : (t + 1) * stride]:
                product = jacobian @ product
        logs.append(column)
    with np.errstate(divide="ignore"):
        return np.log(np.array(logs).T)


def measured_by_blocks(step: Any, start: Any, norm: Any, **options: Any) -> np.ndarray:
    """Return the map, which must not come from the whole Jacobian."""
    flat = flatten_cell(step, INPUTS, start)
    spans = {end: flat.form.span(options.pop(end, None), end) for end in ("of", "wrt")}
    log_norms = block_log_norms(flat, jnp.asarray(INPUTS), norm=norm, **spans, **options)
    assert log_norms is not None
    return np.asarray(log_norms)


@pytest.mark.parametrize(**BY_NAME)
def test_blocks_are_found_and_their_map_is_that_of_whole_products(network: Any) -> None:
    _, step, start, sizes = network
    flat = flatten_cell(step, INPUTS, start)
    pattern = dependence(
        flat.advance, flat.parameters, flat.initial._replace(vector=Moving(UNITS)), INPUTS[0]
    )
    groups = independent_blocks(pattern, (0, UNITS), (0, UNITS))
    assert [group.shape for group in groups] == sizes
    jacobians = np.asarray(step_jacobians(step, INPUTS, initial_carry=start), np.float64)
    for norm in ("spectral", "frobenius", "rms"):
        log_norms = measured_by_blocks(step, start, norm)
        np.testing.assert_allclose(log_norms, multiplied_out(jacobians, norm), atol=1e-5)
        public = jacobian_log_norms(step, INPUTS, initial_carry=start, norm=norm)
        np.testing.assert_array_equal(public, log_norms)


@pytest.mark.parametrize(**{**BY_NAME, "argvalues": NETWORKS[2:4], "ids": ["LRU", "IndyLSTM"]})
@pytest.mark.parametrize(("of", "wrt"), [("re", "im"), ("im", None), (None, "re")])
def test_parts_and_strides_of_blocks_are_those_of_whole_products(
    network: Any, of: Any, wrt: Any
) -> None:
    _, step, start, _ = network
    parts = {"im": slice(0, HALF), "re": slice(HALF, None), None: slice(None)}  # in JAX's order
    jacobians = np.asarray(step_jacobians(step, INPUTS, initial_carry=start), np.float64)
    for norm, stride in (("spectral", 1), ("frobenius", 4), ("rms", LENGTH)):
        log_norms = measured_by_blocks(step, start, norm, of=of, wrt=wrt, stride=stride)
        expected = multiplied_out(jacobians, norm, parts[of], parts[wrt], stride)
        np.testing.assert_allclose(log_norms, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_blocks_in_a_short_type_are_those_of_the_network_as_it_runs(dtype: str) -> None:
    w_xh, weights = jnp.asarray(W_XH, dtype), jnp.asarray(WEIGHTS[:HALF] / 2, dtype)

    def step(s: Any, x: Any) -> tuple[Any, Any]:
        a, b = s["re"], s["im"]
        driven = x.astype(dtype) @ w_xh
        turned = jnp.tanh(weights * b + driven[:HALF])
        return {"re": turned + a / 2, "im": weights * a - jnp.tanh(b + driven[HALF:])}, a

    start = jax.tree.map(lambda x: x.astype(dtype), PARTS)
    jacobians = step_jacobians(step, INPUTS, initial_carry=start)
    assert jacobians.dtype == dtype
    expected = multiplied_out(np.asarray(jacobians, np.float64), "frobenius")
    log_norms = measured_by_blocks(step, start, "frobenius")
    np.testing.assert_allclose(log_norms, expected, atol=1e-5)


def test_a_diagonal_network_has_the_sums_of_its_gates_logarithms() -> None:
    """J⁽ᵗ⁾ = diag(1 − z⁽ᵗ⁾), over more steps than any float holds the product of."""
    inputs = np.random.default_rng(1).normal(size=(1500, FEATURES)).astype(np.float32)
    gates = 1 / (1 + np.exp(2 - inputs.astype(np.float64) @ W_XH))  # 1 − z
    sums = np.cumsum(np.log(gates), axis=0)

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        return jax.nn.sigmoid(x @ W_XH - 2) * h + jnp.tanh(x @ W_XH), h

    for norm in ("spectral", "frobenius"):
        log_norms = np.asarray(jacobian_log_norms(step, inputs, initial_carry=VECTOR, norm=norm))
        for t, k in ((1500, 1), (900, 700), (40, 39), (1400, 10)):
            logs = sums[t - 1] - sums[k - 1]
            squares = np.logaddexp.reduce(2 * logs)
            expected = logs.max() if norm == "spectral" else squares / 2
            assert float(log_norms[t, k]) == pytest.approx(expected, rel=1e-6, abs=1e-5)
        assert log_norms[1500, 1] < -1000


def test_an_exact_zero_ends_a_units_way_and_no_other() -> None:
    def step(h: Any, x: Any) -> tuple[Any, Any]:
        return x * h, h

    gates = np.full((LENGTH, UNITS), 0.5, np.float32)
    gates[:, 0] = 2.0
    gates[9, 0] = 0  # in step 10
    gates[14, 1:] = 0  # in step 15
    for norm in ("spectral", "frobenius"):
        log_norms = np.asarray(jacobian_log_norms(step, gates, initial_carry=VECTOR, norm=norm))
        expected = multiplied_out(np.stack([np.diag(gate) for gate in gates]), norm)
        np.testing.assert_allclose(log_norms, expected, atol=1e-5)
        assert np.isneginf(log_norms[15, 9])
        assert log_norms[20, 14] == pytest.approx(6 * np.log(2))


def test_a_nilpotent_pair_is_zero_after_two_steps() -> None:
    def step(s: Any, x: Any) -> tuple[Any, Any]:
        return {"re": 0 * s["re"], "im": 3 * s["re"]}, x

    log_norms = measured_by_blocks(step, PARTS, "spectral")
    lag = np.subtract.outer(np.arange(LENGTH + 1), np.arange(LENGTH + 1))
    expected = np.select([lag == 0, lag == 1], [0, np.log(3)], -np.inf)
    np.testing.assert_allclose(log_norms, expected, atol=1e-6)
    crossed = measured_by_blocks(step, PARTS, "rms", of="im", wrt="re")
    np.testing.assert_allclose(crossed, np.where(lag == 1, np.log(3), -np.inf), atol=1e-6)


def test_units_of_very_different_size_do_not_hide_each_other() -> None:
    """One unit shrinks by e^90 a step in the first half, the other in the second."""
    logs = np.zeros((40, 2))
    logs[:20, 0] = logs[20:, 1] = -90
    for norm, both in (("spectral", 0.0), ("frobenius", 0.5 * np.log(2))):
        for size in (1, 2):
            matrices = np.exp(logs)[:, :, None, None] * np.eye(2)[:size, :size]
            if size == 2:
                matrices[:, :, 0, 1] = np.exp(logs - 60)  # no complex numbers
            log_norms = block_maps.block_map(
                [matrices], [np.arange(2 * size).reshape(2, size)], 40,
                norm=norm, of=(0, 2 * size), wrt=(0, 2 * size), stride=1,
            )  # fmt: skip
            more = 0.5 * np.log(size) if norm == "frobenius" else 0
            np.testing.assert_allclose(log_norms[40, 0], -1800 + both + more, rtol=1e-6)
            np.testing.assert_allclose(log_norms[39, 0], -1710 + more, rtol=1e-6)


def test_what_mixes_at_one_step_is_measured_as_a_whole() -> None:
    mixing = RNG.normal(size=(UNITS, UNITS)).astype(np.float32)

    def step(h: Any, x: Any) -> tuple[Any, Any]:
        h = jax.lax.cond(x[0] == 7, lambda h: mixing @ h, lambda h: WEIGHTS * h, h)
        return h + x @ W_XH, h

    inputs = INPUTS.copy()
    inputs[-3, 0] = 7
    flat, whole = flatten_cell(step, inputs, VECTOR), (0, UNITS)
    assert block_log_norms(flat, jnp.asarray(inputs), norm="rms", of=whole, wrt=whole) is None
    expected = multiplied_out(
        np.stack([np.diag(WEIGHTS).astype(float)] * 18 + [mixing] + [np.diag(WEIGHTS)] * 2), "rms"
    )
    log_norms = jacobian_log_norms(step, inputs, initial_carry=VECTOR, norm="rms")
    np.testing.assert_allclose(log_norms, expected, atol=1e-4)


def test_a_derivative_of_somebodys_own_counts_and_not_the_function() -> None:
    @jax.custom_jvp
    def halved(h: Any) -> Any:
        return h / 2

    @halved.defjvp
    def _mixing(primals: Any, tangents: Any) -> Any:
        return halved(*primals), jnp.full_like(tangents[0], tangents[0].mean())

    log_norms = jacobian_log_norms(
        lambda h, x: (halved(h), h), INPUTS, initial_carry=VECTOR, norm="frobenius"
    )
    below = np.tril(np.ones((LENGTH + 1, LENGTH + 1), bool), -1)
    np.testing.assert_allclose(log_norms[below], 0, atol=1e-5)  # the projection on the mean


def test_a_step_that_does_not_have_the_blocks_found_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixing = RNG.normal(size=(UNITS, UNITS)).astype(np.float32)
    monkeypatch.setattr(blocks, "dependence", lambda *_: np.eye(UNITS, dtype=bool))
    whole = (0, UNITS)
    for late, refused in ((False, False), (True, True)):
        gain = np.zeros((LENGTH, 1), np.float32)
        gain[-1] = 0.1 * late
        flat = flatten_cell(lambda h, x: (WEIGHTS * h + x * (mixing @ h), h), gain, VECTOR)
        measured = block_log_norms(flat, jnp.asarray(gain), norm="rms", of=whole, wrt=whole)
        assert (measured is None) == refused


def test_the_top_layer_of_a_stack_is_measured_alone() -> None:
    layers = [nnx.GRUCell(FEATURES, 12, rngs=nnx.Rngs(0)), nnx.GRUCell(12, 12, rngs=nnx.Rngs(1))]
    stack = Stack(layers)
    jacobians = np.asarray(step_jacobians(stack, INPUTS), np.float64)
    for part, rows in (("layer0.h", slice(0, 12)), ("layer1.h", slice(12, None))):
        log_norms = measured_by_blocks(stack, None, "rms", of=part, wrt=part)
        expected = multiplied_out(jacobians, "rms", rows, rows)
        np.testing.assert_allclose(log_norms, expected, atol=1e-4)
    log_norms = measured_by_blocks(stack, None, "rms", of="layer0.h", wrt="layer1.h")
    assert np.isneginf(log_norms).all()  # nothing flows down


def test_a_batch_is_certified_and_traced_as_any_other() -> None:
    inputs = np.stack([INPUTS, INPUTS[::-1]])
    starts = jnp.stack([VECTOR, VECTOR + 1])
    step: Step = lambda h, x: ind_rnn(h.reshape(UNITS), x)  # noqa: E731  (of one sample)
    options: dict[str, Any] = {"norm": "frobenius"}
    maps, certificate = jacobian_log_norms(
        step, inputs, initial_carry=starts, certify=True, **options
    )
    assert certificate.largest_error.shape == (2,)
    assert (certificate.largest_error < 1e-5).all()
    assert not certificate.unresolved.any()
    for sample, start, log_norms in zip(inputs, starts, maps, strict=True):
        one = jacobian_log_norms(step, sample, initial_carry=start, **options)
        np.testing.assert_array_equal(one, log_norms)
    traced = jax.jit(lambda x: jacobian_log_norms(step, x, initial_carry=starts[1], **options))(
        inputs[1]
    )
    np.testing.assert_allclose(traced, maps[1], atol=1e-5)
    given = map_log_norms(step_jacobians(ind_rnn, INPUTS, initial_carry=VECTOR), **options)
    np.testing.assert_allclose(given, maps[0], atol=1e-5)


def test_sequences_of_different_lengths_are_measured_by_their_blocks_too() -> None:
    inputs, lengths = np.stack([INPUTS, INPUTS]), np.array([LENGTH, 9])
    inputs[1, 9:] = np.nan
    options: dict[str, Any] = {"initial_carry": VECTOR, "norm": "rms"}
    flat = flatten_cell(min_gru, inputs, VECTOR)
    flat = resting(flat, lengths, jnp.asarray(inputs))
    found = blocks._find(flat, jnp.asarray(inputs), (0, UNITS), (0, UNITS))
    assert found is not None
    maps = np.asarray(jacobian_log_norms(min_gru, inputs, lengths=lengths, **options))
    alone = jacobian_log_norms(min_gru, INPUTS, **options)
    np.testing.assert_allclose(maps[0], alone, atol=1e-5)
    np.testing.assert_allclose(maps[1, :10, :10], alone[:10, :10], atol=1e-5)
    assert np.isnan(maps[1, 10:]).all()


def test_a_state_that_is_not_finite_is_refused_with_its_step() -> None:
    with pytest.raises(FloatingPointError, match="the state is not finite at step 6"):
        jacobian_log_norms(
            lambda h, x: (10 * h**2, h), INPUTS, initial_carry=VECTOR + 1, norm="frobenius"
        )


def test_memory_grows_as_the_number_of_units_and_not_as_its_square() -> None:
    """Of 4,096 units, one whole Jacobian has 4 · 4096² bytes; the engine keeps 12 a step."""
    units, length = 4096, 40
    gates = np.full((length, units), 0.9, np.float32)
    step: Step = lambda h, x: (x * h, h)  # noqa: E731
    flat = flatten_cell(step, gates, jnp.zeros(units))
    found = blocks._find(flat, jnp.asarray(gates), (0, units), (0, units))
    assert found is not None
    tangents = np.zeros((2, units), np.float32)
    program = jax.make_jaxpr(blocks._images)(flat, found[1], gates, tangents)
    assert largest_array(program.jaxpr) <= 2 * length * units
    tracemalloc.start()
    log_norms = jacobian_log_norms(step, gates, initial_carry=jnp.zeros(units))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(log_norms[40, 0], 40 * np.log(0.9), rtol=1e-6)
    assert peak < 4 * units**2  # a pattern of nonzeros, of a byte each, is the largest array
    with pytest.raises(ValueError, match="raise memory_budget, use a stride"):
        jacobian_log_norms(step, gates, initial_carry=jnp.zeros(units), memory_budget=10**6)


def largest_array(jaxpr: Any) -> int:
    """Return the number of elements of the largest array that a program computes."""
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                sizes.append(largest_array(inner))
    return max(sizes, default=0)
