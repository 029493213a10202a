"""What a W&B log or a server's answer is refused for, and what it reaches: nothing outside."""

import json
import shutil
from base64 import b64encode
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb
from logged_sweeps import config, write, write_sweep

from gradlab import load_wandb, records
from gradlab.records.seals import seal_of
from gradlab.tracking import offline_logs, points, server_runs

RECORDED = Path(__file__).parent / "recorded"  # of an earlier version: it has no id


def test_a_received_folder_reaches_nothing_outside_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    elsewhere = write_sweep(tmp_path / "elsewhere" / "reach" / "mine", 9.0)
    sweep = write_sweep(tmp_path / "received" / "reach" / "today", 0.5, 1.5, 2.5)
    settings = records.CONFIG.name
    for number, text in enumerate(("seed: ${oc.env:WANDB_API_KEY}\n", None, "seed: 4\n")):
        file = (sweep / str(number) / "wandb").resolve() / "files" / "gradlab" / settings
        file.unlink()
        if text is None:
            file.symlink_to(elsewhere / "0" / records.CONFIG)
        else:
            file.write_text(text)
    (sweep / "wandb" / "more").symlink_to(elsewhere / "wandb")
    escaping = tmp_path / "received" / "reach" / "escaping"
    records.save_sweep(escaping, [])
    content = {"id": "x/../../../elsewhere/reach/mine", "points": []}
    (escaping / records.SWEEP).write_text(json.dumps(content | {"seal": seal_of(content)}))
    write(escaping / "0", 7.0)
    target, place = tmp_path / "restored", f"reach/today-{records.sweep_id_of(sweep)}"
    (target / place).mkdir(parents=True)
    (target / place / "2").symlink_to(elsewhere / "0")
    wandb.teardown()
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}

    runs = load_wandb(tmp_path / "received", target)
    said = capsys.readouterr().err
    assert list(runs["status"]) == ["damaged", "damaged", "done"]
    assert "secret" not in runs.to_csv()
    assert list(runs["init.gain"].iloc[1:]) == [1.5, 9.0]  # the last is the user's own link
    assert "its sweep_id is 'x/../../../elsewhere/reach/mine', not letters and digits" in said
    assert f"{sweep / 'wandb' / 'more'} is left out: it leads out of its sweep" in said
    assert f"is left out: {target / place / '2'} is a link elsewhere" in said
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


def entry_of(file: Path) -> dict[str, str]:
    """Return a file's entry in the manifest of an artifact, as W&B writes it."""
    content = file.read_bytes()
    digest, size = b64encode(md5(content).digest()).decode(), str(len(content))
    return {"path": file.name, "local_path": str(file), "digest": digest, "size": size}


