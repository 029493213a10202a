"""A sweep recorded by an earlier version of the code is read and resumed as one of today's.

recorded/ is a sweep of two points by 0.1.0's first code: point 0 is done, point 1 was interrupted
after 5 of 20 updates. Identities, checkpoint digests and names on disk must stay as they were.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import gradlab

from gradlab import load_gradients, load_runs
from gradlab.records import load_metrics, load_status
from gradlab.sentences import with_deviation

RECORDED = Path(__file__).parent / "recorded"
INTERRUPTED_AT = 5


def untimed(metrics: pd.DataFrame) -> pd.DataFrame:
    return metrics[[name for name in metrics if not name.startswith("time/")]]


def resume(folder: Path, *words: str) -> str:
    """Resume a sweep from the command line; what it printed."""
    done = gradlab(f"sweep.resume={folder.name}", *words, folder=folder.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The recorded sweep, resumed, and what that printed."""
    folder = tmp_path_factory.mktemp("recorded") / "sweep"
    shutil.copytree(RECORDED, folder)
    return folder, resume(folder)


def test_a_sweep_recorded_before_resumes(printed: tuple[Path, str]) -> None:
    sweep, text = printed
    assert "1 of 2 points have ended already" in text
    assert "starts anew" not in text
    assert "from the start" not in text
    runs = load_runs(sweep)
    assert list(runs["status"]) == ["done", "done"]
    assert list(runs["seed"]) == [1, 2]
    assert load_status(sweep / "0") == load_status(RECORDED / "0")
    assert load_status(sweep / "1")["identity"] == load_status(RECORDED / "1")["identity"]

    metrics, recorded = (untimed(load_metrics(folder / "1")) for folder in (sweep, RECORDED))
    before = metrics[metrics["train/step"] <= INTERRUPTED_AT]
    pd.testing.assert_frame_equal(before[list(recorded)], recorded)
    assert metrics["train/step"].max() == 20


def test_a_resumed_point_ends_as_one_that_was_never_interrupted(
    printed: tuple[Path, str], tmp_path: Path
) -> None:
    """To rounding: the checkpoint was computed on another processor."""
    whole = tmp_path / "sweep"
    shutil.copytree(RECORDED, whole)
    shutil.rmtree(whole / "1")
    resume(whole)
    points = [printed[0] / "1", whole / "1"]
    resumed, at_once = (untimed(load_metrics(point)) for point in points)
    assert set(resumed) == set(at_once)
    recorded = list(untimed(load_metrics(RECORDED / "1")))  # without the columns of today
    pd.testing.assert_frame_equal(resumed[recorded], at_once[recorded], rtol=1e-3, atol=1e-5)
    maps = [load_gradients(point)["jacobian_log_norm"] for point in points]
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-3)


def test_single_seeds_of_a_finished_sweep_are_shown_when_asked_for(
    printed: tuple[Path, str],
) -> None:
    """And its record stays as it was: the table is chosen for a command, not for the sweep."""
    sweep, text = printed
    rates = load_runs(sweep)["jacobian/decay_rate"] / np.log(10)
    mean = "".join(with_deviation(rates.mean(), rates.std(), "+")).replace("−", "-")
    record = (sweep / "sweep.json").read_bytes()
    points = resume(sweep, "sweep.table=points")
    assert "2 of 2 points have ended already; nothing is left to run." in points
    assert (sweep / "sweep.json").read_bytes() == record
    assert mean in text
    assert mean not in points
    rows = [line.split() for line in points.splitlines()]
    for number, rate in enumerate(rates):
        (row,) = [row for row in rows if row[:1] == [str(number)]]
        assert f"{rate:+.3f}" in row
    assert "seeds    python -m gradlab sweep.resume=sweep sweep.table=points" in text.splitlines()
