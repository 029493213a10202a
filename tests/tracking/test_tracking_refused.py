"""What a W&B log or a server's answer is refused for, and what it reaches: nothing outside."""

import json
from pathlib import Path
from typing import Any

import pytest
import wandb
from logged_sweeps import config, write, write_sweep

from gradlab import load_wandb, records
from gradlab.records.seals import seal_of
from gradlab.tracking import offline_logs, points, server_runs


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
    assert list(runs["status"]) == ["damaged", "done", "done"]
    assert "secret" not in runs.to_csv()
    assert list(runs["init.gain"].iloc[1:]) == [1.5, 9.0]  # the last is the user's own link
    assert "its sweep_id is 'x/../../../elsewhere/reach/mine', not letters and digits" in said
    assert f"{sweep / 'wandb' / 'more'} is left out: it leads out of its sweep" in said
    assert f"is left out: {target / place / '2'} is a link elsewhere" in said
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


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
        contents = [{"local_path": str(tmp_path / "mine" / records.GRADIENTS)}]
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
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(".wandb is left out")[0][-5:] for line in said] == ["run-1", "run-2"]


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no point that gradlab logged"):
        load_wandb(tmp_path)


@pytest.mark.parametrize("source", ["elsewhere", "a/b/c", "/a/b", "a/b/c/", Path("a/b")], ids=str)
def test_what_is_neither_a_folder_nor_a_project_is_named(source: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"'{source}' is no folder; give one, or ENTITY/P"):
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
