"""What probes during training cost, at several schedules, beside what cockpit has published.

    python experiments/speed/probes.py                  an RNN, up to 3000 updates at T = 64, n = 32
    python experiments/speed/probes.py --model lstm

Each row trains the same network from the same seed, in turn; one that measures often, for fewer
updates, which changes nothing of the share. Seconds are those that every run keeps
in its status.json, medians: of training (the updates alone) and of the probes; compiling and
evaluation are left out. The overhead is (training + probes) / training.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from hydra import compose, initialize_config_dir
from timing import (  # type: ignore[import-not-found, unused-ignore]
    disturbance,
    interleaved,
    keep,
    machine,
    markdown,
    sentence,
)

from gradlab import config
from gradlab.__main__ import CONF
from gradlab.point import Point, run_point
from gradlab.schedule import probed_steps

SCHEDULES: tuple[str | int, ...] = (1, 16, 64, 256, "log", "ends")
# f-dangel/cockpit (2021), from results_individual.zip and results_grid.zip of cockpit-experiments:
# ranges over its test problems, on an RTX 2080 Ti.
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
    """Train at every schedule in turn, and keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="rnn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="tiny, and nothing is kept")
    given = parser.parse_args()
    steps, length, size = (20, 4, 4) if given.smoke else (3000, 64, 32)
    overrides = (
        *(f"model={given.model}", f"model.hidden_size={size}", f"task.length={length}"),
        *("train.log_every=100", "train.checkpoint_seconds=inf", "wandb=disabled"),
    )
    found: dict[str | int, list[Seconds]] = {schedule: [] for schedule in SCHEDULES}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            x: training(
                x,
                (*overrides, f"train.steps={updates(x, steps)}"),
                Path(folder) / "sweep",
                found[x],
            )
            for x in SCHEDULES
        }
        share = interleaved(runs, given.repeats)[2]
    rows = [row(x, found[x][1:], updates(x, steps)) for x in SCHEDULES]
    setting = {"model": given.model, "T": length, "n": size, "batch": 32}
    text = "\n\n".join(
        (
            markdown(HEADER, rows),
            disturbance(share),
            f"{sentence(setting)}, spectral norms of 4 sequences. {sentence(machine())}.",
        )
    )
    if given.smoke:
        print(text)
    else:
        keep(f"probes_{given.model}", text, {"machine": machine(), "setting": setting, "s": found})


def updates(schedule: str | int, most: int) -> int:
    """How long to train: for a dozen measurements, or as many as 300 updates give."""
    return min(most, max(300, 12 * schedule)) if isinstance(schedule, int) else most


def training(
    schedule: str | int, overrides: tuple[str, ...], folder: Path, found: list[Seconds]
) -> Callable[[], None]:
    """A run at a schedule, which adds its seconds to those found."""
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        checked = config.check(compose("config", [*overrides, f"probe.schedule={schedule}"]))
    return partial(train, Point(checked, folder / str(schedule), str(schedule)), found)


def train(point: Point, found: list[Seconds]) -> None:
    """Run a point and add its seconds of training and of probes."""
    status = run_point(point)
    if status["state"] != "done":
        raise RuntimeError(f"the run ended as {status['state']}: {status.get('reason')}")
    summary = status["summary"]
    found.append((summary["time/train_seconds"], summary["time/probe_seconds"]))


def row(schedule: str | int, found: list[Seconds], steps: int) -> tuple[str, ...]:
    """A line of the table."""
    training, probes = (median(seconds) for seconds in zip(*found, strict=True))
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
