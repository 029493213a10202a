"""What gradlab costs, and how exact it is, on the accelerator that JAX finds: one table.

    python experiments/speed/accelerator.py               at most nine minutes
    python experiments/speed/accelerator.py --smoke       tiny sizes, in seconds on a CPU

Maps, exponents, training steps and a sweep, each beside its peer on the same card: PyTorch, where
it is installed, and the bare matrix products. Each row gives the seconds of its first call, which
compiles, and the median of later ones. The table is written after each row; what would outlast the
budget is left out, and its row says so.
"""

import argparse
import json
import os
import platform
import time
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import accelerator_exact as exact  # type: ignore[import-not-found, unused-ignore]
import accelerator_maps as maps  # type: ignore[import-not-found, unused-ignore]
import accelerator_training as training  # type: ignore[import-not-found, unused-ignore]
import jax
from accelerator_table import (  # type: ignore[import-not-found, unused-ignore]
    Group,
    Row,
    as_markdown,
    run_groups,
)
from timing import RESULTS, describe  # type: ignore[import-not-found, unused-ignore]

BUDGET = 520.0  # seconds
PACKAGES = ("gradlab", "jax", "jaxlib", "jax-cuda13-plugin", "flax", "numpy", "torch")


class Sizes(NamedTuple):
    """The sizes of the whole table; a map is (T, n), a training step (n, T, batch)."""

    product: int
    agreement: tuple[int, int]
    peers: tuple[int, int]
    longer: tuple[int, int]
    batch: tuple[int, int, int]  # samples, T, n
    large: tuple[int, int]
    exponents: tuple[int, int]
    cells: tuple[str, ...]
    steps: tuple[tuple[int, int, int], ...]
    steps_a_call: int
    sweep: tuple[int, int, int]
    points: int


FULL = Sizes(
    product=8192,
    agreement=(256, 64),
    peers=(256, 128),
    longer=(1024, 128),
    batch=(32, 128, 64),
    large=(4096, 512),
    exponents=(4096, 128),
    cells=("rnn", "lstm"),
    steps=((128, 128, 64), (512, 128, 64)),
    steps_a_call=20,
    sweep=(64, 64, 32),
    points=64,
)
SMOKE = Sizes(
    product=32,
    agreement=(6, 4),
    peers=(6, 4),
    longer=(6, 4),
    batch=(2, 6, 4),
    large=(6, 4),
    exponents=(8, 4),
    cells=("lstm",),
    steps=((4, 5, 2),),
    steps_a_call=2,
    sweep=(4, 5, 2),
    points=2,
)


def groups(sizes: Sizes) -> list[Group]:
    """Return the groups of the table, the most telling ones first."""
    listed = [
        Group("Rate of a matrix product", 0.03, partial(exact.rates, sizes.product)),
        Group("No silent TF32", 0.03, partial(exact.roundings, sizes.product // 8)),
        Group(_titled("Map", sizes.peers), 0.22, partial(maps.maps, *sizes.peers, True)),
        Group("This device against the CPU", 0.17, partial(exact.agreement, *sizes.agreement)),
        Group(_titled("Longer map", sizes.longer), 0.12, partial(maps.maps, *sizes.longer, False)),
    ]
    for n, *rest in sizes.steps:
        for cell in sizes.cells:
            title = f"Training step: {cell.upper()}, n = {n}, T = {rest[0]}, batch {rest[1]}"
            cases = partial(training.steps, cell, n, *rest, sizes.steps_a_call)
            listed.append(Group(title, 0.12 / len(sizes.steps) / len(sizes.cells), cases))
    samples, *size = sizes.batch
    points = partial(training.sweep, "lstm", *sizes.sweep, sizes.points, sizes.steps_a_call)
    title = _titled("All Lyapunov exponents", sizes.exponents)
    return [
        *listed,
        Group(title, 0.07, partial(maps.exponents, *sizes.exponents)),
        Group(_titled(f"{samples} samples", size), 0.05, partial(maps.batch, *sizes.batch)),
        Group(f"A sweep of {sizes.points} points, LSTM", 0.05, points),
        Group(_titled("Large map", sizes.large), 0.14, partial(maps.large, *sizes.large)),
    ]


def _titled(what: str, size: Any) -> str:
    return f"{what}, T = {size[0]}, n = {size[1]}"


@cache
def facts() -> dict[str, Any]:
    """Return the card, the processor's cores, and the versions of what is installed."""
    device = jax.devices()[0]
    found: dict[str, Any] = {"device": f"{device.platform} ({device.device_kind})"}
    found |= {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write(folder: Path, options: dict[str, Any], begin: float, rows: list[Row]) -> str:
    """Write the table so far, and return it as Markdown."""
    known = facts()
    elapsed = time.perf_counter() - begin
    title = f"{known['device']}, {elapsed:.0f} s of at most {options['budget']:.0f}"
    text = "\n\n".join([title, as_markdown(rows), describe(known)])
    card = "".join(x if x.isalnum() else "_" for x in jax.devices()[0].device_kind)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"accelerator_{card}.md").write_text(text + "\n")
    data = options | {"machine": known, "elapsed": elapsed, "rows": rows}
    (folder / f"accelerator_{card}.json").write_text(json.dumps(data, indent=2) + "\n")
    return text


def main() -> None:
    """Measure, print and save the table."""
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for the whole table")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder that is written")
    parser.add_argument("--only", default="", help="only groups whose title has this text")
    options = parser.parse_args()
    # JAX would take most of the card's memory for itself; PyTorch needs some.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    chosen = [x for x in groups(SMOKE if options.smoke else FULL) if options.only in x.title]
    given = {"budget": options.budget, "smoke": options.smoke, "only": options.only}

    def keep(rows: list[Row]) -> None:
        write(options.results, given, begin, rows)

    rows = run_groups(chosen, options.budget, keep)
    print(write(options.results, given, begin, rows))


if __name__ == "__main__":
    main()
