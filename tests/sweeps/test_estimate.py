"""The time and disk that --dry tells: from what points have cost, and from shapes."""

import json
import multiprocessing
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import Compose

from gradlab import __main__ as command
from gradlab.config import Config
from gradlab.point import Point, run_point
from gradlab.records import load_status
from gradlab.sweeps import disk, estimate, history
from gradlab.sweeps.disk import point_size
from gradlab.sweeps.estimate import Workers
from gradlab.sweeps.groups import group_by_program
from gradlab.sweeps.history import Cost, Work, disk_bytes, measured_cost, recall, remember, work_of
from gradlab.training.program import Program

ONE = Cost(
    points=1,
    updates=100,
    evaluations=6,
    measurements=5,
    train_seconds=2.0,
    evaluate_seconds=0.6,
    probe_seconds=1.0,
    rest_seconds=0.5,
    map_bytes=50_000,
    other_bytes=200_000,
    compile_seconds=3.0,
)
TWO_CORES = Workers(lanes=2, vmapped=False, place="on 2 cores")
SMALL = (
    *("task=copying", "task.length=4", "model.hidden_size=6", "probe=frobenius"),
    *("train.log_every=10", "probe.schedule=ends", "wandb=disabled", "hydra.sweep.dir=sweep"),
)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history of the test's own."""
    monkeypatch.setattr(history, "history_folder", lambda: tmp_path / "history")
    return tmp_path / "history"


def points_of(config: Config, count: int, folder: Path) -> list[Point]:
    return [
        Point(replace(config, seed=seed), folder / str(seed), str(seed)) for seed in range(count)
    ]


def estimated(points: list[Point], workers: Workers = TWO_CORES) -> list[estimate.Estimate]:
    found = [estimate.estimate(group, workers) for group in group_by_program(points)]
    return [one for one in found if one]


def test_seconds_scale_with_the_work(composed: Compose, kept: Path, tmp_path: Path) -> None:
    """2 s of 100 updates, 0.6 of 6 evaluations, 1 of 5 measurements, 0.5 of the rest."""
    config = composed("train.steps=1000", "train.log_every=100", "probe.schedule=500")
    assert work_of(config) == Work(1000, 11, 3)
    remember(config, history.machine_name(2, False), ONE)
    (cost,) = estimated(points_of(config, 5, tmp_path))
    one = 1000 * 0.02 + 11 * 0.1 + 3 * 0.2 + 0.5
    assert cost.seconds == pytest.approx(5 * [one])
    assert cost.tasks(TWO_CORES) == pytest.approx([3 + one, one, one, one, one])
    sentence = estimate.time_sentence([cost], TWO_CORES)
    assert "; probes take 3% of training." in sentence  # 3 · 0.2 of 1000 · 0.02 s
    in_jobs = TWO_CORES._replace(jobs=4, points=2)
    assert cost.tasks(in_jobs) == pytest.approx([3 + one, 3 + one, 3 + one])
    assert estimate.makespan(cost.tasks(TWO_CORES), 2) == pytest.approx((3 + 5 * one) / 2)
    # Of a point whose last checkpoint is of update 600, 400 updates are left.
    (tmp_path / "0/checkpoints/600").mkdir(parents=True)
    (cost,) = estimated(points_of(config, 5, tmp_path))
    assert cost.seconds[0] == pytest.approx(400 * 0.02 + 4 * 0.1 + 1 * 0.2 + 0.5)


def test_what_says_how_often_is_of_one_history(composed: Compose, kept: Path) -> None:
    remember(composed("train.steps=20", "seed=1", "init.gain=0.5"), "here", ONE)
    other_counts = ("train.steps=5000", "train.log_every=7", "probe.schedule=ends", "seed=2")
    assert recall(composed(*other_counts), "here") == (ONE, True)
    assert recall(composed("train.batch_size=64"), "here") is None
    assert recall(composed("wandb=disabled"), "here") is None
    assert recall(composed(), "there") == (ONE, False)


