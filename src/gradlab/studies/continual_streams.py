"""Training on streams of embedded Reber strings until ten whole test streams are predicted.

Gers, Schmidhuber & Cummins 2000, section 4: a training stream and a test take turns. A stream ends
at the first wrong prediction and the next one begins from a state of zeros; in training every
symbol changes the weights, that of the wrong prediction too. Networks are the last axis of arrays.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from gradlab.studies.online_lstm import State, Weights, initial_state, initial_weights, step
from gradlab.tasks.reber import SYMBOLS, embedded_grammar

RATE = 0.5  # the learning rate as a training stream begins
TOLERANCE = 0.49  # a prediction is wrong if the error of any output is no less
TEST_STREAMS = 10
CHUNK = 20_000  # symbols between looks at who is done
TRAINING, TESTING, PASSED, PERFECT, GIVEN_UP = range(5)  # passed: the first of the test streams

EMITTED, FOLLOWING, _ = embedded_grammar()
ONE_HOT = np.eye(len(SYMBOLS), dtype=np.float32)
LEGAL = ONE_HOT[EMITTED].max(axis=1)  # of each node, 1 for every symbol that it may emit


class Algorithm(NamedTuple):
    """The way in which a network is built and trained.

    Attributes:
        has_forget_gate: else it is the LSTM of 1997.
        is_reset: whether its state is set to 0 before each string, from outside.
        decay: factor of the learning rate at each symbol of a stream.
    """

    has_forget_gate: bool
    is_reset: bool = False
    decay: float = 1.0


class Limits(NamedTuple):
    """When a network is given up, looked at after each test, and how long a whole stream is.

    Attributes:
        streams: the most training streams.
        symbols: the most symbols of training and test streams together.
        whole: symbols of a whole stream.
    """

    streams: int
    symbols: int
    whole: int


class Stream(NamedTuple):
    """A network's place in a stream: its state, the grammar's node, how many symbols it read."""

    state: State
    node: Int[Array, ""]
    length: Int[Array, ""]


class Network(NamedTuple):
    """A network in training; `streams` counts training streams, `symbols` those of all streams."""

    weights: Weights
    stream: Stream
    phase: Int[Array, ""]
    streams: Int[Array, ""]
    symbols: Int[Array, ""]


def train(algorithm: Algorithm, limits: Limits, seeds: int) -> Network:
    """Train networks side by side until each predicts ten whole test streams or is given up.

    Args:
        algorithm: how they are built and trained.
        limits: when one is given up.
        seeds: number of networks.

    Returns:
        The networks in the end, each in the phase `PERFECT` or `GIVEN_UP`.
    """
    draw, walk, test = jax.random.split(jax.random.key(0), 3)
    start = partial(_start, algorithm)
    networks = jax.vmap(start, out_axes=-1)(jax.random.split(draw, seeds))
    left, ended, looks = np.arange(seeds), {}, 0
    while len(left):
        networks = _advance(algorithm, limits, networks, jax.random.fold_in(walk, looks))
        looks += 1
        if 2 * np.sum(np.asarray(networks.phase) >= PASSED) < len(left):
            continue  # those that passed wait: tests of many at once are cheap
        networks = _tested(algorithm, limits, networks, jax.random.fold_in(test, looks))
        is_over = np.asarray(networks.phase) >= PERFECT
        for i in np.flatnonzero(is_over):
            ended[int(left[i])] = jax.tree.map(lambda x, i=i: np.asarray(x[..., i]), networks)
        networks = jax.tree.map(lambda x, over=is_over: x[..., ~over], networks)
        left = left[~is_over]
    in_order = (ended[seed] for seed in range(seeds))
    return jax.tree.map(lambda *of_each: np.stack(of_each, axis=-1), *in_order)


def cell_states(
    algorithm: Algorithm, weights: Weights, key: Key[Array, ""], symbols: int
) -> tuple[Float[Array, "symbols cells"], Bool[Array, "symbols"]]:
    """Return the cells' states over a stream that changes no weight, and where strings begin."""

    def read(stream: Stream, branch: Array) -> tuple[Stream, tuple[Array, Array]]:
        new, _ = _predicted(algorithm, weights, stream, branch)
        return new, (new.state.c, stream.node == 0)

    return jax.lax.scan(read, _stream(algorithm), _branches(key, symbols))[1]


def _stream(algorithm: Algorithm) -> Stream:
    return Stream(initial_state(algorithm.has_forget_gate), jnp.int32(0), jnp.int32(0))


def _start(algorithm: Algorithm, key: Key[Array, ""]) -> Network:
    weights = initial_weights(key, algorithm.has_forget_gate)
    return Network(weights, _stream(algorithm), *jnp.int32([TRAINING, 0, 0]))


def _branches(key: Key[Array, ""], *shape: int) -> Int[Array, "..."]:
    return jax.random.randint(key, shape, 0, 2)


@partial(jax.jit, static_argnames=("algorithm", "limits"))
def _advance(
    algorithm: Algorithm, limits: Limits, networks: Network, key: Key[Array, ""]
) -> Network:
    """Let every network that trains or is tested read `CHUNK` symbols."""
    read = jax.vmap(partial(_read, algorithm, limits), in_axes=-1, out_axes=-1)
    branches = _branches(key, CHUNK, networks.phase.size)
    return jax.lax.scan(lambda now, branch: (read(now, branch), None), networks, branches)[0]


