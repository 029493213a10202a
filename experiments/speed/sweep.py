"""A fused sweep against sweeps that run each point as a job or process of its own.

    python experiments/speed/sweep.py                          8 to 12 minutes on 2 cores
    python experiments/speed/sweep.py --points 8 --sample 2 --steps 10    a trial

All launchers run gradlab's own points, with W&B offline, and write the same records. The fused one
runs all points; so do the others if points are short, except with a process for each. Otherwise the
total is extrapolated from two numbers of points, so that costs that occur once are counted once.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
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
WAYS = {
    "fused": ("hydra/launcher=fused",),
    "basic": ("hydra/launcher=basic",),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=-1"),
    "process": ("hydra/launcher=fused",),
}
NAMES = {
    "fused": "fused",
    "basic": "(a) Hydra's basic launcher, a point a job, one process",
    "joblib": "(b) hydra-joblib-launcher, all cores",
    "process": "(c) a process a point, one after the other",
}
TARGETS = {"basic": 2, "joblib": 2, "process": 5}


def seconds(way: str, points: int, steps: int) -> float:
    """Return the seconds of a sweep over seeds, in a new folder and without cached programs."""
    words = [f"train.steps={steps}", f"train.log_every={max(1, steps // 10)}", "wandb=offline"]
    words += ["probe.schedule=ends", "sweep.keep_programs=false", *WAYS[way]]
    sweeps = [f"seed={seed}" for seed in range(points)]
    if way != "process":
        sweeps = [f"seed={','.join(map(str, range(points)))}"]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        for number, sweep in enumerate(sweeps):
            command = [sys.executable, "-m", "gradlab", *words, sweep]
            done = subprocess.run(
                [*command, f"hydra.sweep.dir={folder}/{number}"],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{way}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        elapsed = time.perf_counter() - begin
        states = load_runs(folder)["status"]
    if list(states) != ["done"] * points:
        raise RuntimeError(f"{way}: {states.value_counts().to_dict()}")
    return elapsed


def total_seconds(way: str, points: int, sample: int, steps: int) -> tuple[float, int]:
    """Return the seconds of all points, and the number of points that were run to find them."""
    whole = way == "fused" or (way != "process" and steps <= LENGTHS["short"])
    if whole or sample >= points:
        return seconds(way, points, steps), points
    few = min(2 if way == "joblib" else 1, sample - 1)  # joblib starts no processes for one point
    of_few, of_sample = seconds(way, few, steps), seconds(way, sample, steps)
    return of_few + (of_sample - of_few) / (sample - few) * (points - few), sample


def measure(points: int, sample: int, lengths: dict[str, int]) -> list[dict[str, Any]]:
    """Return a row for each launcher and length of training."""
    rows = []
    for length, steps in lengths.items():
        for way in WAYS:
            total, run = total_seconds(way, points, sample, steps)
            row = {"length": length, "steps": steps, "way": way, "seconds": total, "run": run}
            rows.append(row)
            print(f"{length}, {way}: {points / total * 60:.3g} points a minute", flush=True)
    return rows


def table(rows: list[dict[str, Any]], points: int) -> str:
    """Return the table of points per minute, and of how much faster the fused sweep is."""
    fused = {row["length"]: row["seconds"] for row in rows if row["way"] == "fused"}
    lines = []
    for row in rows:
        ratio, target = row["seconds"] / fused[row["length"]], TARGETS.get(row["way"])
        verdict = "" if target is None else f"≥ {target}: {'met' if ratio >= target else 'missed'}"
        origin = "run whole" if row["run"] == points else f"extrapolated from {row['run']}"
        speed = f"{points / row['seconds'] * 60:.3g}"
        lines.append([str(row["steps"]), NAMES[row["way"]], speed, f"{ratio:.2f}", verdict, origin])
    header = ["steps", f"way ({points} points)", "points a minute", "fused is × faster", "target"]
    return markdown([*header, "of which"], lines)


def main() -> None:
    """Measure, print and save the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--sample", type=int, default=6, help="points of the slow ways, 2 or more")
    parser.add_argument("--steps", type=int, help="of one length only, instead of two")
    options = parser.parse_args()
    lengths = LENGTHS if options.steps is None else {"given": options.steps}
    load = monitor_load()
    rows = measure(options.points, options.sample, lengths)
    facts, others = machine("hydra-core", "hydra-joblib-launcher", "wandb"), load()
    title = (
        "Points of an RNN of 32 units on 8 steps, W&B offline; the clock starts with the process"
    )
    parts = [title, table(rows, options.points), describe(facts)]
    data = {"points": options.points, "machine": facts, "others": others, "rows": rows}
    save("sweep", "\n\n".join([*parts, load_note(others)]), data)


if __name__ == "__main__":
    main()
