"""Cost of the norms of all pairs (t, k), compared with the products that gradlab does not form.

    python experiments/speed/jacobian_maps.py

One tanh layer, T steps, n units. The floor forms every product ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾, k < t, without its
norm: for each t one stacked matrix product with those of t − 1, in float32. All runs take turns in
one process; seconds are medians. The default precision on a CPU is float64.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from timing import (  # type: ignore[import-not-found, unused-ignore]
    Layer,
    describe,
    every_product,
    largest_error,
    load_note,
    machine,
    markdown,
    reference_log_norms,
    sample_pairs,
    save,
    tanh_layer,
    time_interleaved,
)

from gradlab.jacobian import jacobian_log_norms, step_jacobians
from gradlab.jacobian.pairs import Norm

TARGETS: dict[Norm, float] = {"frobenius": 0.2, "spectral": 0.5}
OF_FROBENIUS = 2.5  # target of spectral norms
PRECISIONS: dict[str, Literal["float32"] | None] = {"default": None, "float32": "float32"}
GAIN = 1.5
HEADER = (
    "what",
    "precision",
    "seconds",
    "of the floor",
    "target",
    "of Frobenius norms",
    "target",
    "largest relative error",
)


class Row(NamedTuple):
    """A row of the table: seconds are medians, the error is the norm's relative one."""

    measure: str
    precision: str
    seconds: float
    ratio: float
    of_frobenius: float
    largest_error: float


def measure(layer: Layer, repeats: int) -> tuple[list[Row], float]:
    """Time the floor and the maps, and check a sample of pairs.

    Returns:
        The rows, and the share of the machine that other processes took.
    """
    with jax.enable_x64(True):
        jacobians = step_jacobians(*layer)
        runs: dict[tuple[str, str], Callable[[], Any]] = {
            ("floor", "float32"): partial(every_product, jacobians.astype("float32"))
        }
        for name, precision in PRECISIONS.items():
            for norm in TARGETS:
                runs[norm, name] = partial(
                    jacobian_log_norms, *layer, norm=norm, precision=precision
                )
        results, repeated, others = time_interleaved(runs, repeats)
    seconds = {name: median(values) for name, values in repeated.items()}
    pairs = sample_pairs(len(jacobians))
    references = {x: reference_log_norms(np.asarray(jacobians), pairs, x) for x in TARGETS}

    def row(norm: Any, precision: str) -> Row:
        own = seconds[norm, precision]
        ratio, of_frobenius = (
            own / seconds["floor", "float32"],
            own / seconds["frobenius", precision],
        )
        log_norms = np.asarray(results[norm, precision])
        error = 0.0 if norm == "floor" else largest_error(log_norms, references[norm])
        return Row(norm, precision, own, ratio, of_frobenius, error)

    return [row(*name) for name in runs], others


def cells(row: Row) -> list[str]:
    """Return a row of the table as text, with its target."""
    start = [row.measure, row.precision, f"{row.seconds:.2f}", f"{row.ratio:.2f}"]
    if row.measure not in TARGETS:
        return [*start, "", "", "", ""]
    of_frobenius = f"{row.of_frobenius:.2f}", f"≤ {OF_FROBENIUS}"
    error = f"{row.largest_error:.1e}"
    return [
        *start,
        f"≤ {TARGETS[row.measure]}",
        *(of_frobenius if row.measure == "spectral" else ("", "")),
        error,
    ]


def main() -> None:
    """Measure, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=1024, help="steps T")
    parser.add_argument("--size", type=int, default=128, help="units n")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    length, n = arguments.length, arguments.size
    rows, others = measure(tanh_layer(length, n, GAIN), arguments.repeats)
    facts = machine()
    title = f"T = {length}, n = {n}, median of {arguments.repeats}"
    parts = [title, markdown(HEADER, map(cells, rows)), describe(facts), load_note(others)]
    data: dict[str, Any] = {"length": length, "size": n, "machine": facts, "others": others}
    data["rows"] = [row._asdict() for row in rows]
    save(f"jacobian_maps_T{length}_n{n}", "\n\n".join(parts), data)


if __name__ == "__main__":
    main()
