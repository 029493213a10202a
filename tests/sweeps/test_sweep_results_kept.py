"""A command that runs nothing loses no results, and nobody else's files are replaced."""

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from test_sweep_folders import everything, gradlab

from gradlab import load_runs, records
from gradlab.components import ConfigError
from gradlab.records import leases
from gradlab.records.leases import LEASE
from gradlab.sweeps import ledger

QUICK = ("hydra.sweep.dir=s", "train.steps=0", "wandb=disabled")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config folder, and a sweep of two points by it: one done, one diverged."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "mine" / "experiment").mkdir(parents=True)
    write_experiment(folder, 3)
    words = ("--config-dir", "mine", "+experiment=own", "optim=sgd", "optim.learning_rate=0.1,1e38")
    with pytest.MonkeyPatch.context() as patch:
        gradlab(patch, folder, *QUICK, *words, "train.steps=2")
    assert list(load_runs(folder / "s")["status"]) == ["done", "diverged"]
    return folder


@pytest.fixture
def own(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "own"))


def write_experiment(folder: Path, seed: int) -> None:
    text = f"# @package _global_\n# mine\nseed: {seed}\n"
    (folder / "mine" / "experiment" / "own.yaml").write_text(text)


def resume(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    monkeypatch.setattr("test_sweep_folders.TINY", ())
    gradlab(monkeypatch, folder, "--config-dir", "mine", "sweep.resume=s", *words)


@pytest.mark.parametrize("record", ["whole", "damaged", "none"])
def test_points_of_another_config_are_not_replaced(
    record: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if record == "damaged":
        (own / "s" / records.SWEEP).write_text("{")
    if record == "none":
        (own / "s" / records.SWEEP).unlink()
        (own / "s" / "1" / records.CONFIG).write_text("")
    write_experiment(own, 4)
    before = everything(own)
    sentence = {"whole": "seed was 3, now 4"}.get(record, "has run with another config than its")
    with pytest.raises(SystemExit, match=sentence):
        resume(monkeypatch, own)
    assert everything(own) == before
    write_experiment(own, 3)
    resume(monkeypatch, own)
    assert list(load_runs(own / "s")["status"]) == ["done", "diverged"]


LAUNCHERS = {
    "no SLURM": ("hydra/launcher=fused_slurm", "needs SLURM's commands"),
    "no Ray": ("hydra/launcher=fused_ray", "needs Ray"),
}


@pytest.mark.parametrize("case", LAUNCHERS)
def test_a_launcher_that_cannot_start_deletes_nothing(
    case: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word, sentence = LAUNCHERS[case]
    monkeypatch.setenv("PATH", str(own))
    monkeypatch.setitem(sys.modules, "ray", None)
    before = everything(own)
    with pytest.raises(SystemExit, match=sentence):
        resume(monkeypatch, own, "sweep.retry=diverged", word)
    assert everything(own) == before


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_a_backup_by_hard_links_stays_as_it_is(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (f"hydra/launcher={launcher}", *QUICK[1:], "seed=1")
    gradlab(monkeypatch, tmp_path, *command, "hydra.sweep.dir=s")
    shutil.copytree(tmp_path / "s", tmp_path / "backup", copy_function=os.link)
    before = everything(tmp_path / "backup")
    (tmp_path / "s" / "0" / records.STATUS).unlink()
    gradlab(monkeypatch, tmp_path, *command, "sweep.resume=s")
    assert list(load_runs(tmp_path / "s")["status"]) == ["done"]
    assert everything(tmp_path / "backup") == before


def test_a_folder_of_another_program_is_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "s" / "12-00-00"
    for name in (".hydra/config.yaml", "checkpoints/3/weights", "metrics.parquet", "gradients.nc"):
        (job / name).parent.mkdir(parents=True, exist_ok=True)
        (job / name).write_text("lr: 0.1")
    (job / records.OVERRIDES).write_text("- seed=3")
    before = everything(tmp_path)
    monkeypatch.setattr("test_sweep_folders.TINY", ())
    for launcher in ("fused", "basic"):
        with pytest.raises(SystemExit, match="must be the folder of a sweep"):
            gradlab(monkeypatch, tmp_path, "sweep.resume=s", f"hydra/launcher={launcher}")
    assert everything(tmp_path) == before


def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    points = [entry.point(own / "s") for entry in ledger.read(own / "s")]
    path = points[0].folder / records.GRADIENTS
    path.write_bytes(path.read_bytes()[:-1])
    assert [point for point, _ in ledger.pending(points, ())] == points[:1]
    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(ConfigError, match="cannot be read"):
        ledger.pending(points, ())


def test_another_launcher_writes_neither_beside_a_process_nor_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    basic = ("hydra/launcher=basic", "train.steps=0", "wandb=disabled", "seed=1")
    gradlab(monkeypatch, tmp_path, *basic, "hydra.sweep.dir=s")
    other = leases.Holder(host="elsewhere", pid=1, started="", place="", token="x")
    monkeypatch.setattr(leases, "holder", lambda folder: other)
    before = everything(tmp_path / "s")
    with pytest.raises(SystemExit, match=r"elsewhere.* runs point 0"):
        gradlab(monkeypatch, tmp_path, *basic, "sweep.resume=s")
    assert everything(tmp_path / "s") == before
    monkeypatch.undo()
    (tmp_path / "s" / "0" / ".hydra").rename(tmp_path / "mine")
    (tmp_path / "s" / "0" / ".hydra").symlink_to(tmp_path / "mine")
    before = everything(tmp_path / "mine")
    with pytest.raises(SystemExit, match="is a link out of the sweep's folder"):
        gradlab(monkeypatch, tmp_path, *basic, "sweep.resume=s")
    assert everything(tmp_path / "mine") == before
    assert LEASE not in {path.name for path in tmp_path.rglob("*")}


def test_what_somebody_keeps_beside_checkpoints_stays(tmp_path: Path) -> None:
    for name in ("10", "20", "20_before", "mine"):
        (tmp_path / records.CHECKPOINTS / name).mkdir(parents=True)
    records.delete_checkpoints(tmp_path, keep="20")
    assert {x.name for x in (tmp_path / records.CHECKPOINTS).iterdir()} == {
        "20",
        "20_before",
        "mine",
    }
    records.delete_records(tmp_path)
    assert {x.name for x in (tmp_path / records.CHECKPOINTS).iterdir()} == {"20_before", "mine"}


@pytest.mark.parametrize(
    ("what", "name"), [("figure", records.OVERVIEW), ("table", records.SETTINGS)]
)
def test_somebody_elses_file_in_the_place_of_ours_stays(
    what: str,
    name: str,
    own: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = own / "s" / name
    resume(monkeypatch, own)  # ours is made again
    assert f"{what:8} s/{name}\n" in capsys.readouterr().out
    place.write_text("mine")
    resume(monkeypatch, own)
    assert f"{name}' is there, and gradlab has not made it" in capsys.readouterr().out
    assert place.read_text() == "mine"
    assert not (own / "s" / records.WANDB).exists()  # wandb=disabled
