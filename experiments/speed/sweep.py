"""A sweep in one process against a job, or a process, a point.

    python experiments/speed/sweep.py                          8 to 12 minutes on 2 cores
    python experiments/speed/sweep.py --points 8 --sample 2 --steps 10    a trial

Every way runs gradlab's own points, with W&B offline, and leaves the same records. Short points are
all run, but for a process a point. Of long ones fused runs all and the others run the first; the
rest is extrapolated: from two numbers of points, so that what is paid once is not multiplied.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from timing import (  # type: ignore[import-not-found, unused-ignore]
    disturbance,
    keep,
    machine,
    markdown,
    neighbours,
    sentence,
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
    """Run so many points of the sweep one way, in a folder of its own, without programs kept."""
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
        passed = time.perf_counter() - begin
        states = load_runs(folder)["status"]
    if list(states) != ["done"] * points:
        raise RuntimeError(f"{way}: {states.value_counts().to_dict()}")
    return passed


def of_all(way: str, points: int, sample: int, steps: int) -> tuple[float, int]:
    """Seconds of all points, and how many of them were run for it."""
    whole = way == "fused" or (way != "process" and steps <= LENGTHS["short"])
    if whole or sample >= points:
        return seconds(way, points, steps), points
    few = min(2 if way == "joblib" else 1, sample - 1)  # one alone gets no second process
    first, all_of_sample = seconds(way, few, steps), seconds(way, sample, steps)
    return first + (all_of_sample - first) / (sample - few) * (points - few), sample


def measure(points: int, sample: int, lengths: dict[str, int]) -> list[dict[str, Any]]:
    """One row a way and length."""
    rows = []
    for length, steps in lengths.items():
        for way in WAYS:
            took, run = of_all(way, points, sample, steps)
            rows.append({"length": length, "steps": steps, "way": way, "seconds": took, "run": run})
            print(f"{length}, {way}: {points / took * 60:.3g} points a minute", flush=True)
    return rows


def table(rows: list[dict[str, Any]], points: int) -> str:
    """Points a minute, and how much faster fused is, beside the target."""
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
    """Measure, print and keep the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--sample", type=int, default=6, help="points of the slow ways, 2 or more")
    parser.add_argument("--steps", type=int, help="of one length only, instead of two")
    options = parser.parse_args()
    lengths = LENGTHS if options.steps is None else {"given": options.steps}
    share = neighbours()
    rows = measure(options.points, options.sample, lengths)
    facts, others = machine("hydra-core", "hydra-joblib-launcher", "wandb"), share()
    title = (
        "Points of an RNN of 32 units on 8 steps, W&B offline; the clock starts with the process"
    )
    parts = [title, table(rows, options.points), sentence(facts)]
    data = {"points": options.points, "machine": facts, "others": others, "rows": rows}
    keep("sweep", "\n\n".join([*parts, disturbance(others)]), data)


if __name__ == "__main__":
    main()
