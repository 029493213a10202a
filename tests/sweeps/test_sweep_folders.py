"""Each point of a sweep has a folder, a row and a sweep of its own, or nothing runs."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import yaml

from gradlab import __main__ as command
from gradlab import by_setting, load_runs, load_wandb
from gradlab.components import ConfigError
from gradlab.sentences import counted
from gradlab.sweeps import refusals

TINY = (
    "task=echo",
    "task.length=6",
    "task.delay=2",
    "task.test_size=8",
    "probe=frobenius",
    "probe.schedule=ends",
    "train.steps=2",
    "train.batch_size=4",
    "model.hidden_size=4",
    "train.checkpoint_seconds=inf",
)


def gradlab(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    """The command line, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["gradlab", *TINY, *words])
    command.main()


SHARED = {
    "the same": (("rnn", "rnn"), "have one folder, 'rnn'"),
    "a slash": (("rnn", "rnn/"), "have one folder, 'rnn/'"),
    "a way up": (("rnn", "lstm/../rnn"), "a folder of the point's own"),
    "a way round": (("rnn", "./rnn"), "have one folder"),
    "inside": (("rnn", "rnn/1"), "inside that of point 0"),
    "deep inside": (("rnn/1/2", "rnn"), "inside that of point 1"),
    "the sweep's": (("0", "."), "a folder of the point's own"),
    "none": (("0", ""), "a folder of the point's own"),
    "above": (("0", "../1"), "a folder of the point's own"),
    "elsewhere": (("0", "/tmp/1"), "a folder of the point's own"),
    "a home": (("0", "~/1"), "a folder of the point's own"),
    "a drive": (("0", "C:/1"), "a folder of the point's own"),
    "above on Windows": (("0", "..\\1"), "a folder of the point's own"),
    "W&B's": (("0", "wandb/1"), "a folder of the point's own"),
    "the record": (("0", "sweep.json"), "a folder of the point's own"),
}


@pytest.mark.parametrize("case", SHARED)
def test_points_have_folders_of_their_own(case: str) -> None:
    folders, sentence = SHARED[case]
    with pytest.raises(ConfigError, match=sentence):
        refusals.check_folders("sweep", ["point 0", "point 1"], folders)


def test_different_folders_are_accepted() -> None:
    refusals.check_folders("sweep", list("abcde"), ["0", "1", "10", "rnn/1", "rnn/10"])


