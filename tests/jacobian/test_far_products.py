"""Products of many steps, which are measured by few rows: nothing that is claimed is lost."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab.cells import LSTM, set_gate_biases
from gradlab.jacobian import halving, jacobian_log_norms, map_log_norms, pairs, step_jacobians
from gradlab.jacobian.products import rescale

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


@pytest.mark.parametrize("norm", ["spectral", "frobenius"])
def test_units_that_take_turns_in_forgetting_are_measured_to_any_size(norm: Any) -> None:
    """Half of the sequence each keeps what the other loses: e^±690 within one factor."""
    turns = np.repeat([[0.0, np.log(1e-3)], [np.log(1e-3), 0.0]], 100, axis=0)
    kept = np.concatenate([np.zeros((1, 2)), np.cumsum(turns, axis=0)])
    exact = np.max(kept[:, None] - kept[None], axis=-1)  # both norms, within 0.5 log 2
    steps = np.exp(turns)[:, None] * np.eye(2)
    if norm == "frobenius":
        exact = 0.5 * np.logaddexp.reduce(2 * (kept[:, None] - kept[None]), axis=-1)
    t, k = np.indices(exact.shape)
    log_norms = np.asarray(map_log_norms(steps, norm=norm))
    np.testing.assert_allclose(log_norms[t >= k], exact[t >= k], rtol=1e-6, atol=1e-5)
    # A program of constant shape does not know these: it says so.
    traced = np.asarray(jax.jit(lambda x: map_log_norms(x, norm=norm))(steps))
    is_known = np.isfinite(traced)
    assert np.isnan(traced[(t >= k) & ~is_known]).all()
    np.testing.assert_allclose(traced[is_known], log_norms[is_known], rtol=1e-5, atol=1e-4)


def test_pairs_that_truncation_may_harm_are_measured_with_all_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bool] = []
    halved = pairs._halved

    def spied(*args: Any, truncate: bool) -> Any:
        calls.append(truncate)
        return halved(*args, truncate=truncate)

    def all_rows(*args: Any, truncate: bool) -> Any:
        return halved(*args, truncate=False)

    monkeypatch.setattr(pairs, "_halved", spied)
    whole = np.asarray(map_log_norms(tanh(0.8)))
    assert calls == [True]
    map_log_norms(alternating())
    assert calls == [True, True, False]
    monkeypatch.setattr(pairs, "_halved", all_rows)
    np.testing.assert_allclose(map_log_norms(tanh(0.8)), whole, atol=2e-5)


@pytest.mark.parametrize("gain", [0.8, 2.0])
def test_a_sketch_tells_what_truncation_leaves_out(
    gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halving, "LOST", 1e-6)  # so that float64 shows the difference
    exact = rough = halving.single_steps(rescale(tanh(gain)[:128]), (0, N), (0, N))
    for _ in range(7):
        exact, rough = (
            halving.merge_blocks(jax.tree.map(np.copy, block), truncate)
            for block, truncate in ((exact, False), (rough, True))
        )
    assert rough.prefix[-1].unit.shape[2] < N / 3
    factor, begin = ROTATION[:, :2], rough.prefix[0].unit.shape[1]
    for rows in rough.prefix[1:]:
        part = slice(begin, begin := begin + rows.unit.shape[1])
        whole = exact.prefix[0].unit[:, part]
        scale = np.exp(rows.log_scale - exact.prefix[0].log_scale[:, part])

        def energy(x: np.ndarray) -> np.ndarray:
            return np.sum((x @ factor) ** 2, axis=(-2, -1))

        lost = energy(whole) - scale**2 * energy(rows.unit)
        found = scale**2 * energy(rows.sketch) / lost
        assert lost.min() > 0
        assert lost.max() < 1e-3
        assert found.min() > 1e-3
        assert found.max() < 100
        assert 0.3 < found.mean() < 3


def test_an_accelerator_measures_in_float64_what_float32_has_no_squares_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one step keeps, the next one shrinks a billionfold."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    factors = jnp.array([[1.0, 1e-9], [1e-9, 1.0], [1.0, 1.0]])

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        return h * x, None

    def of_cell(**options: Any) -> Any:
        return jacobian_log_norms(step, factors, initial_carry=jnp.ones(2), **options)

    def of_steps(**options: Any) -> Any:
        return map_log_norms(jax.vmap(jnp.diag)(factors), **options)

    for measure in (of_cell, of_steps):
        assert np.asarray(measure())[2:, 0] == pytest.approx(np.log(1e-9), rel=1e-6)
        assert np.isnan(measure(precision="float32")[2, 0])
