"""What gradlab costs, and how exact it is, on the accelerator that JAX finds: one table.

    python experiments/speed/accelerator.py               at most eight minutes
    python experiments/speed/accelerator.py --smoke       tiny sizes, in seconds on a CPU

Maps, exponents, training steps and a sweep, each beside its peer on the same card: PyTorch, where
it is installed, and the bare matrix products. Each row gives the seconds of its first call, which
compiles, and the median of later ones. ≤ marks a first call beside others, ≈ what was measured in
part and scaled up. The table is written after each row; what would outlast the budget is left out,
and its row says so.
"""

import argparse
import json
import os
import platform
import time
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import accelerator_exact as exact  # type: ignore[import-not-found, unused-ignore]
import accelerator_maps as maps  # type: ignore[import-not-found, unused-ignore]
import accelerator_torch as peers  # type: ignore[import-not-found, unused-ignore]
import accelerator_training as training  # type: ignore[import-not-found, unused-ignore]
import jax
from accelerator_agreement import (  # type: ignore[import-not-found, unused-ignore]
    agreement,
)
from accelerator_run import run_groups  # type: ignore[import-not-found, unused-ignore]
from accelerator_table import (  # type: ignore[import-not-found, unused-ignore]
    Group,
    Row,
    as_markdown,
)
from accelerator_training import Step  # type: ignore[import-not-found, unused-ignore]
from timing import RESULTS, describe  # type: ignore[import-not-found, unused-ignore]

BUDGET = 480.0  # seconds
WORKERS = 8  # first calls at once, and at most one on two cores
PACKAGES = ("gradlab", "jax", "jaxlib", "jax-cuda13-plugin", "flax", "numpy", "torch")


class Sizes(NamedTuple):
    """The sizes of the whole table; a map is (T, n)."""

    product: int
    agreement: tuple[int, int]
    peers: tuple[int, int]
    longer: tuple[int, int]
    batch: tuple[int, int, int]  # samples, T, n
    large: tuple[int, int]
    exponents: tuple[int, int]
    steps: tuple[Step, ...]
    sweep: Step
    points: int
    sampled: tuple[int, int]  # units, T


FULL = Sizes(
    product=8192,
    agreement=(256, 64),
    peers=(256, 128),
    longer=(1024, 128),
    batch=(32, 128, 64),
    large=(4096, 512),
    exponents=(4096, 128),
    steps=(
        Step("lstm", 128, 128, 64, 20),
        Step("lstm", 512, 128, 64, 20),
        Step("rnn", 128, 128, 64, 20),
    ),
    sweep=Step("lstm", 64, 64, 32, 20),
    points=64,
    sampled=(4096, 96),
)
SMOKE = Sizes(
    product=32,
    agreement=(6, 4),
    peers=(6, 4),
    longer=(6, 4),
    batch=(2, 6, 4),
    large=(6, 4),
    exponents=(8, 4),
    steps=(Step("lstm", 4, 5, 2, 2),),
    sweep=Step("lstm", 4, 5, 2, 2),
    points=2,
    sampled=(8, 6),
)


def groups(sizes: Sizes, budget: float) -> list[Group]:
    """Return the groups of the table, all of gradlab's first, and the most telling ones before.

    The first calls of the first three are made in their turn; then all others' at once.
    """
    rate, map_, longer = "Rate of a matrix product", _titled("Map", sizes.peers), "Longer map"
    samples = _titled(f"{sizes.batch[0]} samples", sizes.batch[1:])
    exponents = _titled("All Lyapunov exponents", sizes.exponents)
    steps = [(_title_of_step(step), step) for step in sizes.steps]
    sweep = f"A sweep of {sizes.points} points, LSTM"
    sampled = f"An LSTM of {sizes.sampled[0]} units, T = {sizes.sampled[1]}"
    ours = [
        Group(rate, 0, partial(exact.rates, sizes.product)),
        Group("No silent TF32", 0, partial(exact.roundings, sizes.product // 8)),
        Group(map_, 0, partial(maps.maps, *sizes.peers, is_ahead=False)),
        Group("This device against the CPU", 15, partial(agreement, *sizes.agreement)),
        Group(_titled(longer, sizes.longer), 10, partial(maps.maps, *sizes.longer, is_ahead=True)),
        Group(samples, 5, partial(maps.batch, *sizes.batch)),
        Group(_titled("Large map", sizes.large), 60, partial(maps.large, *sizes.large)),
        Group(exponents, 40, partial(maps.exponents, *sizes.exponents)),
        *(Group(title, 10, partial(training.steps, step)) for title, step in steps),
        Group(sweep, 10, partial(training.sweep, sizes.sweep, sizes.points)),
        Group(sampled, 20, partial(maps.sampled, *sizes.sampled)),
    ]
    theirs = [
        Group(map_, 15, partial(peers.reverse_modes, *sizes.peers)),
        *(Group(title, 6, partial(training.peers, step)) for title, step in steps),
        Group(exponents, 10, partial(peers.exponents, *sizes.exponents)),
        Group(samples, 10, partial(peers.reverse_modes, *sizes.batch[1:], sizes.batch[0])),
        Group(rate, 2, partial(peers.rates, sizes.product)),
        Group(map_, 2, partial(maps.products, *sizes.peers)),
    ]
    scale = budget / BUDGET
    return [group._replace(reserve=scale * group.reserve) for group in (*ours, *theirs)]


def _title_of_step(step: Step) -> str:
    cell, n, length, batch, _ = step
    return f"Training step: {cell.upper()}, n = {n}, T = {length}, batch {batch}"


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
    workers = min(WORKERS, len(os.sched_getaffinity(0)) // 2)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for the whole table")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder that is written")
    parser.add_argument("--workers", type=int, default=workers, help="first calls at once")
    parser.add_argument("--only", default="", help="only groups whose title has this text")
    options = parser.parse_args()
    # JAX would take most of the card's memory for itself; PyTorch needs some.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    if (platforms := os.environ.get("JAX_PLATFORMS")) and "cpu" not in platforms:
        jax.config.update("jax_platforms", f"{platforms},cpu")  # weights are drawn on the CPU
    with suppress(ImportError, OSError):  # before JAX loads CUDA's libraries: PyTorch is choosy
        import torch  # noqa: F401
    every = groups(SMOKE if options.smoke else FULL, options.budget)
    chosen = [x for x in every if options.only in x.title]
    given = {x: getattr(options, x) for x in ("budget", "smoke", "only", "workers")}

    def keep(rows: list[Row]) -> None:
        write(options.results, given, begin, rows)

    left = options.budget - (time.perf_counter() - begin)
    rows = run_groups(chosen, left, keep, options.workers)
    print(write(options.results, given, begin, rows))


if __name__ == "__main__":
    main()
