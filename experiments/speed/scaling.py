"""Cost of the norms of all pairs against the length of the sequence and the size of the layer.

    python experiments/speed/scaling.py            T = 64..2048 at n = 64, n = 16..256 at T = 256
    python experiments/speed/scaling.py --reach    time and peak memory of the largest sizes

All runs of one size take turns in one process; seconds are medians. A peer stops where its next
run would take longer than half a minute. Slopes are least squares through the larger sizes, where
the fixed cost of a call is negligible.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from typing import Any

import jax
import numpy as np
import torch_peers as autograd  # type: ignore[import-not-found, unused-ignore]
from reach import reach  # type: ignore[import-not-found, unused-ignore]
from scaling_figure import draw, slope  # type: ignore[import-not-found, unused-ignore]
from timing import (  # type: ignore[import-not-found, unused-ignore]
    QUIET,
    RESULTS,
    Layer,
    describe,
    every_product,
    load_note,
    machine,
    markdown,
    save,
    tanh_layer,
    time_interleaved,
)

from gradlab.figures import style
from gradlab.jacobian import jacobian_log_norms, step_jacobians

GAIN = 1.9  # Norms hardly decay or grow, so that the products of 2048 steps stay in range.
LENGTHS, SIZE = (64, 128, 256, 512, 1024, 2048), 64
SIZES, LENGTH = (16, 32, 64, 128, 256), 256
LONGEST = 30.0  # seconds of a peer's run
GROWTH = 4.0  # assumed ratio of the seconds of the next size to those of this one
TRIAL = 32  # steps of the trials that choose the number of threads
GRADLAB = ("gradlab, Frobenius", "gradlab, spectral")
BATCHED, FLOOR = "PyTorch, batched reverse mode", "JAX, products alone"
TARGET = 2.1  # largest slope against T

Runs = dict[str, Callable[[], Any]]


def methods(layer: Layer, peers: Iterable[str]) -> Runs:
    """Return the methods to time at one size, in float32."""
    budget = 2**35  # bytes; the default is too small for the largest n
    maps = partial(jacobian_log_norms, *layer, precision="float32", memory_budget=budget)
    runs: Runs = {
        "gradlab, Frobenius": partial(maps, norm="frobenius"),
        "gradlab, spectral": partial(maps, norm="spectral"),
    }
    if BATCHED in peers:
        start = autograd.torch_layer(Layer(layer.cell, layer.inputs[:TRIAL]))
        threads = autograd.best_threads(partial(autograd.reverse_mode, start))
        reverse_mode = partial(autograd.reverse_mode, autograd.torch_layer(layer))
        runs[BATCHED] = partial(autograd.on_threads, threads, reverse_mode)
    if FLOOR in peers:
        runs[FLOOR] = partial(every_product, step_jacobians(*layer))
    return runs


def sweep(axis: str, points: Iterable[tuple[int, int]], repeats: int) -> list[dict[str, Any]]:
    """Return a row for each size and method; a slow peer is left out of larger sizes."""
    peers, rows = {BATCHED, FLOOR}, []
    for length, size in points:
        layer = tanh_layer(length, size, GAIN)
        _, seconds, others = time_interleaved(methods(layer, peers), repeats)
        for name, values in seconds.items():
            row = {"axis": axis, "what": name, "T": length, "n": size, "seconds": median(values)}
            rows.append(row | {"repeats": values, "others": others})
            print(f"T = {length}, n = {size}: {name}, {median(values):.3g} s", flush=True)
        peers = {name for name in peers & set(seconds) if median(seconds[name]) * GROWTH < LONGEST}
    return rows


def cells(axis: str, what: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return a row of the table as text: the seconds of a method at all sizes, and the slope."""
    seconds = {row[axis]: row["seconds"] for row in rows}
    sizes = LENGTHS if axis == "T" else SIZES
    values = [f"{seconds[x]:.3g}" if x in seconds else "" for x in sizes]
    return [what, *values, f"{slope(seconds):.2f}"]


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Return the tables of seconds against T and against n, and the verdict on the target."""
    parts = []
    for axis, sizes, fixed in (("T", LENGTHS, f"n = {SIZE}"), ("n", SIZES, f"T = {LENGTH}")):
        lines = []
        for what in (*GRADLAB, BATCHED, FLOOR):
            chosen = [row for row in rows if (row["axis"], row["what"]) == (axis, what)]
            lines.append(cells(axis, what, chosen))
        header = [f"seconds, {fixed}", *(f"{axis} = {x}" for x in sizes), f"grows as {axis}^"]
        parts.append(markdown(header, lines))
        if axis == "T":
            verdict = [
                f"{line[0]}: {line[-1]}, {'met' if float(line[-1]) < TARGET else 'missed'}"
                for line in lines[: len(GRADLAB)]
            ]
            parts.append(f"Target: slope below {TARGET} against T. {'; '.join(verdict)}.")
    return parts


def main() -> None:
    """Measure, print, draw and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--reach", action="store_true", help="the largest sizes, with peak memory")
    options = parser.parse_args()
    # JAX would take most of a GPU's memory for itself; PyTorch needs some.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if options.reach:
        reach()
        return
    rows = sweep("T", [(length, SIZE) for length in LENGTHS], options.repeats)
    rows += sweep("n", [(LENGTH, size) for size in SIZES], options.repeats)
    facts, others = machine("torch"), float(np.max([row["others"] for row in rows]))
    title = f"Float32, median of {options.repeats}"
    parts = [title, *tables(rows), describe(facts), load_note(others)]
    data = {"repeats": options.repeats, "machine": facts, "others": others, "rows": rows}
    save("scaling", "\n\n".join(parts), data)
    note = f"{jax.default_backend().upper()}, {facts['cores']} cores, float32"
    if others > QUIET:
        note += f"; disturbed: other processes took {others:.0%} of the machine"
    style.save(
        draw(rows, {"T": f"n = {SIZE}", "n": f"T = {LENGTH}"}, note), RESULTS / "scaling.png"
    )


if __name__ == "__main__":
    main()
