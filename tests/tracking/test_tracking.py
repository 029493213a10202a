"""Offline runs as they are logged, read back with W&B's own reader."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb
import wandb_reader as reader
from conftest import Compose
from synthetic_sweeps import geometric

from gradlab import load_runs, records
from gradlab.__main__ import CONF
from gradlab.point import Point, run_point
from gradlab.tracking import client, runs
from gradlab.tracking.media import MAP_SIDE, decay_curves, map_cells
from gradlab.tracking.runs import track

STATUS = {
    "state": "done",
    "reason": "by design",
    "summary": {"train/step": 5, "verdict": "stable"},
    "versions": {"jax": "1"},
}
RATES = (-0.5, -0.1)
MAPS = geometric(rates=RATES)


def table(run: Path, name: str) -> dict[str, Any]:
    """Return the columns and rows of a logged table."""
    (path,) = (run / "files" / "media" / "table" / "jacobian").glob(f"{name}_*.table.json")
    return {key: json.loads(path.read_text())[key] for key in ("columns", "data")}


def config(mode: str = "offline") -> dict[str, Any]:
    settings = {"mode": mode, "project": "reach", "entity": None, "tags": ["a"]}
    return {"wandb": settings, "init": {"gain": 2.0}, "clip": {"threshold": np.inf}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A point's folder that contains maps."""
    records.save_gradients(tmp_path / "0", MAPS, {"state": "running"})
    return tmp_path / "0"


def test_a_run_reads_back_as_it_was_logged(folder: Path) -> None:
    rows = [
        {"train/step": 0.0, "jacobian/horizon": np.inf},
        {"train/step": 5.0, "jacobian/horizon": 2.5, "train/loss": 0.1},
    ]
    with track(folder, config(), group="study/today", name="gain=2") as tracker:
        tracker.log(rows[0] | {"train/loss": np.nan})
        tracker.log(rows[1])
        tracker.finish(STATUS, MAPS)

    run = folder / "wandb"
    assert reader.history(run) == rows
    (header,) = reader.records(run, "run")
    assert (header["run_group"], header["display_name"]) == ("study/today", "gain=2")
    assert (header["job_type"], header["tags"]) == ("point", ["a"])
    run_summary = reader.summary(run)
    assert run_summary["state"] == "finished"
    assert run_summary["config"]["init"] == {"gain": 2}
    assert float(run_summary["config"]["clip"]["threshold"]) == np.inf
    assert run_summary["config"]["path"] == "study/today/0"
    outcome = [run_summary["summary"][name] for name in ("status", "reason", "verdict")]
    assert outcome == ["done", "by design", "stable"]
    assert run_summary["summary"]["jacobian/map"]["format"] == "png"
    against_step = [m for m in reader.records(run, "metric") if m.get("glob_name") == "*"]
    assert [metric["step_metric"] for metric in against_step] == ["train/step"]


def test_maps_are_logged_as_an_artifact_a_table_and_curves(folder: Path) -> None:
    with track(folder, config(), "g", "n") as tracker:
        tracker.log({"train/step": 100.0})
        tracker.finish(STATUS, MAPS)
    run = folder / "wandb"
    (artifact,) = (a for a in reader.records(run, "artifact") if a["type"] == "gradients")
    assert json.loads(artifact["metadata"]) == {
        "config": config() | {"clip": {"threshold": "Infinity"}},
        "versions": {"jax": "1"},
    }
    (content,) = artifact["manifest"]["contents"]
    assert content["path"] == "gradients.nc"
    assert Path(content["local_path"]).is_relative_to(run.resolve())
    assert (folder / "gradients.nc").samefile(content["local_path"])

    cells = pd.DataFrame(**table(run, "map_cells")).astype({"step": int, "t": int, "k": int})
    cells = cells.set_index(["step", "t", "k"])["log_norm"]
    means = MAPS["jacobian_log_norm"].mean("sample").to_series()
    pd.testing.assert_series_equal(
        cells.sort_index(), means[np.isfinite(means)].rename("log_norm"), check_dtype=False
    )

    curves = pd.DataFrame(**table(run, "decay_curves_table"))
    assert set(curves["lineKey"]) == {"after 0 updates", "after 100 updates"}
    for rate, (_, curve) in zip(RATES, curves.groupby("lineKey"), strict=True):
        decades = rate * curve["step"] / np.log(10)
        np.testing.assert_allclose(curve["lineVal"], decades, atol=1e-6)


