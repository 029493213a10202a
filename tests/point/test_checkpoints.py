"""Runs broken off in mid-training, by signals and at will, go on as if nothing had happened."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import jax
import numpy as np
import pytest
from conftest import Compose

from gradlab import load_gradients, records
from gradlab.point import Point, checkpoints, run_point, run_points
from gradlab.records import load_metrics
from gradlab.sweeps import ledger
from gradlab.training.program import Program, State, hyperparameters_of

SMALL = (
    "model.hidden_size=5",
    "task.length=4",
    "train.batch_size=6",
    "train.log_every=3",
    "train.steps=30",
    "optim=adam",
    "wandb=disabled",
)
SHORT = "train.steps=12"


class StopAt(Event):
    """A wish to stop that is first found at the given look."""

    def __init__(self, look: int) -> None:
        super().__init__()
        self.looks_left = look

    def is_set(self) -> bool:
        self.looks_left -= 1
        return self.looks_left <= 0


@pytest.fixture
def point(composed: Compose, tmp_path: Path) -> Callable[..., Point]:
    def make(name: str, *overrides: str) -> Point:
        return Point(composed(*SMALL, *overrides), tmp_path / "sweep" / name, name)

    return make


def load(point: Point) -> State | None:
    return checkpoints.load(point.folder, point.config, Program(point.config).abstract_state)


def assert_same(one: Point, other: Point) -> None:
    """Bitwise: metrics, maps and the trained network."""
    metrics = load_metrics(one.folder)
    assert metrics["train/step"].is_unique
    assert metrics.equals(load_metrics(other.folder))
    assert load_gradients(one.folder).equals(load_gradients(other.folder))
    trained = [load(p) for p in (one, other)]
    for a, b in zip(*map(jax.tree.leaves, trained), strict=True):
        assert a.dtype == b.dtype
        if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


RUN = """
import sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from gradlab import config
from gradlab.__main__ import CONF
from gradlab.sweeps.interrupts import stopping
from gradlab.point import Point, run_points
from gradlab.training.program import Program

folder, *overrides = sys.argv[1:]
config.register()
with initialize_config_dir(str(CONF), version_base="1.3"):
    checked = config.check(compose("config", overrides))
done = 0

def trained(steps):
    global done
    done += steps
    if done > 20:
        stop.wait(120)  # for the signal

with stopping() as stop:
    (status,) = run_points(
        Program(checked), [Point(checked, Path(folder), "broken off")], trained, stop
    )
