"""Cells with parts replaced: `unroll` and the gates against the cell's own steps, in a loop."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab.cells import GRU, LSTM, ConcatenatedElman, Elman, biases, gates, set_gate_biases
from gradlab.cells.affine import affine_form
from gradlab.cells.recurrence import unroll

FEATURES, HIDDEN, BATCH, LENGTH = 3, 4, 2, 3
CELLS: dict[str, Callable[..., Any]] = {
    "SimpleCell": nnx.SimpleCell,
    "residual SimpleCell": partial(nnx.SimpleCell, residual=True),
    "OptimizedLSTMCell": nnx.OptimizedLSTMCell,
    "LSTM": LSTM,
    "pinned LSTM": partial(LSTM, forget_gate=0.9),
    "GRUCell": nnx.GRUCell,
}
NORMAL = nnx.initializers.normal(1.0)


class Doubled(nnx.Linear):
    def __call__(self, inputs: Any, out_sharding: Any = None) -> Any:
        return 2 * super().__call__(inputs)


class Normalised(nnx.Module):
    def __init__(self, linear: nnx.Linear) -> None:
        self.linear = linear
        self.norm = nnx.LayerNorm(linear.out_features, rngs=nnx.Rngs(2))

    def __call__(self, inputs: Any) -> Any:
        return self.norm(self.linear(inputs))


class PReLU(nnx.Module):
    def __init__(self) -> None:
        self.slope = nnx.Param(jnp.array(0.3))

    def __call__(self, x: Any) -> Any:
        return jnp.where(x > 0, x, self.slope[...] * x)


class Shifted:
    """A layer that a property gives, with a shift that the stored one has not."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, inputs: Any) -> Any:
        return self.layer(inputs) + 0.5


def linear(old: nnx.Linear, kind: Any = nnx.Linear, **options: Any) -> Any:
    options = {"bias_init": NORMAL, "rngs": nnx.Rngs(1)} | options
    return kind(old.in_features, old.out_features, **options)


def halved(operands: Any, dtype: Any) -> Any:
    return tuple(None if x is None else x / 2 for x in operands)


LAYERS: dict[str, Callable[[nnx.Linear], Any]] = {
    "with a bias": linear,
    "without a bias": partial(linear, use_bias=False),
    "of rank one more": lambda old: nnx.LoRALinear(
        old.in_features, old.out_features, lora_rank=1, b_initializer=NORMAL, rngs=nnx.Rngs(1)
    ),
    "of a subclass": partial(linear, kind=Doubled),
    "in low precision": partial(linear, dtype=jnp.bfloat16),
    "with its own promotion": partial(linear, promote_dtype=halved),
    "with its own product": partial(
        linear, dot_general=lambda *args, **kw: 2 * jax.lax.dot_general(*args, **kw)
    ),
    "normalised": lambda old: Normalised(linear(old)),
    "of one column": lambda old: nnx.Linear(old.in_features, 1, rngs=nnx.Rngs(1)),
    "with one bias for all": lambda old: with_bias(linear(old), jnp.array([0.7])),
}
# Those of full precision, whose results do not depend on how XLA rounds, and which fit every cell.
EXACT = sorted(set(LAYERS) - {"in low precision", "of one column"})
FAST = {"with a bias", "without a bias"}  # what the affine forms know


def with_bias(layer: nnx.Linear, bias: Any) -> nnx.Linear:
    layer.bias = nnx.Param(bias)
    return layer


def make(kind: Callable[..., Any], **options: Any) -> Any:
    cell = kind(FEATURES, HIDDEN, rngs=nnx.Rngs(0), **options)
    noise = np.random.default_rng(0)
    state = nnx.state(cell, nnx.Param)
    nnx.update(
        cell, jax.tree.map(lambda x: x + noise.normal(size=x.shape).astype(np.float32) / 3, state)
    )
    return cell


def own_steps(cell: Any, carry: Any, inputs: Any) -> Any:
    outputs = []
    for x in inputs:
        carry, output = cell(carry, x)
        outputs.append(output)
    return carry, jnp.stack(outputs)


def problem(cell: Any, dtype: Any = jnp.float32) -> tuple[Any, Any]:
    noise = np.random.default_rng(1)
    carry = jax.tree.map(
        lambda x: jnp.asarray(noise.normal(size=x.shape), dtype),
        cell.initialize_carry((BATCH, FEATURES), nnx.Rngs(0)),
    )
    return carry, jnp.asarray(noise.normal(size=(LENGTH, BATCH, FEATURES)), dtype)


