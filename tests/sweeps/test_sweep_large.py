"""A thousand points in one process."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab import load_runs

TINY = (
    "task.length=2",
    "train.steps=2",
    "train.log_every=2",
    "train.checkpoint_seconds=inf",
    "model.hidden_size=4",
    "probe=statistics",
)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "points"), [("disabled", 1000), ("offline", 200)])
def test_a_thousand_points_stay_small(mode: str, points: int, tmp_path: Path) -> None:
    words = (*TINY, f"wandb={mode}", f"seed=range({points // 2})", "init.gain=0.5,1")
    command = [sys.executable, "-m", "gradlab", *words, "hydra.sweep.dir=sweep"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (load_runs(tmp_path / "sweep")["status"] == "done").sum() == points
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4 * 2**20  # KiB
