"""A sweep that is killed at any moment and taken up again ends with the same records."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import gradlab

from gradlab import load_gradients, load_runs
from gradlab.records import load_metrics, load_status, verify

SWEEP = (
    "task.length=4",
    "train.steps=24",
    "train.log_every=4",
    "train.checkpoint_seconds=0",  # at every logged step
    "model.hidden_size=6",
    "probe=frobenius",
    "probe.schedule=ends",
    "init.gain=0.5,1",
    "seed=range(2)",
    "wandb=disabled",
    "hydra.sweep.dir=sweep",
)
NOT_NUMBERS = ("path", "sweep", "reason")


def killed(folder: Path, after: float, *arguments: str) -> bool:
    """Start a sweep and kill it after some seconds; whether it was still running."""
    with subprocess.Popen(
        [sys.executable, "-m", "gradlab", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return True
    return False


def measured(folder: Path) -> list[pd.DataFrame]:
    frames = [load_runs(folder)]
    frames += [load_metrics(path) for path in frames[0]["path"]]
    kept = lambda name: not name.startswith("time/") and name not in NOT_NUMBERS  # noqa: E731
    return [frame[list(filter(kept, frame))] for frame in frames]


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_and_resumed(kills: int, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    begin = time.monotonic()
    assert gradlab(*SWEEP, folder=whole).returncode == 0
    length = time.monotonic() - begin
    moments = random.Random(kills)
    command = lambda: ["sweep.resume=sweep"] if (broken / "sweep/sweep.json").exists() else SWEEP  # noqa: E731
    for _ in range(kills):
        while not killed(broken, moments.uniform(0.2, 1.0) * length, *command()):
            shutil.rmtree(broken / "sweep")  # it was done before: begin anew, and be quicker
            length /= 2
    done = gradlab(*command(), folder=broken)
    assert done.returncode == 0, done.stderr
    for expected, found in zip(measured(whole / "sweep"), measured(broken / "sweep"), strict=True):
        pd.testing.assert_frame_equal(expected, found, check_exact=True)
    for one, other in zip(
        (whole / "sweep").glob("[0-9]"), (broken / "sweep").glob("[0-9]"), strict=True
    ):
        verify(other, load_status(other))
        assert load_gradients(broken / "sweep" / one.name).equals(load_gradients(one))
