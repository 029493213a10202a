"""Spectral norms of given products by the singular value decompositions of several libraries."""

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
    """Return the norms by torch.linalg.svdvals of the whole batch."""
    return torch.linalg.svdvals(products)[:, 0].cpu().numpy()


def numpy_svd(products: Tensor) -> np.ndarray:
    """Return the norms by numpy.linalg.svd of the whole batch."""
    return np.linalg.svd(products.cpu().numpy(), compute_uv=False)[:, 0]


@jax.jit
def _jax_svd(products: jax.Array) -> jax.Array:
    return jnp.linalg.svd(products, compute_uv=False)[:, 0]


def jax_svd(products: Tensor) -> np.ndarray:
    """Return the norms by jax.numpy.linalg.svd of the whole batch."""
    return np.asarray(_jax_svd(jnp.asarray(products.cpu().numpy())))


def torch_gram(products: Tensor) -> np.ndarray:
    """Return the root of PᵀP's largest eigenvalue: half the work of an SVD, and as accurate."""
    return torch.linalg.eigvalsh(products.mT @ products)[:, -1].sqrt().cpu().numpy()


def by_core(norms: Norms, products: Tensor) -> np.ndarray:
    """Return the norms with a part of the batch on each core; LAPACK itself uses one core."""
    with threads(1), ThreadPoolExecutor(CORES) as pool:
        return np.concatenate(list(pool.map(norms, products.chunk(CORES))))


def torch_one_thread(products: Tensor) -> np.ndarray:
    """Return the norms by torch.linalg.svdvals of the whole batch, on one thread."""
    return on_threads(1, partial(torch_svdvals, products))


LIBRARIES: dict[str, Norms] = {
    "torch.linalg.svdvals": torch_svdvals,
    "torch.linalg.svdvals on one thread": torch_one_thread,
    "numpy.linalg.svd": numpy_svd,
    "jax.numpy.linalg.svd": jax_svd,
}


def fastest(products: Tensor) -> tuple[str, float]:
    """Return the library that is fastest on a few products, and its seconds per product."""
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
    """Return the pairs (t, k) of all t in `times`, and their products in one array."""
    steps = torch.tensor(jacobians, device=device())
    pairs = [(t, k) for t in times for k in range(t)]
    products = torch.empty((len(pairs), *steps[0].shape), device=device())
    products_of_t, filled = steps[:0], 0
    for t, step in enumerate(steps, start=1):
        products_of_t = torch.cat([step @ products_of_t, step[None]])
        if t in times:
            products[filled : filled + t] = products_of_t
            filled += t
    return pairs, products


def spectral_map(pairs: list[Pair], products: Tensor, norms: Norms, length: int) -> np.ndarray:
    """Return the map of log spectral norms of these pairs; nan elsewhere."""
    log_norms = np.full((length + 1, length + 1), np.nan)
    values = np.concatenate([norms(part) for part in products.split(BATCH)])
    log_norms[tuple(np.transpose(pairs))] = np.log(values)
    return log_norms
