"""The W&B run of a whole sweep: one for each, which no reader takes for a point's."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb
import wandb_reader as reader
from logged_sweeps import config, write_sweep

from gradlab import by_setting, load_runs, load_wandb
from gradlab.tracking.summary_run import log_settings, settings_table

GROUP = "reach/today"


def log(table: pd.DataFrame, sweep: Path) -> list[Path]:
    """Log a table; return the folders of the sweep's runs that are no point's."""
    log_settings(table, sweep, GROUP, {"name": "reach", **config(1.0)})
    wandb.teardown()
    points = {(point / "wandb").resolve() for point in sweep.iterdir()}
    return [x for x in (sweep / "wandb").resolve().glob("offline-run-*") if x not in points]


def logged_table(run: Path) -> pd.DataFrame:
    (path,) = run.glob("files/media/table/settings_*.table.json")
    content = json.loads(path.read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"), 0.5, 2.0)


def test_a_sweep_has_one_run_of_its_own_with_the_table_of_today(sweep: Path) -> None:
    table = by_setting(load_runs(sweep))
    (run,) = log(table, sweep)
    (header,) = reader.records(run, "run")
    assert (header["job_type"], header["run_group"], header["project"]) == (
        "summary",
        GROUP,
        "reach",
    )
    summary = reader.summary(run)["summary"]
    assert [summary[f"sweep/{x}"] for x in ("points", "settings", "done")] == [2, 2, 2]
    found = logged_table(run)
    assert found["init.gain"].tolist() == [0.5, 2.0]
    assert found["eval/loss/mean"].tolist() == [1.0, 1.0]
    assert (run / "files" / "settings.csv").read_text().startswith("init.gain,seeds,done,")

    assert log(table, sweep) == [run]  # nothing has changed
    (again,) = log(table.assign(done=[1, 0], failed=[0, 1]), sweep)  # replaced, not added
    assert reader.summary(again)["summary"]["sweep/failed"] == 1


def test_it_is_read_back_as_no_point(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(log(by_setting(load_runs(sweep)), sweep)) == 1
    restored = load_wandb(sweep / "wandb")
    assert sorted(restored["init.gain"]) == [0.5, 2.0]
    assert "left out" not in capsys.readouterr().err


def test_a_table_has_no_number_that_json_lacks() -> None:
    table = pd.DataFrame(
        {"clip.threshold": [1.0, np.inf], "seeds": [3, 3], "jacobian/horizon/mean": [2.5, np.inf]}
    )
    shown = settings_table(table)
    assert shown.data == [["1", 3, 2.5], ["none", 3, None]]


def test_a_run_that_cannot_be_written_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "wandb").symlink_to(tmp_path / "elsewhere")
    table = pd.DataFrame({name: [1] for name in ("seeds", "done", "diverged", "failed")})
    log_settings(table, tmp_path / "sweep", GROUP, {"name": "reach", **config(1.0)})
    assert "gradlab: the sweep has no W&B run of its own: " in capsys.readouterr().err
    assert list((tmp_path / "elsewhere").iterdir()) == []