def test_large_maps_are_thinned_and_zeros_are_left_out() -> None:
    maps = geometric(300, reach=100.0)["jacobian_log_norm"]
    cells = map_cells(maps.mean("sample"))
    assert set(cells["t"]) == set(cells["k"]) >= {0, 300}
    assert len(cells["t"]) < 2 * MAP_SIDE * (MAP_SIDE + 1) / 2
    assert (cells["t"] - cells["k"]).max() <= 100
    lags, curves = decay_curves(maps)
    assert len(lags) == 100
    assert lags[-1] == 300
    assert curves[0][-1] is None


def test_nothing_is_logged_twice(folder: Path) -> None:
    with track(folder, config(), "g", "n") as tracker:
        for step in range(3):
            tracker.log({"train/step": step, "train/loss": 1.0, "eval/loss": 2.0})
        tracker.finish(STATUS, MAPS)
    run = folder / "wandb"
    rows = [set(record["item"]) for record in reader.records(run, "history")]
    for name in set.union(*rows) - {"_step", "_runtime", "_timestamp", "train/step"}:
        assert sum(name in row for row in rows) == (3 if name.endswith("loss") else 1)
    assert len([a for a in reader.records(run, "artifact") if a["type"] == "gradients"]) == 1


def test_records_are_copied_where_there_are_no_hard_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with track(folder, config(), "g", "n") as tracker:
        tracker.finish(STATUS, None)
    copied = (folder / "wandb").resolve() / "files" / "gradlab" / "gradients.nc"
    assert copied.read_bytes() == (folder / "gradients.nc").read_bytes()


def test_a_sweep_with_nested_folders_has_one_wandb_folder(tmp_path: Path) -> None:
    sweep = tmp_path / "name" / "date"
    records.save_sweep(sweep, [])
    for point in (sweep / "rnn" / "0", sweep / "lstm" / "0"):
        with track(point, config(), "name/date", "n"):
            pass
    folders = [(sweep / cell / "0" / "wandb").resolve() for cell in ("rnn", "lstm")]
    assert sorted((sweep / "wandb").glob("offline-run-*")) == sorted(folders)
    paths = [reader.summary(run)["config"]["path"] for run in folders]
    assert paths == ["name/date/rnn/0", "name/date/lstm/0"]


def test_a_point_that_runs_again_has_one_run_with_its_old_id(folder: Path) -> None:
    ids = []
    for steps in (1, 3):
        with track(folder, config(), "g", "n") as tracker:
            for step in range(steps):
                tracker.log({"train/step": step, "train/loss": 0.0})
        (run,) = (folder.parent / "wandb").glob("offline-run-*")
        ids.append(run.name.rpartition("-")[2])
    assert ids[0] == ids[1]
    assert len(reader.history(folder / "wandb")) == 3
    shutil.rmtree((folder / "wandb").resolve())  # the id is the link's
    with track(folder, config(), "g", "n"):
        pass
    assert (folder / "wandb").resolve().name.rpartition("-")[2] == ids[0]


