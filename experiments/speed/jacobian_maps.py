"""What every pair's norm costs, against the bare products that it never forms.

    python experiments/speed/jacobian_maps.py

One tanh layer, T steps, n units. The floor multiplies out every ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾, k < t, and takes no
norm: for each t one stacked matrix product of all shorter ones. Runs are interleaved, medians and
ratios are of one process. Ratios are against the floor in the same precision.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from gradlab.jacobian import jacobian_log_norms, step_jacobians

RESULTS = Path(__file__).parent / "results"
TARGETS = {"frobenius": 0.2, "spectral": 1.5}
PRECISIONS: tuple[Literal["float32", "float64"], ...] = ("float32", "float64")
FEATURES = 8


class Row(NamedTuple):
    """One line of the table: seconds are medians, error is relative, of the norm."""

    measure: str
    precision: str
    seconds: float
    ratio: float
    largest_error: float


@jax.jit
def every_product(jacobians: Float[Array, "T n n"]) -> Float[Array, ""]:
    """Form all T(T+1)/2 products; returns a sum over the last ones so that none is optimised away.

    Row t holds P(t, k) for all k < t, side by side: (n, n) times (n, t·n). The rows are cut into
    32 pieces of equal length, each a loop of one shape (3 % more than the bare number).
    """
    length, n, _ = jacobians.shape
    pieces = 32
    step = -(-length // pieces)
    row = jnp.zeros((n, 0), jacobians.dtype)
    for begin in range(0, length, step):
        end = min(begin + step, length)
        row = jnp.concatenate([row, jnp.zeros((n, (end - begin) * n), row.dtype)], axis=1)

        def extend(t: Array, row: Float[Array, "n tn"]) -> Float[Array, "n tn"]:
            row = jnp.matmul(jacobians[t], row, precision=jax.lax.Precision.HIGHEST)
            return jax.lax.dynamic_update_slice(row, jacobians[t], (0, t * n))

        row = jax.lax.fori_loop(begin, end, extend, row)
    return jnp.sum(row)


def measured(cell: nnx.RNNCellBase, inputs: Array, repeats: int) -> list[Row]:
    """Time floor and maps in both precisions, turn about, and check a sample of pairs."""
    with jax.enable_x64(True):
        jacobians = step_jacobians(cell, inputs)
        runs: dict[tuple[str, str], Callable[[], Array]] = {}
        for precision in PRECISIONS:
            runs["floor", precision] = partial(every_product, jacobians.astype(precision))
            for norm in ("frobenius", "spectral"):
                runs[norm, precision] = partial(
                    jacobian_log_norms, cell, inputs, norm=norm, precision=precision
                )
        results = {name: np.asarray(run()) for name, run in runs.items()}  # compiles
        seconds: dict[tuple[str, str], list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                begin = time.perf_counter()
                run().block_until_ready()
                seconds[name].append(time.perf_counter() - begin)
    medians = {name: median(values) for name, values in seconds.items()}
    return [
        Row(
            norm,
            precision,
            medians[norm, precision],
            medians[norm, precision] / medians["floor", precision],
            0.0 if norm == "floor" else largest_error(results[norm, precision], jacobians, norm),
        )
        for norm, precision in runs
    ]


def largest_error(found: np.ndarray, jacobians: Array, norm: str, columns: int = 6) -> float:
    """Largest relative error over the pairs of a few k and a few hundred t, by float64 products."""
    steps = np.asarray(jacobians, np.float64)
    length, n, _ = steps.shape
    worst = 0.0
    for k in np.linspace(0, length - 1, columns).astype(int):
        product, log_scale = np.eye(n), 0.0
        for t in range(k + 1, length + 1):
            product = steps[t - 1] @ product
            size = np.linalg.norm(product)
            product, log_scale = product / size, log_scale + np.log(size)
            if t - k < 32 or t % 16 == 0:
                value = np.linalg.norm(product, 2) if norm == "spectral" else 1.0
                worst = max(worst, abs(np.expm1(found[t, k] - np.log(value) - log_scale)))
    return float(worst)


def machine() -> dict[str, Any]:
    """What it ran on."""
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    packages = ("gradlab", "jax", "jaxlib", "flax", "numpy")
    return {
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": str(jax.devices()[0]),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def table(rows: list[Row]) -> str:
    """The rows in Markdown, with the targets."""
    lines = [
        "| what | precision | seconds | of the floor | target | largest relative error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        target = f"≤ {TARGETS[row.measure]}" if row.measure in TARGETS else ""
        error = f"{row.largest_error:.1e}" if row.measure in TARGETS else ""
        lines.append(
            f"| {row.measure} | {row.precision} | {row.seconds:.2f} | {row.ratio:.2f} | {target} "
            f"| {error} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=1024, help="steps T")
    parser.add_argument("--size", type=int, default=128, help="units n")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    length, n = arguments.length, arguments.size
    rngs = nnx.Rngs(0)
    kernel = jax.nn.initializers.normal(1.5 / np.sqrt(n))
    cell = nnx.SimpleCell(FEATURES, n, recurrent_kernel_init=kernel, rngs=rngs)
    inputs = jax.random.normal(rngs(), (length, FEATURES))
    rows = measured(cell, inputs, arguments.repeats)
    title = f"T = {length}, n = {n}, median of {arguments.repeats}"
    text = f"{title}\n\n{table(rows)}\n\n" + ", ".join(f"{k} {v}" for k, v in machine().items())
    print(text)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"jacobian_maps_T{length}_n{n}"
    stem.with_suffix(".md").write_text(text + "\n")
    kept = {"length": length, "size": n, "machine": machine(), "rows": [r._asdict() for r in rows]}
    stem.with_suffix(".json").write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
