"""Shared parts of the benchmarks: the timed layer, bare products, the timer and the reference."""

import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

RESULTS = Path(__file__).parent / "results"
FEATURES = 8
PIECES = 32
QUIET = 0.05  # share of the machine above which the load of others makes timings unreliable

Key = TypeVar("Key")
Pair = tuple[int, int]


class Layer(NamedTuple):
    """One recurrent tanh layer and the inputs that drive it."""

    cell: nnx.SimpleCell
    inputs: Float[Array, "T features"]


def tanh_layer(length: int, size: int, gain: float) -> Layer:
    """Return a layer with Gaussian recurrent weights of spectral radius `gain`, driven by noise."""
    rngs = nnx.Rngs(0)
    kernel = jax.nn.initializers.normal(gain / np.sqrt(size))
    cell = nnx.SimpleCell(FEATURES, size, recurrent_kernel_init=kernel, rngs=rngs)
    return Layer(cell, jax.random.normal(rngs(), (length, FEATURES), jnp.float32))


@jax.jit
def every_product(jacobians: Float[Array, "T n n"]) -> Float[Array, ""]:
    """Form all T(T+1)/2 products; return a sum over the last ones so that none is optimised away.

    All P(t, k) of one t are stacked, transposed: those of the next t are one product of (t·n, n)
    by (n, n). The time steps are cut into pieces of equal length, each a loop of one shape, which
    costs 3 % more than the products alone.
    """
    return _multiply_out(jacobians, lambda products: jnp.zeros(()))[0]


@jax.jit
def every_norm(jacobians: Float[Array, "T n n"]) -> Float[Array, "T+1 T+1"]:
    """Form all products and return the log Frobenius norm of each, [t, k]."""
    _, squares = _multiply_out(jacobians, lambda products: jnp.sum(products**2, axis=(1, 2)))
    length = len(jacobians)
    rows = [jnp.pad(x, ((0, 0), (0, length + 1 - x.shape[1]))) for x in squares]
    return jnp.concatenate([jnp.full((1, length + 1), -jnp.inf), 0.5 * jnp.log(jnp.vstack(rows))])


def _multiply_out(
    jacobians: Float[Array, "T n n"], measure: Callable[[Float[Array, "k n n"]], Array]
) -> tuple[Float[Array, ""], list[Array]]:
    length, n, _ = jacobians.shape
    piece = -(-length // PIECES)
    below, measured = jnp.zeros((0, n), jacobians.dtype), []
    for begin in range(0, length, piece):
        end = min(begin + piece, length)
        below = jnp.pad(below, ((0, (end - begin) * n), (0, 0)))

        def extend(
            below: Float[Array, "tn n"], step: tuple[Array, Array]
        ) -> tuple[Float[Array, "tn n"], Array]:
            t, jacobian = step
            below = jnp.matmul(below, jacobian.mT, precision=jax.lax.Precision.HIGHEST)
            below = jax.lax.dynamic_update_slice(below, jacobian.mT, (t * n, 0))
            return below, measure(below.reshape(-1, n, n))

        below, values = jax.lax.scan(extend, below, (jnp.arange(begin, end), jacobians[begin:end]))
        measured.append(values)
    return jnp.sum(below), measured


def time_interleaved(
    runs: dict[Key, Callable[[], Any]], repeats: int
) -> tuple[dict[Key, Any], dict[Key, list[float]], float]:
    """Time all runs in turn, so that slow phases of the machine affect all alike.

    Each runs once before, to compile.

    Returns:
        The result of each run, the seconds of its repeats, and the share of the machine that other
        processes took meanwhile. (Threads that wait for each other lose far more than that share.)
    """
    results = {name: jax.block_until_ready(run()) for name, run in runs.items()}
    seconds = defaultdict(list)
    load = monitor_load()
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begin)
    return results, dict(seconds), load()


def monitor_load() -> Callable[[], float]:
    """Return a function that gives the share of the machine that other processes took since now."""
    start, before = time.perf_counter(), _others_cpu_seconds()

    def load() -> float:
        available = (time.perf_counter() - start) * (os.cpu_count() or 1)
        return max(0.0, _others_cpu_seconds() - before) / available

    return load


def _others_cpu_seconds() -> float:
    """Return the CPU seconds of all other processes since the machine started; 0 if not Linux."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, *_ = (int(x) for x in stat.read_text().split()[1:8])
    own = sum(os.times()[:4])  # child processes that have ended included
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - own


def load_note(share: float) -> str:
    """Return a sentence on the load of other processes, with a warning if it was too high."""
    warning = " **Too much: measure again on a quiet machine.**" if share > QUIET else ""
    return f"Other processes took {share:.0%} of the machine while this was timed.{warning}"


def sample_pairs(length: int, columns: int = 6) -> list[Pair]:
    """Return the pairs (t, k) of a few k: every lag below 32, then every sixteenth t."""
    return [
        (t, int(k))
        for k in np.linspace(0, length - 1, columns).astype(int)
        for t in range(k + 1, length + 1)
        if t - k < 32 or t % 16 == 0
    ]


def reference_log_norms(
    jacobians: np.ndarray, pairs: Iterable[Pair], norm: str
) -> dict[Pair, float]:
    """Return the log norms of some products, multiplied in float64 and rescaled at each step."""
    times: dict[int, set[int]] = defaultdict(set)
    for t, k in pairs:
        times[k].add(t)
    log_norms = {}
    for k, wanted in times.items():
        product, log_scale = np.eye(jacobians.shape[1]), 0.0
        for t in range(k + 1, max(wanted) + 1):
            product = jacobians[t - 1].astype(np.float64) @ product
            size = np.linalg.norm(product)
            product, log_scale = product / size, log_scale + np.log(size)
            if t in wanted:
                value = np.linalg.norm(product, 2) if norm == "spectral" else 1.0
                log_norms[t, k] = float(np.log(value) + log_scale)
    return log_norms


def largest_error(log_norms: np.ndarray, reference: dict[Pair, float]) -> float:
    """Return the largest relative error of a norm over the pairs that are not nan."""
    errors = [abs(np.expm1(float(log_norms[pair]) - value)) for pair, value in reference.items()]
    return float(np.nanmax(errors))


def machine(*packages: str) -> dict[str, Any]:
    """Return the hardware, and the versions of Python, gradlab, jax and the packages named."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line for line in lines if "model name" in line]
    device = jax.devices()[0]
    return {
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": f"{device.platform} ({device.device_kind})",
        "python": platform.python_version(),
        **{x: version(x) for x in ("gradlab", "jax", "jaxlib", "flax", "numpy", *packages)},
    }


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save(stem: str, text: str, data: dict[str, Any]) -> None:
    """Print the text, and save it with the data as results/<stem>.md and .json."""
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{stem}.md").write_text(text + "\n")
    (RESULTS / f"{stem}.json").write_text(json.dumps(data, indent=2) + "\n")


def describe(facts: dict[str, Any]) -> str:
    """Return names and values on one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())
