"""Disks that are full, that may not be written, or that hold something else in the way.

A point whose records cannot be written fails with one sentence; what was there before is whole, its
neighbours go on, and once there is room it runs again. Small disks in memory stand in for full
ones, which takes root.
"""

import os
import resource
import shutil
import subprocess
import tracemalloc  # noqa: F401  # pytest wants it, when there may be no file handle left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Compose, gradlab

from gradlab import load_gradients, load_runs, load_wandb, records
from gradlab.point import Point, Status, checkpoints, run_points
from gradlab.records.files import RecordError, clear_unfinished
from gradlab.training.program import Program, State

SMALL = (
    *("task=echo", "task.length=8", "task.delay=2", "task.test_size=8", "model.hidden_size=4"),
    *("train.steps=2", "train.batch_size=4", "probe.samples=1"),
)
NUMPY, ORBAX = 2**22, 0  # bytes of the largest state that is no checkpoint of Orbax
UID = os.getuid()
PROGRAMS: dict[str, Program] = {}  # compiled once for all tests
Run = Callable[..., Status]
Disk = Callable[..., Path]


@pytest.fixture
def run(composed: Compose) -> Run:
    """run(FOLDER): the status of a small point that is run in a folder."""

    def start(folder: Path, wandb: str = "disabled") -> Status:
        if wandb not in PROGRAMS:
            PROGRAMS[wandb] = Program(composed(*SMALL, f"wandb={wandb}"))
        program = PROGRAMS[wandb]
        (status,) = run_points(program, [Point(program.config, folder, "n")])
        return status

    return start


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """disk(OPTIONS, FOLDER): a new small disk, by mount's options (size, nr_inodes)."""
    mounted: list[Path] = []

    def mount(options: str, folder: Path | None = None) -> Path:
        folder = folder or tmp_path / "disk"
        folder.mkdir(parents=True)
        if not as_root("mount", "-t", "tmpfs", "-o", f"{options},uid={UID}", "tmpfs", str(folder)):
            pytest.skip("mounting a small disk takes root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        assert as_root("umount", "--lazy", str(folder))


def as_root(*words: str) -> bool:
    """Run a command as root; return whether that went well."""
    command = words if UID == 0 else ("sudo", "--non-interactive", *words)
    try:
        return not subprocess.run(command, capture_output=True, check=False).returncode
    except FileNotFoundError:
        return False


def make_read_only(folder: Path) -> None:
    assert as_root("mount", "-o", "remount,ro", str(folder))


def fill(disk: Path, bytes_left: int = 0, files_left: int | None = None) -> Path:
    """Fill a disk, but for some bytes or files; return the folder whose removal frees it."""
    filler = disk / "filler"
    filler.mkdir()
    state = os.statvfs(disk)
    if files_left is not None:
        for number in range(state.f_favail - files_left):
            (filler / str(number)).touch()
    else:
        (filler / "0").write_bytes(bytes(state.f_bavail * state.f_bsize - bytes_left))
    return filler


@contextmanager
def limited(kind: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def unfinished(folder: Path) -> list[Path]:
    return [*folder.rglob("*.part"), *folder.rglob("*orbax-checkpoint-tmp*")]


@pytest.mark.parametrize(
    ("options", "left", "what", "by"),
    [
        ("size=2M", {"bytes_left": 0}, "config.yaml", NUMPY),
        ("size=2M", {"bytes_left": 2**13}, "metrics.parquet", NUMPY),
        ("size=2M", {"bytes_left": 7 * 2**12}, "gradients.nc", NUMPY),
        ("size=2M", {"bytes_left": 2**17}, "the checkpoint", ORBAX),
        ("size=2M,nr_inodes=200", {"files_left": 1}, "config.yaml", NUMPY),
        ("size=2M,nr_inodes=200", {"files_left": 7}, "the checkpoint", NUMPY),
        ("size=2M,nr_inodes=200", {"files_left": 20}, "the checkpoint", ORBAX),
    ],
    ids=str,
)
def test_a_full_disk_fails_the_point_that_meets_it(
    options: str,
    left: dict[str, int],
    what: str,
    by: int,
    disk: Disk,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoints, "SMALL", by)
    folder = disk(options)
    assert run(folder / "0")["state"] == "done"
    before = contents(folder / "0")
    filler = fill(folder, **left)
    status = run(folder / "1")
    assert status["state"] == "failed"
    assert what in status["reason"]
    assert status["reason"].count("could not be written: ") == 1
    assert "\n" not in status["reason"]
    assert not unfinished(folder)
    assert contents(folder / "0") == before
    records.verify(folder / "0", records.load_status(folder / "0"))
    shutil.rmtree(filler)
    assert run(folder / "1")["state"] == "done"
    assert load_gradients(folder / "1").identical(load_gradients(folder / "0"))


@pytest.mark.parametrize(("by", "bytes_left"), [(NUMPY, 2**12), (ORBAX, 2**14)])
def test_the_checkpoint_before_stays_on_a_full_disk(
    by: int, bytes_left: int, disk: Disk, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SMALL", by)
    folder = disk("size=2M")
    run(folder / "0")
    program = PROGRAMS["disabled"]

    def load() -> State:
        state = checkpoints.load(folder / "0", program.config, program.abstract_state)
        assert state is not None  # and fits the digest of its content
        return state

    later = load()._replace(step=load().step + 1)
    fill(folder, bytes_left=bytes_left)
    with pytest.raises(RecordError, match="checkpoints/3 could not be written: No space left on"):
        checkpoints.save(folder / "0", program.config, later)
    assert int(load().step) == 2
    assert not unfinished(folder)


def test_a_disk_that_may_not_be_written_is_named(disk: Disk, run: Run) -> None:
    folder = disk("size=2M")
    run(folder / "0")
    before = contents(folder)
    make_read_only(folder)
    for point in ("0", "1"):
        status = run(folder / point)
        assert status["state"] == "failed"
        assert " could not be written: Read-only file system; what was" in status["reason"]
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("place", "is_folder", "reason"),
    [
        ("", False, "Not a directory"),
        (".hydra", False, "File exists"),
        ("checkpoints", False, "File exists"),
        ("metrics.parquet", True, "Is a directory"),
        ("gradients.nc", True, "Is a directory"),
        ("status.json", True, "Is a directory"),
    ],
)
def test_what_is_in_the_way_is_named(
    place: str, is_folder: bool, reason: str, tmp_path: Path, run: Run
) -> None:
    path = tmp_path / "0" / place
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if is_folder else path.touch()
    status = run(tmp_path / "0")
    assert status["state"] == "failed"
    assert f"{path}" in status["reason"]
    assert f"could not be written: {reason}" in status["reason"]
    assert path.is_dir() == is_folder
    assert run(tmp_path / "1")["state"] == "done"


@pytest.mark.parametrize("names", [["x" * 300], ["x" * 250] * 17], ids=["name", "path"])
def test_a_path_that_is_too_long_is_named(names: list[str], tmp_path: Path, run: Run) -> None:
    status = run(tmp_path.joinpath(*names))
    assert status["state"] == "failed"
    assert "could not be written: File name too long" in status["reason"]


@pytest.mark.parametrize(
    ("kind", "limit", "reason"),
    [
        (resource.RLIMIT_FSIZE, 2**12, "File too large"),
        (resource.RLIMIT_NOFILE, None, "Too many open files"),
    ],
    ids=["fsize", "nofile"],
)
def test_a_limit_of_the_system_is_named(
    kind: int,
    limit: int | None,
    reason: str,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoints, "SMALL", ORBAX)  # an archive takes one file at a time
    assert run(tmp_path / "0")["state"] == "done"
    with limited(kind, limit or len(os.listdir("/proc/self/fd"))):
        status = run(tmp_path / "1")
    assert (status["state"], unfinished(tmp_path)) == ("failed", [])
    assert reason in status["reason"]
    assert run(tmp_path / "1")["state"] == "done"


def test_what_a_killed_run_left_is_cleared(tmp_path: Path, run: Run) -> None:
    left = tmp_path / "0" / "checkpoints" / "1.orbax-checkpoint-tmp-7"
    left.mkdir(parents=True)
    (left / "d").touch()
    (tmp_path / "0" / ".metrics.parquet.0123abcd.part").touch()
    assert checkpoints.newest(tmp_path / "0") is None
    clear_unfinished(tmp_path / "0")
    checkpoints.clear_unfinished(tmp_path / "0")
    assert not unfinished(tmp_path)


def test_wandb_on_a_full_disk_costs_its_run_alone(
    disk: Disk, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "reach" / "today"
    fill(disk("size=64k", sweep / "wandb"))
    statuses = [run(sweep / name, "offline") for name in "01"]
    assert [status["state"] for status in statuses] == ["done", "done"]
    said = capsys.readouterr().err
    assert said.count("gradlab: W&B runs are missing or not whole: ") == 1
    assert "No space left on device" in said
    assert list(load_runs(sweep)["status"]) == ["done", "done"]


def test_a_sweep_needs_no_home_that_can_be_written(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = disk("size=1M")
    make_read_only(home)
    monkeypatch.setenv("HOME", str(home))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    process = gradlab(*SMALL, "wandb=offline", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    assert "gradlab: " not in process.stderr
    assert list(load_wandb(tmp_path / "runs")["status"]) == ["done"]


def test_a_sweep_on_a_full_disk_says_so_and_ends(disk: Disk) -> None:
    folder = disk("size=256k")
    fill(folder, bytes_left=2**16)
    process = gradlab(*SMALL, "wandb=disabled", "seed=0,1", "hydra.sweep.dir=s", folder=folder)
    assert process.returncode == 1
    assert "Traceback" not in process.stdout + process.stderr
    assert process.stdout.count("failed: ") == 2
    assert "gradlab: 2 of 2 points failed; see above." in process.stderr
