"""Trouble in a part of the user's ends its point, and nothing else: not the sweep, not printing."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Compose

from gradlab import __main__ as command
from gradlab import load_runs, records
from gradlab.config import Sweep
from gradlab.point import Point, fail_points, run_points
from gradlab.records import leases
from gradlab.sweeps import run_sweep
from gradlab.sweeps.estimate import workers_here
from gradlab.sweeps.groups import Group, group_by_program, program_of
from gradlab.sweeps.plan import show_plan
from gradlab.sweeps.progress import ProgressDisplay, Shown
from gradlab.training.program import Program

TINY = (
    "task=echo",
    "task.length=4",
    "task.delay=1",
    "task.test_size=4",
    "train.steps=0",
    "train.batch_size=2",
    "model.hidden_size=3",
    "probe=frobenius",
    "probe.schedule=ends",
    "train.checkpoint_seconds=inf",
    "wandb=disabled",
)
PARTS = """
import os, sys, time
from dataclasses import dataclass
import jax.numpy as jnp
import numpy as np
from flax import nnx
from gradlab.probes import Measurement

ERROR = OSError("no [/data/run] \\udcff \\x1b[31m")


@dataclass
class Odd(ValueError):  # a dataclass that compares has no hash
    size: int


def exits(probed, *, name): sys.exit(0)
def interrupts(probed, *, name): raise KeyboardInterrupt
def marks_up(probed, *, name): raise ERROR
def forgets(probed, *, name): return None
def says(probed, *, name): return Measurement({f"{name}/a": "a word"}, {})
def leaves(): sys.exit(0)
def hangs(probed, *, name): open("hangs", "w").close(); time.sleep(600)
def counts(probed, *, name):
    scalars = np.float32(1.5), np.array(2), jnp.ones(())
    return Measurement({f"{name}/{i}": x for i, x in enumerate(scalars)}, {})


def even(key, n):
    if n % 2:
        raise Odd(n)
    return jnp.eye(n)


def even_bias(key, n): return {"forget": even(key, n)[0]}


class EvenStep(nnx.SimpleCell):
    def __call__(self, carry, inputs):
        even(None, carry.shape[-1])
        return super().__call__(carry, inputs)


class Mover(nnx.SimpleCell):
    def __init__(self, *args, **kwargs):
        os.chdir("/")
        super().__init__(*args, **kwargs)


class Cell(nnx.SimpleCell):
    def __init__(self, *args, **kwargs):
        os.chdir("/")
        raise ERROR
"""
FAILURES = {
    "exits": "SystemExit: 0",
    "interrupts": "KeyboardInterrupt",
    "marks_up": r"OSError: no [/data/run] \udcff \x1b[31m",
    "forgets": "TypeError: parts.forgets must return a gradlab.probes.Measurement",
    "says": "TypeError: parts.says must return numbers; mine/a is 'a word'.",
}
UNBUILT = {  # as the program of a point is built, before any of its group
    "Cell": (FAILURES["marks_up"], "model.cell._target_=parts.Cell"),
    "EvenStep": ("Odd: 3", "model.cell._target_=parts.EvenStep"),
    "even": ("Odd: 3", "init._target_=parts.even", "~init.gain"),
    "even_bias": ("Odd: 3", "bias._target_=parts.even_bias"),
}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "parts", raising=False)


def gradlab(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    """The command line, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["gradlab", *words])
    command.main()


def probing(composed: Compose, folder: Path, probe: str) -> Point:
    words = (*TINY, f"+probe.mine._target_=parts.{probe}")
    return Point(composed(*words), folder / probe, probe)


