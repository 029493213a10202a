"""The quickstart as a user runs it: on a new machine, and again with the programs that it keeps.

    python experiments/speed/quickstart.py          (4 minutes on 2 cores)

Each run is a process of its own, whose seconds are those of the whole: imports, 24 points trained
and measured, the table and the figure.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from timing import (  # type: ignore[import-not-found, unused-ignore]
    describe,
    load_note,
    machine,
    markdown,
    monitor_load,
    save,
)

TARGETS = {"compiled anew": "≤ 25", "kept by an earlier run": ""}
HEADER = ("programs", "process, s", "target", "training, s", "probes, s", "compiling, s")
SPENT = re.compile(r"training ([\d.]+), .*probes ([\d.]+) .*compiling ([\d.]+)")
SMOKE = ("task.length=4", "model=rnn", "init.gain=1", "train.steps=2")


def run(cache: Path, overrides: tuple[str, ...]) -> tuple[float, ...]:
    """Run the quickstart; return the seconds of its process, and what its points report."""
    command = [sys.executable, "-m", "gradlab", "+experiment=quickstart", *overrides]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, f"hydra.sweep.dir={folder}/runs"],
            env=os.environ | {"XDG_CACHE_HOME": str(cache)},
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - begin
    if done.returncode or not (spent := SPENT.search(done.stdout)):
        raise RuntimeError(done.stderr or done.stdout)
    return seconds, *map(float, spent.groups())


def main() -> None:
    """Run it on an empty cache and again, in turn, and save the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="tiny, and nothing is kept")
    options = parser.parse_args()
    runs: dict[str, list[tuple[float, ...]]] = {name: [] for name in TARGETS}
    load = monitor_load()
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            for of_kind in runs.values():
                of_kind.append(run(Path(cache), SMOKE if options.smoke else ()))
    others, facts, rows = load(), machine(), []
    for name, of_kind in runs.items():
        whole, *parts = (f"{median(x):.1f}" for x in zip(*of_kind, strict=True))
        rows.append([name, whole, TARGETS[name], *parts])
    title = (
        f"The quickstart, median of {options.repeats}. Seconds of training, probes and compiling"
        " are sums over points that run side by side."
    )
    table = "\n\n".join([title, markdown(HEADER, rows), describe(facts), load_note(others)])
    if options.smoke:
        print(table)
    else:
        save("quickstart", table, {"machine": facts, "others": others, "runs": runs})


if __name__ == "__main__":
    main()