def assert_unrolls_as_it_steps(
    cell: Any, case: str, dtype: Any = jnp.float32, tolerance: float = 2e-5
) -> None:
    """Compare the states, the outputs, and the gradients of all weights, carries and inputs."""
    definition, weights, rest = nnx.split(cell, nnx.Param, ...)
    carry, inputs = problem(cell, dtype)

    @partial(jax.jit, static_argnums=0)
    def differentiated(run: Callable[..., Any], weights: Any, carry: Any, inputs: Any) -> Any:
        values, pull = jax.vjp(
            lambda w, s, x: run(nnx.merge(definition, w, rest), s, x), weights, carry, inputs
        )
        return values, pull(jax.tree.map(lambda x: jnp.cos(3 * x + 1), values))

    actual = differentiated(unroll, weights, carry, inputs)
    expected = differentiated(own_steps, weights, carry, inputs)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(np.max(np.abs(y))))
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale, err_msg=case)


def assert_steps_the_same(cell: Any, case: str) -> None:
    """Compare the states and the outputs."""
    expected = jax.tree.leaves(own_steps(cell, *problem(cell)))
    tolerance = 1e-2 if "low precision" in case else 1e-5
    for x, y in zip(jax.tree.leaves(unroll(cell, *problem(cell))), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=case)


@pytest.mark.parametrize("name", CELLS)
def test_a_replaced_layer_is_the_one_that_runs(name: str) -> None:
    for part, replacement in product(("dense_i", "dense_h"), LAYERS):
        cell = make(CELLS[name])
        setattr(cell, part, LAYERS[replacement](getattr(cell, part)))
        case = f"{part} {replacement}"
        assert (affine_form(cell) is not None) == (replacement in FAST), case
        if "of one column" in replacement and "Simple" not in name:
            continue  # such a cell does not run at all
        if replacement in FAST:
            assert_unrolls_as_it_steps(cell, case)
        else:
            assert_steps_the_same(cell, case)


@settings(max_examples=10, derandomize=True)
@given(
    name=st.sampled_from(list(CELLS)),
    layers=st.dictionaries(st.sampled_from(["dense_i", "dense_h"]), st.sampled_from(EXACT)),
    functions=st.dictionaries(
        st.sampled_from(["gate_fn", "activation_fn"]),
        st.sampled_from([jnp.sin, jax.nn.relu, jax.nn.softmax, PReLU()]),
    ),
)
def test_parts_replaced_together_are_those_that_run(
    name: str, layers: dict[str, str], functions: dict[str, Any]
) -> None:
    cell = make(CELLS[name])
    for part, replacement in layers.items():
        setattr(cell, part, LAYERS[replacement](getattr(cell, part)))
    for part, function in functions.items():
        if hasattr(cell, part):
            setattr(cell, part, nnx.data(function) if isinstance(function, PReLU) else function)
    for _, module in nnx.iter_modules(cell):
        if getattr(module, "dtype", None) is not None:  # in which Flax's cells compute
            module.dtype = jnp.float64
    with jax.enable_x64(True):
        assert_unrolls_as_it_steps(cell, f"{name}, {layers}, {functions}", jnp.float64, 1e-12)


@pytest.mark.parametrize("kind", [Elman, ConcatenatedElman, LSTM, GRU])
def test_a_cell_without_biases(kind: Any) -> None:
    cell, with_biases = (make(kind, use_bias=use_bias) for use_bias in (False, True))
    shapes = [x.shape for x in jax.tree.leaves(nnx.state(cell))]
    others = [x.shape for x in jax.tree.leaves(nnx.state(with_biases))]
    assert len(shapes) == len(others) - 1
    assert {len(shape) for shape in shapes} == {2}
    assert affine_form(cell) is not None
    assert_unrolls_as_it_steps(cell, kind.__name__)


@pytest.mark.parametrize("name", CELLS)
def test_other_functions_and_those_with_weights(name: str) -> None:
    for function in (jax.nn.softmax, PReLU()):
        cell, weighted = make(CELLS[name]), isinstance(function, PReLU)
        for part in ("gate_fn", "activation_fn"):
            if hasattr(cell, part):
                setattr(cell, part, nnx.data(function) if weighted else function)
        assert (affine_form(cell) is None) == weighted
        (assert_steps_the_same if weighted else assert_unrolls_as_it_steps)(cell, str(function))


def with_property(kind: type, name: str) -> type:
    """Return a subclass whose layer of that name is stored as it is and read with a shift."""

    def read(self: Any) -> Any:
        return Shifted(vars(self)[name])

    def write(self: Any, value: Any) -> None:
        vars(self)[name] = value

    return type(f"Own{kind.__name__}", (kind,), {name: property(read, write)})


@pytest.mark.parametrize("kind", [nnx.SimpleCell, nnx.OptimizedLSTMCell, nnx.GRUCell])
def test_a_part_that_a_subclass_computes(kind: type) -> None:
    for name in ("dense_i", "dense_h"):
        cell = object.__new__(with_property(kind, name))
        vars(cell).update(vars(make(kind)))
        assert affine_form(cell) is None
        assert_steps_the_same(cell, name)


