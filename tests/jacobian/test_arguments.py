"""Wrong arguments of the engine's functions are refused in a sentence that says what is allowed."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from gradlab.jacobian import (
    adjoint_log_norms,
    backpropagate,
    contribution_log_norms,
    credit,
    jacobian_log_norms,
    log_singular_values,
    long_range_share,
    lyapunov_exponents,
    lyapunov_spectrum,
    map_log_norms,
    parallel_evaluation,
    parallel_exponent,
    step_jacobians,
    truncation,
)
from gradlab.models import Network, Readout, Stack

CELL = nnx.SimpleCell(3, 4, rngs=nnx.Rngs(0))
STACK = Stack([CELL, nnx.OptimizedLSTMCell(4, 4, rngs=nnx.Rngs(0))])
INPUTS, TARGETS, STATE = jnp.ones((5, 3)), jnp.zeros((5, 4)), jnp.zeros(4)


def loss(carry: Any, target: Any) -> Any:
    return jnp.sum((carry - target) ** 2)


def plain(carry: Any, x: Any) -> Any:
    return jnp.tanh(carry + x.sum()), carry


MEASURES: dict[str, Callable[..., Any]] = {  # by (cell, inputs)
    "jacobian_log_norms": jacobian_log_norms,
    "step_jacobians": step_jacobians,
    "log_singular_values": lambda cell, x, **o: log_singular_values(cell, x, [(2, 1)], **o),
    "lyapunov_exponents": lyapunov_exponents,
    "lyapunov_spectrum": lyapunov_spectrum,
    "parallel_evaluation": parallel_evaluation,
    "parallel_exponent": parallel_exponent,
    "adjoint_log_norms": lambda cell, x, **o: adjoint_log_norms(cell, x, loss, TARGETS, **o),
    "contribution_log_norms": lambda cell, x, **o: contribution_log_norms(
        cell, x, loss, TARGETS, **o
    ),
    "backpropagate": lambda cell, x, **o: backpropagate(cell, x, loss, TARGETS, **o),
}
NO_CELLS: dict[str, tuple[Callable[[], Any], str]] = {
    "RNN": (lambda: nnx.RNN(CELL), r"pass the cell, rnn\.cell"),
    "Bidirectional": (
        lambda: nnx.Bidirectional(nnx.RNN(CELL), nnx.RNN(nnx.SimpleCell(3, 4, rngs=nnx.Rngs(1)))),
        r"pass one of them, such as bidirectional\.forward_rnn\.cell",
    ),
    "Linen": (lambda: linen.SimpleCell(4), r"lambda carry, x: cell\.apply\(variables, carry, x\)"),
    "class": (lambda: nnx.GRUCell, r"GRUCell is a class: pass an instance, such as GRUCell\(3"),
    "torch": (
        lambda: pytest.importorskip("torch").nn.RNNCell(3, 4),
        "RNNCell is a torch module, which JAX cannot differentiate: pass gradlab.from_torch",
    ),
    "Equinox": (
        lambda: pytest.importorskip("equinox").nn.GRUCell(3, 4, key=jax.random.key(0)),
        r"an Equinox GRUCell takes \(x, carry\) and returns no pair: pass a function step",
    ),
    "network": (
        lambda: Network(CELL, Readout(4, 2, rngs=nnx.Rngs(0))),
        r"must take \(carry, x\), as a step; Network takes .*pass its cell, \.cell",
    ),
    "function of one": (lambda: jnp.tanh, r"must take \(carry, x\), as a step; tanh takes \(x"),
    "word": (lambda: "lstm", r"or a function step\(carry, x\) -> \(carry, y\); got str"),
}


@pytest.mark.parametrize("kind", NO_CELLS)
@pytest.mark.parametrize("measure", ["jacobian_log_norms", "backpropagate"])
def test_what_is_no_cell(kind: str, measure: str) -> None:
    make, sentence = NO_CELLS[kind]
    if measure == "backpropagate" and kind == "function of one":
        sentence = "parameters is needed with a plain function"
    with pytest.raises((TypeError, ValueError), match=sentence):
        MEASURES[measure](make(), INPUTS)


WRONG_INPUTS: dict[str, tuple[Any, str]] = {
    "width": (INPUTS[:, :2], r"SimpleCell does not run on one step's inputs float32\[2\]"),
    "rank": (INPUTS[0], r"inputs must be \(time, features\)"),
    "scalar": (1.0, r"inputs must be \(time, features\)"),
    "no steps": (INPUTS[:0], "inputs must have at least one time step|k ≤ t ≤ 0"),
    "words": ([["word"]], r"inputs must be an array of numbers; got \[\['word'\]\]"),
    "ragged": ([[1.0, 2.0], [1.0]], "inputs must be an array of numbers"),
    "complex": (INPUTS + 1j, "complex inputs are not measured with a cell of real numbers"),
}


@pytest.mark.parametrize("kind", WRONG_INPUTS)
@pytest.mark.parametrize("measure", MEASURES)
def test_wrong_inputs(kind: str, measure: str) -> None:
    inputs, sentence = WRONG_INPUTS[kind]
    with pytest.raises(ValueError, match=sentence):
        MEASURES[measure](CELL, inputs)


@pytest.mark.parametrize("measure", MEASURES)
def test_inputs_and_carries_that_are_no_numbers(measure: str) -> None:
    with pytest.raises(FloatingPointError, match="is not finite at step 3"):
        MEASURES[measure](CELL, INPUTS.at[2, 1].set(jnp.nan))
    with pytest.raises(ValueError, match="initial_carry must hold arrays of numbers; got 'zero'"):
        MEASURES[measure](CELL, INPUTS, initial_carry="zero")
    with pytest.raises(ValueError, match=r"initial_carry must be as the cell's own.*got \(3,\)"):
        MEASURES[measure](CELL, INPUTS, initial_carry=STATE[:3])


def test_whole_numbers_as_inputs_are_measured_as_real_ones() -> None:
    """As the symbols that a step of somebody's looks up."""
    expected = jacobian_log_norms(CELL, INPUTS)
    np.testing.assert_array_equal(jacobian_log_norms(CELL, INPUTS.astype(int)), expected)


