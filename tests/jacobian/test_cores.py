"""Norms of small matrices, and of many at once, against LAPACK's."""

from collections.abc import Callable

import numpy as np
import pytest

from gradlab.jacobian.cores import core_spectral_squares, core_squares, top_of_grams
from gradlab.jacobian.lanczos import top_eigenvalues

RNG = np.random.default_rng(0)


def matrices(values: np.ndarray) -> np.ndarray:
    """Return matrices (N, q + 2, q) with these singular values, (N, q)."""
    count, q = values.shape
    left, right = (np.linalg.qr(RNG.normal(size=(count, m, q)))[0] for m in (q + 2, q))
    return left @ (values[..., None] * right.mT)


SPECTRA = {
    "one": np.ones((5, 1)),
    "spread": 10.0 ** RNG.uniform(-8, 0, (200, 12)),
    "few": 10.0 ** RNG.uniform(-3, 0, (200, 5)),
    "all equal": np.ones((5, 24)),
    "two all but equal": np.concatenate(
        [np.ones((40, 1)), 1 - 10.0 ** -np.linspace(0.1, 9, 40)[:, None], np.full((40, 9), 0.1)], 1
    ),
    "a cluster": 1 - RNG.uniform(0, 1e-3, (40, 30)),
    "tiny": 1e-35 * RNG.uniform(0.1, 1, (40, 20)),
    "zero": np.zeros((2, 12)),
}


@pytest.mark.parametrize("kind", SPECTRA)
def test_spectral_norms_of_small_matrices_are_those_of_lapack(kind: str) -> None:
    expected = SPECTRA[kind].max(axis=1)
    core = matrices(SPECTRA[kind])
    one = np.broadcast_to(np.eye(core.shape[2]), core[:, None, 2:].shape)
    found = core_spectral_squares(core[:, None], one)[:, 0, 0]
    np.testing.assert_allclose(found**0.5, expected, rtol=5e-5)


@pytest.mark.parametrize("q", [3, 12])
def test_what_is_not_finite_stays_so(q: int) -> None:
    grams = np.stack([np.zeros((q, q)), np.full((q, q), np.nan), np.eye(q)])
    np.testing.assert_allclose(top_of_grams(grams), [0, np.nan, 1])


def test_groups_that_converge_at_different_steps_keep_their_values() -> None:
    spectra = [
        np.geomspace(1, 1e-12, 40)[None],
        1 - RNG.uniform(0, 0.3, (7, 40)),
        np.zeros((2, 40)),
        1e-137 * (1 - RNG.uniform(0, 0.3, (7, 40))),
        np.concatenate(
            [np.geomspace(1, 1e-12, 40)[None]] * 30 + [1 - RNG.uniform(0, 0.3, (2, 40))]
        ),
        np.concatenate([np.geomspace(1, 1e-60, 40)[None]] * 9 + [np.linspace(2, 1, 40)[None]]),
    ]
    groups = [x.mT @ x for x in (matrices(x**0.5) for x in spectra)]
    start = np.ones(40) / 40**0.5

    def operator(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda v: (x @ v[..., None])[..., 0]

    tops = top_eigenvalues(
        [*map(operator, groups)],
        [np.broadcast_to(start, (len(x), 40)) for x in groups],
        [x.__getitem__ for x in groups],
        operator,
    )
    for top, spectrum in zip(tops, spectra, strict=True):
        np.testing.assert_allclose(top, spectrum.max(axis=1), rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 5, 7), (40, 1, 1), (3, 64, 2)])
def test_pieces_are_put_together(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradlab.jacobian.cores.PIECE", 500)
    blocks, length_t, length_k = shape
    a, b_T = RNG.normal(size=(blocks, length_t, 3, 6)), RNG.normal(size=(blocks, length_k, 2, 6))
    core = np.einsum("ntim,nkjm->ntkij", a, b_T)
    np.testing.assert_allclose(core_squares(a, b_T), np.sum(core**2, axis=(-2, -1)))
    largest = np.linalg.svd(core, compute_uv=False)[..., 0]
    np.testing.assert_allclose(core_spectral_squares(a, b_T), largest**2)
