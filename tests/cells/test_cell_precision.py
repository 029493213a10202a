"""Cells run in another type than their weights': against float64, and what is rounded where."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from conftest import Compose
from flax import nnx

import gradlab
from gradlab import cells
from gradlab.cells.precision import InPrecision
from gradlab.cells.recurrence import unroll
from gradlab.jacobian.closure import inner_jaxprs
from gradlab.jacobian.flat_cell import flatten_cell
from gradlab.jacobian.precision import rounding
from gradlab.jacobian.pure_step import leaves_by_path
from gradlab.training.program import Program, hyperparameters_of

FEATURES, UNITS, LENGTH, BATCH = 3, 4, 6, 2
HALF = {"bfloat16": (ml_dtypes.bfloat16, 2.0**-8), "float16": (np.float16, 2.0**-11)}
# A step is a few sums of a few terms and a few functions, each rounded once.
ROUNDINGS = 16
CELLS = sorted({cells.__dict__[name] for name in cells.__all__} - {cells.EncoderDecoder}, key=str)
CELLS = [cell for cell in CELLS if isinstance(cell, type) and issubclass(cell, nnx.Module)]
COMPLEX, WITH_A_MATRIX_FUNCTION = cells.LRU, cells.ExpRNN


def build(cell: Any) -> Any:
    return cell(FEATURES, UNITS, rngs=nnx.Rngs(0))


def inputs_of(seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(LENGTH, BATCH, FEATURES)).astype(np.float32)


def rounded_by_numpy(tree: Any, kind: Any) -> Any:
    """Round real numbers and the parts of complex ones, in float64 and complex128."""

    def one(x: Any) -> Any:
        x = np.asarray(x)
        if np.iscomplexobj(x):
            return one(x.real) + 1j * one(x.imag)
        return x.astype(kind).astype(np.float64)

    return jax.tree.map(one, tree)


def in_float64(cell: Any, kind: Any, carry: Any, x: Any) -> tuple[Any, Any]:
    """Take one step in float64 from rounded weights, state and input, without our cell."""
    definition, state = nnx.split(cell)
    with jax.enable_x64(True):
        weights = jax.tree.map(jnp.asarray, rounded_by_numpy(state, kind))
        double = nnx.merge(definition, weights)
        for _, module in nnx.iter_modules(double):
            if vars(module).get("dtype") is not None:
                module.dtype = jnp.float64  # type: ignore[attr-defined]
        arguments = jax.tree.map(jnp.asarray, rounded_by_numpy((carry, x), kind))
        taken: tuple[Any, Any] = jax.tree.map(np.asarray, double(*arguments))
        return taken


@pytest.mark.parametrize(
    ("cell_class", "dtype"),
    [(cell, "bfloat16") for cell in CELLS]
    + [(cell, "float16") for cell in (cells.LSTM, cells.LRU, cells.SLSTM, cells.MinLSTM)],
)
def test_each_step_is_that_of_float64_to_a_few_roundings(cell_class: Any, dtype: str) -> None:
    (kind, roundoff), cell, x = HALF[dtype], build(cell_class), inputs_of()
    half = InPrecision(cell, dtype)
    carry = half.initialize_carry(x.shape[1:], nnx.Rngs(0))
    for t in range(2):
        expected = in_float64(cell, kind, carry, x[t])
        carry, output = half(carry, jnp.asarray(x[t]))
        for ours, exact in zip(
            jax.tree.leaves((carry, output)), jax.tree.leaves(expected), strict=True
        ):
            ours = np.asarray(ours)
            ours = ours.astype(np.complex128 if np.iscomplexobj(ours) else np.float64)
            allowed = ROUNDINGS * roundoff * np.maximum(1, np.abs(exact))
            assert (np.abs(ours - exact) <= allowed).all()
            np.testing.assert_array_equal(ours, rounded_by_numpy(ours, kind))


def test_an_elman_step_is_that_of_ml_dtypes() -> None:
    half = InPrecision(build(cells.Elman), "bfloat16")
    kind = HALF["bfloat16"][0]
    h, x = np.zeros((BATCH, UNITS), kind), inputs_of().astype(kind)
    w_x, w_h, b = (
        np.asarray(w).astype(kind)
        for w in (half.dense_i.kernel[...], half.dense_h.kernel[...], half.dense_i.bias[...])
    )
    carry = half.initialize_carry((BATCH, FEATURES), nnx.Rngs(0))
    for t in range(LENGTH):
        net = (x[t].astype(np.float32) @ w_x.astype(np.float32)).astype(kind) + b
        net = net + (h.astype(np.float32) @ w_h.astype(np.float32)).astype(kind)
        h = np.tanh(net.astype(np.float32)).astype(kind)
        carry, _ = half(carry, jnp.asarray(x[t]))
    # One unit in the last place: the order of sums is free.
    np.testing.assert_allclose(np.asarray(carry, np.float64), h.astype(np.float64), atol=2.0**-7)


@pytest.mark.parametrize("cell_class", CELLS)
def test_the_weights_keep_type_and_name_and_the_products_are_in_half_precision(
    cell_class: Any,
) -> None:
    cell, x = build(cell_class), jnp.asarray(inputs_of())
    half = InPrecision(cell, "bfloat16")
    assert leaves_by_path(nnx.state(half)).keys() == leaves_by_path(nnx.state(cell)).keys()
    carry = half.initialize_carry(x.shape[1:], nnx.Rngs(0))

    def loss(half: Any) -> Any:
        return jnp.sum(unroll(half, carry, x)[1].astype(jnp.float32) ** 2)

    gradient = jax.eval_shape(nnx.grad(loss), half)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    program = jax.make_jaxpr(lambda c, x: half(c, x))(carry, x[0]).jaxpr
    wide = {dtype for dtype in products(program) if dtype != jnp.bfloat16}
    assert not wide or cell_class in (COMPLEX, WITH_A_MATRIX_FUNCTION)


@pytest.mark.parametrize("cell_class", [cells.Elman, cells.LRU])
@pytest.mark.parametrize(("dtype", "eps"), [("bfloat16", 2.0**-7), ("float16", 2.0**-10)])
def test_the_engine_knows_the_precision_of_a_step(cell_class: Any, dtype: str, eps: float) -> None:
    flat = flatten_cell(InPrecision(build(cell_class), dtype), jnp.asarray(inputs_of()[:, 0]))
    assert rounding(flat) == eps


def products(jaxpr: Any) -> set[Any]:
    """The types of the matrix products of a program."""
    found = {e.outvars[0].aval.dtype for e in jaxpr.eqns if e.primitive.name == "dot_general"}
    for equation in jaxpr.eqns:
        for inner in inner_jaxprs(equation):
            found |= products(inner)
    return found


@pytest.mark.parametrize("dtype", HALF)
def test_gradients_are_those_of_float64_to_a_few_roundings_a_step(dtype: str) -> None:
    cell, x = build(cells.GRU), inputs_of()

    def gradient(cell: Any) -> Any:
        carry = cell.initialize_carry(x.shape[1:], nnx.Rngs(0))

        def loss(cell: Any) -> Any:
            return jnp.mean(unroll(cell, carry, jnp.asarray(x))[1].astype(carry.dtype) ** 2)

        return jax.tree.map(lambda g: np.asarray(g, np.float64), nnx.grad(loss)(cell))

    ours = gradient(InPrecision(cell, dtype))
    with jax.enable_x64(True):
        exact = gradient(InPrecision(cell, "float64"))
    for mine, true in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        error = np.linalg.norm(mine - true) / np.linalg.norm(true)
        assert 0 < error < ROUNDINGS * LENGTH * HALF[dtype][1]


def test_in_float64_a_cell_runs_as_it_would_by_itself() -> None:
    with jax.enable_x64(True):
        cell = build(cells.LSTM)
        nnx.update(cell, jax.tree.map(lambda w: w.astype(jnp.float64), nnx.state(cell)))
        x = jnp.asarray(inputs_of(), jnp.float64)
        double = InPrecision(cell, "float64")
        carry = double.initialize_carry(x.shape[1:], nnx.Rngs(0))
        own, ours = unroll(cell, carry, x), unroll(double, carry, x.astype(jnp.float32))
        assert ours[1].dtype == jnp.float64
        np.testing.assert_allclose(own[1], ours[1], rtol=1e-6)  # inputs are float32's
        np.testing.assert_array_equal(own[1], unroll(double, carry, x)[1])


def test_a_rule_for_the_adjoint_sees_it_in_float32() -> None:
    half = InPrecision(build(cells.Elman), "float16")
    seen = []

    def rule(adjoint: Any) -> Any:
        seen.append(adjoint.dtype)
        return adjoint / jnp.linalg.norm(adjoint)  # of squares that float16 does not hold

    carry = half.initialize_carry((BATCH, FEATURES), nnx.Rngs(0))

    def loss(half: Any) -> Any:
        outputs = unroll(half, carry, jnp.asarray(inputs_of()), rule)[1]
        return 1e-5 * jnp.sum(outputs.astype(jnp.float32))

    gradient = nnx.grad(loss)(half)
    assert set(seen) == {jnp.dtype("float32")}
    assert float(jnp.linalg.norm(gradient.dense_h.kernel[...])) > 0.1


def test_the_gates_are_those_of_the_rounded_cell() -> None:
    cell = build(cells.LSTM)
    half, x = InPrecision(cell, "bfloat16"), jnp.asarray(inputs_of()[0])
    carry = half.initialize_carry(x.shape, nnx.Rngs(0))
    ours, exact = (
        cells.gates(half, carry, x),
        cells.gates(cell, jax.tree.map(jnp.float32, carry), x),
    )
    assert ours.keys() == exact.keys()
    for gate, values in ours.items():
        assert values.dtype == jnp.bfloat16
        np.testing.assert_allclose(values.astype(jnp.float32), exact[gate], atol=2.0**-6)


def test_a_measured_map_says_what_the_precision_makes_of_it() -> None:
    cell, x = build(cells.GRU), jnp.asarray(inputs_of()[:, 0])
    half = InPrecision(cell, "bfloat16")
    ours, certificate = gradlab.jacobian_log_norms(half, x, certify=True)
    with jax.enable_x64(True):
        exact = gradlab.jacobian_log_norms(InPrecision(cell, "float64"), x)
    places = np.tril_indices(LENGTH + 1, -1)
    ours, exact = (np.asarray(log_norms, np.float64)[places] for log_norms in (ours, exact))
    error = np.abs(np.expm1(ours - exact))
    np.testing.assert_allclose(np.asarray(certificate.precision_error)[places], error, atol=1e-5)
    assert 2.0**-12 < error.max() < ROUNDINGS * LENGTH * 2.0**-8


def test_means_over_gates_add_up_in_float32(composed: Compose) -> None:
    """NumPy adds bfloat16's up in bfloat16, where a long sum stops growing."""
    words = (
        "model=lstm",
        "task=echo",
        "task.length=200",
        "probe=[statistics,theory]",
        "probe.samples=8",
    )
    found = {}
    for dtype in ("float32", "bfloat16"):
        config = composed(*words, f"model.dtype={dtype}")
        program, hyperparameters = Program(config), hyperparameters_of(config)
        state = program.initialise(hyperparameters)
        found[dtype] = program.measure(hyperparameters, state).metrics
    for name, value in found["float32"].items():
        assert found["bfloat16"][name] == pytest.approx(value, rel=0.03, abs=0.01)


class Rounding(nnx.SimpleCell):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.round = nnx.Param(jnp.ones(1))


def test_names_that_the_wrapper_uses_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs other names than round for variables of Rounding"):
        InPrecision(Rounding(2, 3, rngs=nnx.Rngs(0)), "bfloat16")
