"""Which process runs a point is known: two never do, and a resume leaves a living one alone."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Compose

from gradlab import records
from gradlab.config import Sweep
from gradlab.point import Point, run_point
from gradlab.point.recorder import Recorder
from gradlab.records import leases
from gradlab.records.leases import EXPIRE_SECONDS, LEASE, Holder
from gradlab.sweeps import elsewhere
from gradlab.sweeps.remote import Work

TINY = (
    "task.length=4",
    "probe=frobenius",
    "probe.schedule=ends",
    "train.steps=2",
    "model.hidden_size=4",
    "wandb=disabled",
)
TAKE = (  # in a process of its own: take these folders' leases, say which, and live on
    "import sys, pathlib; from gradlab.records import leases\n"
    "sys.stdin.readline()\n"
    "print(*[x for x in sys.argv[1:] if not leases.take(pathlib.Path(x))], flush=True)\n"
    "sys.stdin.readline()"
)


class Process:
    """Another process that takes leases."""

    def __init__(self, *folders: Path) -> None:
        command = [sys.executable, "-c", TAKE, *map(str, folders)]
        pipe = subprocess.PIPE
        self.popen = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def go(self) -> None:
        """Say that it may begin."""
        assert self.popen.stdin
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def took(self) -> list[str]:
        """Wait until it has taken them; which."""
        assert self.popen.stdout
        return self.popen.stdout.readline().split()

    def end(self) -> None:
        """End it by SIGKILL."""
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Process]:
    """A process that runs the point in the folder 0."""
    process = Process(tmp_path / "0")
    process.go()
    assert process.took() == [str(tmp_path / "0")]
    yield process
    process.end()


def point(composed: Compose, folder: Path) -> Point:
    return Point(composed(*TINY), folder, "a point")


def test_a_point_is_its_process_s_until_it_dies(
    another: Process, composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [point(composed, tmp_path / str(number)) for number in range(2)]
    before = (tmp_path / "0" / LEASE).read_bytes()
    Work(points, Sweep(), cpus=1)()  # as a scheduler's job would
    said, pid = capsys.readouterr().out, another.popen.pid
    assert f"process {pid} on {os.uname().nodename} runs point 0, which is left alone" in said
    assert f"kill {pid}" in said
    assert [name.name for name in (tmp_path / "0").iterdir()] == [LEASE]
    assert (tmp_path / "0" / LEASE).read_bytes() == before
    assert records.load_status(tmp_path / "1")["state"] == "done"
    assert not (tmp_path / "1" / LEASE).exists()
    another.popen.kill()
    another.popen.wait()
    assert leases.holder(tmp_path / "0") is None
    Work(points, Sweep(), cpus=1)()
    status = records.load_status(tmp_path / "0")
    assert (status["state"], status["pid"]) == ("done", os.getpid())
    assert leases.held() == []


def test_of_processes_that_start_a_point_at_once_one_gets_it(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(100)]
    for folder in folders[:50]:  # half of them after one that has died
        write(folder, Holder("elsewhere", 1))
        os.utime(folder / LEASE, (1, 1))
    processes = [Process(*folders) for _ in range(3)]
    try:
        for process in processes:
            process.go()
        taken = [folder for process in processes for folder in process.took()]
    finally:
        for process in processes:
            process.end()
    assert sorted(taken) == sorted(map(str, folders))
    assert {path.name for folder in folders for path in folder.iterdir()} == {LEASE}


def write(folder: Path, holder: Holder) -> None:
    folder.mkdir(exist_ok=True)
    (folder / LEASE).write_text(holder.text())


def test_a_process_elsewhere_lives_as_long_as_it_renews_its_lease(tmp_path: Path) -> None:
    far = Holder("node7", 12, "345", "its boot", "/shared/0", job="17_0")
    write(tmp_path, far)
    found = leases.take(tmp_path)
    assert found is not None
    assert str(found) == "SLURM job 17_0 on node7"
    assert found.end == "scancel 17_0"
    assert 0 < (found.expires or 0) <= EXPIRE_SECONDS
    for age in (EXPIRE_SECONDS + 1, -EXPIRE_SECONDS - 1):  # too old; or of a time to come
        moment = time.time() - age
        os.utime(tmp_path / LEASE, (moment, moment))
        assert leases.holder(tmp_path) is None
    assert leases.take(tmp_path) is None
    leases.release(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_work_of_a_scheduler_goes_on_in_another_process(tmp_path: Path) -> None:
    write(tmp_path, Holder("node7", 12, work="an id"))
    assert leases.take(tmp_path, work="another")
    assert leases.take(tmp_path, work="an id") is None
    leases.release(tmp_path)


def test_a_lease_that_came_with_a_folder_holds_nothing_long(
    another: Process, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "0", tmp_path / "copied")
    os.utime(tmp_path / "copied" / LEASE, (1, 1))  # as long after
    assert leases.holder(tmp_path / "0")
    assert leases.holder(tmp_path / "copied") is None
    for number, content in enumerate(["", "[]", '{"pid": "x"}', '{"pid": 1, "bad": 2}']):
        folder = tmp_path / f"bad{number}"
        folder.mkdir()
        (folder / LEASE).write_text(content)
        assert leases.holder(folder)  # it may be half written
        os.utime(folder / LEASE, (1, 1))
        assert leases.holder(folder) is None
        assert leases.take(folder) is None
        assert json.loads((folder / LEASE).read_text())["pid"] == os.getpid()
        leases.release(folder)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / LEASE).symlink_to(tmp_path / "0" / LEASE)
    os.utime(tmp_path / "linked" / LEASE, (1, 1), follow_symlinks=False)
    assert leases.take(tmp_path / "linked") is None
    leases.release(tmp_path / "linked")
    assert leases.holder(tmp_path / "0")


def test_a_point_that_was_taken_over_is_not_written_to(composed: Compose, tmp_path: Path) -> None:
    mine = point(composed, tmp_path / "0")
    leases.take(mine.folder)
    recorder = Recorder(mine, 4)
    recorder.open()
    recorder.add({"train/step": 0})
    write(mine.folder, Holder("node7", 12, token="another's"))
    before = {path.name: path.read_bytes() for path in mine.folder.iterdir() if path.is_file()}
    with recorder.guarded():
        recorder._write()
    assert recorder.status["state"] == "running"
    assert recorder.status["reason"] == "process 12 on node7 has taken it over"
    leases.release(mine.folder)
    assert before == {p.name: p.read_bytes() for p in mine.folder.iterdir() if p.is_file()}


def test_a_point_that_another_process_has_ended_does_not_run_again(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = point(composed, tmp_path / "0")
    take = leases.take

    def ends_first(folder: Path, work: str) -> Holder | None:
        run_point(mine)
        return take(folder, work)

    monkeypatch.setattr(leases, "take", ends_first)
    assert elsewhere.claim([mine], ()) == []
    assert leases.held() == []


def test_many_points_are_said_in_a_line(composed: Compose, tmp_path: Path) -> None:
    points = [point(composed, tmp_path / str(number)) for number in range(12)]
    far = Holder("node7", 12, expires=30.0)
    (sentence,) = elsewhere.sentences([(one, far) for one in points])
    assert sentence == (
        "process 12 on node7 runs points 0, 1, 2, 3, 4, 5, 6, 7, 4 more, which are left alone; to "
        "take them over, end it there (kill 12), wait 30 s, and resume again."
    )
