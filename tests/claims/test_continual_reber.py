"""Online learning on streams of Reber strings: its gradient, its protocol, its grammar."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from gradlab.studies import continual_reber, continual_streams, online_lstm
from gradlab.studies.continual_streams import Algorithm, Limits
from gradlab.studies.online_lstm import Weights
from gradlab.tasks.reber import SYMBOLS
from gradlab.tasks.reber import continual_reber as task

ONE_HOT = np.eye(7)


def unrolled_loss(weights: Weights, symbols: Array, targets: Array) -> Array:
    """Sum ½ error² over a stream; what is read of earlier outputs passes no gradient back."""
    c, y, loss = jnp.zeros(8), jnp.zeros(8), 0.0
    for symbol, target in zip(symbols, targets, strict=True):
        sources = jnp.concatenate([symbol, jax.lax.stop_gradient(y), jnp.ones(1)])
        of_blocks = [weights.input_gate, weights.output_gate, weights.forget_gate]
        gates = [
            1 if w is None else jnp.repeat(1 / (1 + jnp.exp(-w @ sources)), 2) for w in of_blocks
        ]
        g = 2 * jnp.tanh(weights.cell @ sources[:-1] / 2)  # 4σ(x) − 2
        c = gates[2] * c + gates[0] * g
        y = gates[1] * jnp.tanh(c / 2)  # 2σ(x) − 1
        read = jnp.concatenate([symbol, y, jnp.ones(1)])
        output = 1 / (1 + jnp.exp(-weights.output @ read))
        loss += jnp.sum((target - output) ** 2) / 2
    return loss


@pytest.mark.parametrize(("has_forget_gate", "count"), [(True, 424), (False, 360)])
def test_the_descent_of_all_steps_is_the_truncated_gradient(
    has_forget_gate: bool, count: int
) -> None:
    with jax.enable_x64():
        weights = online_lstm.initial_weights(jax.random.key(3), has_forget_gate)
        assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == count
        weights = jax.tree.map(lambda x: jnp.asarray(4 * x, jnp.float64), weights)
        rng = np.random.default_rng(0)
        symbols = jnp.asarray(ONE_HOT[rng.integers(0, 7, 30)])
        targets = jnp.asarray(rng.integers(0, 2, (30, 7)), jnp.float64)
        state = online_lstm.initial_state(has_forget_gate)
        state = jax.tree.map(lambda x: x.astype(jnp.float64), state)
        total = jax.tree.map(jnp.zeros_like, weights)
        for symbol, target in zip(symbols, targets, strict=True):
            state, _, descent = online_lstm.step(weights, state, symbol, target)
            total = jax.tree.map(jnp.add, total, descent)
        expected = jax.grad(unrolled_loss)(weights, symbols, targets)
        for ours, theirs in zip(jax.tree.leaves(total), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, -theirs, rtol=1e-10, atol=1e-13)


def test_what_may_follow_is_what_follows() -> None:
    stream = np.asarray(task(length=20_000, test_size=1).test.inputs[0]).argmax(axis=1)
    followers: dict[tuple[int, ...], list[int]] = {}
    prefix: tuple[int, ...] = ()
    for symbol, after in pairwise(stream.tolist()):
        prefix = (*prefix, symbol)
        followers.setdefault(prefix, []).append(after)
        if prefix[-1] == SYMBOLS.index("E") and len(prefix) > 2 and after == SYMBOLS.index("B"):
            prefix = ()  # a string has ended: E is followed by B nowhere else
    often = {string: seen for string, seen in followers.items() if len(seen) >= 30}
    assert len(often) > 50
    for string, seen in often.items():
        node = 0
        for symbol in string:
            branch = continual_streams.EMITTED[node].tolist().index(symbol)
            node = continual_streams.FOLLOWING[node, branch]
        assert set(np.flatnonzero(continual_streams.LEGAL[node])) == set(seen), string


def played(algorithm: Algorithm, limits: Limits, key: Array, branches: np.ndarray) -> list[int]:
    """Play one network's streams in a loop of Python; return phase, streams and symbols."""
    follow = jax.jit(partial(continual_streams._follow, algorithm))
    start = continual_streams._stream(algorithm)
    weights = online_lstm.initial_weights(key, algorithm.has_forget_gate)
    stream, is_test, streams = start, False, 0
    for count, branch in enumerate(branches, 1):
        stream, error, descent = follow(weights, stream, branch)
        if not is_test:
            rate = 0.5 * algorithm.decay ** (int(stream.length) - 1)
            weights = jax.tree.map(lambda w, d, rate=rate: w + rate * d, weights, descent)
        is_wrong = float(np.abs(error).max()) >= 0.49
        if not is_wrong and int(stream.length) < limits.whole:
            continue
        if is_test and not is_wrong:
            return [continual_streams.PASSED, streams, count]
        streams += not is_test
        if is_test and (streams >= limits.streams or count >= limits.symbols):
            return [continual_streams.GIVEN_UP, streams, count]
        stream, is_test = start, not is_test
    return [int(is_test), streams, len(branches)]


@pytest.mark.parametrize(
    ("algorithm", "limits"),
    [
        (Algorithm(True, decay=0.99), Limits(10_000, 10_000, 9)),
        (Algorithm(False, is_reset=True), Limits(60, 10_000, 1000)),
        (Algorithm(False), Limits(10_000, 500, 1000)),
    ],
)
def test_streams_and_tests_take_turns(
    algorithm: Algorithm, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continual_streams, "CHUNK", 1500)
    keys, walk = jax.random.split(jax.random.key(1), 3), jax.random.key(2)
    start = partial(continual_streams._start, algorithm)
    networks = jax.vmap(start, out_axes=-1)(keys)
    advanced = continual_streams._advance.__wrapped__(algorithm, limits, networks, walk)
    ours = np.stack([advanced.phase, advanced.streams, advanced.symbols], axis=1)
    branches = np.asarray(continual_streams._branches(walk, 1500, 3))
    expected = [played(algorithm, limits, keys[i], branches[:, i]) for i in range(3)]
    assert ours.tolist() == expected


def test_a_reset_network_does_not_know_the_string_before() -> None:
    key = jax.random.key(0)
    for is_reset in (True, False):
        algorithm = Algorithm(False, is_reset=is_reset)
        weights = online_lstm.initial_weights(key, False)
        states, begins = continual_streams.cell_states(algorithm, weights, key, 400)
        first = np.asarray(states)[np.asarray(begins)]
        assert len(first) > 20
        assert (np.ptp(first, axis=0).max() == 0) == is_reset


def test_the_table_and_the_tests_of_whole_streams() -> None:
    table = continual_reber.measure(seeds=1, streams=3000, symbols=30_000, whole=3)
    networks = table[table["part"] == "network"]
    assert list(networks["row"]) == list(continual_reber.ROWS)
    assert set(networks["perfect"]) == {1}  # three symbols are soon predicted
    assert (networks["streams"] < 3000).all()
    assert len(table[table["part"] == "state"]) == 4 * 8 * continual_reber.DRAWN
