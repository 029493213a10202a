"""Online runs against a local server: uploaded while they are written, or kept on disk."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb
import wandb_reader as reader
from conftest import gradlab
from wandb_server import Server, serving

from gradlab import load_runs
from gradlab.tracking import uploads
from gradlab.tracking.runs import Tracker, track
from gradlab.tracking.summary_run import log_settings

STATUS = {"state": "done", "summary": {"verdict": "stable"}}
RETRIES = ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
SHORT_TIMEOUTS = {"WANDB_HTTP_TIMEOUT": "1"} | {
    f"WANDB__{which}_RETRY_{what}": value
    for which in RETRIES
    for what, value in {"MAX": "1", "WAIT_MIN_SECONDS": "0.1", "WAIT_MAX_SECONDS": "0.1"}.items()
}


@pytest.fixture(autouse=True)
def _login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a W&B key, short timeouts and an uploader of its own."""
    for name, value in SHORT_TIMEOUTS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(uploads, "PAUSE", 0.0)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    uploads.shared_uploader.cache_clear()
    yield
    uploads.shared_uploader.cache_clear()
    wandb.teardown()


@contextlib.contextmanager
def online_run(folder: Path, number: int) -> Iterator[Tracker]:
    """Log a run of two rows; the block runs between them."""
    settings = {"mode": "online", "project": "reach", "entity": None, "tags": []}
    config: dict[str, Any] = {"wandb": settings, "seed": number}
    with track(folder / str(number), config, "g/h", f"run {number}") as tracker:
        tracker.log({"train/step": 0, "train/loss": 2.0})
        yield tracker
        tracker.log({"train/step": 1, "train/loss": 1.0})
        tracker.finish(STATUS, None)


def uploaded(folder: Path) -> int:
    """Return the number of runs that were uploaded completely."""
    return len(list(folder.glob("wandb/offline-run-*/*.synced")))


def name_server(folder: Path, server: Server) -> None:
    """Write a file of W&B's settings that names a server."""
    folder.mkdir(parents=True)
    (folder / "settings").write_text(f"[default]\nbase_url = {server.url}\n")


def test_runs_are_uploaded_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the server of the user's own settings, not to one that the sweep's folder names."""
    with serving("accepts") as server, serving("accepts") as foreign:
        name_server(tmp_path / "home" / ".config" / "wandb", server)
        name_server(tmp_path / "wandb", foreign)
        monkeypatch.chdir(tmp_path)
        wandb.teardown()  # the settings are read anew
        with online_run(tmp_path, 0):
            deadline = time.monotonic() + 60
            while not server.history() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert [row["train/loss"] for row in server.history()] == [2]
        with online_run(tmp_path, 1):
            pass
        uploads.shared_uploader().close()
        losses = [row["train/loss"] for row in server.history()]
    assert losses == [2, 1, 2, 1]
    assert foreign.received == []
    assert uploaded(tmp_path) == 2
    assert "gradlab: W&B runs are" not in capsys.readouterr().err


def test_the_run_of_a_whole_sweep_is_uploaded_and_so_is_the_one_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"mode": "online", "project": "reach", "entity": None, "tags": []}
    with serving("accepts") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        for count in (0, 1, 2):  # as the batches of a search, while the run before is sent
            numbers = {name: [count] for name in ("seeds", "done", "diverged", "failed")}
            log_settings(
                pd.DataFrame(numbers), tmp_path, "g/h", {"name": "reach", "wandb": settings}
            )
            time.sleep(1.1)  # runs are named by the second
        uploads.shared_uploader().close()
        assert 1 <= uploaded(tmp_path) <= 2
        assert "gradlab: " not in capsys.readouterr().err
        (sent,) = [file for name, file in server.files.items() if name.endswith("/settings.csv")]
        assert sent == b"seeds,done,diverged,failed\n2,2,2,2\n"  # the last


@pytest.mark.parametrize("trouble", ["refuses", "hangs", "dies"])
def test_a_bad_server_costs_one_warning_and_no_data(
    trouble: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving("errs" if trouble == "refuses" else trouble) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        if trouble == "refuses":
            server.server_close()
        start = time.monotonic()
        for number in range(2):
            with online_run(tmp_path, number):
                pass
        assert time.monotonic() - start < 20  # usually 1 or 2; the machine may be busy
        uploads.shared_uploader().close()
        warning = capsys.readouterr().err
        assert warning.startswith("gradlab: W&B runs are kept offline: ")
        assert warning.count("\n") == 1
        assert f"Send them later with: wandb sync {tmp_path / 'wandb'}\n" in warning
        assert uploaded(tmp_path) == 0
        for number in range(2):
            run = tmp_path / str(number) / "wandb"
            assert [row["train/loss"] for row in reader.history(run)] == [2, 1]
            assert reader.summary(run)["summary"]["verdict"] == "stable"
        if trouble == "dies":
            check_later_upload(server, tmp_path)


def check_later_upload(server: Server, folder: Path) -> None:
    """Check that the runs can be uploaded once the server works again."""
    server.behaviour = "accepts"
    runs = sorted(folder.glob("wandb/offline-run-*"))
    assert uploads.first_problem(uploads.start_upload(runs, folder), runs) == ""
    assert len(server.history()) == 4


def test_a_server_that_hangs_is_given_up_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "600")
    folder = tmp_path / "a; b"
    with serving("hangs") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with online_run(folder, 0):
            pass
        uploads.shared_uploader().close(patience=1)
    said = capsys.readouterr().err
    assert "they were not sent 1 s after the last point. Send them" in said
    assert f"wandb sync '{folder / 'wandb'}'\n" in said  # as a shell takes it


def test_a_sweep_completes_without_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    small = ("task.length=4", "train.steps=2", "model.hidden_size=4", "seed=0,1")
    process = gradlab("wandb=online", *small, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("gradlab: ") == process.stderr.count("kept offline") == 1
    assert "connection refused" in process.stderr
    assert list(load_runs(tmp_path / "runs")["status"]) == ["done"] * 2
    assert len(list(tmp_path.glob("runs/*/*/wandb/offline-run-*/*.wandb"))) == 2 + 1


def test_a_missing_key_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    with online_run(tmp_path, 0):
        pass
    uploads.shared_uploader().close()
    assert "wandb login" in capsys.readouterr().err