def test_the_top_layer_of_a_stack_is_called_h() -> None:
    expected = jacobian_log_norms(STACK, INPUTS, of="layer1.h")
    np.testing.assert_array_equal(jacobian_log_norms(STACK, INPUTS, of="h"), expected)
    known = "'layer0.h', 'layer0', 'layer1.c', 'layer1.h', 'layer1', 'h', 'c'; got 'layer5'"
    with pytest.raises(ValueError, match=f"one of {known}"):
        jacobian_log_norms(STACK, INPUTS, of="layer5")


class State(NamedTuple):
    hidden: jax.Array


def swapped(x: Any, state: State) -> tuple[State, Any]:
    return State(jnp.tanh(state.hidden + x.sum())), x


TERMS = jnp.zeros((5, 4))
WRONG: list[tuple[str, Callable[[Any], Any], list[Any]]] = [  # sentence, call, arguments
    ("norm must be one of 'spectral', 'frobenius', 'rms'", lambda v: jacobian_log_norms(
        CELL, INPUTS, norm=v), ["nuclear", None, 2]),
    (r"of must be None \(the whole carry\) or one of 'h'", lambda v: jacobian_log_norms(
        CELL, INPUTS, of=v), ["c", 1, ["h"]]),
    ("wrt must be None", lambda v: adjoint_log_norms(
        CELL, INPUTS, loss, TARGETS, wrt=v), ["c", "layer1.h"]),
    ("stride must be a whole number from 1 to the number of steps, 5; got", lambda v:
        jacobian_log_norms(CELL, INPUTS, stride=v), [0, 6, 1.5, "2", None, True]),
    ("precision must be one of 'float64', 'float32'", lambda v: jacobian_log_norms(
        CELL, INPUTS, precision=v), ["float16", 32]),
    ("memory_budget must be a number of at least 0", lambda v: jacobian_log_norms(
        CELL, INPUTS, memory_budget=v), ["1G", None, -5, np.nan]),
    ("raise memory_budget, use a stride of", lambda v: jacobian_log_norms(
        CELL, INPUTS, memory_budget=v), [0, 1e3]),
    ("certify must be one of False, True", lambda v: jacobian_log_norms(
        CELL, INPUTS, certify=v), ["yes", None]),
    ("initial_carry is needed with a plain step function", lambda v: jacobian_log_norms(
        plain, INPUTS, initial_carry=v), [None]),
    (r"swapped does not run .*AttributeError: .*hidden.: it is given \(carry, x\)", lambda v:
        jacobian_log_norms(v, INPUTS, initial_carry=State(STATE)), [swapped, partial(swapped)]),
    (r"pairs must be \(t, k\) with 0 ≤ k ≤ t ≤ 5, whole numbers", lambda v: log_singular_values(
        CELL, INPUTS, v), [[(6, 1)], [(1, 2)], [(2, -1)], [], (2, 1), [(1.5, 1)], [(1,)],
        [(1, 2, 3)], "ab", None, [(2, 1), None], [(True, False)]]),
    (r"inputs must be \(time, features\); got an array of shape \(2, 5, 3\)", lambda v:
        log_singular_values(CELL, v, [(2, 1)]), [jnp.ones((2, 5, 3))]),
    ("count must be a whole number from 1 to the size of the carry, 4", lambda v:
        lyapunov_spectrum(CELL, INPUTS, count=v), [0, 5, 1.5, "2", True]),
    ("lengths must be one whole number from 1 to 5 for each sample", lambda v: lyapunov_spectrum(
        CELL, INPUTS, lengths=v), [0, 6, 2.5, [2], np.nan]),
    (r"loss must be a function loss\(carry, target\) of one step", lambda v: adjoint_log_norms(
        CELL, INPUTS, v, TARGETS), [
        None, "mse", lambda carry: 0.0, lambda h, t: h @ INPUTS, lambda h, t: h.hidden]),
    (r"loss\(carry, target\) must return one real number", lambda v: backpropagate(
        CELL, INPUTS, v, TARGETS), [lambda h, t: h, lambda h, t: None, lambda h, t: h.sum() * 1j]),
    ("targets must have a row for each step of the inputs", lambda v: backpropagate(
        CELL, INPUTS, loss, v), [TARGETS[:4], STATE, 3.0]),
    ("targets must hold arrays of numbers", lambda v: adjoint_log_norms(
        CELL, INPUTS, loss, v), ["zero"]),
    ("each must be one of False, True", lambda v: adjoint_log_norms(
        CELL, INPUTS, loss, TARGETS, each=v), ["a", None]),
    ("parameters is needed with a plain function", lambda v: backpropagate(
        lambda w, h, x: plain(h, x), INPUTS, loss, TARGETS, initial_carry=STATE, parameters=v),
        [None, {}, 3, {"a": 1}]),
    ("parameters must hold arrays of numbers", lambda v: backpropagate(
        lambda w, h, x: plain(h, x), INPUTS, loss, TARGETS, initial_carry=STATE, parameters=v),
        ["zero", {"a": "zero"}]),
    ("by_lag must be the by_lag of backpropagate", truncation, [None, 3, {}, TERMS[:0],
        {"a": TERMS, "b": TERMS[:3]}, [[1, 2], [3]]]),
    ("by_lag must be an array of numbers", credit, ["zero", {"a": "zero"}]),
    ("threshold must be a number of at least 0", lambda v: credit(TERMS, v), [
        -1, "a", None, np.nan]),
    ("other_norm must be a number of at least 0", lambda v: credit(TERMS, 1.0, v), [-1, "a"]),
    ("log_norms must be those of one weight array", lambda v: long_range_share(v, 2), [
        3, STATE, TERMS]),
    ("log_norms must be an array of numbers", lambda v: long_range_share(v, 2), [{"a": TERMS}]),
    ("complex log_norms are not measured", lambda v: long_range_share(v, 2), [1j * jnp.eye(3)]),
    ("lag must be a number of at least 0", lambda v: long_range_share(jnp.eye(3), v), [
        -1, None, "a", [1]]),
    ("norm must be one of", lambda v: map_log_norms(np.ones((5, 2, 2)), norm=v), ["nuclear"]),
    ("complex jacobians are not measured", map_log_norms, [1j * np.ones((5, 2, 2))]),
    ("precision must be one of", lambda v: map_log_norms(np.ones((5, 2, 2)), precision=v), ["f2"]),
    (r"jacobians must be \(time, n, n\) with time, n ≥ 1; got shape", map_log_norms, [
        3, np.ones((5, 2, 3)), np.ones((0, 2, 2)), np.ones((2, 2)), np.ones((2, 0, 0))]),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(WRONG)))
def test_wrong_values(index: int) -> None:
    sentence, call, values = WRONG[index]
    for value in values:
        with pytest.raises(ValueError, match=sentence):
            call(value)


def test_given_jacobians_that_are_not_finite() -> None:
    jacobians = np.ones((5, 2, 2))
    jacobians[3, 0, 1] = np.inf
    with pytest.raises(FloatingPointError, match="the step Jacobian is not finite at step 4"):
        map_log_norms(jacobians)
