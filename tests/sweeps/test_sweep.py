"""Sweeps: lanes, chunks and trouble, the plan, and taking a sweep up again."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Compose

from gradlab import __main__ as command
from gradlab import load_gradients, load_runs, records
from gradlab.config import Sweep
from gradlab.point import Point, run_point
from gradlab.sweeps import lanes, ledger
from gradlab.sweeps.groups import group_by_program
from gradlab.sweeps.memory import bytes_per_point
from gradlab.sweeps.progress import ProgressDisplay
from gradlab.training.program import Program, hyperparameters_of

TINY = (
    "task.length=4",
    "probe=frobenius",
    "train.steps=4",
    "train.log_every=2",
    "model.hidden_size=6",
    "train.checkpoint_seconds=inf",
    "wandb=disabled",
)
THREADS = Sweep(lanes="threads")

Trouble = Callable[..., None]


def points_of(composed: Compose, folder: Path, changes: Sequence[Sequence[str]]) -> list[Point]:
    return [
        Point(composed(*TINY, *words), folder / str(number), ",".join(words))
        for number, words in enumerate(changes)
    ]


def run_all(points: Sequence[Point], settings: Sweep) -> list[dict[str, Any]]:
    groups = group_by_program(points)
    with ProgressDisplay(groups) as display:
        statuses = lanes.run_here(groups, display, settings)
    return [statuses[point.folder] for point in points]


def measured(folder: Path) -> pd.DataFrame:
    """A point's metrics, without the time that they took."""
    metrics = records.load_metrics(folder)
    return metrics[[name for name in metrics if not name.startswith("time/")]]


POINTS = [["init.gain=0.5"], ["init.gain=2"], ["seed=3"], ["optim.learning_rate=0.1"]]


def test_lanes_give_the_numbers_of_a_point_alone(composed: Compose, tmp_path: Path) -> None:
    alone = points_of(composed, tmp_path / "alone", POINTS)
    threads = points_of(composed, tmp_path / "threads", POINTS)
    vmapped = points_of(composed, tmp_path / "vmapped", POINTS)
    for point in alone:
        run_point(point)
    run_all(threads, THREADS)
    run_all(vmapped, Sweep(lanes="vmap", chunk=2))
    for one, other, together in zip(alone, threads, vmapped, strict=True):
        pd.testing.assert_frame_equal(
            measured(one.folder), measured(other.folder), check_exact=True
        )
        pd.testing.assert_frame_equal(measured(one.folder), measured(together.folder), rtol=1e-5)
        maps = [load_gradients(x.folder)["jacobian_log_norm"] for x in (one, other, together)]
        np.testing.assert_array_equal(maps[0], maps[1])
        np.testing.assert_allclose(maps[0], maps[2], rtol=1e-5, atol=1e-5)


