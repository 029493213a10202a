"""Cost and error of sampled norms of a wide LSTM, against float64 products of its Jacobians.

    python experiments/speed/sampled.py                 1024 units, T = 96 (4 minutes on 2 cores)
    python experiments/speed/sampled.py --units 4096    for an accelerator

Each row is a process of its own. The reference multiplies float64 step Jacobians, one at a time,
from two k on: two columns of the map, at the lags below.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from reach import peak  # type: ignore[import-not-found, unused-ignore]
from timing import (  # type: ignore[import-not-found, unused-ignore]
    FEATURES,
    describe,
    load_note,
    machine,
    markdown,
    monitor_load,
    save,
)

from gradlab import jacobian_log_norms, log_singular_values, lyapunov_spectrum
from gradlab.jacobian import step_jacobians

VECTORS = (4, 8, 16, 32, 64)
LAGS = (1, 2, 4, 8, 16, 32, 48, 64, 80, 96)
COUNT = 4  # of singular values and of exponents
BUDGET = 6 * 2**30  # bytes
TARGET = 0.25  # nats
HEADER = (
    *("norm", "vectors", "first run (s)", "second run (s)", "peak memory (GiB)"),
    *("standard error, mean", "error, rms", "error, largest"),
)


def lstm(units: int, length: int) -> tuple[nnx.OptimizedLSTMCell, Float[Array, "T features"]]:
    """Return an LSTM as Flax makes it, and noise that drives it."""
    rngs = nnx.Rngs(0)
    cell = nnx.OptimizedLSTMCell(FEATURES, units, rngs=rngs)
    return cell, jax.random.normal(rngs(), (length, FEATURES), jnp.float32)


def starts(length: int) -> tuple[int, int]:
    """Return the k of the reference."""
    return 0, length // 2


def reference(units: int, length: int) -> dict[str, Any]:
    """Return log rms norms by (t, k), and the largest singular values of the longest product."""
    cell, inputs = lstm(units, length)
    begin, log_norms = time.perf_counter(), {}
    carry = cell.initialize_carry((FEATURES,), nnx.Rngs(0))
    products: dict[int, np.ndarray] = {}
    scales: dict[int, float] = {}
    for t in range(1, length + 1):
        step = inputs[t - 1 : t]
        jacobian = np.asarray(step_jacobians(cell, step, initial_carry=carry)[0], np.float64)
        carry, _ = cell(carry, step[0])
        if t - 1 in starts(length):
            products[t - 1], scales[t - 1] = np.eye(len(jacobian)), 0.0
        for k in products:
            products[k] = jacobian @ products[k]
            size = float(np.linalg.norm(products[k]))
            products[k] /= size
            scales[k] += float(np.log(size))
            if t - k in LAGS:
                log_norms[f"{t},{k}"] = scales[k] - 0.5 * np.log(len(jacobian))
    values = np.linalg.svd(products[0], compute_uv=False)[:COUNT]
    seconds = time.perf_counter() - begin
    log_values = (np.log(values) + scales[0]).tolist()
    return {"log_norms": log_norms, "log_values": log_values, "seconds": seconds, "peak": peak()}


def timed(run: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Run twice; return the result, the seconds with and without compiling, and peak memory."""
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        result = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - begin)
    return result, {"first": seconds[0], "second": seconds[1], "peak": peak()}


def sampled_map(units: int, length: int, vectors: int) -> dict[str, Any]:
    """Measure the whole map of rms norms; return its columns of the reference's k."""
    cell, inputs = lstm(units, length)
    options: dict[str, Any] = {"norm": "rms", "method": "sampled", "memory_budget": BUDGET}
    run = partial(jacobian_log_norms, cell, inputs, vectors=vectors, **options)
    (log_norms, errors), cost = timed(run)
    chosen = {f"{t},{k}": (t, k) for k in starts(length) for t in range(k + 1, length + 1)}
    found = {name: float(log_norms[pair]) for name, pair in chosen.items()}
    estimated = {name: float(errors[pair]) for name, pair in chosen.items()}
    return cost | {"log_norms": found, "errors": estimated}


