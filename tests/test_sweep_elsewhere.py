"""The same points give the same records through every launcher: Hydra's own, SLURM and Ray."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import gradlab

from gradlab import load_gradients, load_runs
from gradlab.records import load_metrics

SWEEP = (
    "+experiment=quickstart",
    "task.length=4",
    "train.steps=4",
    "train.log_every=2",
    "train.checkpoint_seconds=inf",
    "model.hidden_size=6",
    "probe=frobenius",
    "probe.schedule=ends",
    "clip.threshold=inf,1",
    "init.gain=2",
    "wandb=disabled",
    "hydra.sweep.dir=sweep",
)


def _slurm_runs() -> bool:
    if not shutil.which("sinfo"):
        return False
    answer = subprocess.run(
        ["sinfo", "--noheader", "--format=%a"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip().startswith("up")


def _lacks(package: str) -> bool:
    return importlib.util.find_spec(package) is None


LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra.launcher.n_jobs=2",),
    "fused_slurm": ("hydra.launcher.points=1", "hydra.launcher.cpus=1"),
    "fused_ray": ("+hydra.launcher.options.num_cpus=2",),
}
NEEDS = {
    "basic": pytest.mark.skipif(False, reason=""),
    "joblib": pytest.mark.skipif(_lacks("hydra_plugins.hydra_joblib_launcher"), reason="no joblib"),
    "fused_slurm": pytest.mark.skipif(
        _lacks("submitit") or not _slurm_runs(), reason="no submitit, or no SLURM runs (.ci/slurm)"
    ),
    "fused_ray": pytest.mark.skipif(_lacks("ray"), reason="Ray is not installed"),
}


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep as one process runs it."""
    folder = tmp_path_factory.mktemp("fused")
    done = gradlab(*SWEEP, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[x for x in frame if not x.startswith("time/") and x not in ("path", "sweep")]]


@pytest.mark.parametrize("launcher", [pytest.param(x, marks=NEEDS[x]) for x in LAUNCHERS])
def test_every_launcher_leaves_the_same_records(launcher: str, fused: Path, tmp_path: Path) -> None:
    done = gradlab(*SWEEP, f"hydra/launcher={launcher}", *LAUNCHERS[launcher], folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    expected, found = load_runs(fused), load_runs(tmp_path / "sweep")
    pd.testing.assert_frame_equal(numbers(expected), numbers(found), check_exact=True)
    for one, other in zip(expected["path"], found["path"], strict=True):
        pd.testing.assert_frame_equal(
            numbers(load_metrics(one)), numbers(load_metrics(other)), check_exact=True
        )
        assert load_gradients(one).equals(load_gradients(other))
        files = [{x.name for x in Path(path).iterdir()} for path in (one, other)]
        assert files[0] == files[1]


@pytest.mark.slow
@pytest.mark.skipif(_lacks("ray"), reason="Ray is not installed")
def test_what_a_worker_loses_is_interrupted_and_taken_up_again(fused: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, pathlib\n"
        "def clip(threshold: float):\n"
        "    if not pathlib.Path('mended').exists():\n"
        "        os._exit(1)\n"  # as if the machine were gone
        "    from gradlab.clipping import global_norm\n"
        "    return global_norm(threshold)\n"
    )
    words = [x for x in SWEEP if not x.startswith(("clip", "+exp"))]
    words += ["clip._target_=gradlab.clipping.global_norm,mine.clip", "clip.threshold=1"]
    ray = ("hydra/launcher=fused_ray", "+hydra.launcher.options.num_cpus=2")
    done = gradlab(*words, *ray, folder=tmp_path)
    assert done.returncode == 1
    assert "1 of 2 points are not done" in done.stderr
    (tmp_path / "mended").touch()
    done = gradlab("sweep.resume=sweep", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(load_runs(tmp_path / "sweep")["status"]) == ["done", "done"]
