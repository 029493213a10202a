"""The cost of W&B: of opening and closing a run, of a row and of maps, and its share of a point.

    python experiments/speed/tracking.py            points of the quickstart, 64 steps long
    python experiments/speed/tracking.py --smoke    small points, once; prints only

Points with W&B disabled and offline take turns, so that slow phases of the machine affect both
alike; seconds are medians. Each mode runs one point before, which compiles and imports W&B.
"""

import argparse
import contextlib
import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
import xarray as xr
from hydra import compose, initialize_config_dir
from timing import (  # type: ignore[import-not-found, unused-ignore]
    describe,
    load_note,
    machine,
    markdown,
    monitor_load,
    save,
)

from gradlab import config as configuration
from gradlab import records
from gradlab.__main__ import CONF
from gradlab.config import Config
from gradlab.point import Point, run_point
from gradlab.tracking.media import MAP
from gradlab.tracking.runs import track

MODES = ("disabled", "offline")
ROWS, METRICS = 200, 20  # logged in `parts`: rows, and metrics in each
LENGTHS = (64, 512)  # T of the maps logged in `parts`
TARGET = 0.05  # largest share of a point's seconds
SMALL = ("train.steps=20", "train.log_every=10", "model.hidden_size=8", "task.length=8")

Seconds = dict[str, list[float]]


def compose_config(*overrides: str) -> Config:
    """Return the checked config of a point of the quickstart."""
    configuration.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return configuration.check(
            compose("config", ["+experiment=quickstart", "init.gain=1", *overrides])
        )


def whole_points(folder: Path, repeats: int, overrides: tuple[str, ...]) -> Seconds:
    """Return the seconds of points with W&B disabled and offline, the first of each left out."""
    seconds: Seconds = defaultdict(list)
    for repeat, mode in itertools.product(range(-1, repeats), MODES):
        point = Point(compose_config(f"wandb={mode}", *overrides), folder / f"{mode}{repeat}", mode)
        begin = time.perf_counter()
        status = run_point(point)
        if status["state"] != "done":
            raise RuntimeError(status["reason"])
        if repeat >= 0:
            seconds[mode].append(time.perf_counter() - begin)
    return seconds


def maps(length: int) -> xr.Dataset:
    """Return maps of four samples, before and after training."""
    t = np.arange(length + 1)
    lag = np.subtract.outer(t, t)
    values = np.where(lag < 0, -np.inf, -0.1 * lag)
    values = np.broadcast_to(values, (2, 4, *values.shape)).astype(np.float32)
    attributes = {"units": "nats", "norm": "spectral", "of": "h", "wrt": "h"}
    array = xr.DataArray(values, dims=("step", "sample", "t", "k"), attrs=attributes)
    return xr.Dataset({MAP: array.assign_coords(step=[0, 300], t=t, k=t)})


def parts(folder: Path, repeats: int, length: int) -> Seconds:
    """Return the seconds of each call of W&B that a point makes, offline."""
    config, seconds = compose_config("wandb=offline"), defaultdict(list)

    @contextlib.contextmanager
    def timed(what: str, times: int = 1) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        seconds[what].append((time.perf_counter() - begin) / times)

    gradients = maps(length)
    records.save_gradients(folder, gradients, {"state": "running"})
    row = {f"train/metric_{number}": 1.0 for number in range(METRICS)}
    for _ in range(repeats + 1):
        with contextlib.ExitStack() as run:
            with timed("open"):
                tracker = run.enter_context(track(folder, asdict(config), "speed/now", "parts"))
            with timed("a row", ROWS):
                for step in range(ROWS):
                    tracker.log(row | {"train/step": step})
            with timed("maps"):
                tracker.finish({"state": "done"}, gradients)
            with timed("close"):
                run.close()
    return {what: values[1:] for what, values in seconds.items()}


def main() -> None:
    """Measure, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="small points, once; keeps nothing")
    options = parser.parse_args()
    repeats, lengths = (1, LENGTHS[:1]) if options.smoke else (options.repeats, LENGTHS)
    overrides = SMALL if options.smoke else ("task.length=64",)
    load = monitor_load()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        points = whole_points(Path(name) / "points", repeats, overrides)
        by_length = {
            length: parts(Path(name) / f"T{length}" / "0", repeats, length) for length in lengths
        }
    off, on = (median(points[mode]) for mode in MODES)
    verdict = "met" if (on - off) / off < TARGET else "missed"
    text = [
        markdown(["a point", "seconds"], [["W&B off", f"{off:.3f}"], ["on disk", f"{on:.3f}"]]),
        f"Target: below {TARGET:.0%} of a point. W&B took {(on - off) / off:.1%}: {verdict}.",
        markdown(
            ["milliseconds on disk", *by_length[lengths[0]]],
            [
                [f"T = {length}", *(f"{1000 * median(values):.2f}" for values in seconds.values())]
                for length, seconds in by_length.items()
            ],
        ),
    ]
    if options.smoke:
        print("\n\n".join(text))
        return
    facts, others = machine("wandb"), load()
    title = f"Points of the quickstart, 64 steps; median of {repeats}"
    data = {"points": points, "parts": by_length, "machine": facts, "others": others}
    save("tracking", "\n\n".join([title, *text, describe(facts), load_note(others)]), data)


if __name__ == "__main__":
    main()