def spectral_column(units: int, length: int) -> dict[str, Any]:
    """Measure spectral norms from k = 0, at every quarter of the length."""
    cell, inputs = lstm(units, length)
    options: dict[str, Any] = {"norm": "spectral", "method": "sampled", "memory_budget": BUDGET}
    run = partial(jacobian_log_norms, cell, inputs, starts=[0], stride=length // 4, **options)
    (log_norms, _), cost = timed(run)
    return cost | {"log_values": [float(log_norms[-1, 0])]}


def largest_values(units: int, length: int) -> dict[str, Any]:
    """Measure a few singular values of the longest product."""
    cell, inputs = lstm(units, length)
    values, cost = timed(
        partial(log_singular_values, cell, inputs, [(length, 0)], count=COUNT),
    )
    return cost | {"log_values": np.asarray(values[0]).tolist()}


def largest_exponents(units: int, length: int) -> dict[str, Any]:
    """Measure a few Lyapunov exponents."""
    cell, inputs = lstm(units, length)
    spectrum, cost = timed(partial(lyapunov_spectrum, cell, inputs, count=COUNT))
    return cost | {"exponents": np.asarray(spectrum.exponents).tolist()}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "reference": reference,
    "map": sampled_map,
    "spectral": spectral_column,
    "values": largest_values,
    "exponents": largest_exponents,
}


def in_own_process(*case: str | int) -> dict[str, Any]:
    """Return what a case measures in a process of its own, whose memory peaks for it alone."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{case}: {result.get('second', result.get('seconds')):.3g} s", flush=True)
    return result


def line(vectors: int, row: dict[str, Any], known: dict[str, float]) -> list[str]:
    """Return the table's line of a sampled map."""
    deviation = np.array([row["log_norms"][pair] - known[pair] for pair in known])
    error = np.mean([row["errors"][pair] for pair in known])
    shown = (error, np.sqrt(np.mean(deviation**2)), np.abs(deviation).max())
    return ["rms, all pairs", str(vectors), *costs(row), *(f"{x:.3f}" for x in shown)]


def other_line(what: str, row: dict[str, Any], known: list[float]) -> list[str]:
    """Return the table's line of singular values, or of what has no reference."""
    errors = [abs(x - y) for x, y in zip(row.get("log_values", []), known, strict=False)]
    return [what, "", *costs(row), "", "", f"{max(errors):.1e}" if errors else ""]


def costs(row: dict[str, Any]) -> list[str]:
    """Return seconds and memory as the table shows them."""
    return [f"{row['first']:.3g}", f"{row['second']:.3g}", f"{row['peak']:.2f}"]


def main(units: int, length: int) -> None:
    """Measure all cases; print and save the table."""
    load, size = monitor_load(), (units, length)
    known = in_own_process("reference", *size)
    maps = {vectors: in_own_process("map", *size, vectors) for vectors in VECTORS}
    others = {
        "spectral, four t of k = 0": in_own_process("spectral", *size),
        f"{COUNT} singular values, t = {length}, k = 0": in_own_process("values", *size),
        f"{COUNT} Lyapunov exponents": in_own_process("exponents", *size),
    }
    lines = [line(vectors, row, known["log_norms"]) for vectors, row in maps.items()]
    lines += [other_line(what, row, known["log_values"]) for what, row in others.items()]
    default = maps[16]
    worst = max(abs(default["log_norms"][x] - y) for x, y in known["log_norms"].items())
    jacobians = length * (2 * units) ** 2 * 8 / 2**30
    facts, share = machine(), load()
    text = "\n\n".join(
        [
            f"An LSTM of {units} units (a carry of {2 * units} numbers), T = {length}.",
            markdown(HEADER, lines),
            "Errors are in nats, against float64 products for "
            f"{len(known['log_norms'])} pairs: lags {', '.join(map(str, LAGS))} from "
            f"k = {starts(length)[0]} and k = {starts(length)[1]}. That took "
            f"{known['seconds']:.0f} s. All step Jacobians in float64 would take "
            f"{jacobians:.1f} GiB, and all products many times that.",
            f"With 16 vectors: {default['peak']:.2f} GiB (target {BUDGET / 2**30:.0f}), "
            f"largest error {worst:.2f} nats (target {TARGET}).",
            "The first run compiles. Peak memory includes Python and the compiler.",
            describe(facts),
            load_note(share),
        ]
    )
    rows = {"reference": known, "maps": maps, "others": others}
    data = {"machine": facts, "others": share, "units": units, "length": length, "rows": rows}
    save("sampled" if units == 1024 else f"sampled_n{units}", text, data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--units", type=int, default=1024)
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        name, *sizes = json.loads(arguments.case)
        print(json.dumps(MEASURES[name](*sizes)))
    else:
        main(arguments.units, arguments.length)
