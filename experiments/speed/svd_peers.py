"""Spectral norms of products that are at hand: singular values, by whom it is done fastest."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch
from timing import Pair  # type: ignore[import-not-found, unused-ignore]
from torch import Tensor
from torch_peers import (  # type: ignore[import-not-found, unused-ignore]
    CORES,
    device,
    on_threads,
    threads,
)

Norms = Callable[[Tensor], np.ndarray]  # (count, n, n) to (count,)
TRIAL, BATCH = 256, 4096  # products


def torch_svdvals(products: Tensor) -> np.ndarray:
    """torch.linalg.svdvals of the whole batch."""
    return torch.linalg.svdvals(products)[:, 0].cpu().numpy()


def numpy_svd(products: Tensor) -> np.ndarray:
    """numpy.linalg.svd of the whole batch."""
    return np.linalg.svd(products.cpu().numpy(), compute_uv=False)[:, 0]


@jax.jit
def _jax_svd(products: jax.Array) -> jax.Array:
    return jnp.linalg.svd(products, compute_uv=False)[:, 0]


def jax_svd(products: Tensor) -> np.ndarray:
    """jax.numpy.linalg.svd of the whole batch."""
    return np.asarray(_jax_svd(jnp.asarray(products.cpu().numpy())))


def torch_gram(products: Tensor) -> np.ndarray:
    """Root of the top eigenvalue of PᵀP: half of an SVD's work, and as exact for the largest."""
    return torch.linalg.eigvalsh(products.mT @ products)[:, -1].sqrt().cpu().numpy()


def by_core(norms: Norms, products: Tensor) -> np.ndarray:
    """The batch in one part a core: LAPACK takes its matrices one after the other."""
    with threads(1), ThreadPoolExecutor(CORES) as pool:
        return np.concatenate(list(pool.map(norms, products.chunk(CORES))))


def torch_one_thread(products: Tensor) -> np.ndarray:
    """torch.linalg.svdvals of the whole batch, on one thread."""
    return on_threads(1, partial(torch_svdvals, products))


LIBRARIES: dict[str, Norms] = {
    "torch.linalg.svdvals": torch_svdvals,
    "torch.linalg.svdvals on one thread": torch_one_thread,
    "numpy.linalg.svd": numpy_svd,
    "jax.numpy.linalg.svd": jax_svd,
}


def fastest(products: Tensor) -> tuple[str, float]:
    """The name of the fastest on a few products, and its seconds a product."""
    trial = products[:: max(1, len(products) // TRIAL)]
    seconds = {}
    for name, norms in LIBRARIES.items():
        norms(trial)  # compiles
        begin = time.perf_counter()
        norms(trial)
        seconds[name] = (time.perf_counter() - begin) / len(trial)
    name = min(seconds, key=lambda x: seconds[x])
    return name, seconds[name]


def products_of(jacobians: np.ndarray, times: range) -> tuple[list[Pair], Tensor]:
    """The pairs of the times t asked for, and their products in one array."""
    steps = torch.tensor(jacobians, device=device())
    pairs = [(t, k) for t in times for k in range(t)]
    products = torch.empty((len(pairs), *steps[0].shape), device=device())
    of_t, filled = steps[:0], 0
    for t, step in enumerate(steps, start=1):
        of_t = torch.cat([step @ of_t, step[None]])
        if t in times:
            products[filled : filled + t] = of_t
            filled += t
    return pairs, products


def spectral_map(pairs: list[Pair], products: Tensor, norms: Norms, length: int) -> np.ndarray:
    """Log spectral norms of the pairs that are at hand; the others stay nan."""
    log_norms = np.full((length + 1, length + 1), np.nan)
    found = np.concatenate([norms(part) for part in products.split(BATCH)])
    log_norms[tuple(np.transpose(pairs))] = np.log(found)
    return log_norms
