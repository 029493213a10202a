"""Points restored from W&B runs, against the records that the runs were logged from."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb
from synthetic_sweeps import geometric

from gradlab import load_gradients, load_runs, load_wandb, records
from gradlab.tracking import restore
from gradlab.tracking.runs import track

ROWS = [
    {"train/step": 0, "eval/loss": 2.0, "jacobian/horizon": np.inf},
    {"train/step": 5, "eval/loss": 1.0, "jacobian/horizon": 2.5, "train/loss": 1.5},
]
END_ENTRIES = {"success/solved": 1.0, "time/probe_seconds": 0.25, "verdict": "stable"}


def config(gain: float) -> dict[str, Any]:
    settings = {"mode": "offline", "project": "reach", "entity": None, "tags": ["a"]}
    return {"wandb": settings, "init": {"gain": gain}, "clip": {"threshold": np.inf}, "seed": 3}


def write(point: Path, gain: float) -> None:
    """Write a point's records and log it to an offline run."""
    status = {"state": "done", "reason": "so", "summary": ROWS[-1] | END_ENTRIES}
    records.save_config(point, config(gain))
    records.save_metrics(point, pd.DataFrame(ROWS))
    records.save_gradients(point, geometric())
    records.save_status(point, status)
    with track(point, config(gain), group="reach/today", name=f"{gain}") as tracker:
        for row in ROWS:
            tracker.log(row)
        tracker.finish(status, geometric())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "reach" / "today"
    for number, gain in enumerate((0.5, 1.5)):
        write(folder / str(number), gain)
    return folder


def assert_same_runs(restored: pd.DataFrame, original: pd.DataFrame) -> None:
    """Check that the rows are the same, and the metrics and maps of their points."""
    columns = [name for name in original if name != "path"]
    pd.testing.assert_frame_equal(restored[columns], original[columns])
    assert set(restored) == set(original)
    for copy, source in zip(restored["path"], original["path"], strict=True):
        metrics = records.load_metrics(source)
        pd.testing.assert_frame_equal(records.load_metrics(copy)[metrics.columns], metrics)
        assert load_gradients(copy).identical(load_gradients(source))


def test_offline_logs_give_what_is_on_disk(sweep: Path) -> None:
    assert_same_runs(load_wandb(sweep / "wandb"), load_runs(sweep))


def test_maps_are_found_where_the_sweep_was_moved(sweep: Path, tmp_path: Path) -> None:
    original = load_runs(sweep)
    moved = tmp_path / "moved"
    shutil.copytree(sweep, moved, symlinks=True)
    for path in original["path"]:
        (Path(path) / records.GRADIENTS).rename(Path(path) / "hidden")
    try:
        restored = load_wandb(moved / "wandb", tmp_path / "restored")
    finally:
        for path in original["path"]:
            (Path(path) / "hidden").rename(Path(path) / records.GRADIENTS)
    assert_same_runs(restored, original)


def test_a_run_that_was_cut_off_gives_its_rows_so_far(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "wandb", tmp_path / "wandb", symlinks=True)
    (log,) = (tmp_path / "wandb" / (sweep / "0" / "wandb").resolve().name).glob("*.wandb")
    content = log.read_bytes()
    log.write_bytes(content[: content.index(b"train/loss") + 10])
    cut, whole = load_wandb(tmp_path / "wandb").to_dict("records")
    assert (cut["status"], whole["status"]) == ("running", "done")
    assert len(records.load_metrics(cut["path"])) == 1


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no point that gradlab logged"):
        load_wandb(tmp_path)
    with pytest.raises(FileNotFoundError, match="'elsewhere' is no folder; give one, or ENTITY"):
        load_wandb("elsewhere")


class Artifact:
    """Stands in for an artifact of `wandb.Api`."""

    def __init__(self, kind: str, file: Path) -> None:
        self.type = kind
        self.file = file

    def download(self, root: str) -> None:
        shutil.copy(self.file, root)


def test_the_server_gives_what_is_on_disk(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's rows have infinities as strings, W&B's own columns, pictures and tables."""

    def online(point: Path) -> Any:
        media = {"_step": 2, "train/step": 5, "jacobian/map": {"_type": "image-file", "height": 9}}
        rows = [row | {"_step": i, "_runtime": 0.1} for i, row in enumerate(ROWS)]
        rows[0] |= {"jacobian/horizon": "Infinity"}
        return SimpleNamespace(
            config=config(float(point.name) + 0.5)
            | {"clip": {"threshold": "Infinity"}, "path": f"reach/today/{point.name}"},
            scan_history=lambda: [*rows, media],
            summary_metrics={"status": "done", "reason": "so", **ROWS[-1], **END_ENTRIES},
            logged_artifacts=lambda: [
                Artifact("run_table", point / records.STATUS),
                Artifact("gradients", point / records.GRADIENTS),
            ],
        )

    def runs(_: Any, path: str, filters: dict[str, str] | None = None) -> list[Any]:
        queries.append((path, filters))
        foreign = SimpleNamespace(config={"lr": 1}, scan_history=list, summary_metrics={})
        return [foreign, *(online(Path(path)) for path in load_runs(sweep)["path"])]

    queries: list[Any] = []
    monkeypatch.setattr(restore, "check_login", lambda: None)
    monkeypatch.setattr(wandb, "Api", type("Api", (), {"runs": runs}))
    assert_same_runs(load_wandb("me/project"), load_runs(sweep))
    assert_same_runs(load_wandb("me/project/reach/today"), load_runs(sweep))
    assert queries == [("me/project", None), ("me/project", {"group": "reach/today"})]


def test_paths_from_the_server_stay_below_the_folder(tmp_path: Path) -> None:
    run = restore.Run({"path": "../../elsewhere"}, [], {})
    assert restore._restore(run, tmp_path) is None


@pytest.mark.usefixtures("signed_out")
def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ConnectionError, match="nobody is logged in to W&B: type wandb login"):
        load_wandb("me/project")
