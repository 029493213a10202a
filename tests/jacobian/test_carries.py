"""A carry of any container, with any leaves, is differentiated in its real numbers only."""

import itertools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import Array
from jaxtyping import PyTree

import gradlab
from gradlab.jacobian import step_jacobians
from gradlab.jacobian.carry import CarryForm, carry_spans
from gradlab.jacobian.flat_cell import flatten_cell
from gradlab.jacobian.initial import initial_state
from gradlab.jacobian.pure_step import pure_step

X = jnp.ones((4, 2))
log_norms = partial(gradlab.jacobian_log_norms, inputs=X, norm="frobenius")


@partial(jax.tree_util.register_dataclass, data_fields=["z", "a"], meta_fields=[])
@dataclass
class Pair:
    """Fields that are not in the order of the alphabet."""

    z: Any
    a: Any


@flax.struct.dataclass
class FlaxPair:
    z: Any
    a: Any


class NamedPair(NamedTuple):
    z: Any
    a: Any


@jax.tree_util.register_pytree_node_class
class Anonymous:
    """A container whose children have no names."""

    def __init__(self, z: Any, a: Any) -> None:
        self.z, self.a = z, a

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        return (self.z, self.a), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any, Any]) -> "Anonymous":
        return cls(*children)


CONTAINERS: dict[str, tuple[Callable[[Any, Any], Any], str, str]] = {
    "dict": (lambda z, a: {"z": z, "a": a}, "z", "a"),
    "OrderedDict": (lambda z, a: OrderedDict(z=z, a=a), "z", "a"),
    "FrozenDict": (lambda z, a: FrozenDict({"z": z, "a": a}), "z", "a"),
    "dataclass": (Pair, "z", "a"),
    "flax.struct": (FlaxPair, "z", "a"),
    "named tuple": (NamedPair, "z", "a"),
    "anonymous": (Anonymous, "0", "1"),
    "pair": (lambda z, a: (z, a), "0", "1"),
    "list of three": (lambda z, a: [z, None, a], "0", "2"),
    "pair with None": (lambda z, a: (None, {"z": z, "a": a}), "1.z", "1.a"),
    "numbers as keys": (lambda z, a: {10: a, 9: z}, "9", "10"),
}


@pytest.mark.parametrize("container", list(CONTAINERS))
def test_parts_are_named_and_placed_by_their_container(container: str) -> None:
    """z ← 4 z, of three numbers, and a ← 2 a + sum(z), of two."""
    make, z, a = CONTAINERS[container]

    def step(carry: Any, x: Array) -> tuple[Any, Array]:
        first, second = sorted(jax.tree.leaves(carry), key=lambda leaf: -leaf.size)
        return make(4 * first, 2 * second + first.sum()), x

    measure = partial(log_norms, step, initial_carry=make(jnp.zeros(3), jnp.zeros(2)))
    assert measure(of=z, wrt=z)[1, 0] == pytest.approx(np.log(4 * np.sqrt(3)), abs=1e-6)
    assert measure(of=a, wrt=a)[1, 0] == pytest.approx(np.log(2 * np.sqrt(2)), abs=1e-6)
    assert measure(of=a, wrt=z)[1, 0] == pytest.approx(np.log(np.sqrt(6)), abs=1e-6)
    assert measure(of=z, wrt=a)[1, 0] == -np.inf


@pytest.mark.parametrize("order", ["(c, h)", "(h, c)", "(h, c), compiled", "neither"])
def test_the_output_of_a_pair_is_called_h(order: str) -> None:
    """Flax's LSTM has the carry (c, h), Equinox's (h, c); what is neither has no such names."""
    cell = nnx.OptimizedLSTMCell(2, 4, rngs=nnx.Rngs(0))
    expected = {part: log_norms(cell, of=part, wrt=part) for part in ("c", "h")}

    def step(carry: Any, x: Array) -> tuple[Any, Array]:
        (c, h), y = cell(carry if order == "(c, h)" else carry[::-1], x)
        return ((c, h) if order == "(c, h)" else (h, c)), 2 * y if order == "neither" else y

    run = jax.jit(step) if "compiled" in order else step
    measure = partial(log_norms, run, initial_carry=(jnp.zeros(4), jnp.zeros(4)))
    if order == "neither":
        with pytest.raises(ValueError, match="one of '0', '1'; got 'h'"):
            measure(of="h")
        np.testing.assert_allclose(measure(of="0", wrt="0"), expected["h"], atol=1e-6)
    else:
        for part, values in expected.items():
            np.testing.assert_allclose(measure(of=part, wrt=part), values, atol=1e-6)


