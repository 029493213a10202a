"""What W&B is told, read back from its offline runs with its own reader."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb_reader as reader

from gradlab import tracking
from gradlab.figures import save, style

STATUS = {"state": "done", "reason": "for one", "summary": {"train/step": 5, "verdict": "stable"}}


def config(mode: str = "offline") -> dict[str, Any]:
    settings = {"mode": mode, "project": "reach", "entity": None, "tags": ["a"]}
    return {"wandb": settings, "init": {"gain": 2.0}, "clip": {"threshold": np.inf}}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    data = tmp_path / "gradients.nc"
    data.write_bytes(b"any bytes")
    return save(style.Figure(), tmp_path / "map.png"), data


def test_a_run_reads_back_as_it_was_logged(tmp_path: Path, files: tuple[Path, Path]) -> None:
    rows = [
        {"train/step": 0.0, "jacobian/horizon": np.inf},
        {"train/step": 5.0, "jacobian/horizon": 2.5, "train/loss": 0.1},
    ]
    with tracking.track(tmp_path / "0", config(), group="study/today", name="gain=2") as tracker:
        tracker.log(rows[0] | {"train/loss": np.nan})
        tracker.log(rows[1])
        tracker.finish(STATUS, *files)

    run = tmp_path / "0" / "wandb"
    assert reader.history(run) == rows
    (opened,) = reader.records(run, "run")
    assert (opened["run_group"], opened["display_name"]) == ("study/today", "gain=2")
    ended = reader.summary(run)
    assert ended["state"] == "finished"
    assert ended["config"]["init"] == {"gain": 2}
    assert float(ended["config"]["clip"]["threshold"]) == np.inf
    assert ended["summary"]["verdict"] == "stable"
    assert ended["summary"]["jacobian/map"]["format"] == "png"
    (artifact,) = reader.records(run, "artifact")
    assert artifact["manifest"]["contents"][0]["path"] == "gradients.nc"
    against_step = [m for m in reader.records(run, "metric") if m.get("glob_name") == "*"]
    assert [metric["step_metric"] for metric in against_step] == ["train/step"]


def test_runs_side_by_side_do_not_mix(tmp_path: Path) -> None:
    def one(number: int) -> None:
        with tracking.track(tmp_path / str(number), config(), "g", f"run {number}") as tracker:
            for step in range(20):
                tracker.log({"train/step": step, "train/loss": number})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(one, range(3)))
    for number in range(3):
        rows = reader.history(tmp_path / str(number) / "wandb")
        assert rows == [{"train/step": step, "train/loss": number} for step in range(20)]


def test_the_runs_of_a_sweep_lie_in_one_folder(tmp_path: Path) -> None:
    for name in ("0", "1"):
        with tracking.track(tmp_path / name, config(), "g", name):
            pass
    runs = sorted(path.resolve() for path in (tmp_path / "wandb").glob("offline-run-*"))
    assert runs == sorted((tmp_path / name / "wandb").resolve() for name in ("0", "1"))


def test_an_exception_marks_the_run_as_failed(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        tracking.track(tmp_path / "0", config(), "g", "n") as tracker,
    ):
        tracker.log({"train/step": 1 / 0})
    assert reader.summary(tmp_path / "0" / "wandb")["exit_code"] == 1


def test_disabled_writes_nothing(tmp_path: Path, files: tuple[Path, Path]) -> None:
    before = sorted(tmp_path.iterdir())
    with tracking.track(tmp_path / "0", config("disabled"), "g", "n") as tracker:
        tracker.log({"train/step": 0})
        tracker.finish(STATUS, *files)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("key", [None, "0" * 40])
def test_online_without_account_or_network_is_kept_offline(
    key: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    tracking._possible_mode.cache_clear()
    with tracking.track(tmp_path / "0", config("online"), "g", "n") as tracker:
        tracker.log({"train/step": 0, "eval/loss": 1.0})
    tracking._possible_mode.cache_clear()
    assert len(reader.history(tmp_path / "0" / "wandb")) == 1
    said = capsys.readouterr().err
    assert said.startswith("gradlab: W&B runs are kept offline: ")
    assert "wandb sync" in said
