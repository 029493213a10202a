"""Time and peak memory of the largest measurements, each in a process of its own."""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from timing import (  # type: ignore[import-not-found, unused-ignore]
    describe,
    load_note,
    machine,
    markdown,
    monitor_load,
    save,
    tanh_layer,
)

from gradlab import jacobian_log_norms, lyapunov_exponents
from gradlab.jacobian.pairs import Norm

GAIN = 1.9
BUDGET = 2**35  # bytes: enough for every case
HEADER = (
    *("what", "precision", "T", "n", "stride"),
    *("first run (s)", "second run (s)", "peak memory (GiB)"),
)


class Case(NamedTuple):
    """A measurement and its size; `precision` is that of the products, for exponents float64."""

    what: str
    length: int
    size: int
    stride: int = 1
    precision: str = "float32"


CASES = (
    Case("frobenius", 256, 512),
    Case("spectral", 256, 512),
    Case("frobenius", 10_000, 128, 10),
    Case("spectral", 10_000, 128, 10),
    Case("frobenius", 10_000, 128, 10, "float64"),
    Case("Lyapunov exponents", 100_000, 32, 1, "float64"),
)


def measure(case: Case) -> dict[str, Any]:
    """Run a case twice; return its seconds with and without compiling, and the peak memory."""
    layer = tanh_layer(case.length, case.size, GAIN)
    if case.what in get_args(Norm):
        options: dict[str, Any] = {"stride": case.stride, "precision": case.precision}
        options |= {"norm": case.what, "memory_budget": BUDGET}
        run: Callable[[], Any] = partial(jacobian_log_norms, *layer, **options)
    else:
        run = partial(lyapunov_exponents, *layer)
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        result = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - begin)
    largest = float(np.max(np.asarray(result)))
    return {"first": seconds[0], "second": seconds[1], "peak": peak(), "largest": largest}


def peak() -> float:
    """Return the peak memory in GiB, of the accelerator if there is one, else of this process."""
    statistics = jax.devices()[0].memory_stats() or {}
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return float(statistics.get("peak_bytes_in_use", host)) / 2**30


def reach() -> None:
    """Measure every case in a process of its own; print and save the results."""
    rows, load = [], monitor_load()
    for case in CASES:
        command = [sys.executable, __file__, json.dumps(case)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{case} failed:\n{done.stderr}")
        rows.append(case._asdict() | json.loads(done.stdout))
        print(f"{case}: {rows[-1]['second']:.3g} s, {rows[-1]['peak']:.2f} GiB", flush=True)
    facts, others = machine(), load()
    lines = []
    for row in rows:
        size = [f"{row['length']:,}", str(row["size"]), str(row["stride"])]
        cost = [f"{row['first']:.3g}", f"{row['second']:.3g}", f"{row['peak']:.2f}"]
        lines.append([row["what"], row["precision"], *size, *cost])
    note = "The first run compiles. Peak memory includes Python and the compiler."
    text = "\n\n".join([markdown(HEADER, lines), note, describe(facts), load_note(others)])
    save("reach", text, {"machine": facts, "others": others, "rows": rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="the fields of a case, as a JSON list")
    print(json.dumps(measure(Case(*json.loads(parser.parse_args().case)))))