def test_parts_of_one_name_are_told_apart_or_refused() -> None:
    carry = {"encoder": {"h": jnp.zeros(2)}, "decoder": {"h": jnp.zeros(2)}}
    step = lambda s, x: (s, x)  # noqa: E731
    with pytest.raises(ValueError, match=r"one of 'decoder.h', 'encoder.h'; got 'h'"):
        log_norms(step, initial_carry=carry, of="h")
    with pytest.raises(ValueError, match=r"one of 'a\.gh', 'a', 'gh'; got 'h'"):
        log_norms(step, initial_carry={"a": {"gh": jnp.zeros(2)}}, of="h")
    stack = {f"layer{i}": {"h": jnp.zeros(i + 1)} for i in range(11)}
    form = carry_spans(stack)
    assert form["layer10.h"][1] - form["layer10.h"][0] == 11
    assert CarryForm.of(stack).span("h", "of") == form["layer10.h"]
    same = {"a.b": jnp.zeros(1), "a": {"b": jnp.zeros(1)}}
    with pytest.raises(ValueError, match=r"two parts of the carry are called 'a\.b'"):
        log_norms(step, initial_carry=same)


def test_a_step_that_returns_another_carry_is_refused() -> None:
    start = {"h": jnp.zeros(3), "c": jnp.zeros(3)}
    wrong: dict[str, Callable[[Any, Array], Any]] = {
        r"takes {c: float32\[3\], h: float32\[3\]} and returns \(float32\[3\], float32\[3\]\)": (
            lambda s, x: ((s["h"], s["c"]), x)
        ),
        r"returns {c: float32\[3\], h: float32\[2\]}": (
            lambda s, x: ({"h": s["h"][:2], "c": s["c"]}, x)
        ),
        r"returns {c: float32\[3\], h: int32\[3\]}": (
            lambda s, x: ({"h": s["h"].astype(int), "c": s["c"]}, x)
        ),
        r"returns {c: float32\[3\], h: complex64\[3\]}": (
            lambda s, x: ({"h": s["h"] * 1j, "c": s["c"]}, x)
        ),
        r"must return \(carry, output\).*got a dict": lambda s, x: s,
        r"must return \(carry, output\).*got a tuple": lambda s, x: (s, x, x),
    }
    for sentence, step in wrong.items():
        with pytest.raises(ValueError, match=sentence):
            log_norms(step, initial_carry=start)
    with pytest.raises(ValueError, match=r"must have floating-point numbers.*int32\[3\]"):
        log_norms(lambda s, x: (s, x), initial_carry=jnp.zeros(3, int))
    with pytest.raises(TypeError, match=r"cell must be a flax\.nnx .*or a function.*got int"):
        log_norms(3, initial_carry=jnp.zeros(3))


HELD: dict[str, tuple[Any, str]] = {
    "count": (jnp.array(0), r"int32\[\]"),
    "odd": (jnp.ones(2, bool), r"bool\[2\]"),
    "key": (jax.random.key(0), r"key<fry>\[\]"),
    "extra": (None, "None"),
    "rng": ({"count": jnp.array(0)}, r"{count: int32\[\]}"),
}


@pytest.mark.parametrize("name", list(HELD))
def test_a_part_without_a_derivative_says_what_it_is(name: str) -> None:
    leaf, described = HELD[name]
    carry = {"cell": {name: leaf, "h": jnp.zeros(2)}, "c": jnp.zeros(1)}
    step = lambda s, x: (s, x)  # noqa: E731
    loss = lambda carry, target: carry["c"][0]  # noqa: E731
    known = r"must be None \(the whole carry\) or one of 'c', 'cell\.h', 'cell', 'h'; got"
    for asked in (name, f"cell.{name}"):
        sentence = f"{known} '{asked}', {described}, which has no derivative: it is held fixed"
        with pytest.raises(ValueError, match=f"of {sentence}"):
            log_norms(step, initial_carry=carry, of=asked)
        with pytest.raises(ValueError, match=f"wrt {sentence}"):
            gradlab.adjoint_log_norms(step, X, loss, X, wrt=asked, initial_carry=carry)
    assert log_norms(step, initial_carry=carry, of="h")[4, 0] == pytest.approx(np.log(2) / 2)


