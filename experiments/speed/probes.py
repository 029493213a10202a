"""The cost of probes during training at several schedules, beside cockpit's published figures.

    python experiments/speed/probes.py                  an RNN, up to 3000 updates at T = 64, n = 32
    python experiments/speed/probes.py --model lstm

Each row trains the same network from the same seed; all take turns. Rows that measure often train
for fewer updates, which does not change the overhead, (training + probes) / training. Seconds are
medians of those in each run's status.json, of the updates and of the probes; compiling and
evaluation are left out.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from hydra import compose, initialize_config_dir
from timing import (  # type: ignore[import-not-found, unused-ignore]
    describe,
    load_note,
    machine,
    markdown,
    save,
    time_interleaved,
)

from gradlab import config
from gradlab.__main__ import CONF
from gradlab.point import Point, run_point
from gradlab.schedule import probed_steps

SCHEDULES: tuple[str | int, ...] = (1, 16, 64, 256, "log", "ends")
# Ranges over the test problems of f-dangel/cockpit (2021) on an RTX 2080 Ti, from
# results_individual.zip and results_grid.zip of cockpit-experiments.
COCKPIT = {
    1: "×1.01–1.08 one gradient norm, ×1.44–32 economy, ×11–250 full",
    16: "×1.03–1.37 economy, ×1.7–16 full",
    64: "×0.99–1.06 economy, ×1.2–4.6 full",
    256: "×0.98–1.03 economy, ×1.06–1.9 full",
}
HEADER = (
    "probes every",
    "updates",
    "measurements",
    "training, s",
    "probes, s",
    "overhead",
    "cockpit",
)

Seconds = tuple[float, float]  # of training and of the probes


def main() -> None:
    """Train at every schedule in turn, and save the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="rnn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="tiny, and nothing is kept")
    options = parser.parse_args()
    steps, length, size = (20, 4, 4) if options.smoke else (3000, 64, 32)
    overrides = (
        *(f"model={options.model}", f"model.hidden_size={size}", f"task.length={length}"),
        *("train.log_every=100", "train.checkpoint_seconds=inf", "wandb=disabled"),
    )
    seconds: dict[str | int, list[Seconds]] = {schedule: [] for schedule in SCHEDULES}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            schedule: training(
                schedule,
                (*overrides, f"train.steps={updates(schedule, steps)}"),
                Path(folder) / "sweep",
                seconds[schedule],
            )
            for schedule in SCHEDULES
        }
        load = time_interleaved(runs, options.repeats)[2]
    rows = [row(x, seconds[x][1:], updates(x, steps)) for x in SCHEDULES]  # [0] compiles
    setting = {"model": options.model, "T": length, "n": size, "batch": 32}
    text = "\n\n".join(
        (
            markdown(HEADER, rows),
            load_note(load),
            f"{describe(setting)}, spectral norms of 4 sequences. {describe(machine())}.",
        )
    )
    if options.smoke:
        print(text)
    else:
        data = {"machine": machine(), "setting": setting, "s": seconds}
        save(f"probes_{options.model}", text, data)


def updates(schedule: str | int, most: int) -> int:
    """Return the updates to train: enough for a dozen measurements, at least 300."""
    return min(most, max(300, 12 * schedule)) if isinstance(schedule, int) else most


def training(
    schedule: str | int, overrides: tuple[str, ...], folder: Path, seconds: list[Seconds]
) -> Callable[[], None]:
    """Return a function that trains at a schedule and appends its seconds."""
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        checked = config.check(compose("config", [*overrides, f"probe.schedule={schedule}"]))
    return partial(train, Point(checked, folder / str(schedule), str(schedule)), seconds)


def train(point: Point, seconds: list[Seconds]) -> None:
    """Run a point and append its seconds of training and of probes."""
    status = run_point(point)
    if status["state"] != "done":
        raise RuntimeError(f"the run ended as {status['state']}: {status.get('reason')}")
    summary = status["summary"]
    seconds.append((summary["time/train_seconds"], summary["time/probe_seconds"]))


def row(schedule: str | int, seconds: list[Seconds], steps: int) -> tuple[str, ...]:
    """Return a row of the table."""
    training, probes = (median(values) for values in zip(*seconds, strict=True))
    name = {"log": "1, 4, 16, 64, … (default)", "ends": "first and last"}.get(
        str(schedule), f"{schedule} updates"
    )
    return (
        name,
        str(steps),
        str(len(probed_steps(steps, schedule))),
        f"{training:.2f}",
        f"{probes:.2f}",
        f"×{(training + probes) / training:.2f}",
        COCKPIT.get(schedule, "") if isinstance(schedule, int) else "",
    )


if __name__ == "__main__":
    main()