print(status["state"])
"""


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(point: Callable[..., Point]) -> None:
    signals = (signal.SIGKILL, signal.SIGTERM)
    broken = [point(number.name) for number in signals]
    command = [sys.executable, "-c", RUN]
    running = [
        subprocess.Popen(
            [*command, str(p.folder), *SMALL, "train.checkpoint_seconds=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for p in broken
    ]
    waiting = dict(zip(running, zip(broken, signals, strict=True), strict=True))
    while waiting:
        for process, (p, number) in list(waiting.items()):
            kept = checkpoints.newest(p.folder)
            if process.poll() is not None or (kept and kept.name == "18"):
                process.send_signal(number)
                del waiting[process]
        time.sleep(0.05)
    said = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [-signal.SIGKILL, 0]
    assert [records.load_status(p.folder)["state"] for p in broken] == ["running", "interrupted"]
    assert said[1][0] == "interrupted\n"
    assert "SIGTERM: every running point" in said[1][1]

    whole = point("undisturbed")
    run_point(whole)
    for p in broken:
        assert load_metrics(p.folder)["train/step"].max() in (18, 21)
        assert run_point(p)["state"] == "done"
        assert_same(p, whole)


def test_points_in_lock_step_go_on_together(point: Callable[..., Point]) -> None:
    def pair(name: str) -> list[Point]:
        return [point(f"{name}{seed}", SHORT, f"seed={seed}") for seed in (0, 1)]

    broken, whole = pair("broken"), pair("whole")
    program = Program(whole[0].config)
    run_points(program, whole)
    statuses = run_points(program, broken, stop=StopAt(4))
    assert [s["state"] for s in statuses] == ["interrupted"] * 2
    assert "after 3 of 12 updates" in statuses[0]["reason"]
    assert [s["state"] for s in run_points(program, broken)] == ["done"] * 2
    for one, other in zip(broken, whole, strict=True):
        assert_same(one, other)


def test_rows_after_the_checkpoint_are_dropped(point: Callable[..., Point]) -> None:
    broken, whole = point("broken", SHORT), point("whole", SHORT)
    run_point(whole)
    run_point(broken, StopAt(4))
    ahead = load_metrics(whole.folder) * 2  # as if it had been killed between rows and checkpoint
    ahead.iloc[:3] = load_metrics(whole.folder).iloc[:3]
    records.save_metrics(broken.folder, ahead, records.load_status(broken.folder))
    run_point(broken)
    assert_same(broken, whole)


def test_one_killed_after_its_last_update_ends_with_the_same_summary(
    point: Callable[..., Point],
) -> None:
    one = point("one", SHORT)
    whole = run_point(one)
    records.save_status(one.folder, whole | {"state": "running"})  # as if it had been killed
    again = run_point(one)
    summaries = [
        [(name, value) for name, value in status["summary"].items() if "time/" not in name]
        for status in (whole, again)
    ]
    assert summaries[0] == summaries[1]  # in one order too, which that of a table's columns is


def test_a_failed_point_that_is_retried_goes_on_from_its_checkpoint(
    point: Callable[..., Point], capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = point("broken", SHORT), point("whole", SHORT)
    run_point(whole)
    run_point(broken, StopAt(4))
    status = records.load_status(broken.folder)
    records.save_status(broken.folder, status | {"state": "failed"})
    records.save_status(broken.folder, status | {"identity": "another point's"})
    ((_, reason),) = ledger.pending([broken], [])
    assert "is of another config or version" in reason
    records.save_status(broken.folder, status | {"state": "failed"})
    ledger.clear(ledger.pending([broken], ["failed"]))
    run_point(broken)
    assert "starts anew" not in capsys.readouterr().err
    assert_same(broken, whole)


def test_edited_rows_are_not_taken_over(
    point: Callable[..., Point], capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = point("broken", SHORT), point("whole", SHORT)
    run_point(whole)
    run_point(broken, StopAt(4))
    (load_metrics(broken.folder) * 2).to_parquet(broken.folder / records.METRICS)
    run_point(broken)
    assert "metrics.parquet is damaged; " in capsys.readouterr().err
    assert_same(broken, whole)


def test_a_checkpoint_is_read_at_any_path(point: Callable[..., Point]) -> None:
    config = point("0", SHORT).config
    state = Program(config).initialise(hyperparameters_of(config))
    for name in ("g[1]*?{a,b}", "%41#b&c;d", r"a\b 'ü", "line\nline", "file:"):
        odd = point(name, SHORT)
        checkpoints.save(odd.folder, odd.config, state)
        assert load(odd) is not None
        found = checkpoints.newest(odd.folder)
        assert found is not None
        assert [path.name for path in found.parent.iterdir()] == ["0"]


def test_large_states_and_earlier_checkpoints_are_orbaxs(
    point: Callable[..., Point], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = point("small", SHORT), point("large", SHORT)
    run_point(small)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "SMALL", 0)
        run_point(large)
    kept = [checkpoints.newest(p.folder) for p in (small, large)]
    assert [path and (path / checkpoints.ARCHIVE).exists() for path in kept] == [True, False]
    assert_same(small, large)


def test_an_archive_beyond_the_largest_is_not_read(point: Callable[..., Point]) -> None:
    one = point("one", SHORT)
    run_point(one)
    path = checkpoints.newest(one.folder)
    assert path is not None
    np.savez_compressed(path / checkpoints.ARCHIVE, bomb=np.zeros(checkpoints.SMALL * 3, np.uint8))
    with pytest.raises(checkpoints.CheckpointError, match="larger than those that gradlab writes"):
        load(one)


def truncate(p: Point) -> Point:
    files = (path for path in checkpoints.newest(p.folder).rglob("*") if path.is_file())  # type: ignore[union-attr]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-7])
    return p


def flip(p: Point) -> Point:
    state = load(p)
    assert state is not None
    leaves = checkpoints._leaves

    def wrong(state: object) -> dict[str, np.ndarray]:
        found = leaves(state)  # type: ignore[arg-type]
        return dict(list(found.items())[1:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "_leaves", wrong)
        checkpoints.save(p.folder, p.config, state)
    return p


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncate, "cannot be read"),
        (lambda p: Point(replace(p.config, seed=5), p.folder, p.name), "is of another config"),
        (flip, "was kept by another version"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(
    spoil: Callable[[Point], Point],
    said: str,
    point: Callable[..., Point],
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = point("broken", SHORT)
    run_point(broken, StopAt(4))
    broken = spoil(broken)
    assert run_point(broken)["state"] == "done"
    assert said in capsys.readouterr().err
    whole = Point(broken.config, broken.folder.with_name("whole"), "whole")
    run_point(whole)
    assert_same(broken, whole)


def test_the_last_good_state_of_a_point_that_diverged_is_kept(point: Callable[..., Point]) -> None:
    diverged = point("0", SHORT, "optim=sgd", "optim.learning_rate=3e38")
    assert run_point(diverged)["state"] == "diverged"
    state = load(diverged)
    assert state is not None
    assert state.diverged
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.parameters))
    assert int(state.step) == load_metrics(diverged.folder)["train/step"].iloc[-1]
