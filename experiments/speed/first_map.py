"""The first map in a fresh process: imports, the network, compiling and the map itself.

    python experiments/speed/first_map.py          (6 minutes on 2 cores; needs torch)

Whole processes take turns, and seconds are those of the whole, the interpreter included. Flax's
cell compiles its initialisers while it draws the weights; "weights at hand" are arrays of NumPy and
a step of one's own. PyTorch's way is the plainest one: n copies of the network, and one backward
pass for each t. It gives Frobenius norms, for both norms of gradlab's.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median
from typing import Any

from timing import (  # type: ignore[import-not-found, unused-ignore]
    describe,
    load_note,
    machine,
    markdown,
    monitor_load,
    save,
)

BEGIN = """
import time; begin = time.perf_counter()
"""
FLAX = """
import jax
from flax import nnx
from gradlab import jacobian_log_norms
imported = time.perf_counter()
cell = nnx.SimpleCell(8, {n}, rngs=nnx.Rngs(0))
inputs = jax.random.normal(jax.random.key(0), ({length}, 8))
carry = None
"""
AT_HAND = """
import jax.numpy as jnp
import numpy as np
from gradlab import jacobian_log_norms
imported = time.perf_counter()
draw = np.random.default_rng(0).standard_normal
to_hidden = np.linalg.qr(draw(({n}, {n})))[0].astype(np.float32)
to_input = (draw(({n}, 8)) / 8**0.5).astype(np.float32)
inputs = draw(({length}, 8)).astype(np.float32)
carry = np.zeros({n}, np.float32)

def cell(h, x):
    h = jnp.tanh(to_hidden @ h + to_input @ x)
    return h, h
"""
MAP = """
def measure():
    jacobian_log_norms(cell, inputs, norm="{norm}", initial_carry=carry).block_until_ready()
"""
PYTORCH = """
import torch
imported = time.perf_counter()
cell = torch.nn.RNNCell(8, {n})
inputs = torch.randn({length}, 8)

def measure():
    states = [torch.zeros({n}, {n}, requires_grad=True)]
    for x in inputs:
        states.append(cell(x.expand({n}, 8), states[-1]))
    log_norms = torch.full(({length} + 1, {length} + 1), -torch.inf)
    for t in range(1, {length} + 1):
        rows = torch.autograd.grad(states[t], states[:t], torch.eye({n}), retain_graph=True)
        log_norms[t, :t] = torch.stack([row.norm() for row in rows]).log()
"""
TIMED = """
built = time.perf_counter()
measure()
measured = time.perf_counter()
measure()
again = time.perf_counter()
print([imported - begin, built - imported, measured - built, again - measured])
"""
PROGRAMS = {
    "gradlab, Flax's cell": FLAX + MAP,
    "gradlab, weights at hand": AT_HAND + MAP,
    "PyTorch, n copies": PYTORCH,
}
CASES = ((100, 64, "frobenius", 1.0), (100, 64, "spectral", 1.3), (256, 128, "spectral", 0.5))
HEADER = (
    *("T", "n", "norm", "", "process, s", "import", "network", "first map", "again"),
    *("of PyTorch's process", "target"),
)


def whole_process(program: str) -> tuple[float, list[float]]:
    """Run a program; return the seconds of its process without the second map, and its parts."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(done.stderr)
    parts = json.loads(done.stdout)
    return seconds - parts[-1], parts


def _medians(runs: list[Any]) -> list[float]:
    """Return the medians of the whole process and of its parts."""
    wholes, parts = zip(*runs, strict=True)
    return [median(x) for x in (wholes, *zip(*parts, strict=True))]


def main() -> None:
    """Run every program in turn, and save the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="tiny, and nothing is kept")
    options = parser.parse_args()
    cases = ((4, 3, "frobenius", 1.0),) if options.smoke else CASES
    runs: dict[tuple[int, int, str, str], list[Any]] = {}
    load = monitor_load()
    for _ in range(options.repeats):
        for length, n, norm, _ in cases:
            for name, text in PROGRAMS.items():
                program = BEGIN + text + TIMED
                measured = whole_process(program.format(length=length, n=n, norm=norm))
                runs.setdefault((length, n, norm, name), []).append(measured)
    others = load()
    rows = []
    for length, n, norm, target in cases:
        seconds = {name: _medians(runs[length, n, norm, name]) for name in PROGRAMS}
        peer = seconds["PyTorch, n copies"][0]
        for name, parts in seconds.items():
            is_peer = name.startswith("PyTorch")
            last = ["", ""] if is_peer else [f"{parts[0] / peer:.2f}", f"≤ {target}"]
            kind = "frobenius" if is_peer else norm
            rows.append([str(length), str(n), kind, name, *(f"{x:.2f}" for x in parts), *last])
    title = f"First map in a fresh process, median of {options.repeats}"
    facts = machine()
    table = "\n\n".join([title, markdown(HEADER, rows), describe(facts), load_note(others)])
    if options.smoke:
        print(table)
        return
    data = {" ".join(map(str, name)): values for name, values in runs.items()}
    save("first_map", table, {"machine": facts, "others": others, "processes": data})


if __name__ == "__main__":
    main()