def test_a_history_is_bounded_and_names_nobody(
    composed: Compose, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_FILES", 3)
    config = composed("model.cell._target_=flax.nnx.GRUCell")
    for number in range(5):
        remember(config, f"/home/somebody, {number} cores", ONE)
    files = list(kept.iterdir())
    assert len(files) == 3
    kept_words = "".join(path.name + path.read_text() for path in files)
    assert not any(word in kept_words for word in ("somebody", "home", "flax", "GRU"))
    for _ in range(1000):
        remember(config, "here", ONE)
    found = recall(config, "here")
    assert found
    assert found.cost.points <= 2 * history.MOST_POINTS
    assert found.cost.seconds_of(Work(100, 6, 5)) == pytest.approx(4.1)


DAMAGED = {
    "cut off": '{"points": 1.0, "upd',
    "empty": "",
    "a list": "[1, 2]",
    "another version's": '{"points": 1.0}',
    "no amounts": json.dumps(asdict(ONE) | {"updates": "many"}),
    "no finite ones": json.dumps(asdict(ONE) | {"updates": float("nan")}),
    "of no points": json.dumps(asdict(ONE) | {"points": 0}),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_history_is_ignored_and_replaced(
    content: str, composed: Compose, kept: Path
) -> None:
    config = composed()
    remember(config, "here", ONE)
    (path,) = kept.iterdir()
    path.write_text(content)
    assert recall(config, "here") is None
    remember(config, "here", ONE)
    assert recall(config, "here") == (ONE, True)


def test_a_folder_that_cannot_be_written_is_passed_over(composed: Compose, kept: Path) -> None:
    kept.write_text("a file in its place")
    remember(composed(), "here", ONE)
    assert recall(composed(), "here") is None


def _remember_often(folder: Path, config: Config) -> None:
    history.history_folder = lambda: folder  # type: ignore[assignment]
    for _ in range(100):
        remember(config, "here", ONE)


def test_processes_write_one_history_at_once(composed: Compose, kept: Path) -> None:
    config = composed()
    remember(config, "here", ONE)
    spawn = multiprocessing.get_context("spawn")
    writer = spawn.Process(target=_remember_often, args=(kept, config))
    writer.start()
    while writer.is_alive():
        assert recall(config, "here")  # never half written
        remember(config, "here", ONE)
    assert writer.exitcode == 0
    assert recall(config, "here")
    assert len(list(kept.iterdir())) == 1


def gradlab(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> None:
    """The command line, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["gradlab", *arguments])
    command.main()


def test_a_sweep_takes_what_the_history_of_a_shorter_one_says(
    composed: Compose,
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Within a factor of 2 of the recorded sum; where the machine's load changed, once more."""
    gradlab(monkeypatch, tmp_path, *SMALL, "train.steps=20", "seed=8,9", "--dry")
    assert "Time: not known" in capsys.readouterr().out
    for attempt in range(3):
        short, long = tmp_path / f"short{attempt}", tmp_path / f"long{attempt}"
        for folder in (short, long):
            folder.mkdir()
        gradlab(monkeypatch, short, *SMALL, "train.steps=600", "seed=0,1,2,3")
        config = composed(*SMALL, "train.steps=2000")
        (cost,) = estimated(points_of(config, 4, tmp_path / "none"))
        gradlab(monkeypatch, long, *SMALL, "train.steps=2000", "seed=0,1,2,3")
        recorded = sum(load_status(long / f"sweep/{n}")["seconds"] for n in range(4))
        ratio = (cost.compiling + sum(cost.seconds)) / recorded
        if 0.5 < ratio < 2:
            break
    assert 0.5 < ratio < 2
    capsys.readouterr()
    gradlab(monkeypatch, tmp_path, *SMALL, "seed=8,9", "task.length=4,5", "--dry")
    printed = capsys.readouterr().out
    assert " for 2 of 4 points on " in printed
    assert f"from {8 * (attempt + 1)} earlier points of their programs" in printed
    assert "not known for 1 of 2 programs, which are new here" in printed
    assert " are free." in printed
    assert not (tmp_path / "sweep").exists()


SIZES = {
    "a map of 9 steps": ("task.length=1", "probe=frobenius", "train.steps=8"),
    "terms of 61 steps": (
        *("task.length=41", "probe=[rms,contribution,statistics]", "train.steps=17"),
        *("wandb=disabled",),
    ),
    "adjoints of 60 steps, 100 rows": (
        *("task.length=40", "probe=adjoint", "probe.adjoint.each=true", "probe.schedule=25"),
        *("train.steps=100", "train.log_every=1", "model.hidden_size=8"),
    ),
}


@pytest.mark.parametrize("words", SIZES.values(), ids=SIZES)
def test_a_points_disk_follows_from_its_shapes(
    words: tuple[str, ...], composed: Compose, tmp_path: Path
) -> None:
    config = composed("task=copying", *words)
    point = Point(config, tmp_path / "sweep" / "0", "0")
    status = run_point(point)
    assert status["state"] == "done"
    real = disk_bytes(point.folder)
    program, work = Program(config), work_of(config)
    expected = point_size(program, work)
    assert 0.5 < expected.total / real < 2
    maps = (point.folder / "gradients.nc").stat().st_size
    assert 0.5 < expected.maps / maps < 2
    # Weighed, it is exact.
    cost = measured_cost([point], [status], updates=work.updates, seconds=9.0, compiles=True)
    assert cost
    assert cost.bytes_of(work) == pytest.approx(real)


def test_points_that_went_on_or_failed_tell_no_cost(composed: Compose, tmp_path: Path) -> None:
    (point,) = points_of(composed("train.steps=100"), 1, tmp_path)
    done = {"state": "done", "summary": {"train/step": 100, "time/train_seconds": 1.0}}
    cost = measured_cost([point], [done], updates=100, seconds=3.0, compiles=False)
    assert cost
    assert (cost.train_seconds, cost.rest_seconds) == (1.0, 2.0)
    assert measured_cost([point], [done], updates=40, seconds=3.0, compiles=False) is None
    failed = [{"state": "failed", "reason": "it was so"}]
    assert measured_cost([point], failed, updates=100, seconds=3.0, compiles=False) is None


def test_a_probe_of_ones_own_is_said_not_to_be_counted(
    composed: Compose, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = composed("probe=theory").probe["theory"]["_target_"]
    monkeypatch.delitem(disk.NUMBERS, target)  # as if it were the user's
    costs = estimated(points_of(composed("probe=[frobenius,theory]"), 1, tmp_path))
    sentence = estimate.disk_sentence(costs, tmp_path / "not" / "there")
    assert "what the probes theory keep is not counted" in sentence
