"""A sweep's folder that somebody sent is data: it runs no code, and reaches nothing outside."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from test_sweep_folders import TINY as WORDS

from gradlab import __main__ as command
from gradlab import load_gradients, load_runs, records
from gradlab.records import load_choices
from gradlab.sweeps.trust import check_words, keep_offline

FOREIGN = """
from pathlib import Path
from flax import nnx
(Path(__file__).parent / "imported").touch()
class Cell(nnx.SimpleCell):
    pass
"""


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["gradlab", *words])
    command.main()


def received(folder: Path, *words: str) -> Path:
    """A sweep's record of one point, as nobody here has written it."""
    point = {"number": 0, "folder": "0", "overrides": [*WORDS, *words]}
    records.save_sweep(folder, [point | {"identity": "", "config": {}}])
    return folder


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that notes when it is imported."""
    (tmp_path / "foreign_module.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign_module", raising=False)
    return tmp_path


CODE = {
    "a command": (("task._target_=os.system", "~task.length", "+task.command=echo"), "os.system"),
    "a class": (("model.cell._target_=foreign_module.Cell",), r"foreign_module.Cell \(model.cell"),
    "ours that is no part": (("task._target_=gradlab.records.delete_records",), "delete_records"),
    "in a probe": (("+probe.x._target_=foreign_module.Cell",), r"foreign_module.Cell \(probe.x"),
    "by reference": (
        ("model.name=foreign_module.Cell", "model.cell._target_=${model.name}"),
        r"foreign_module.Cell \(model.cell",
    ),
}


@pytest.mark.parametrize("case", CODE)
def test_a_record_calls_nothing_that_is_not_ours(
    case: str, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, named = CODE[case]
    received(there / "s", *words)
    with pytest.raises(SystemExit, match=f"calls what is not gradlab's: .*{named}.*sweep.trust="):
        run(monkeypatch, there, "sweep.resume=s", *(["--dry"] if case == "a class" else []))
    assert not (there / "imported").exists()
    assert [path.name for path in (there / "s").iterdir()] == ["sweep.json"]


@pytest.mark.parametrize("how", ["by name", "in the command", "in a config folder"])
def test_who_resumes_may_allow_it(
    how: str, there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    received(there / "s", "model.cell._target_=foreign_module.Cell", "model.name=Cell")
    (there / "mine").mkdir()
    (there / "mine" / "theirs.yaml").write_text("cell: {_target_: foreign_module.Cell}\n")
    allowed = {
        "by name": ["sweep.trust=[foreign_module.Cell]"],
        "in the command": [*WORDS, "model.cell._target_=foreign_module.Cell"],
        "in a config folder": ["--config-dir", "mine"],
    }
    run(monkeypatch, there, "sweep.resume=s", "--dry", *allowed[how])
    assert "1 point to run" in capsys.readouterr().out


def test_what_runs_is_what_the_words_say(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An identity that fits and a config that does not: the config in the record is not run."""
    run(monkeypatch, there, *WORDS, "hydra.sweep.dir=s", "wandb=disabled")
    (entry,) = records.load_sweep(there / "s")
    entry["config"]["task"]["_target_"] = "foreign_module.Cell"
    entry["config"]["init"]["gain"] = 9.0
    records.save_sweep(there / "s", [entry])
    shutil.rmtree(there / "s" / "0")
    run(monkeypatch, there, "sweep.resume=s")
    assert not (there / "imported").exists()
    assert load_runs(there / "s", "all")["init.gain"].item() == 1.0


@pytest.mark.parametrize(
    "word",
    [
        "hydra.job.env_set.PATH=/tmp",
        "+hydra.job_logging.x=1",
        "hydra/launcher=basic",
        "task@hydra.job_logging=echo",
        "sweep.trust=[os.system]",
        "model.name=${oc.env:HOME}",
        r"model.name=$\{oc.env:HOME\}",
        "model.name='${oc.${x}:HOME}'",
        "task={name: '${oc.env:HOME}'}",
        "model.name=choice(${oc.env:HOME})",
        "model.name=x,y",
        "model.name=${hydra.runtime.cwd}",
        "+experiment=../../evil",
        "+experiment=[adding,../evil]",
    ],
)
def test_a_recorded_word_sets_a_points_own_keys_to_what_it_says(word: str) -> None:
    from gradlab.components import ConfigError

    def options(group: str) -> list[str]:
        return ["quickstart", "adding"] if group == "experiment" else []

    with pytest.raises(ConfigError, match="is not taken from a record"):
        check_words([["seed=1", word]], Path("s"), options)
    fine = ["seed=1", "task={a: ${task.length}, b: 1}", "~x", "+experiment=[quickstart,adding]"]
    check_words([fine], Path(), options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, folder, *WORDS, "hydra.sweep.dir=s", "wandb=disabled", "seed=1,2")
    return folder / "s"