@pytest.mark.parametrize("typed", [True, False])
def test_random_keys_and_counters_are_carried_and_held(typed: bool) -> None:
    """Each step multiplies h by a random number, and by the counter's distance from 2²⁴."""
    start = 2**24 + 1  # float32 has no such integer
    key = jax.random.key(3) if typed else jax.random.PRNGKey(3)

    def step(carry: Any, x: Array) -> tuple[Any, Array]:
        key, draw = jax.random.split(carry["key"])
        gain = jax.random.normal(draw) * (carry["count"] - 2**24)
        h = jnp.where(carry["odd"], gain * carry["h"], 2 * gain * carry["h"])
        return {"key": key, "count": carry["count"] + 1, "odd": ~carry["odd"], "h": h}, x

    carry = {"key": key, "count": jnp.array(start), "odd": jnp.array(True), "h": jnp.ones(2)}
    gains = []
    for i in range(4):
        key, draw = jax.random.split(key)
        gains.append(float(jax.random.normal(draw)) * (i + 1) * (1 + i % 2))
    expected = np.cumsum(np.log(np.abs(gains)))
    measured = log_norms(step, initial_carry=carry, norm="spectral")
    np.testing.assert_allclose(measured[1:, 0], expected, atol=1e-5)
    exponents = gradlab.lyapunov_exponents(step, X, initial_carry=carry)
    np.testing.assert_allclose(exponents, expected[-1] / 4, atol=1e-5)
    loss = lambda carry, target: carry["h"][0]  # noqa: E731
    adjoints = gradlab.adjoint_log_norms(step, X[:1], loss, jnp.zeros(1), initial_carry=carry)
    assert adjoints[0] == pytest.approx(expected[0], abs=1e-5)
    gamma = lambda h, x: (jax.random.gamma(jax.random.key(0), 2.0) * h, x)  # noqa: E731
    for draws, state in ((step, carry), (gamma, jnp.ones(1))):
        with pytest.raises(ValueError, match=r"certify=True.*random numbers"):
            log_norms(draws, initial_carry=state, certify=True)


@pytest.mark.parametrize("kind", [nnx.GRUCell, nnx.OptimizedLSTMCell])
def test_an_initial_carry_for_each_sample(kind: Any) -> None:
    cell = kind(3, 4, rngs=nnx.Rngs(0))
    inputs = jax.random.normal(jax.random.key(0), (5, 6, 3))
    carry = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(1), x.shape),
        cell.initialize_carry((5, 3), nnx.Rngs(0)),
    )
    own = [jax.tree.map(lambda x, i=i: x[i], carry) for i in range(5)]
    apart = [log_norms(cell, inputs=x, initial_carry=s) for x, s in zip(inputs, own, strict=True)]
    together = log_norms(cell, inputs=inputs, initial_carry=carry)
    np.testing.assert_allclose(together, apart, atol=1e-6)
    exponents = [
        gradlab.lyapunov_exponents(cell, x, initial_carry=s)
        for x, s in zip(inputs, own, strict=True)
    ]
    together = gradlab.lyapunov_exponents(cell, inputs, initial_carry=carry)
    np.testing.assert_allclose(together, exponents, atol=1e-6)
    for wrong in ((1, 4), (4, 4), (5, 1, 4)):
        given = jax.tree.map(lambda x, wrong=wrong: jnp.zeros(wrong), carry)
        with pytest.raises(ValueError, match="must be as the cell's own carry"):
            log_norms(cell, inputs=inputs, initial_carry=given)