def test_a_pin_that_trains() -> None:
    cell = make(partial(LSTM, forget_gate=0.9))
    cell.pins = nnx.data((("forget", jnp.array(0.8)),))
    assert affine_form(cell) is None
    assert_unrolls_as_it_steps(cell, "pin")


def test_helpers_replaced_on_the_instance() -> None:
    cell = make(LSTM)
    own = cell.activations
    object.__setattr__(cell, "activations", lambda c, x: own(c, x) | {"input": jnp.ones(HIDDEN)})
    assert affine_form(cell) is None


@pytest.mark.parametrize("name", ["OptimizedLSTMCell", "LSTM", "GRUCell"])
def test_gates_with_a_second_bias_explain_the_next_state(name: str) -> None:
    cell = make(CELLS[name])
    for part in ("dense_i", "dense_h"):
        setattr(cell, part, linear(getattr(cell, part)))
    carry, inputs = problem(cell)
    values = {gate: np.asarray(x) for gate, x in gates(cell, carry, inputs[0]).items()}
    new = jax.tree.map(np.asarray, cell(carry, inputs[0])[0])
    if name == "GRUCell":
        candidate = (new - values["update"] * carry) / (1 - values["update"])
        w = {k: np.asarray(v[...]) for k, v in nnx.to_flat_state(nnx.state(cell))}
        from_x = inputs[0] @ w["dense_i", "kernel"] + w["dense_i", "bias"]
        from_h = carry @ w["dense_h", "kernel"] + w["dense_h", "bias"]
        expected = np.tanh(from_x[:, -HIDDEN:] + values["reset"] * from_h[:, -HIDDEN:])
        np.testing.assert_allclose(candidate, expected, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(new[1], values["output"] * np.tanh(new[0]), rtol=1e-5)


class Leaky(nnx.GRUCell):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        new, _ = super().__call__(carry, inputs)
        return 0.5 * carry + 0.5 * new, new


class OwnLSTM(nnx.OptimizedLSTMCell):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        return super().__call__(carry[::-1], inputs)


@pytest.mark.parametrize("kind", [Leaky, OwnLSTM])
def test_gates_of_a_step_of_its_own_are_not_guessed(kind: Any) -> None:
    cell = make(kind)
    with pytest.raises(TypeError, match=f"no gates of {kind.__name__}, whose step is not that of"):
        gates(cell, *jax.tree.map(lambda x: x[0], problem(cell)))
    with pytest.raises(ValueError, match=f"{kind.__name__} has a step of its own: take bias=zero"):
        set_gate_biases(cell, {"forget": jnp.ones(HIDDEN)})
    set_gate_biases(cell, {})


def test_a_registered_subclass_has_the_biases_in_its_own_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Reordered(OwnLSTM):
        blocks = ("forget", "candidate", "input", "output")

    monkeypatch.setattr(biases, "GATED", [*biases.GATED, Reordered])
    cell = make(Reordered)
    cell.dense_i = linear(cell.dense_i, bias_init=nnx.initializers.zeros_init())
    set_gate_biases(cell, {"forget": jnp.ones(HIDDEN), "input": jnp.full(HIDDEN, -1.0)})
    np.testing.assert_array_equal(cell.dense_i.bias[...], np.repeat([1, 0, -1, 0], HIDDEN))


@pytest.mark.parametrize(
    ("kind", "gate"),
    [(LSTM, "forget"), (nnx.LSTMCell, "forget"), (GRU, "update"), (nnx.GRUCell, "update")],
)
def test_gate_biases_are_those_of_both_layers_together(kind: Any, gate: str) -> None:
    cell = make(kind)
    for name, layer in list(vars(cell).items()):
        if isinstance(layer, nnx.Linear):
            setattr(cell, name, linear(layer))
    set_gate_biases(cell, {"forget": jnp.arange(HIDDEN) / 2})
    zeros = jax.tree.map(jnp.zeros_like, cell.initialize_carry((FEATURES,), nnx.Rngs(0)))
    opened = gates(cell, zeros, jnp.zeros(FEATURES))[gate]
    np.testing.assert_allclose(opened, 1 / (1 + np.exp(-np.arange(HIDDEN) / 2)), rtol=1e-6)


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_gate_biases_need_biases_in_plain_layers(kind: Any) -> None:
    for cell in (make(kind, use_bias=False), make(kind)):
        if cell.dense_i.bias is not None or cell.dense_h.bias is not None:
            cell.dense_h = Normalised(cell.dense_h)
        with pytest.raises(ValueError, match=r"gate biases need a cell with biases.*bias=zero"):
            set_gate_biases(cell, {"forget": jnp.ones(HIDDEN)})
