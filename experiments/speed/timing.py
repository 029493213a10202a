"""What the speed studies share: the layer they time, the floor, the clock and the reference."""

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
QUIET = 0.05  # share of the machine that others may take before figures are not to be trusted

Key = TypeVar("Key")
Pair = tuple[int, int]


class Layer(NamedTuple):
    """One recurrent tanh layer and the inputs that drive it."""

    cell: nnx.SimpleCell
    inputs: Float[Array, "T features"]


def tanh_layer(length: int, size: int, gain: float) -> Layer:
    """Gaussian recurrent weights of spectral radius `gain`, driven by noise."""
    rngs = nnx.Rngs(0)
    kernel = jax.nn.initializers.normal(gain / np.sqrt(size))
    cell = nnx.SimpleCell(FEATURES, size, recurrent_kernel_init=kernel, rngs=rngs)
    return Layer(cell, jax.random.normal(rngs(), (length, FEATURES), jnp.float32))


@jax.jit
def every_product(jacobians: Float[Array, "T n n"]) -> Float[Array, ""]:
    """Form all T(T+1)/2 products; returns a sum over the last ones so that none is optimised away.

    All P(t, k) of one t lie transposed below each other: the next t is one product of (t·n, n) by
    (n, n). The t are cut into pieces of equal length, each a loop of one shape (3 % more than the
    bare number).
    """
    return _multiply_out(jacobians, lambda products: jnp.zeros(()))[0]


@jax.jit
def every_norm(jacobians: Float[Array, "T n n"]) -> Float[Array, "T+1 T+1"]:
    """Form all products and take the log Frobenius norm of each."""
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


def interleaved(
    runs: dict[Key, Callable[[], Any]], repeats: int
) -> tuple[dict[Key, Any], dict[Key, list[float]], float]:
    """Run all, turn about, after a first time that compiles: slow spells then hit all alike.

    Returns:
        What each returned, the seconds of its repeats, and the share of the machine that other
        processes took meanwhile: threads that wait for each other suffer far more than that share.
    """
    results = {name: jax.block_until_ready(run()) for name, run in runs.items()}
    seconds = defaultdict(list)
    share = neighbours()
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begin)
    return results, dict(seconds), share()


def neighbours() -> Callable[[], float]:
    """Begin to watch; what comes back tells the share of the machine that others took since."""
    start, before = time.perf_counter(), _others_cpu_seconds()

    def share() -> float:
        wall = (time.perf_counter() - start) * (os.cpu_count() or 1)
        return max(0.0, _others_cpu_seconds() - before) / wall

    return share


def _others_cpu_seconds() -> float:
    """CPU seconds that all other processes have used since the machine started (Linux, else 0)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, *_ = (int(x) for x in stat.read_text().split()[1:8])
    own = sum(os.times()[:4])  # with the child processes that have ended
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - own


def disturbance(share: float) -> str:
    """What a reader must know of the neighbours."""
    warning = " **Too much: measure again on a quiet machine.**" if share > QUIET else ""
    return f"Other processes took {share:.0%} of the machine while this was timed.{warning}"


def sample_pairs(length: int, columns: int = 6) -> list[Pair]:
    """Pairs (t, k) of a few k: every lag below 32, then every sixteenth t."""
    return [
        (t, int(k))
        for k in np.linspace(0, length - 1, columns).astype(int)
        for t in range(k + 1, length + 1)
        if t - k < 32 or t % 16 == 0
    ]


def reference_log_norms(
    jacobians: np.ndarray, pairs: Iterable[Pair], norm: str
) -> dict[Pair, float]:
    """Log norms of the asked-for products, multiplied out in float64 and rescaled at each step."""
    ends: dict[int, set[int]] = defaultdict(set)
    for t, k in pairs:
        ends[k].add(t)
    found = {}
    for k, wanted in ends.items():
        product, log_scale = np.eye(jacobians.shape[1]), 0.0
        for t in range(k + 1, max(wanted) + 1):
            product = jacobians[t - 1].astype(np.float64) @ product
            size = np.linalg.norm(product)
            product, log_scale = product / size, log_scale + np.log(size)
            if t in wanted:
                value = np.linalg.norm(product, 2) if norm == "spectral" else 1.0
                found[t, k] = float(np.log(value) + log_scale)
    return found


def largest_error(found: np.ndarray, reference: dict[Pair, float]) -> float:
    """Largest relative error of the norm over the pairs that were measured (the others are nan)."""
    errors = [abs(np.expm1(float(found[pair]) - value)) for pair, value in reference.items()]
    return float(np.nanmax(errors))


def machine(*packages: str) -> dict[str, Any]:
    """What it ran on, with the versions of gradlab, jax and the packages named."""
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    device = jax.devices()[0]
    return {
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": f"{device.platform} ({device.device_kind})",
        "python": platform.python_version(),
        **{x: version(x) for x in ("gradlab", "jax", "jaxlib", "flax", "numpy", *packages)},
    }


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def keep(stem: str, text: str, data: dict[str, Any]) -> None:
    """Print the text, and keep it and the data beside each other in results/."""
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{stem}.md").write_text(text + "\n")
    (RESULTS / f"{stem}.json").write_text(json.dumps(data, indent=2) + "\n")


def sentence(facts: dict[str, Any]) -> str:
    """Facts on one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())