def test_a_log_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file of maps is read inside its sweep alone; one that makes no sense is left out."""
    update = config(0.5) | {"path": "reach/today/0"}
    header = {"run_id": "r", "start_time": "2026", "config": {"update": update}}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / records.GRADIENTS).write_text("precious")
    for number in range(4):
        log = tmp_path / "sweep" / "wandb" / f"offline-run-{number}" / f"run-{number}.wandb"
        log.parent.mkdir(parents=True)
        log.touch()

    def inspect(_: str, log: Path) -> list[dict[str, Any]]:
        contents = [entry_of(tmp_path / "mine" / records.GRADIENTS)]
        artifact = {"type": "gradients", "manifest": {"contents": contents}}
        return {
            "run-0.wandb": [{"type": "run", "run": header}],
            "run-1.wandb": [{"type": "artifact", "artifact": {"type": "gradients"}}],
            "run-2.wandb": [{"type": "run", "run": {"run_id": "x"}}],
            "run-3.wandb": [
                {"type": "run", "run": header | {"run_id": "s"}},
                {"type": "artifact", "artifact": artifact},
                {"type": "exit"},
            ],
        }[log.name]

    monkeypatch.setattr(offline_logs, "_inspect", inspect)
    (path,) = load_wandb(tmp_path / "sweep")["path"]
    assert not (Path(path) / records.GRADIENTS).exists()
    said = sorted(capsys.readouterr().err.splitlines())  # logs are read in threads
    assert [line.partition(".wandb is left out")[0][-5:] for line in said] == ["run-1", "run-2"]


@pytest.mark.parametrize(
    ("place", "named", "taken"),
    [
        ("sweep/0", "sweep/0", True),
        ("sweep/0", "away/0", True),  # it was moved
        ("private", "private", False),
        ("private", "away/private", False),
        ("sweep/private", "sweep/private/../private", True),
    ],
)
def test_maps_of_an_artifact_are_read_in_their_own_sweep(
    place: str, named: str, taken: bool, tmp_path: Path
) -> None:
    """Where it has the run's id, and the file the artifact's digest; else beside the log."""
    log = tmp_path / "sweep" / "wandb" / "run" / "run-0.wandb"
    file = tmp_path / place / records.GRADIENTS
    for folder in (log.parent, file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    file.write_text("maps")
    entry = entry_of(file) | {"local_path": str(tmp_path / named / records.GRADIENTS)}
    assert offline_logs._find_maps([entry], log, "") is None  # the folder is no sweep's
    records.save_sweep(tmp_path / "sweep", [])
    sweep_id = records.sweep_id_of(tmp_path / "sweep")
    assert (offline_logs._find_maps([entry], log, sweep_id) is not None) == taken
    assert offline_logs._find_maps([entry], log, "another") is None
    file.write_text("MAPS")
    assert offline_logs._find_maps([entry], log, sweep_id) is None
    beside = log.parent / records.GRADIENTS
    beside.write_text("maps")
    assert offline_logs._find_maps([entry_of(beside)], log, "another") == beside


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("two") / "reach" / "today", 0.5, 1.5)


@pytest.mark.parametrize(
    ("copied", "deleted", "reason"),
    [
        ("*", "", "config.yaml is another run's"),
        ("[!c]*", "", "config.yaml is damaged"),
        ("[!c]*", "config.yaml", "config.yaml is missing"),
        ("", "outcome.json", "outcome.json is missing"),
        ("", "metrics.parquet", "metrics.parquet is missing"),
        ("", "[!g]*", "outcome.json is missing"),
    ],
)
def test_records_that_are_not_the_runs_own_do_not_count(
    copied: str, deleted: str, reason: str, two_runs: Path, tmp_path: Path
) -> None:
    sweep = shutil.copytree(two_runs, tmp_path / "sweep", symlinks=True)
    mine, other = (sweep / point / "wandb" / "files" / "gradlab" for point in "01")
    for file in other.glob(copied) if copied else ():
        shutil.copyfile(file, mine / file.name)
    for file in mine.glob(deleted) if deleted else ():
        file.unlink()
    damaged, whole = load_wandb(sweep / "wandb").to_dict("records")
    assert (damaged["status"], whole["status"]) == ("damaged", "done")
    (log,) = mine.parents[1].resolve().glob("*.wandb")
    assert damaged["reason"] == f"the records of {log} do not count: {reason}"
    assert damaged["init.gain"] == 0.5
    assert np.isnan(damaged["eval/loss"])
    assert {path.name for path in Path(damaged["path"]).iterdir()} == {".hydra", "status.json"}


def test_records_without_seals_do_not_count(two_runs: Path, tmp_path: Path) -> None:
    files = shutil.copytree(two_runs, tmp_path / "s") / "0" / "wandb" / "files" / "gradlab"
    records.save_status(files, {"state": "done", "summary": {"eval/loss": 0.0}})
    (files / records.STATUS).replace(files / "outcome.json")
    (damaged,) = load_wandb(tmp_path / "s" / "0").to_dict("records")
    assert damaged["status"] == "damaged"
    assert "eval/loss" not in damaged
    assert damaged["reason"].endswith("do not count: outcome.json has no seal of config.yaml")


@pytest.mark.parametrize("held", ["status.json", "metrics.parquet", "checkpoints", "multirun.yaml"])
def test_what_was_measured_in_the_folder_is_not_replaced(
    held: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "reach" / "today"
    status = {"state": "done", "summary": {"eval/loss": 9.0}}
    records.save_metrics(sweep / "0", pd.DataFrame([{"eval/loss": 9.0}]), status)
    if held == "multirun.yaml":
        (sweep / held).touch()
    elif held != "status.json":
        (sweep / "0" / "status.json").unlink()
    if held == "checkpoints":
        (sweep / "0" / "metrics.parquet").rename(sweep / "0" / "checkpoints")
    before = {path: path.read_bytes() for path in (sweep / "0").iterdir()}
    for _ in range(2):  # what was restored there is replaced
        load_wandb(RECORDED, tmp_path)
        said = capsys.readouterr().err
        whole = held == "multirun.yaml"  # a sweep that ran there: both points are left out
        assert said.count(" was not read from W&B; give another folder") == 1 + whole
        assert (sweep / "1").exists() != whole
        assert {path: path.read_bytes() for path in (sweep / "0").iterdir()} == before


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no point that gradlab logged"):
        load_wandb(tmp_path)


@pytest.mark.parametrize("source", ["elsewhere", "a/b/c", "/a/b", "a/b/c/", Path("a/b")], ids=str)
def test_what_is_neither_a_folder_nor_a_project_is_named(source: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"'{source}' is no folder; give one, or ENTITY/P"):
        load_wandb(source)


@pytest.mark.parametrize("source", ["", None])
def test_no_source_is_not_the_current_folder(source: Any) -> None:
    with pytest.raises(ValueError, match="source must be a folder with offline W&B runs, or ENT"):
        load_wandb(source)


@pytest.mark.parametrize(
    "path",
    [
        *("../../elsewhere", "a/../../b", "a/b/..", "/a/b/c", "a//b/c", "a/b", "", 3),
        *(["a", "b", "c"], "C:/b/c", "a\\..\\..\\b/c/d", "a/b/\x1b[2J", "a/b/c\n"),
    ],
    ids=repr,
)
def test_paths_from_a_run_stay_below_the_folder(path: Any, tmp_path: Path) -> None:
    run = points.Run("id", "2026", True, config(1.0) | {"path": path}, [], {})
    with pytest.raises(ValueError, match="its path is "):
        points.restore_run(run, tmp_path, "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", ["id", "sweep_id"])
@pytest.mark.parametrize("name", ["x/../../..", "..", "a b", "", 3, "a" * 65], ids=repr)
def test_ids_from_a_run_are_letters_and_digits(which: str, name: Any, tmp_path: Path) -> None:
    place = {"path": "name/date/0", "sweep_id": "s" if which == "id" else name or " "}
    run_id = name if which == "id" else "r"
    run = points.Run(run_id, "2026", True, config(1.0) | place, [], {})
    with pytest.raises(ValueError, match=f"its {which} is "):
        points.restore_run(run, tmp_path, "run")
    assert list(tmp_path.iterdir()) == []


def test_a_project_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def runs(*_: Any, **__: Any) -> None:
        raise ValueError("Could not find project me/nothing")

    monkeypatch.setattr(server_runs, "check_login", lambda: None)
    monkeypatch.setattr(wandb, "Api", type("Api", (), {"runs": runs}))
    with pytest.raises(FileNotFoundError, match="W&B has no project 'me/nothing': Could not find"):
        load_wandb("me/nothing")


@pytest.mark.usefixtures("signed_out")
def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(
        ConnectionError,
        match="'me/project' is no folder here, and W&B says: nobody is logged in to W&B: type",
    ):
        load_wandb("me/project")


def test_a_config_is_the_same_in_what_wandb_changes() -> None:
    ours, theirs = {"task": {2: 1, 10: [2, -0.0]}}, {"task": {"10": [2.0, 0], "2": 1.0}}
    assert points._content(ours) == points._content(theirs)
