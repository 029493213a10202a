"""A map agrees with explicit products for all sizes, parts, norms and dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradlab import adjoint_log_norms, jacobian_log_norms, log_singular_values, lyapunov_exponents
from gradlab.cells import LSTM, Elman
from gradlab.jacobian import step_jacobians

KINDS: dict[str, Any] = {"rnn": Elman, "lstm": LSTM, "gru": nnx.GRUCell}
PARTS = {"rnn": [None, "h"], "gru": [None, "h"], "lstm": [None, "c", "h"]}


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(list(KINDS)))
    length = draw(st.sampled_from([1, 2, 9]))
    return {
        "kind": kind,
        "n": draw(st.sampled_from([1, 3])),
        "length": length,
        "batch": draw(st.sampled_from([None, 1, 2])),
        "of": draw(st.sampled_from(PARTS[kind])),
        "wrt": draw(st.sampled_from(PARTS[kind])),
        "stride": draw(st.integers(1, length)),
        "norm": draw(st.sampled_from(["frobenius", "rms", "spectral"])),
        "precision": draw(st.sampled_from(["float32", "float64"])),
        "dtype": draw(st.sampled_from([np.float32, np.float64, jnp.bfloat16])),
    }


@settings(max_examples=12, derandomize=True)
@given(case=cases())
@example(
    {"kind": "lstm", "n": 3, "length": 2, "batch": 2, "of": None, "wrt": "h", "stride": 1}
    | {"norm": "rms", "precision": "float64", "dtype": np.float32}
)
def test_a_map_of_any_shape_agrees_with_explicit_products(case: dict[str, Any]) -> None:
    cell = KINDS[case["kind"]](2, case["n"], rngs=nnx.Rngs(0))
    samples = case["batch"] or 1
    shape = (samples, case["length"], 2)
    inputs = np.random.default_rng(0).normal(size=shape).astype(case["dtype"])
    measured_inputs = inputs[0] if case["batch"] is None else inputs
    maps = np.asarray(
        jacobian_log_norms(
            cell,
            measured_inputs,
            **{name: case[name] for name in ("norm", "of", "wrt", "stride", "precision")},
        )
    )
    size = case["length"] // case["stride"] + 1
    assert maps.dtype == np.float32
    assert maps.shape == ((size, size) if case["batch"] is None else (samples, size, size))
    for sample, log_norms in zip(inputs, maps.reshape(samples, size, size), strict=True):
        expected = multiplied_out(np.asarray(step_jacobians(cell, sample), np.float64), case)
        assert np.array_equal(np.isneginf(log_norms), np.isneginf(expected))
        finite = np.isfinite(expected)
        np.testing.assert_allclose(log_norms[finite], expected[finite], atol=2e-3)


def multiplied_out(jacobians: np.ndarray, case: dict[str, Any]) -> np.ndarray:
    n, stride = case["n"], case["stride"]
    rows, columns = (
        {None: slice(None), "c": slice(0, n), "h": slice(-n, None)}[case[end]]
        for end in ("of", "wrt")
    )
    size = len(jacobians) // stride + 1
    logs = np.full((size, size), -np.inf)
    for k in range(size):
        product = np.eye(jacobians.shape[1])
        for t in range(k, size):
            block = product[rows, columns]
            norm = np.linalg.norm(block, 2 if case["norm"] == "spectral" else None)
            norm /= np.sqrt(block.shape[1]) if case["norm"] == "rms" else 1
            with np.errstate(divide="ignore"):
                logs[t, k] = np.log(norm)
            for jacobian in jacobians[t * stride : (t + 1) * stride]:
                product = jacobian @ product
    return logs


def test_one_step_of_one_unit_gives_its_slope_in_every_measurement() -> None:
    """With T = 1, n = 1 and a batch of 1, every measurement is the logarithm of one number."""
    cell = Elman(1, 1, rngs=nnx.Rngs(0))
    inputs = np.full((1, 1, 1), 0.3, np.float32)
    a = float(cell.dense_i(jnp.array([0.3]))[0])
    slope = np.log(abs(float(cell.dense_h.kernel[0, 0]) * (1 - np.tanh(a) ** 2)))
    assert np.allclose(jacobian_log_norms(cell, inputs)[0, 1, 0], slope, atol=1e-5)
    assert np.allclose(lyapunov_exponents(cell, inputs), slope, atol=1e-5)
    assert np.allclose(log_singular_values(cell, inputs[0], [(1, 0)]), slope, atol=1e-5)
    adjoint = adjoint_log_norms(cell, inputs, lambda h, y: jnp.sum(3 * h), np.zeros((1, 1)))
    assert np.allclose(adjoint, [[slope + np.log(3), np.log(3)]], atol=1e-5)


def test_a_map_can_be_measured_under_an_outer_jit() -> None:
    cell = Elman(2, 3, rngs=nnx.Rngs(0))
    inputs = np.random.default_rng(0).normal(size=(2, 9, 2)).astype(np.float32)
    definition, weights = nnx.split(cell)

    @jax.jit
    def measured(weights: Any) -> jax.Array:
        return jacobian_log_norms(nnx.merge(definition, weights), inputs, norm="frobenius")

    np.testing.assert_allclose(
        measured(weights), jacobian_log_norms(cell, inputs, norm="frobenius"), atol=1e-6
    )