def test_a_chunk_that_does_not_fit_is_halved(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fits_two(program: Program, points: Sequence[Point], *further: Any) -> list[dict[str, Any]]:
        tried.append(len(points))
        if len(points) > 2:
            return [{"state": "failed", "reason": "RESOURCE_EXHAUSTED: 1 TB"} for _ in points]
        return [{"state": "done"} for _ in points]

    monkeypatch.setattr(lanes, "run_built", fits_two)
    points = points_of(composed, tmp_path, [[f"seed={seed}"] for seed in range(9)])
    statuses = run_all(points, Sweep(lanes="vmap", chunk=9))
    assert [status["state"] for status in statuses] == ["done"] * 9
    assert tried[:2] == [9, 4]
    assert sorted(count for count in tried if count <= 2) == [1, 2, 2, 2, 2]


def test_trouble_stays_with_the_point_that_has_it(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaking.py").write_text("def clip(threshold: float):\n    raise OSError('no')\n")
    monkeypatch.syspath_prepend(tmp_path)
    trouble = [
        ["seed=1"],
        ["optim=sgd", "optim.learning_rate=1e38"],
        ["clip._target_=breaking.clip"],
        ["model.hidden_size=1000000"],  # a matrix of 4 terabytes
        ["seed=2"],
    ]
    points = points_of(composed, tmp_path, trouble)
    statuses = run_all(points, THREADS)
    states = ["done", "diverged", "failed", "failed", "done"]
    assert [status["state"] for status in statuses] == states
    assert list(load_runs(tmp_path)["status"]) == states
    assert "no" in statuses[2]["reason"]
    assert lanes._out_of_memory(statuses[3])
    alone = Point(points[4].config, tmp_path / "alone", "alone")
    run_point(alone)
    pd.testing.assert_frame_equal(
        measured(points[4].folder), measured(alone.folder), check_exact=True
    )


def test_memory_of_a_point_is_near_what_xla_counts(composed: Compose) -> None:
    import jax

    config = composed("task.length=64", "model.hidden_size=64", "train.batch_size=256")
    program, values = Program(config), hyperparameters_of(config)
    state = jax.eval_shape(program.initialise, values)
    compiled = jax.jit(lambda n, s: program.advance(n, s, 1)).lower(values, state).compile()
    counted = compiled.memory_analysis()
    needed = counted.temp_size_in_bytes + counted.output_size_in_bytes
    assert 0.7 < bytes_per_point(program) / needed < 1.5


def gradlab(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> None:
    """The command line, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["gradlab", *arguments])
    command.main()


SWEEP = (*TINY, "init.gain=0.5,1", "seed=1,2")


def test_dry_shows_the_plan_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gradlab(monkeypatch, tmp_path, *SWEEP, "model=rnn,lstm", "--dry")
    printed = capsys.readouterr().out
    assert "8 points to run as 2 programs" in printed
    assert "gain 0.5, 1; seed 1, 2" in printed
    assert "MiB" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_leaves_out_what_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skip = "hydra.sweeper.skip=[{model: lstm, seed: '1,2'}, {model: rnn, seed: 3}]"
    gradlab(monkeypatch, tmp_path, *TINY, "model=rnn,lstm", "seed=1,2,3", skip, "--dry")
    assert "3 points to run as 2 programs" in capsys.readouterr().out


def test_dry_shows_named_networks_that_differ_in_their_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = "+network=irnn,linear_orthogonal,lstm_chrono"
    gradlab(monkeypatch, tmp_path, *TINY, networks, "seed=1,2", "--dry")
    printed = capsys.readouterr().out
    assert "6 points to run as 3 programs" in printed
    assert "activation relu" in printed
    assert "chrono" in printed


def test_a_sweep_without_gradient_maps_ends_without_their_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gradlab(monkeypatch, tmp_path, *TINY, "probe=statistics", "hydra.sweep.dir=bare")
    printed = capsys.readouterr().out
    assert "records  bare" in printed
    assert "figure" not in printed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a sweep of four points has run."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        gradlab(patch, folder, *SWEEP, "hydra.sweep.dir=sweep")
    return folder


def stamps(sweep: Path) -> dict[str, int]:
    files = [*sweep.glob("[0-9]/*.*"), *sweep.glob("[0-9]/.hydra/*")]
    return {str(path.relative_to(sweep)): path.stat().st_mtime_ns for path in files}


def test_resume_repairs_what_is_damaged_and_touches_nothing_else(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = finished / "sweep"
    before, runs = stamps(sweep), load_runs(sweep)
    whole = {name: measured(sweep / name) for name in "0123"}
    status = (sweep / "0/status.json").read_text()
    (sweep / "0/status.json").write_text(status[: len(status) // 2])
    edited = (sweep / "1/status.json").read_text().replace('"train/step": 4', '"train/step": 5')
    (sweep / "1/status.json").write_text(edited)
    (sweep / "2/gradients.nc").write_bytes((sweep / "2/gradients.nc").read_bytes()[:-1])
    gradlab(monkeypatch, finished, "sweep.resume=sweep")
    printed = capsys.readouterr().out
    for point, what in enumerate(("status.json is damaged", "status.json was", "gradients.nc is")):
        assert f"point {point} runs again from the start: " in printed
        assert f"sweep/{point}/{what}" in printed
    assert "1 of 4 points have ended already" in printed
    after = stamps(sweep)
    assert {path for path in before if before[path] != after[path]} >= {"2/gradients.nc"}
    assert all(before[path] == after[path] for path in before if path.startswith("3/"))
    for name, metrics in whole.items():
        pd.testing.assert_frame_equal(metrics, measured(sweep / name), check_exact=True)
    columns = ["seed", "init.gain", "status", "verdict", "jacobian/decay_rate"]
    pd.testing.assert_frame_equal(runs[columns], load_runs(sweep)[columns])


def test_resuming_a_finished_sweep_says_that_nothing_is_left(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stamps(finished / "sweep")
    gradlab(monkeypatch, finished, "sweep.resume=sweep")
    printed = capsys.readouterr().out
    assert "4 of 4 points have ended already; nothing is left to run." in printed
    assert "records  sweep" in printed
    assert stamps(finished / "sweep") == before


def test_resume_goes_by_what_a_point_is(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stamps(finished / "sweep")
    further = (*TINY, "seed=3,2,1", "init.gain=1.0,0.5", "name=renamed")  # another order, and more
    gradlab(monkeypatch, finished, *further, "sweep.resume=sweep")
    assert "4 of 6 points have ended already" in capsys.readouterr().out
    after = stamps(finished / "sweep")
    assert all(before[path] == after[path] for path in before)
    added = load_runs(finished / "sweep").iloc[4:]
    assert list(added["seed"]) == [3, 3]


def test_resume_refuses_another_sweep_and_says_what_differs(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"train.steps was 4, now 5 \(4 points\)"):
        gradlab(monkeypatch, finished, *SWEEP, "train.steps=5", "sweep.resume=sweep")
    with pytest.raises(SystemExit, match=r"sweep\.resume must be the folder of a sweep"):
        gradlab(monkeypatch, finished, *SWEEP, "sweep.resume=nosuch")
    with pytest.raises(SystemExit, match="holds a sweep"):
        gradlab(monkeypatch, finished, *SWEEP, "hydra.sweep.dir=sweep")
    assert not (finished / "nosuch").exists()


def test_a_folder_in_use_is_refused(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (finished / "sweep" / records.LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="another sweep runs in"):
            gradlab(monkeypatch, finished, "sweep.resume=sweep")


def test_a_damaged_sweep_record_is_read_from_its_points(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = finished / "sweep" / records.SWEEP
    record.write_text(record.read_text()[:100])
    gradlab(monkeypatch, finished, "sweep.resume=sweep", "--dry")
    printed = capsys.readouterr().out
    assert "sweep.json is damaged" in printed
    assert "0 points to run" in printed


def test_retry_repeats_what_it_names(composed: Compose, tmp_path: Path) -> None:
    points = points_of(composed, tmp_path, [[f"seed={seed}"] for seed in range(4)])
    for point, state in zip(points, ("done", "failed", "diverged"), strict=False):
        mark = ledger.identity(point.config)
        records.save_status(point.folder, {"state": state, "identity": mark})

    def run_again(*retry: str) -> list[str]:
        return [point.folder.name for point, _ in ledger.pending(points, retry)]

    assert run_again("nothing") == ["3"]
    assert run_again("failed") == ["1", "3"]
    assert run_again("diverged") == ["2", "3"]
    assert run_again("diverged", "failed") == ["1", "2", "3"]
    ledger.clear(ledger.pending(points, ["failed"]))
    assert run_again("nothing") == ["1", "3"]  # as a job elsewhere finds it


def test_devices_share_the_chunks(tmp_path: Path) -> None:
    devices = "--xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {devices}"}
    arguments = (
        *TINY,
        "probe.schedule=ends",
        "seed=range(4)",
        "sweep.lanes=vmap",
        "hydra.sweep.dir=sweep",
    )
    done = subprocess.run(
        [sys.executable, "-m", "gradlab", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    statuses = [records.load_status(tmp_path / "sweep" / str(n)) for n in range(4)]
    assert {status["state"] for status in statuses} == {"done"}
    assert len({status["device"] for status in statuses}) == 2
