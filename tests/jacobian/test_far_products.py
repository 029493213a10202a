"""Products of many steps, which are measured by few rows: nothing that is claimed is lost."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab.cells import LSTM, set_gate_biases
from gradlab.jacobian import halving, map_log_norms, pairs, step_jacobians

LENGTH, N, FEATURES = 150, 24, 3
INPUTS = np.random.default_rng(0).normal(size=(LENGTH, FEATURES)).astype(np.float32)
RNG = np.random.default_rng(1)
ROTATION = np.linalg.qr(RNG.normal(size=(N, N)))[0]


def of_cell(cell: nnx.RNNCellBase) -> np.ndarray:
    return np.asarray(step_jacobians(cell, INPUTS), np.float64)


def tanh(gain: float) -> np.ndarray:
    kernel = jax.nn.initializers.normal(gain / np.sqrt(N))
    return of_cell(nnx.SimpleCell(FEATURES, N, recurrent_kernel_init=kernel, rngs=nnx.Rngs(0)))


def lstm(bias: float) -> np.ndarray:
    cell = LSTM(FEATURES, N // 2, rngs=nnx.Rngs(0))
    set_gate_biases(cell, {"forget": jnp.full(N // 2, bias)})
    return of_cell(cell)


def repeated(matrix: np.ndarray) -> np.ndarray:
    return np.broadcast_to(matrix, (LENGTH, N, N))


def alternating() -> np.ndarray:
    """What a step keeps, the next one all but forgets: pairs are far smaller than their factors."""
    scales = np.where(np.arange(N) % 2, 1.0, 1e-5)
    return np.stack([np.diag(scales if t // 16 % 2 else scales[::-1]) for t in range(LENGTH)])


KINDS: dict[str, Any] = {
    "vanishing": lambda: tanh(0.8),
    "chaotic": lambda: tanh(2.0),
    "orthogonal": lambda: repeated(ROTATION),
    "nearly orthogonal": lambda: ROTATION * np.linspace(0.97, 1, N) + 0 * repeated(ROTATION),
    "Jordan": lambda: repeated(0.9 * np.eye(N) + np.eye(N, k=1)),
    "nilpotent": lambda: repeated(np.eye(N, k=1)),
    "alternating": alternating,
    **{f"LSTM, forget bias {bias}": (lambda bias=bias: lstm(bias)) for bias in (0.0, 1.0, 4.0)},
    "GRU": lambda: of_cell(nnx.GRUCell(FEATURES, N, rngs=nnx.Rngs(0))),
    "many orders of magnitude": lambda: repeated(ROTATION * 10.0 ** np.linspace(-6, 0, N)),
}


def svd_log_norms(jacobians: np.ndarray, k: int) -> np.ndarray:
    """Return the log spectral norm of every product from step k on, multiplied in float64."""
    product, log_scale, logs = np.eye(N), 0.0, []
    for jacobian in jacobians[k:]:
        product = jacobian @ product
        size = np.linalg.norm(product, 2)
        with np.errstate(divide="ignore"):
            logs.append(log_scale + np.log(size))
        if size > 0:
            product, log_scale = product / size, logs[-1]
    return np.array(logs)


@pytest.mark.parametrize("kind", KINDS)
def test_spectral_norms_of_far_products_are_right(kind: str) -> None:
    jacobians = KINDS[kind]()
    log_norms = np.asarray(map_log_norms(jacobians))
    for k in (0, 3, 64, 100, 131):
        expected, found = svd_log_norms(jacobians, k), log_norms[k + 1 :, k]
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
        finite = np.isfinite(expected)
        # float32 output resolves a log norm of 300 nats to 3e-5.
        errors = np.abs(np.expm1(found[finite].astype(np.float64) - expected[finite]))
        assert errors.max(initial=0) < 1e-4


def test_few_rows_are_left_and_pairs_that_they_may_harm_are_measured_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bool] = []
    halved, truncated, ranks = pairs._halved, halving._truncated, []

    def spied(*args: Any, truncate: bool) -> Any:
        calls.append(truncate)
        return halved(*args, truncate=truncate)

    def counted(segment: Any) -> Any:
        shorter = truncated(segment)
        ranks.append(shorter.rows.unit.shape[2])
        assert shorter.lost.max() <= halving.LOST + segment.lost.max()
        return shorter

    def all_rows(*args: Any, truncate: bool) -> Any:
        return halved(*args, truncate=False)

    monkeypatch.setattr(pairs, "_halved", spied)
    monkeypatch.setattr(halving, "_truncated", counted)
    whole = np.asarray(map_log_norms(tanh(0.8)))
    assert min(ranks) < N / 3
    assert calls == [True]
    map_log_norms(alternating())
    assert calls == [True, True, False]
    monkeypatch.setattr(pairs, "_halved", all_rows)
    np.testing.assert_allclose(map_log_norms(tanh(0.8)), whole, atol=2e-5)
