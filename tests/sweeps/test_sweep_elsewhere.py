"""The same points give the same records through every launcher: Hydra's own, SLURM and Ray."""

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
from conftest import gradlab

from gradlab import load_gradients, load_runs
from gradlab.records import load_metrics, load_status
from gradlab.records.leases import holder

SMALL = (
    "+experiment=quickstart",
    "task.length=4",
    "train.steps=4",
    "train.log_every=2",
    "train.checkpoint_seconds=inf",
    "model.hidden_size=6",
    "probe=frobenius",
    "probe.schedule=ends",
    "clip.threshold=inf,1",
)
SWEEPS = {
    "small": (*SMALL, "init.gain=2", "model=rnn"),
    "64 points": (*SMALL, "init.gain=0.5,1,2,4", "seed=0,1,2,3", "model=rnn,lstm"),
    "quickstart": ("+experiment=quickstart",),
}
RECORDS = ("wandb=disabled", "hydra.sweep.dir=sweep")


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
    "fused": ("sweep.lanes=vmap",),
    "basic": (),
    "joblib": ("hydra.launcher.n_jobs=2",),
    "fused_slurm": ("hydra.launcher.points=1", "hydra.launcher.cpus=1"),
    "fused_ray": ("+hydra.launcher.options.num_cpus=2",),
}
NEEDS = {
    "joblib": pytest.mark.skipif(_lacks("hydra_plugins.hydra_joblib_launcher"), reason="no joblib"),
    "fused_slurm": pytest.mark.skipif(
        _lacks("submitit") or not _slurm_runs(), reason="no submitit, or no SLURM runs (.ci/slurm)"
    ),
    "fused_ray": pytest.mark.skipif(_lacks("ray"), reason="Ray is not installed"),
}


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A sweep as one process runs it, a lane a core."""

    @cache
    def run(sweep: str) -> Path:
        folder = tmp_path_factory.mktemp("fused")
        done = gradlab(*SWEEPS[sweep], *RECORDS, folder=folder)
        assert done.returncode == 0, done.stderr
        return folder / "sweep"

    return run


def _marks(sweep: str, launcher: str) -> list[pytest.MarkDecorator]:
    slow = [] if sweep == "small" and launcher != "fused" else [pytest.mark.slow]
    return slow + [mark for name, mark in NEEDS.items() if name == launcher]


CASES = [
    pytest.param(sweep, launcher, marks=_marks(sweep, launcher))
    for sweep, launcher in itertools.product(SWEEPS, LAUNCHERS)
    if (sweep, launcher) != ("quickstart", "fused")  # vmapped, its rounding grows to percents
]


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[x for x in frame if not x.startswith("time/") and x not in ("path", "sweep")]]


@pytest.mark.parametrize(("sweep", "launcher"), CASES)
def test_every_launcher_leaves_the_same_records(
    sweep: str, launcher: str, fused: Callable[[str], Path], tmp_path: Path
) -> None:
    words = (*SWEEPS[sweep], *RECORDS, f"hydra/launcher={launcher}", *LAUNCHERS[launcher])
    done = gradlab(*words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    equal = {"check_exact": True} if launcher != "fused" else {"rtol": 1e-5, "atol": 1e-6}
    expected, found = load_runs(fused(sweep)), load_runs(tmp_path / "sweep")
    asked = ["sweep.lanes"] if launcher == "fused" else []
    pd.testing.assert_frame_equal(
        measured(expected.drop(columns=asked)),
        measured(found.drop(columns=asked)),
        **equal,
    )
    for one, other in zip(expected["path"], found["path"], strict=True):
        pd.testing.assert_frame_equal(
            measured(load_metrics(one)), measured(load_metrics(other)), **equal
        )
        maps = [load_gradients(path) for path in (one, other)]
        if launcher == "fused":
            xr.testing.assert_allclose(*maps, rtol=1e-5, atol=1e-5)
        else:
            assert maps[0].equals(maps[1])
        files = [{x.name for x in Path(path).iterdir()} for path in (one, other)]
        assert files[0] == files[1]


@pytest.mark.slow
@NEEDS["fused_slurm"]
def test_a_job_that_slurm_preempts_goes_on_where_it_was(tmp_path: Path) -> None:
    """SLURM gives it notice by a signal, as submitit asks; then it waits in the queue again."""
    words = (
        *("task.length=8", "train.steps=40000", "train.log_every=400", "probe.schedule=ends"),
        *("train.checkpoint_seconds=0.5", *RECORDS),
    )
    (tmp_path / "whole").mkdir()
    assert gradlab(*words, folder=tmp_path / "whole").returncode == 0
    command = [sys.executable, "-m", "gradlab", *words, "hydra/launcher=fused_slurm"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("sweep/0/checkpoints/*")) and process.poll() is None:
            time.sleep(0.1)
        (job,) = {path.name.split("_")[0] for path in tmp_path.glob("sweep/slurm/*/*_log.err")}
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    (log,) = tmp_path.glob("sweep/slurm/*/*_log.err")
    assert "preempted" in log.read_text()
    for folder in ("whole/sweep/0", "sweep/0"):
        assert load_status(tmp_path / folder)["state"] == "done"
    expected, found = (load_metrics(tmp_path / x) for x in ("whole/sweep/0", "sweep/0"))
    pd.testing.assert_frame_equal(measured(expected), measured(found), check_exact=True)


@pytest.mark.slow
@NEEDS["fused_slurm"]
def test_a_job_whose_head_was_killed_goes_on_and_is_left_alone(tmp_path: Path) -> None:
    words = (
        *("task.length=4", "train.steps=4000", "train.log_every=100", "probe.schedule=ends"),
        *("train.checkpoint_seconds=0", *RECORDS, "hydra/launcher=fused_slurm"),
    )
    with subprocess.Popen([sys.executable, "-m", "gradlab", *words], cwd=tmp_path) as head:
        while not list(tmp_path.glob("sweep/0/checkpoints/*")) and head.poll() is None:
            time.sleep(0.1)
        head.kill()
    running = holder(tmp_path / "sweep" / "0")
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)  # so that it does not end before the next line
    job = running.job
    left_alone = gradlab("sweep.resume=sweep", folder=tmp_path)
    assert left_alone.returncode == 1
    assert f"SLURM job {job} on " in left_alone.stdout
    assert f"end it there (scancel {job})" in left_alone.stdout
    assert "1 of 1 points run elsewhere" in left_alone.stderr
    assert load_status(tmp_path / "sweep/0")["state"] == "running"
    os.kill(running.pid, signal.SIGKILL)
    subprocess.run(["scancel", job], check=True)
    while holder(tmp_path / "sweep" / "0"):
        time.sleep(0.1)
    done = gradlab("sweep.resume=sweep", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "starts anew" not in done.stderr
    assert load_status(tmp_path / "sweep/0")["state"] == "done"


@pytest.mark.slow
@pytest.mark.skipif(_lacks("ray"), reason="Ray is not installed")
def test_what_a_worker_loses_is_interrupted_and_taken_up_again(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, pathlib, sys\n"
        "def clip(threshold: float):\n"
        "    in_task = 'default_worker' in sys.argv[0]\n"
        "    if in_task and not pathlib.Path('mended').exists():\n"
        "        os._exit(1)\n"  # as if the machine were gone
        "    from gradlab.clipping import global_norm\n"
        "    return global_norm(threshold)\n"
    )
    (tmp_path / "pandas.py").write_text("open('imported', 'w')")  # it takes no library's place
    words = [x for x in (*SMALL, *RECORDS) if not x.startswith(("clip", "+exp"))]
    words += ["clip._target_=gradlab.clipping.global_norm,mine.clip", "clip.threshold=1"]
    ray = ("hydra/launcher=fused_ray", "+hydra.launcher.options.num_cpus=2")
    done = gradlab(*words, *ray, folder=tmp_path)
    assert done.returncode == 1
    assert "1 of 2 points are not done" in done.stderr
    (tmp_path / "mended").touch()
    done = gradlab("sweep.resume=sweep", "sweep.trust=[mine.clip]", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(load_runs(tmp_path / "sweep")["status"]) == ["done", "done"]
    assert not (tmp_path / "imported").exists()
