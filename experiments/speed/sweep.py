"""A fused sweep against sweeps that run each point as a job or process of its own.

    python experiments/speed/sweep.py                          15 to 20 minutes on 2 cores
    python experiments/speed/sweep.py --short 8 --long 4 --steps 10    a trial

All launchers run gradlab's own points, with W&B offline, and write the same records. Every number
is of a sweep that was run whole; of the long points there are fewer.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import (  # type: ignore[import-not-found, unused-ignore]
    describe,
    load_note,
    machine,
    markdown,
    monitor_load,
    save,
)

from gradlab import load_runs

LENGTHS = {"long": 70_000, "short": 100}  # training steps; the long ones take about 10 s
POINTS = {"long": 16, "short": 64}
ALONE = 16  # points at most that get a process each, which has the same cost for all
WAYS = {
    "fused": ("hydra/launcher=fused",),
    "kept": ("hydra/launcher=fused",),
    "basic": ("hydra/launcher=basic",),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=-1"),
    "process": ("hydra/launcher=fused",),
}
NAMES = {
    "fused": "fused",
    "kept": "fused, with the programs that an earlier sweep has kept, as by default",
    "basic": "(a) Hydra's basic launcher, a point a job, one process",
    "joblib": "(b) hydra-joblib-launcher, all cores",
    "process": "(c) a process a point, one after the other",
}
TARGETS = {  # times as fast, and of the fused sweep itself: points a minute
    ("long", "basic"): 1.95,
    ("long", "joblib"): 1.9,
    ("short", "basic"): 3.0,
    ("short", "fused"): 400.0,
}


def seconds(way: str, points: int, steps: int) -> float:
    """Return the seconds of a sweep over seeds, in a new folder, with its own kept programs."""
    words = [f"train.steps={steps}", f"train.log_every={max(1, steps // 10)}", "wandb=offline"]
    words += ["probe.schedule=ends", f"sweep.keep_programs={way == 'kept'}", *WAYS[way]]
    seeds = [f"seed={seed}" for seed in range(points)]
    if way != "process":
        seeds = [f"seed={','.join(map(str, range(points)))}"]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"XDG_CACHE_HOME": cache}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        if way == "kept":
            run([*words, *seeds], f"{cache}/earlier", environment)
        begin = time.perf_counter()
        for number, word in enumerate(seeds):
            run([*words, word], f"{folder}/{number}", environment)
        elapsed = time.perf_counter() - begin
        states = load_runs(folder)["status"]
    if list(states) != ["done"] * points:
        raise RuntimeError(f"{way}: {states.value_counts().to_dict()}")
    return elapsed


def run(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run a command of gradlab's into a folder."""
    command = [sys.executable, "-m", "gradlab", *words, f"hydra.sweep.dir={folder}"]
    done = subprocess.run(
        command,
        cwd=Path(folder).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stdout[-1000:]}{done.stderr[-1000:]}")


def measure(points: dict[str, int], lengths: dict[str, int]) -> list[dict[str, Any]]:
    """Return a row for each launcher and length of training."""
    rows = []
    for length, steps in lengths.items():
        for way in WAYS:
            if way == "kept" and length == "long":  # for which compiling is little
                continue
            count = min(points[length], ALONE) if way == "process" else points[length]
            total = seconds(way, count, steps)
            row = {"length": length, "steps": steps, "points": count, "way": way, "seconds": total}
            rows.append(row)
            print(f"{length}, {way}: {count / total * 60:.3g} points a minute", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of points per minute, and of how much faster the fused sweep is."""
    speeds = [row["points"] / row["seconds"] * 60 for row in rows]
    fused = {
        row["length"]: speed
        for row, speed in zip(rows, speeds, strict=True)
        if row["way"] == "fused"
    }
    lines = []
    for row, speed in zip(rows, speeds, strict=True):
        ratio = fused[row["length"]] / speed
        target = TARGETS.get((row["length"], row["way"]))
        found = speed if row["way"] == "fused" else ratio
        verdict = f"≥ {target:g}: {'met' if found >= target else 'missed'}" if target else ""
        counts = [str(row["steps"]), str(row["points"])]
        lines.append([*counts, NAMES[row["way"]], f"{speed:.3g}", f"{ratio:.2f}", verdict])
    header = ["steps", "points", "way", "points a minute", "fused is × faster", "target"]
    return markdown(header, lines)


def main() -> None:
    """Measure, print and save the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for length, count in POINTS.items():
        parser.add_argument(f"--{length}", type=int, default=count, help=f"{length} points")
    parser.add_argument("--steps", type=int, help="of all points, instead of two lengths")
    options = parser.parse_args()
    lengths = {length: options.steps or steps for length, steps in LENGTHS.items()}
    points = {length: getattr(options, length) for length in LENGTHS}
    load = monitor_load()
    rows = measure(points, lengths)
    facts, others = machine("hydra-core", "hydra-joblib-launcher", "wandb"), load()
    title = (
        "Points of an RNN of 32 units on 8 steps, W&B offline; the clock starts with the process"
    )
    parts = [title, table(rows), describe(facts)]
    data = {"machine": facts, "others": others, "rows": rows}
    save("sweep", "\n\n".join([*parts, load_note(others)]), data)


if __name__ == "__main__":
    main()
