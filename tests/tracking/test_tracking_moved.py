"""A sweep that was run without a network, copied to a machine that has one, and sent from there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event

import pandas as pd
import pytest
import wandb
from conftest import Compose, gradlab
from wandb_server import Server, serving

from gradlab import load_gradients, load_runs, load_wandb, records
from gradlab.config import Config
from gradlab.point import Point
from gradlab.sweeps.groups import program_of, run_built

TINY = (
    "task.length=4",
    "probe.samples=1",
    "train.steps=4",
    "train.log_every=2",
    "model.hidden_size=4",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two points; one is done, one diverged. Its path has characters of a pattern."""
    folder = tmp_path_factory.mktemp("cluster") / "[a] *"
    folder.mkdir()
    rates = "optim.learning_rate=0.5,1e38"
    done = gradlab(*TINY, "optim=sgd", rates, "hydra.sweep.dir=sweep", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "sweep"


@pytest.fixture
def moved(finished: Path, tmp_path: Path) -> Path:
    return shutil.move(shutil.copytree(finished, tmp_path / "copy", symlinks=True), tmp_path / "to")


def assert_same_points(restored: pd.DataFrame, original: pd.DataFrame) -> None:
    """Check the whole tables: columns, their types and order, and values; and the points' files."""
    places = ["path", "sweep"]
    pd.testing.assert_frame_equal(restored.drop(columns=places), original.drop(columns=places))
    for copy, source in zip(restored["path"], original["path"], strict=True):
        for name in (records.METRICS, records.GRADIENTS):
            assert (Path(copy) / name).exists() == (Path(source) / name).exists()
        if (Path(source) / records.METRICS).exists():
            metrics = records.load_metrics(source)
            pd.testing.assert_frame_equal(records.load_metrics(copy), metrics)


def test_the_table_of_a_sweep_is_the_same_from_both(finished: Path) -> None:
    runs = load_runs(finished)
    assert list(runs["status"]) == ["done", "diverged"]
    assert runs["diverged/update"].notna().tolist() == [False, True]
    restored = load_wandb(finished)
    assert_same_points(restored, runs)
    assert load_gradients(restored["path"][0]).identical(load_gradients(runs["path"][0]))


def test_points_that_ended_in_any_way_are_the_same_from_both(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaking.py").write_text("def clip(threshold: float):\n    raise OSError('no')\n")
    monkeypatch.syspath_prepend(tmp_path)
    sweep = tmp_path / "name" / "date"
    records.save_sweep(sweep, [])

    def run(number: int, config: Config) -> str:
        point, stop = Point(config, sweep / str(number), str(number)), Event()
        stops = number == 2
        program = program_of(config, {})
        (status,) = run_built(program, [point], lambda _: stop.set() if stops else None, stop)
        return str(status["state"])

    words = (["seed=1"], ["clip._target_=breaking.clip"], ["seed=2"])
    states = [run(i, composed(*TINY, *changed)) for i, changed in enumerate(words)]
    assert states == ["done", "failed", "interrupted"]
    wandb.teardown()  # waits until the logs are on disk
    assert_same_points(load_wandb(sweep), load_runs(sweep))


def sent(runs: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Synchronise a sweep's wandb/ by W&B's own command on a machine without W&B's files."""
    home.mkdir(exist_ok=True)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "HOME"):
        monkeypatch.setenv(name, str(home))
    with serving("accepts") as server:
        environment = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}
        subprocess.run(
            [sys.executable, "-m", "wandb", "sync", str(runs)],
            cwd=home,  # it writes its own log to wandb/
            env=environment,
            capture_output=True,
            check=True,
            timeout=250,
        )
    return server


def test_everything_is_sent_from_where_the_sweep_was_moved(
    finished: Path, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = finished.rename(finished.with_name("away"))
    try:
        server = sent(moved / "wandb", tmp_path / "home", monkeypatch)
    finally:
        away.rename(finished)
    expected: dict[str, bytes] = {}
    for run in (moved / "wandb").glob("offline-run-*/files"):
        run_id = run.parent.name.rpartition("-")[2]
        paths = [path for path in run.rglob("*") if path.is_file()]
        expected |= {f"files/{run_id}/{path.relative_to(run)}": path.read_bytes() for path in paths}
    kinds = {".nc", ".parquet", ".yaml", ".json", ".png", ".csv"}
    assert {Path(name).suffix for name in expected} == kinds
    assert {name: server.files.get(name) for name in expected} == expected
    for point in (moved / "0", moved / "1"):
        run_id = (point / "wandb").resolve().name.rpartition("-")[2]
        content = (point / records.GRADIENTS).read_bytes()
        assert server.files[f"files/{run_id}/gradlab/gradients.nc"] == content


def test_the_artifact_too_is_sent_from_where_the_sweep_ran(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (finished / "0" / "wandb").resolve()
    server = sent(run, tmp_path, monkeypatch)
    content = (finished / "0" / records.GRADIENTS).read_bytes()
    assert server.files["artifact/gradients.nc"] == content
    assert server.files[f"files/{run.name.rpartition('-')[2]}/gradlab/gradients.nc"] == content
    assert (run / "files" / "gradlab" / "gradients.nc").samefile(finished / "0" / "gradients.nc")
