"""What W&B costs a point: opening, a row, maps and closing, and the share of a whole point.

    python experiments/speed/tracking.py            points of the quickstart, 64 steps long
    python experiments/speed/tracking.py --smoke    small points, once; prints only

Points take turns with W&B off and on disk, so that slow spells hit both alike; seconds are medians.
The first point of a process pays for W&B's import and its service, which the others share.
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
    disturbance,
    keep,
    machine,
    markdown,
    neighbours,
    sentence,
)

from gradlab import config as configuration
from gradlab import records
from gradlab.__main__ import CONF
from gradlab.config import Config
from gradlab.point import Point, run_point
from gradlab.tracking.media import MAP
from gradlab.tracking.runs import track

MODES = ("disabled", "offline")
ROWS, METRICS = 200, 20  # of the measurement by parts
LENGTHS = (64, 512)  # of its maps
TARGET = 0.05  # of a point
SMALL = ("train.steps=20", "train.log_every=10", "model.hidden_size=8", "task.length=8")

Seconds = dict[str, list[float]]


def composed(*overrides: str) -> Config:
    """The checked config of a point of the quickstart."""
    configuration.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return configuration.check(
            compose("config", ["+experiment=quickstart", "init.gain=1", *overrides])
        )


def whole_points(folder: Path, repeats: int, overrides: tuple[str, ...]) -> Seconds:
    """Seconds of whole points with W&B off and on, after one each that compiles and imports."""
    seconds: Seconds = defaultdict(list)
    for repeat, mode in itertools.product(range(-1, repeats), MODES):
        point = Point(composed(f"wandb={mode}", *overrides), folder / f"{mode}{repeat}", mode)
        begin = time.perf_counter()
        status = run_point(point)
        if status["state"] != "done":
            raise RuntimeError(status["reason"])
        if repeat >= 0:
            seconds[mode].append(time.perf_counter() - begin)
    return seconds


def maps(length: int) -> xr.Dataset:
    """Maps before and after training, of four samples."""
    t = np.arange(length + 1)
    lag = np.subtract.outer(t, t)
    values = np.where(lag < 0, -np.inf, -0.1 * lag)
    values = np.broadcast_to(values, (2, 4, *values.shape)).astype(np.float32)
    attributes = {"units": "nats", "norm": "spectral", "of": "h", "wrt": "h"}
    array = xr.DataArray(values, dims=("step", "sample", "t", "k"), attrs=attributes)
    return xr.Dataset({MAP: array.assign_coords(step=[0, 300], t=t, k=t)})


def parts(folder: Path, repeats: int, length: int) -> Seconds:
    """Seconds of each thing that a point asks of W&B on disk."""
    config, seconds = composed("wandb=offline"), defaultdict(list)

    @contextlib.contextmanager
    def timed(what: str, times: int = 1) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        seconds[what].append((time.perf_counter() - begin) / times)

    gradients = maps(length)
    records.save_gradients(folder, gradients)
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
    """Measure, print, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="small points, once; keeps nothing")
    options = parser.parse_args()
    repeats, lengths = (1, LENGTHS[:1]) if options.smoke else (options.repeats, LENGTHS)
    overrides = SMALL if options.smoke else ("task.length=64",)
    share = neighbours()
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
                [f"T = {length}", *(f"{1000 * median(values):.2f}" for values in found.values())]
                for length, found in by_length.items()
            ],
        ),
    ]
    if options.smoke:
        print("\n\n".join(text))
        return
    facts, others = machine("wandb"), share()
    title = f"Points of the quickstart, 64 steps; median of {repeats}"
    data = {"points": points, "parts": by_length, "machine": facts, "others": others}
    keep("tracking", "\n\n".join([title, *text, sentence(facts), disturbance(others)]), data)


if __name__ == "__main__":
    main()