def test_an_initial_carry_that_could_be_meant_either_way_is_refused() -> None:
    inputs, weights = jnp.ones((5, 6, 3)), jnp.eye(4)
    with pytest.raises(ValueError, match=r"with and without that axis.*jax\.vmap"):
        log_norms(lambda h, x: (0.5 * h, x), inputs=inputs, initial_carry=jnp.zeros((5, 4)))
    only_vectors = log_norms(
        lambda h, x: (weights @ h, x), inputs=inputs, initial_carry=jnp.zeros((5, 4))
    )
    np.testing.assert_allclose(only_vectors[:, 3, 0], np.log(2), atol=1e-6)
    fast_weights = log_norms(
        lambda f, x: (0.5 * f + jnp.outer(x, x), x),
        inputs=jnp.ones((3, 6, 3)),
        initial_carry=jnp.zeros((3, 3)),
    )
    np.testing.assert_allclose(fast_weights[:, 1, 0], np.log(1.5), atol=1e-6)


def test_what_a_step_takes_tells_whether_a_carry_has_the_batchs_axis() -> None:
    """Without its first axis, none of these carries can be advanced to one of the same shapes."""
    x, gains = jax.ShapeDtypeStruct((3,), jnp.float32), jnp.ones(5)
    shared: dict[str, tuple[Callable[..., Any], Any]] = {
        "needs an element": (lambda h, x: (h.at[0].multiply(0.5), x), gains),
        "cannot be multiplied": (lambda h, x: (jnp.eye(5) @ h, x), gains),
        "wrong sizes": (lambda h, x: (jax.lax.dot(jnp.eye(5), h), x), jnp.ones((5, 2))),
        "grows": (lambda h, x: (gains * h, x), gains),
        "has a part of one number": (
            lambda s, x: ({"h": 0.5 * s["h"], "n": s["n"] + 1}, x),
            {"h": gains, "n": jnp.array(0)},
        ),
    }
    for name, (step, carry) in shared.items():
        assert initial_state(pure_step(step, None), x, 5, carry) == (carry, False), name
    cell = nnx.OptimizedLSTMCell(3, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="must be as the cell's own carry"):
        initial_state(pure_step(cell, None), x, None, {"c": jnp.zeros(4), "h": jnp.zeros(4)})


def test_numbers_of_plain_python_are_a_carry() -> None:
    measured = log_norms(lambda h, x: (0.5 * h, x), initial_carry=0.0)
    assert measured[4, 0] == pytest.approx(4 * np.log(0.5), abs=1e-6)


def test_a_counter_made_with_32_bit_types_is_carried_where_64_bit_types_hold() -> None:
    carry = {"n": jnp.asarray(0), "h": jnp.ones(2)}
    step = lambda s, x: ({"n": s["n"] + 1, "h": 0.5 * s["h"]}, x)  # noqa: E731
    with jax.enable_x64(True):
        measured = log_norms(step, initial_carry=carry, norm="spectral")
    assert measured[4, 0] == pytest.approx(4 * np.log(0.5), abs=1e-6)


def test_a_state_keeps_its_own_type_where_a_step_promotes_it() -> None:
    """The derivative of sin(rounded) is the cosine of what bfloat16 keeps."""

    def step(s: Any, x: Array) -> tuple[Any, Array]:
        return {"low": s["low"].astype(jnp.float32) * 1.7, "high": jnp.sin(s["low"])}, x

    carry = {"low": jnp.full(1, 0.3, jnp.bfloat16), "high": jnp.zeros(1)}
    jacobians = step_jacobians(step, X, initial_carry=carry)
    low = jnp.full(1, 0.3, jnp.bfloat16)
    for jacobian in jacobians:  # parts in the order of the alphabet: high, low
        np.testing.assert_allclose(jacobian[0, 1], jnp.cos(low.astype(jnp.float32))[0], rtol=5e-3)
        np.testing.assert_allclose(jacobian[1, 1], 1.7, rtol=5e-3)
        low = (low.astype(jnp.float32) * 1.7).astype(jnp.bfloat16)

    with jax.enable_x64(True):
        jacobians = step_jacobians(
            lambda h, x: (jnp.sin(h), x), X[:1], initial_carry=jnp.full(1, 0.3)
        )
        np.testing.assert_allclose(jacobians[0, 0, 0], np.cos(0.3), rtol=1e-15)