LINKS = {
    "a folder of checkpoints": "0/checkpoints",
    "a point": "1",
    "Hydra's files": "0/.hydra",
    "W&B's runs": "wandb",
    "a folder below W&B's": "wandb/x/checkpoints",
    "a folder by the name of W&B's log": "wandb/x/logs/debug-core.log",
    "the lock": ".lock",
    "a file": "0/status.json",
}


@pytest.mark.parametrize("place", LINKS.values(), ids=LINKS)
def test_nothing_is_written_through_a_link_that_leads_outside(
    place: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "s")
    link, victim = tmp_path / "s" / place, tmp_path / "victim"
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir() or "wandb" in place:
        victim.mkdir()
        (victim / "7").write_text("mine")
        shutil.rmtree(link, ignore_errors=True)
    else:
        victim.write_text("mine")
        link.unlink(missing_ok=True)
    link.symlink_to(victim)
    before = {path: path.stat().st_mtime_ns for path in victim.rglob("*")}
    with pytest.raises(SystemExit, match=r"is a link out of the sweep's folder"):
        run(monkeypatch, tmp_path, "sweep.resume=s")
    assert before == {path: path.stat().st_mtime_ns for path in victim.rglob("*")}


def test_a_sweep_reached_by_a_link_is_resumed(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "s").symlink_to(finished)
    run(monkeypatch, tmp_path, "sweep.resume=s")
    assert "nothing is left to run" in capsys.readouterr().out


def test_a_record_names_no_folder_by_a_variable_and_sends_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(finished, tmp_path / "s")
    entries = records.load_sweep(tmp_path / "s")
    entries[0]["folder"] = "${oc.env:HOME}"
    records.save_sweep(tmp_path / "s", entries)
    with pytest.raises(SystemExit, match="must be a folder of the point's own"):
        run(monkeypatch, tmp_path, "sweep.resume=s")


ONLINE = {"mode": "online", "project": "mine", "entity": None, "id": None}


@pytest.mark.parametrize(
    ("record", "own", "mode"),
    [
        ({}, {"mode": "offline"}, "offline"),
        ({}, {}, "online"),  # by WANDB_MODE of the person who resumes
        ({"project": "theirs"}, {}, "offline"),
        ({"entity": "them"}, {}, "offline"),
        ({"id": "a-run-of-mine"}, {}, "offline"),
        ({"mode": "disabled"}, {}, "disabled"),
    ],
)
def test_a_record_sends_nothing_to_a_place_of_its_own(
    record: dict[str, str], own: dict[str, str], mode: str
) -> None:
    point = OmegaConf.create({"wandb": ONLINE | record})
    keep_offline([point], OmegaConf.create(ONLINE | own))
    assert point.wandb.mode == mode


OWN = ("0/checkpoints/keep", "0/metrics.parquet", "overview.png", "settings.csv", "wandb/debug.log")


@pytest.mark.parametrize("place", OWN)
def test_a_new_sweep_replaces_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "own" / place
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(SystemExit, match="holds something else"):
        run(monkeypatch, tmp_path, *WORDS, "hydra.sweep.dir=own")
    assert [path for path in (tmp_path / "own").rglob("*") if path.is_file()] == [mine]


def test_records_are_read_without_resolvers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    status = {"state": "done", "summary": {}}
    config = {"model": {"name": "${oc.env:WANDB_API_KEY}"}}
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    hydra = "hydra: {runtime: {choices: {model: '${oc.env:WANDB_API_KEY}'}}}"
    (tmp_path / "0" / ".hydra" / "hydra.yaml").write_text(hydra)
    records.save_config(tmp_path / "0", config, status)
    assert load_runs(tmp_path)["model.name"].item() == "${oc.env:WANDB_API_KEY}"
    assert load_choices(tmp_path / "0") == {"model": "${oc.env:WANDB_API_KEY}"}


def test_maps_are_read_from_no_other_file(finished: Path, tmp_path: Path) -> None:
    import h5py

    shutil.copytree(finished / "0", tmp_path / "0")
    status = records.load_status(tmp_path / "0")
    path = tmp_path / "0" / "gradients.nc"
    with h5py.File(path, "a") as file:
        file["other"] = h5py.ExternalLink(os.devnull, "/x")
    records.seal_file(tmp_path / "0", status, "gradients.nc", path)
    with pytest.raises(ValueError, match="takes other from another file"):
        load_gradients(tmp_path / "0")