def test_the_run_of_a_point_that_ended_is_kept_until_the_next_is_whole(folder: Path) -> None:
    place = folder.parent / "wandb"

    def run(is_whole: bool) -> list[str]:
        with suppress(KeyboardInterrupt), track(folder, config(), "g", "n") as tracker:
            tracker.log({"train/step": 0, "train/loss": 0.0})
            if not is_whole:
                raise KeyboardInterrupt
            tracker.finish(STATUS, None)
        return sorted(path.name for path in place.glob("offline-run-*"))

    (first,) = run(is_whole=True)
    time.sleep(1)  # W&B names a run by the second
    assert run(is_whole=False)[0] == first
    time.sleep(1)
    kept, _ = run(is_whole=False)
    assert kept == first
    time.sleep(1)
    (last,) = run(is_whole=True)
    assert (place / last).samefile(folder / "wandb")
    assert last != first


@pytest.mark.slow
def test_a_run_logs_few_metric_names(composed: Compose, tmp_path: Path) -> None:
    probes = ",".join(path.stem for path in (CONF / "probe").glob("*.yaml"))
    config = composed(
        f"probe=[{probes}]",
        "task.length=64",
        "probe.samples=1",
        "model.hidden_size=4",
        "train.steps=0",
    )
    run_point(Point(config, tmp_path / "0", "all probes"))
    (status,) = load_runs(tmp_path)["status"]
    assert status == "done"
    assert len(reader.summary(tmp_path / "0" / "wandb")["summary"]) < 200  # of W&B's 10,000


def test_parallel_runs_do_not_mix(tmp_path: Path) -> None:
    def log_run(number: int) -> None:
        with track(tmp_path / str(number), config(), "g", f"run {number}") as tracker:
            for step in range(20):
                tracker.log({"train/step": step, "train/loss": number})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(log_run, range(3)))
    for number in range(3):
        rows = reader.history(tmp_path / str(number) / "wandb")
        assert rows == [{"train/step": step, "train/loss": number} for step in range(20)]


def test_the_runs_of_a_sweep_lie_in_one_folder(tmp_path: Path) -> None:
    for name in ("0", "1"):
        with track(tmp_path / name, config(), "g", name):
            pass
    folders = sorted(path.resolve() for path in (tmp_path / "wandb").glob("offline-run-*"))
    assert folders == sorted((tmp_path / name / "wandb").resolve() for name in ("0", "1"))
    links = [path for path in tmp_path.rglob("*") if path.is_symlink()]
    targets = {path.name: path.readlink() for path in links}
    assert set(targets) == {"wandb", "latest-run", "debug.log", "debug-internal.log"}
    assert not any(target.is_absolute() for target in targets.values())
    assert all(path.resolve().is_relative_to(tmp_path.resolve()) for path in links)


@pytest.mark.parametrize("linked", ["the point's wandb", "the sweep's wandb"])
def test_nothing_is_written_or_deleted_through_a_link_out_of_the_sweep(
    linked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "outside" / "offline-run-20260101_000000-abcdefgh"
    old.mkdir(parents=True)
    (old / "precious").touch()
    before = sorted((tmp_path / "outside").rglob("*"))
    point = tmp_path / "sweep" / "0"
    point.mkdir(parents=True)
    if linked == "the sweep's wandb":
        (point.parent / "wandb").symlink_to(tmp_path / "outside")
        (point / "wandb").symlink_to(Path("..") / "wandb" / old.name)
    else:
        (point / "wandb").symlink_to(old)
    for _ in range(2):  # it is said once
        with track(point, config(), "g", "n") as tracker:
            tracker.log({"train/step": 0})
            tracker.finish(STATUS, None)
    assert sorted((tmp_path / "outside").rglob("*")) == before
    said = capsys.readouterr().err
    if linked == "the sweep's wandb":
        assert said == (
            f"gradlab: W&B runs are missing or not whole: {point.parent / 'wandb'} is a link that "
            "leads elsewhere. The points go on without them.\n"
        )
    else:
        assert said == ""
        assert (point / "wandb").resolve().parent == (point.parent / "wandb").resolve()


def test_wandb_that_breaks_costs_its_run_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "map_media", full)
    with track(folder, config(), "g", "n") as tracker:
        tracker.log({"train/step": 0, "train/loss": 1.0})
        tracker.finish(STATUS, MAPS)
        tracker.log({"train/step": 1})
    assert "not whole: [Errno 28] No space left on device. The points go" in capsys.readouterr().err
    assert reader.summary(folder / "wandb")["exit_code"] == 1


