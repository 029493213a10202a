"""Points restored from W&B runs, against the records that the runs were logged from.

recorded/ is a sweep as version 0.1.0's first code wrote it: without an id, its records not among
the runs' files. The paths in its logs exist nowhere.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import wandb
from logged_sweeps import END_ENTRIES, ROWS, config, write, write_sweep
from omegaconf import OmegaConf

from gradlab import load_gradients, load_runs, load_wandb, records
from gradlab.tracking import points, server_runs
from gradlab.tracking.restore import places
from gradlab.tracking.runs import track

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture(scope="module", params=["present", "earlier"])
def sweep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "reach" / "today"
    if request.param == "earlier":
        return Path(shutil.copytree(RECORDED, folder, symlinks=True))
    return write_sweep(folder, 0.5, 1.5)


def assert_same_runs(restored: pd.DataFrame, original: pd.DataFrame) -> None:
    """Check that the rows are the same, and the metrics and maps of their points."""
    columns = [name for name in original if name not in ("path", "sweep")]
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
    away = sweep.rename(sweep.with_name("away"))
    try:
        restored = load_wandb(moved / "wandb", tmp_path / "restored")
    finally:
        away.rename(sweep)
    assert_same_runs(restored, original)


def test_a_run_that_was_cut_off_gives_its_rows_so_far(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "wandb", tmp_path / "wandb", symlinks=True)
    (log,) = (tmp_path / "wandb" / (sweep / "0" / "wandb").resolve().name).glob("*.wandb")
    content = log.read_bytes()
    log.write_bytes(content[: content.index(b"train/loss") + 10])
    shutil.rmtree(log.parent / "files", ignore_errors=True)  # which are written at the end
    cut, whole = load_wandb(tmp_path / "wandb").to_dict("records")
    assert (cut["status"], whole["status"]) == ("interrupted", "done")
    assert len(records.load_metrics(cut["path"])) == 1


def test_a_log_without_a_run_is_named(
    sweep: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sweep, tmp_path / "sweep", symlinks=True)
    (log,) = (tmp_path / "sweep" / "0" / "wandb").resolve().glob("*.wandb")
    log.write_bytes(b"")
    assert list(load_wandb(tmp_path, columns="all")["init.gain"]) == [1.5]
    assert f"gradlab: {log} is left out: it has no run that can" in capfd.readouterr().err


def test_sweeps_of_one_name_and_date_keep_apart(tmp_path: Path) -> None:
    for machine, gains in (("a", (0.5, 1.5)), ("b", (0.5, 2.5))):  # one point is the same
        write_sweep(tmp_path / machine / "reach" / "today", *gains)
    restored = load_wandb(tmp_path)
    assert len(set(restored["path"])) == 4
    assert sorted(restored["init.gain"]) == sorted(load_runs(tmp_path)["init.gain"])
    for gain, path in zip(restored["init.gain"], restored["path"], strict=True):
        assert records.load_metrics(path)["eval/loss"].iloc[-1] == ROWS[-1]["eval/loss"]
        assert OmegaConf.load(Path(path) / records.CONFIG).init.gain == gain
    sweeps = {Path(path).parent.name for path in restored["path"]}
    assert sweeps == {
        f"today-{records.sweep_id_of(tmp_path / machine / 'reach' / 'today')}" for machine in "ab"
    }


def test_points_of_sweeps_without_an_id_keep_apart_where_they_differ(tmp_path: Path) -> None:
    shutil.copytree(RECORDED, tmp_path / "a" / "reach" / "today", symlinks=True)
    for number, gain in enumerate((0.5, 2.5)):
        write(tmp_path / "b" / "reach" / "today" / str(number), gain)
    wandb.teardown()
    restored = load_wandb(tmp_path)
    assert sorted(restored["init.gain"]) == [0.5, 1.5, 2.5]
    assert sorted(Path(path).name for path in restored["path"]) == ["0", "1", "1"]


def test_the_id_of_a_sweep_stays_and_an_earlier_sweep_gets_none(tmp_path: Path) -> None:
    ids = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        records.save_sweep(folder, [])
        ids.append(records.sweep_id_of(folder))
        records.save_sweep(folder, [{"folder": "0", "config": {}}])
        assert records.sweep_id_of(folder) == ids[-1] != ""
        assert records.load_sweep(folder) == [{"folder": "0", "config": {}}]
    assert ids[0] != ids[1]
    (tmp_path / records.SWEEP).write_text('{"points": []}')
    records.save_sweep(tmp_path, [])
    assert records.sweep_id_of(tmp_path) == ""


def test_links_and_copies_of_a_run_are_one_point(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "linked").symlink_to(sweep)
    shutil.copytree(sweep, tmp_path / "followed")  # as cp -rL, rsync -L and zip do
    shutil.copytree(sweep, tmp_path / "copied", symlinks=True)
    (tmp_path / "copied" / "loop").symlink_to(tmp_path / "copied")
    for folder in ("all", "followed", "copied", "."):
        assert_same_runs(load_wandb(tmp_path / folder), load_runs(sweep))


def test_the_last_run_of_a_point_counts(tmp_path: Path) -> None:
    point = write_sweep(tmp_path / "reach" / "today", 0.5) / "0"
    run = (point / "wandb").resolve()
    old = shutil.copytree(run, tmp_path / "offline-run-20260101_000000-old")
    status = records.load_status(point) | {"state": "diverged", "reason": "late"}
    with track(point, config(0.5), group="reach/today", name="again") as tracker:  # under its id
        tracker.log(ROWS[0])
        tracker.finish(status, None)
    wandb.teardown()
    assert old.exists()
    (restored,) = load_wandb(tmp_path).to_dict("records")
    assert (restored["status"], restored["reason"]) == ("diverged", "late")


def test_of_several_runs_of_a_point_the_last_whole_one_is_kept(tmp_path: Path) -> None:
    def point(name: str, started: str, whole: bool = True, content: str = "{}") -> points.Restored:
        (tmp_path / name).mkdir(exist_ok=True)
        path, time = PurePosixPath("reach/today/0"), pd.Timestamp(started).value
        folder = tmp_path / name
        return points.Restored(folder, name, name[0], time, whole, "id", path, content)

    runs = [
        point("a1", "2026-01-01T00:00:00.9Z"),
        point("a2", "2026-01-01T00:00:00.95Z"),  # as text it comes before the first
        point("a3", "2026-01-09", whole=False),
        point("b", "2025-12-31"),
        point("c", "2025-12-30", content="{other}"),
        point("d1", "2025-12-29", content="{third}"),
        point("d2", "2025-12-29", content="{third}"),
    ]
    for order in (runs, runs[::-1], runs[3:] + runs[:3]):
        kept = {point.folder.name: str(place) for point, place in places(order).items()}
        assert kept == {
            "d2": "reach/today-id/0",
            "c": "reach/today-id-c/0",
            "a2": "reach/today-id-a/0",
        }


def test_a_sweep_that_was_copied_and_continued_twice_keeps_all_points(tmp_path: Path) -> None:
    first = write_sweep(tmp_path / "a" / "reach" / "today", 0.5)
    second = shutil.copytree(first, tmp_path / "b" / "reach" / "today", symlinks=True)
    write(first / "1", 1.5)
    write(second / "1", 2.5)
    wandb.teardown()
    assert sorted(load_wandb(tmp_path)["init.gain"]) == [0.5, 1.5, 2.5]


def test_a_point_that_was_run_again_in_a_copy_of_its_sweep_counts_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_sweep(tmp_path / "reach" / "today", 0.5, 1.5)
    second = shutil.copytree(first, tmp_path / "reach" / "copy", symlinks=True)
    shutil.rmtree(second / "1")
    write(second / "1", 1.5, group="reach/copy")  # it cannot know of the run before
    wandb.teardown()
    for source in (second, tmp_path):
        restored = load_wandb(source)
        assert list(restored["init.gain"]) == [0.5, 1.5]
        assert len(set(restored["sweep"])) == 1
        assert "1 run was left out: a later one of the same point" in capsys.readouterr().err


def test_two_runs_of_a_point_give_one_answer_whoever_reads(tmp_path: Path) -> None:
    """An interrupted attempt whose log stayed, the run that went on, and a copy of the former."""
    sweep = tmp_path / "reach" / "today"
    records.save_sweep(sweep, [])
    with pytest.raises(RuntimeError), track(sweep / "0", config(0.5), "reach/today", "n"):
        raise RuntimeError("stopped")
    (sweep / "0" / "wandb").rename(sweep / "wandb" / "first")
    write(sweep / "0", 0.5)
    wandb.teardown()
    shutil.copytree((sweep / "wandb" / "first").resolve(), tmp_path / "a" / "offline-run-1-copy")
    target = tmp_path / "restored"

    def read(number: int) -> list[str]:
        return list(load_wandb(sweep.parent, target if number % 2 else None)["status"])

    with ThreadPoolExecutor(5) as pool:  # several readers at once write to one folder
        assert list(pool.map(read, range(15))) == [["done"]] * 15
    assert [path.name for path in target.rglob("*.part")] == []


class Artifact:
    """Stands in for an artifact of `wandb.Api` and for the one entry of its manifest."""

    def __init__(self, kind: str, file: Path, ref: str | None = None) -> None:
        self.type = kind
        self.file = file
        self.ref = ref
        self.manifest = SimpleNamespace(entries={file.name: self})

    def get_entry(self, name: str) -> "Artifact":
        return self.manifest.entries[name]

    def download(self, root: str) -> None:
        assert self.ref is None  # it may name a file of the reader's disk
        Path(root).mkdir(parents=True, exist_ok=True)
        shutil.copy(self.file, root)


class File:
    """Stands in for a file of a run of `wandb.Api`."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.file = file

    def download(self, root: str, replace: bool) -> None:
        assert replace
        assert "foreign" not in self.name
        (Path(root) / self.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.file, Path(root) / self.name)