LEAVES = [
    ("real", ()),
    ("real", (1,)),
    ("real", (2,)),
    ("real", (2, 1)),
    ("real", (0,)),
    ("bfloat16", (1,)),
    ("counter", ()),
    ("bool", (2,)),
    ("key", ()),
    ("raw key", ()),
    ("none", ()),
]
leaves = st.sampled_from(LEAVES)
containers = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from("zhca"), inner, max_size=3),
        st.dictionaries(st.sampled_from("zhca"), inner, max_size=3).map(OrderedDict),
        st.tuples(inner, inner).map(lambda pair: NamedPair(*pair)),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
        st.tuples(inner, inner).map(lambda pair: Anonymous(*pair)),
    ),
    max_leaves=6,
)


def is_description(node: Any) -> bool:
    return isinstance(node, tuple) and node in LEAVES


def made(kind: str, shape: tuple[int, ...]) -> Any:
    return {
        "real": lambda: jnp.ones(shape),
        "bfloat16": lambda: jnp.ones(shape, jnp.bfloat16),
        "counter": lambda: jnp.array(2**24 + 1),
        "bool": lambda: jnp.ones(shape, bool),
        "key": lambda: jax.random.key(0),
        "raw key": lambda: jax.random.PRNGKey(0),
        "none": lambda: None,
    }[kind]()


def advanced(leaf: Array) -> Array:
    """Return the next value of a leaf that is no real number."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype == jnp.uint32:
        return jax.random.split(leaf)[0]
    return ~leaf if leaf.dtype == bool else leaf + 1


@settings(max_examples=15, derandomize=True)
@given(description=containers, seed=st.integers(0, 99))
@example(description=(("bfloat16", (1,)), ("counter", ()), ("real", (2,))), seed=0)
def test_any_carry_has_the_jacobian_of_its_real_numbers(description: PyTree, seed: int) -> None:
    """A linear map of all real numbers, in order of the leaves, times the step's number."""
    carry = jax.tree.map(lambda leaf: made(*leaf), description, is_leaf=is_description)
    flat, structure = jax.tree.flatten(carry)
    real = [i for i, leaf in enumerate(flat) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    sizes = [flat[i].size for i in real]
    n = sum(sizes)
    matrix = np.random.default_rng(seed).integers(-3, 4, (n, n)).astype(np.float32)

    def step(carry: PyTree, x: Array) -> tuple[PyTree, Array]:
        leaves = jax.tree.leaves(carry)
        assert [leaf.dtype for leaf in leaves] == [leaf.dtype for leaf in flat]
        vector = jnp.concatenate([jnp.ravel(leaves[i]).astype(jnp.float32) for i in real])
        pieces = jnp.split(matrix @ vector * x[0], np.cumsum(sizes)[:-1])
        after = [leaf if i in real else advanced(leaf) for i, leaf in enumerate(leaves)]
        for i, piece in zip(real, pieces, strict=True):
            after[i] = piece.reshape(flat[i].shape).astype(flat[i].dtype)
        return jax.tree.unflatten(structure, after), x

    inputs = jnp.arange(1.0, 4)[:, None]
    if n == 0:
        with pytest.raises(ValueError, match=r"floating-point numbers|initial_carry is needed"):
            step_jacobians(step, inputs, initial_carry=carry)
        return
    jacobians = step_jacobians(step, inputs, initial_carry=carry)
    np.testing.assert_array_equal(jacobians, matrix * np.arange(1, 4)[:, None, None])
    spans = dict(flatten_cell(step, inputs, carry).form.spans)
    ends = np.cumsum([0, *sizes])
    leaves = [
        span for name, span in spans.items() if not any(x.startswith(f"{name}.") for x in spans)
    ]
    assert sorted(leaves) == [pair for pair in itertools.pairwise(ends) if pair[0] < pair[1]]
    name, (first, last) = list(spans.items())[seed % len(spans)]
    measured = gradlab.jacobian_log_norms(
        step, inputs, initial_carry=carry, norm="frobenius", of=name
    )[2, 0]
    product = 2 * (matrix.astype(np.float64) @ matrix)[first:last]
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(measured, np.log(np.linalg.norm(product)), atol=1e-5)