def test_a_part_that_fails_fails_its_point_and_keeps_the_traceback(
    parts: None, composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [probing(composed, tmp_path, probe) for probe in (*FAILURES, "counts")]
    failures = dict(FAILURES)
    for part, (failures[part], *words) in UNBUILT.items():
        config = composed(*TINY, *words, "model.name=mine")
        points.append(Point(config, tmp_path / part, part))
    here = Path.cwd()
    groups = group_by_program(points)
    assert Path.cwd() == here
    show_plan(groups, 0, workers_here(Sweep()), tmp_path)
    planned = capsys.readouterr().out
    assert f"1 point cannot be built: {failures['Cell']}\n" in planned
    statuses = run_sweep(points, groups, Sweep(lanes="threads", keep_programs=False))
    printed = capsys.readouterr().out
    for point, status in zip(points, statuses, strict=True):
        assert records.load_status(point.folder)["state"] == status["state"]
        traceback = point.folder / records.TRACEBACK
        if point.name == "counts":
            assert status["state"] == "done"
            assert [status["summary"][f"mine/{i}"] for i in range(3)] == [1.5, 2.0, 1.0]
            assert not traceback.exists()
            continue
        assert status["state"] == "failed"
        assert status["reason"].startswith(failures[point.name])
        text = traceback.read_text(encoding="utf-8")
        assert failures[point.name] in text
        assert "\x1b" not in text
        assert f"point {point.name} failed: {status['reason']} (see {traceback})\n" in printed
    assert set(load_runs(tmp_path)["status"]) == {"done", "failed"}
    done = next(point for point in points if point.name == "counts")
    rows = (done.folder / records.METRICS).read_bytes()
    (done.folder / records.METRICS).write_bytes(rows[:-7])
    (damaged,) = run_sweep([done], [], Sweep(keep_programs=False))
    assert damaged["state"] == "damaged"
    (done.folder / records.METRICS).write_bytes(rows)
    again = group_by_program([points[0]])  # and once it is mended, no traceback is left
    (tmp_path / "parts.py").write_text(
        PARTS.replace("sys.exit(0)", "return counts(probed, name=name)")
    )
    del sys.modules["parts"]
    assert run_points(again[0].program, again[0].points)[0]["state"] == "done"  # type: ignore[arg-type]
    assert not (points[0].folder / records.TRACEBACK).exists()


def test_a_person_interrupts_and_not_a_part(parts: None, composed: Compose, tmp_path: Path) -> None:
    """In the main thread a KeyboardInterrupt is Ctrl-C."""
    point = probing(composed, tmp_path, "interrupts")
    with pytest.raises(KeyboardInterrupt):
        run_points(Program(point.config), [point])


def test_a_sweep_of_failed_points_has_nothing_left_to_do(
    parts: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("model.cell._target_=parts.Cell", "seed=1,2", "hydra.sweep.dir=sweep")
    with pytest.raises(SystemExit, match="2 of 2 points failed"):
        gradlab(monkeypatch, tmp_path, *TINY, *words)
    trusted = ("sweep.resume=sweep", "sweep.trust=[parts.Cell]")
    gradlab(monkeypatch, tmp_path, *trusted)  # exit status 0
    printed = capsys.readouterr().out
    assert "2 of 2 points have ended already; nothing is left to run." in printed
    assert "2 of them failed: they run again with sweep.retry=failed." in printed


def test_a_direct_measurement_that_fails_keeps_its_traceback(
    parts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("hydra.mode=RUN", "measure={_target_: parts.leaves}", "hydra.run.dir=table")
    with pytest.raises(SystemExit, match=r"gradlab: SystemExit: 0 \(see .*traceback\.txt\)"):
        gradlab(monkeypatch, tmp_path, *words)
    assert records.load_status(tmp_path / "table")["state"] == "failed"
    assert "in leaves" in (tmp_path / "table" / records.TRACEBACK).read_text()
    assert not (tmp_path / "table" / leases.LEASE).exists()


def test_printing_never_fails(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = Point(composed(*TINY), tmp_path / "[red]", "[/x]")
    fail_points([point], OSError("[/x] \udcff ÷"))
    groups = group_by_program([point])
    written = io.BytesIO()
    for stream in (io.TextIOWrapper(written, encoding="ascii"), (tmp_path / "closed").open("w")):
        if not isinstance(stream.buffer, io.BytesIO):
            stream.close()  # no one reads it any more
        monkeypatch.setattr(sys, "stdout", stream)
        with ProgressDisplay(groups) as display:
            display.mark_ended(point, records.load_status(point.folder))
        show_plan(groups, 0, workers_here(Sweep()), tmp_path)
        run_sweep([point], [], Sweep(keep_programs=False))
        if not stream.closed:
            stream.flush()
    text = written.getvalue().decode("ascii")
    assert r"point [red] failed: OSError: [/x] \udcff \xf7 (see " in text
    assert "1 point to run as 1 program" in text
    assert text.count(r"\udcff \xf7") > 1  # below the table, too


def test_a_part_that_goes_elsewhere_moves_no_sweep(
    parts: None, composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = composed(*TINY, "model.cell._target_=parts.Mover", "model.name=mine")
    assert isinstance(program_of(config, {}), Program)
    assert Path.cwd() == tmp_path


def test_the_closing_report_stops_nothing(
    composed: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def vanished(folder: Path, columns: str) -> None:
        raise FileNotFoundError(folder)

    monkeypatch.setattr("gradlab.sweeps.report.load_runs", vanished)
    point = Point(composed(*TINY), tmp_path / "0", "vanished")
    records.save_status(point.folder, {"state": "done"})
    (status,) = run_sweep([point], [], Sweep(keep_programs=False))
    assert status["state"] == "done"
    assert "The closing report could not be made (FileNotFoundError: " in capsys.readouterr().out


def test_the_clock_runs_between_events_and_a_first_forecast_is_an_estimate(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = Point(composed(*TINY), tmp_path / "0", "0")
    display = ProgressDisplay([Group(OSError("not built"), [point])])
    now = time.monotonic()
    monkeypatch.setattr("gradlab.sweeps.progress.time.monotonic", lambda: now + 61.0)
    (task,) = display._bar.tasks  # as rich draws it, ten times a second
    assert "0/1 points, 0/1 groups, 0:01:01 passed" in str(display._bar.columns[-1](task))
    monkeypatch.undo()
    compiling = Shown(["0/2 points", "0/1 groups"], 0, 0.0, None, False)
    assert compiling.line(61.0) == "0/2 points, 0/1 groups, 0:01:01 passed"
    early = Shown(["0/2 points"], 10, at=10.0, left=90.0, is_sure=False)
    assert early.line(10.0) == "0/2 points, 1 steps/s, about 0:01:30 left, 0:00:10 passed"
    assert early.line(40.0) == "0/2 points, 0 steps/s, about 0:01:00 left, 0:00:40 passed"
    late = early._replace(is_sure=True)
    assert late.line(200.0) == "0/2 points, 0 steps/s, 0:00:00 left, 0:03:20 passed"


def test_a_second_interrupt_ends_a_sweep_whose_probe_hangs(parts: None, tmp_path: Path) -> None:
    words = (*TINY[:-1], "+probe.mine._target_=parts.hangs", "hydra.sweep.dir=sweep")
    with subprocess.Popen(
        [sys.executable, "-m", "gradlab", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while not (tmp_path / "hangs").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.stdout
        while "once more ends it at once" not in process.stdout.readline():
            assert process.poll() is None
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)  # W&B's service ends too, and lets go of the pipe
        assert time.monotonic() - begin < 10
    assert process.returncode == 130
    status = records.load_status(tmp_path / "sweep" / "0")
    assert status["state"] == "interrupted"
    assert "ended at once by SIGINT" in status["reason"]
    assert not (tmp_path / "sweep" / "0" / leases.LEASE).exists()