def _read(
    algorithm: Algorithm, limits: Limits, network: Network, branch: Int[Array, ""]
) -> Network:
    stream, error, descent = _follow(algorithm, network.weights, network.stream, branch)
    is_wrong = _is_wrong(error)
    is_training, is_testing = network.phase == TRAINING, network.phase == TESTING
    length = network.stream.length.astype(jnp.float32)
    rate = jnp.where(is_training, RATE * algorithm.decay**length, 0.0)
    is_over = is_wrong | (stream.length >= limits.whole)
    streams = network.streams + (is_training & is_over)
    symbols = network.symbols + (is_training | is_testing)
    after_test = jnp.where(is_wrong, _after_failure(limits, streams, symbols), PASSED)
    after = jnp.where(is_training, TESTING, jnp.where(is_testing, after_test, network.phase))
    return Network(
        weights=jax.tree.map(lambda w, d: w + rate * d, network.weights, descent),
        stream=jax.tree.map(lambda x: jnp.where(is_over, 0, x), stream),
        phase=jnp.where(is_over, after, network.phase),
        streams=streams,
        symbols=symbols,
    )


def _after_failure(
    limits: Limits, streams: Int[Array, "*networks"], symbols: Int[Array, "*networks"]
) -> Int[Array, "*networks"]:
    is_last = (streams >= limits.streams) | (symbols >= limits.symbols)
    return jnp.where(is_last, GIVEN_UP, TRAINING)


def _follow(
    algorithm: Algorithm, weights: Weights, stream: Stream, branch: Int[Array, ""]
) -> tuple[Stream, Float[Array, "symbols"], Weights]:
    """Read the symbol of a branch; return the errors and the descent direction, too."""
    state, emitted, following = stream.state, jnp.asarray(EMITTED), jnp.asarray(FOLLOWING)
    if algorithm.is_reset:
        state = jax.tree.map(lambda x: jnp.where(stream.node == 0, 0, x), state)
    symbol = jnp.asarray(ONE_HOT)[emitted[stream.node, branch]]
    node = following[stream.node, branch]
    state, error, descent = step(weights, state, symbol, jnp.asarray(LEGAL)[node])
    return Stream(state, node, stream.length + 1), error, descent


def _is_wrong(error: Float[Array, "symbols"]) -> Bool[Array, ""]:
    return jnp.max(jnp.abs(error)) >= TOLERANCE


def _predicted(
    algorithm: Algorithm, weights: Weights, stream: Stream, branch: Int[Array, ""]
) -> tuple[Stream, Float[Array, "symbols"]]:
    """Read a symbol without learning, so without the derivatives."""
    new, error, _ = _follow(algorithm, weights, stream, branch)
    return new._replace(state=new.state._replace(traces=stream.state.traces)), error


def _tested(
    algorithm: Algorithm, limits: Limits, networks: Network, key: Key[Array, ""]
) -> Network:
    """Test those that passed on the other nine streams; those that fail go on training."""
    phase = np.array(networks.phase)
    (passed,) = np.nonzero(phase == PASSED)
    if not len(passed):
        return networks
    weights = jax.tree.map(lambda x: x[..., passed], networks.weights)
    is_right = predict_streams(algorithm, weights, limits.whole, TEST_STREAMS - 1, key)
    failed = _after_failure(limits, networks.streams[passed], networks.symbols[passed])
    phase[passed] = np.where(is_right.all(axis=1), PERFECT, failed)
    return networks._replace(phase=jnp.asarray(phase))


def predict_streams(
    algorithm: Algorithm, weights: Weights, whole: int, count: int, key: Key[Array, ""]
) -> Bool[np.ndarray, "networks streams"]:
    """Return which of some streams each network predicts to their end.

    Args:
        algorithm: of the networks.
        weights: theirs, networks along the last axis.
        whole: symbols of a stream.
        count: streams for each network.
        key: of the streams.
    """
    number = weights.cell.shape[-1]
    start = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (number, count, *x.shape)), _stream(algorithm)
    )
    at, is_right = start, jnp.ones((number, count), bool)
    for chunk in range(-(-whole // CHUNK)):
        at, is_right = _follow_all(
            algorithm, weights, whole, at, is_right, jax.random.fold_in(key, chunk)
        )
        if not is_right.any():
            break
    return np.asarray(is_right)


@partial(jax.jit, static_argnames=("algorithm", "whole"))
def _follow_all(
    algorithm: Algorithm,
    weights: Weights,
    whole: int,
    streams: Stream,
    is_right: Bool[Array, "networks streams"],
    key: Key[Array, ""],
) -> tuple[Stream, Bool[Array, "networks streams"]]:
    of_network = jax.vmap(partial(_predicted, algorithm), in_axes=(None, 0, 0))
    predicted = jax.vmap(of_network, in_axes=(-1, 0, 0))
    wrong = jax.vmap(jax.vmap(_is_wrong))

    def read(carry: tuple[Stream, Array], branch: Array) -> tuple[tuple[Stream, Array], None]:
        streams, is_right = carry
        new, error = predicted(weights, streams, branch)
        return (new, is_right & ~(wrong(error) & (new.length <= whole))), None

    branches = _branches(key, CHUNK, *is_right.shape)
    return jax.lax.scan(read, (streams, is_right), branches)[0]