@pytest.mark.parametrize("launcher", ["fused", "fused_slurm", "fused_ray", "basic"])
def test_a_shared_folder_is_refused_before_anything_runs(
    launcher: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = (f"hydra/launcher={launcher}", "hydra.sweep.dir=s", "hydra.sweep.subdir=${model.name}")
    sentence = r"^gradlab: point 0 \(seed=1\) and point 1 \(seed=2\) have one folder, 'rnn' in 's'"
    with pytest.raises(SystemExit, match=sentence) as stopped:
        gradlab(monkeypatch, tmp_path, *words, "seed=1,2")
    assert "hydra.sweep.subdir='${model.name}/${seed}'" in str(stopped.value)
    assert list(tmp_path.iterdir()) == []


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder below a folder, with when it was changed and what a file holds."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


NOTHING_CHANGES = {
    "--dry": "--dry hydra.sweep.dir=mine/own",
    "--dry here": "--dry hydra.sweep.dir=.",
    "a wrong value": "hydra.sweep.dir=mine/own init.gain=-1",
    "a wrong value here": "hydra.sweep.dir=. init.gain=-1",
    "another launcher": "hydra.sweep.dir=mine/own init.gain=-1 hydra/launcher=basic",
    "a wrong initialiser": "hydra.sweep.dir=mine/own init._target_=odd.init ~init.gain",
    "no sweep": "sweep.resume=mine/own",
    "no sweep, --dry": "sweep.resume=mine/own --dry",
    "no sweep, another launcher": "sweep.resume=mine/own hydra/launcher=basic",
}


@pytest.mark.parametrize("case", NOTHING_CHANGES)
def test_what_does_not_run_changes_nothing(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "own").mkdir(parents=True)  # empty, and not gradlab's
    (tmp_path / "odd.py").write_text("def init():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = everything(tmp_path)
    with suppress(SystemExit, RuntimeError):
        gradlab(monkeypatch, tmp_path, *NOTHING_CHANGES[case].split())
    assert everything(tmp_path) == before


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of four points, two folders deep, with its printed end beside it."""
    folder = tmp_path_factory.mktemp("nested")
    words = ("hydra.sweep.dir=s", "hydra.sweep.subdir=gain_${init.gain}/${seed}")
    with pytest.MonkeyPatch.context() as patch, (folder / "printed").open("w") as printed:
        patch.setattr(sys, "stdout", printed)
        gradlab(patch, folder, *words, "init.gain=1,2", "seed=1,2")
    return folder / "s"


def points_on_disk(sweep: Path) -> set[tuple[str, float, int]]:
    """Folder, gain and seed of each point, read from the files alone."""
    found = set()
    for status in sweep.rglob("status.json"):
        config = yaml.safe_load((status.parent / ".hydra" / "config.yaml").read_text())
        folder = str(status.parent.relative_to(sweep))
        found.add((folder, config["init"]["gain"], config["seed"]))
    return found


def test_nested_folders_are_read_whole(nested: Path) -> None:
    expected = {(f"gain_{gain}/{seed}", gain, seed) for gain in (1, 2) for seed in (1, 2)}
    assert points_on_disk(nested) == expected
    runs = load_runs(nested)
    rows = zip(runs["path"], runs["init.gain"], runs["seed"], strict=True)
    assert {(str(Path(path).relative_to(nested)), gain, n) for path, gain, n in rows} == expected
    assert set(runs["status"]) == {"done"}


def test_a_nested_sweep_ends_with_one_table_figure_and_folder_of_wandb_runs(nested: Path) -> None:
    printed = (nested.parent / "printed").read_text()
    table = printed.partition("verdict")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in table.splitlines()[1:] if line[:1] != " "] == ["1", "2"]
    assert "the 2 seeds of a setting" in " ".join(printed.split())
    for point in ("gain_1/1", "gain_1/2", "gain_2/1", "gain_2/2"):
        link = nested / point / "wandb"
        assert link.resolve().parent == (nested / "wandb").resolve()
    assert "records  s\n" in printed
    assert (nested / "overview.png").is_file()
    settings = pd.read_csv(nested / "settings.csv")
    pd.testing.assert_frame_equal(settings, by_setting(load_runs(nested)))
    assert settings[["init.gain", "seeds", "done"]].to_numpy().tolist() == [[1, 2, 2], [2, 2, 2]]
    assert len(list((nested / "wandb").glob("offline-run-*"))) == 4 + 1  # one of the sweep's own
    assert {path.name for path in nested.iterdir() if path.is_dir()} == {
        "gain_1",
        "gain_2",
        "wandb",
    }


def test_a_nested_sweep_is_whole_in_wandb(nested: Path) -> None:
    from_disk, from_wandb = load_runs(nested), load_wandb(nested / "wandb")
    for column in ("init.gain", "seed", "jacobian/decay_rate", "verdict", "status"):
        assert sorted(from_disk[column]) == sorted(from_wandb[column])


@pytest.mark.parametrize("record", ["whole", "damaged"])
def test_a_nested_sweep_is_resumed(
    record: str,
    nested: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (nested / "sweep.json").read_text()
    if record == "damaged":
        (nested / "sweep.json").write_text(text[:100])
    monkeypatch.setattr("test_sweep_folders.TINY", ())
    before = everything(nested)
    gradlab(monkeypatch, nested.parent, "sweep.resume=s", "--dry")
    assert everything(nested) == before
    assert "0 points to run as 0 programs; 4 have ended" in capsys.readouterr().out
    (nested / "sweep.json").write_text(text)


@pytest.mark.parametrize("other", ["s/gain_1", "s/gain_1/1", "."])
def test_only_a_sweep_is_resumed(other: str, nested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(nested.parent.rglob("*"))
    monkeypatch.setattr("test_sweep_folders.TINY", ())
    with pytest.raises(SystemExit, match=r"sweep\.resume must be the folder of a sweep; got"):
        gradlab(monkeypatch, nested.parent, f"sweep.resume={other}")
    assert sorted(nested.parent.rglob("*")) == before


def test_a_sweep_is_resumed_in_its_own_folder(
    nested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"leave hydra\.sweep\.dir=t out"):
        gradlab(monkeypatch, nested.parent, "sweep.resume=s", "hydra.sweep.dir=t")


@pytest.mark.parametrize("subdir", ["${hydra.job.num}", "${hydra.job.override_dirname}", "${name}"])
def test_folders_are_named_by_what_hydra_knows(
    subdir: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"hydra.sweep.subdir={subdir}", "name=n${seed}", "seed=1,2", "--dry")
    gradlab(monkeypatch, tmp_path, *words)
    assert "2 points to run" in capsys.readouterr().out


def test_a_shared_folder_is_refused_on_resume(
    nested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subdir = "hydra.sweep.subdir=gain_${init.gain}/1"
    words = ("sweep.resume=s", subdir, "init.gain=1,2", "seed=1,2,3")
    before = points_on_disk(nested)
    with pytest.raises(
        SystemExit, match=r"point . \(.*seed=1.*seed=3.* have one folder, 'gain_1/1'"
    ):
        gradlab(monkeypatch, nested.parent, *words)
    assert points_on_disk(nested) == before


def test_a_refused_command_leaves_a_sweep_as_it_is(
    nested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(nested)
    for words, sentence in {
        ("sweep.resume=s", "init.gain=7"): "are not those of the sweep",
        ("sweep.resume=s", "init.gain=-7"): "init.gain must be",
        ("hydra.sweep.dir=s", "seed=9"): "holds a sweep",
        ("hydra.sweep.dir=s", "seed=9", "hydra/launcher=basic"): "holds a sweep",
        ("hydra.sweep.dir=s/gain_1", "seed=9"): "holds a sweep",  # the record lies above
        ("hydra.sweep.dir=s/gain_1/1", "seed=9"): "is the folder of a point",
        ("hydra.sweep.dir=s/gain_1/1", "+experiment=error_surface"): "is the folder of a point",
    }.items():
        with pytest.raises(SystemExit, match=sentence):
            gradlab(monkeypatch, nested.parent, *words)
    assert everything(nested) == before


def test_another_launchers_sweep_is_resumed_by_its_own_command_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    basic = ("hydra/launcher=basic", "train.steps=0", "wandb=disabled")
    gradlab(monkeypatch, tmp_path, *basic, "hydra.sweep.dir=s", "seed=1")
    before = everything(tmp_path / "s" / "0")
    for words, sentence in {
        ("hydra.sweep.dir=s", "seed=2"): "holds a sweep",
        ("sweep.resume=s", "seed=2"): "'0', which holds another point",
    }.items():
        with pytest.raises(SystemExit, match=sentence):
            gradlab(monkeypatch, tmp_path, *basic, *words)
    assert everything(tmp_path / "s" / "0") == before
    gradlab(monkeypatch, tmp_path, *basic, "sweep.resume=s", "seed=1,2")
    assert set(load_runs(tmp_path / "s")["seed"]) == {1, 2}


def test_a_record_whose_points_share_a_folder_is_not_resumed(
    nested: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = json.loads((nested / "sweep.json").read_text())
    for point in record["points"]:
        point["folder"] = "x"
    del record["seal"], record["id"]  # as the first versions wrote it
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "sweep.json").write_text(json.dumps(record))
    monkeypatch.setattr("test_sweep_folders.TINY", ())
    with pytest.raises(SystemExit, match="have one folder, 'x'"):
        gradlab(monkeypatch, tmp_path, "sweep.resume=s")


EXPERIMENTS = {
    "wide": 'name: wide\nhydra: {sweeper: {params: {init.gain: "0.5,1"}}}\n',
    "seeds": 'name: seeds\nhydra: {sweeper: {params: {seed: "range(3)"}}}\n',
    "strong": "name: strong\ninit: {gain: 3}\n",
    "weak": "name: weak\ninit: {gain: 0.5}\n",
}


@pytest.fixture
def experiments(tmp_path: Path) -> str:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    for name, text in EXPERIMENTS.items():
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    return str(folder.parent)


@pytest.mark.parametrize("launcher", ["fused", "basic"])
@pytest.mark.parametrize("swept", ["wide,seeds", "seeds,strong", "strong,seeds"])
def test_experiments_that_sweep_are_not_swept_over(
    swept: str, launcher: str, experiments: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("--config-dir", experiments, f"hydra/launcher={launcher}", "model=rnn,gru")
    with pytest.raises(SystemExit, match=r"\+experiment is swept over") as stopped:
        gradlab(monkeypatch, tmp_path, *words, f"+experiment={swept}", "hydra.sweep.dir=s")
    for name in swept.split(","):
        assert f"python -m gradlab +experiment={name}" in str(stopped.value)
    assert not (tmp_path / "s").exists()


def test_experiments_that_do_not_sweep_are_swept_over(
    experiments: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    words = ("+experiment=strong,weak", "seed=1,2", "train.steps=0", "wandb=disabled")
    gradlab(monkeypatch, tmp_path, "--config-dir", experiments, *words, "hydra.sweep.dir=s")
    runs = load_runs(tmp_path / "s")
    rows = zip(runs["name"], runs["init.gain"], runs["seed"], strict=True)
    assert set(rows) == {(n, g, s) for n, g in (("strong", 3), ("weak", 0.5)) for s in (1, 2)}


@pytest.mark.parametrize(
    ("words", "points"),
    [
        (("seed=1,1",), 1),
        (("init.gain=1,1.0", "seed=1,2"), 2),
        (("init=gaussian,gaussian",), 1),
    ],
)
def test_a_point_given_twice_runs_once_and_that_is_said(
    words: tuple[str, ...],
    points: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gradlab(monkeypatch, tmp_path, *words, "--dry")
    printed = capsys.readouterr().out
    assert "are the same" in printed
    assert f"{counted(points, 'point')} to run" in printed


@pytest.mark.parametrize(
    ("words", "key"),
    [("name=a,b", "name"), ("wandb.project=a,b", "wandb.project"), ("wandb=offline,online", "")],
)
def test_points_that_differ_in_bookkeeping_alone_are_refused(
    words: str, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=f"points 0 and 1 differ in .*{key}.* only"):
        gradlab(monkeypatch, tmp_path, words, "hydra.sweep.dir=s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("skip", "points"),
    [
        ("{seed: 'range(3)'}", 2),
        ("{seed: [1, 2]}", 3),
        ("{seed: '1,2'}", 3),
        ("{seed: 4.0}", 4),
    ],
)
def test_what_is_skipped_may_be_spelled_as_what_is_swept(
    skip: str,
    points: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = (
        f"# @package _global_\nhydra: {{sweeper: {{params: {{seed: range(5)}}, skip: [{skip}]}}}}"
    )
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    words = ("--config-dir", str(tmp_path / "conf"), "+experiment=mine", "--dry")
    gradlab(monkeypatch, tmp_path, *words)
    assert f"{counted(points, 'point')} to run" in capsys.readouterr().out