def test_the_server_gives_what_is_on_disk(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's rows have infinities as strings, W&B's own columns, pictures and tables."""

    def online(point: Path) -> Any:
        media = {"_step": 2, "train/step": 5, "jacobian/map": {"_type": "image-file", "height": 9}}
        rows = [row | {"_step": i, "_runtime": 0.1} for i, row in enumerate(ROWS)]
        rows[0] |= {"jacobian/horizon": "Infinity"}
        files = (point / "wandb").resolve() / "files"
        return SimpleNamespace(
            id=f"run{point.name}",
            created_at="2026-01-31T12:00:00Z",
            state="finished",
            files=lambda names: [
                *(File(n, files / n) for n in names if (files / n).exists()),
                File("../../foreign", point / records.STATUS),  # nobody asked for it
            ],
            config=config(float(point.name) + 0.5)
            | {"clip": {"threshold": "Infinity"}, "path": f"reach/today/{point.name}"},
            scan_history=lambda: [*rows, media],
            summary_metrics={"status": "done", "reason": "so", **ROWS[-1], **END_ENTRIES},
            logged_artifacts=lambda: [
                Artifact("run_table", point / records.STATUS),
                Artifact("gradients", point / records.GRADIENTS),
                Artifact("gradients", point / records.GRADIENTS, ref="file:///etc/hosts"),
            ],
        )

    def runs(_: Any, path: str, filters: dict[str, Any] | None = None) -> list[Any]:
        queries.append((path, filters))
        configs = {"lr": 1}, {"path": "/data/imagenet/train"}
        foreign = [SimpleNamespace(id="x", config=config) for config in configs]
        return [*foreign, *(online(Path(path)) for path in load_runs(sweep)["path"])]

    queries: list[Any] = []
    monkeypatch.setattr(server_runs, "check_login", lambda: None)
    monkeypatch.setattr(wandb, "Api", type("Api", (), {"runs": runs}))
    assert_same_runs(load_wandb("me/project"), load_runs(sweep))
    assert_same_runs(load_wandb("me/project/reach/today"), load_runs(sweep))
    below = {"config.path": {"$regex": "^reach/today/"}}
    either = {"$or": [{"group": "reach/today"}, below]}
    assert queries == [("me/project", None), ("me/project", either)]