def test_a_home_that_cannot_be_written_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")
    for name in (*names, "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "set, so that it is restored")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv("WANDB_CACHE_DIR", "the user's")
    client._prepare.__wrapped__()
    assert Path(os.environ["WANDB_DATA_DIR"]).is_dir()
    assert os.environ["WANDB_CACHE_DIR"] == "the user's"


@pytest.mark.parametrize("name", ["wandb", ".wandb"])
def test_the_current_folder_decides_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    (here / name).mkdir(parents=True)
    settings = f"[default]\nbase_url = http://127.0.0.1:9\nx_files_dir = {outside}\n"
    (here / name / "settings").write_text(settings)
    (here / "config-defaults.yaml").write_text("extra: {value: 1}\n")
    monkeypatch.chdir(here)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    wandb.teardown()  # the settings are read anew
    client._prepare.cache_clear()
    assert client.base_url() != "http://127.0.0.1:9"
    for number in range(2):
        with track(here / str(number), config(), "g", "n") as tracker:
            tracker.finish(STATUS, None)
        assert (here / str(number) / "wandb" / "files" / "gradlab" / "outcome.json").is_file()
    assert "extra" not in reader.summary(here / "0" / "wandb")["config"]
    assert not outside.exists()
    said = f"gradlab: {here / name / 'settings'} is not read: set WANDB_BASE_URL, WANDB_ENTITY and"
    assert capsys.readouterr().err.count(said) == 1


def test_an_exception_marks_the_run_as_failed(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        track(tmp_path / "0", config(), "g", "n") as tracker,
    ):
        tracker.log({"train/step": 1 / 0})
    run_summary = reader.summary(tmp_path / "0" / "wandb")
    assert run_summary["exit_code"] == 1
    assert run_summary["summary"]["status"] == "failed"
    assert run_summary["summary"]["reason"] == "ZeroDivisionError: division by zero"


def test_a_number_that_is_nan_at_the_end_is_not_hidden_by_an_earlier_one(tmp_path: Path) -> None:
    summary = {"train/step": 1, "train/loss": np.nan, "diverged/loss": np.nan}
    with track(tmp_path / "0", config(), "g", "n") as tracker:
        tracker.log({"train/step": 0, "train/loss": 2.0})
        tracker.log(summary)
        tracker.finish({"state": "diverged", "reason": "so", "summary": summary}, None)
    logged: dict[str, Any] = {}
    for record in reader.records(tmp_path / "0" / "wandb", "summary"):
        logged |= record["update"]
    assert (logged["train/step"], logged["train/loss"], logged["diverged/loss"]) == (1, None, None)


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_the_summary_has_no_number_that_the_point_has_not_at_its_end(
    tmp_path: Path, state: str
) -> None:
    start = {"train/step": 0, "jacobian/horizon": 2.0, "train/loss": 2.0}
    last = {"train/step": 4, "train/loss": 3.0}
    with track(tmp_path / "0", config(), "g", "n") as tracker:
        tracker.log(start)
        tracker.log(last)
        summary = {"summary": last} if state == "diverged" else {}
        tracker.finish({"state": state, **summary}, None)
    run = tmp_path / "0" / "wandb"
    assert reader.history(run) == [start, last]
    shown = reader.summary(run)["summary"]
    expected = last if state == "diverged" else {"train/step": 4}
    assert {name: x for name, x in shown.items() if "/" in name} == expected
    assert shown["status"] == state


def test_disabled_writes_nothing(folder: Path) -> None:
    before = sorted(folder.parent.rglob("*"))
    with track(folder, config("disabled"), "g", "n") as tracker:
        tracker.log({"train/step": 0})
        tracker.finish(STATUS, MAPS)
    assert sorted(folder.parent.rglob("*")) == before
