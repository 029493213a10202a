"""The speed studies run from end to end at tiny sizes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SPEED = Path(__file__).parents[1] / "experiments" / "speed"


def test_training_agrees_with_its_peers_and_reports_each_target() -> None:
    """The script itself refuses to time what does not compute the same."""
    pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")
    command = [sys.executable, str(SPEED / "training.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(target ") == 8
    assert "| run | lstm |" in done.stdout


def test_every_row_of_the_accelerators_table_has_a_number_or_a_reason(tmp_path: Path) -> None:
    options = ["--smoke", "--workers", "2", "--results", str(tmp_path)]
    script = [sys.executable, str(SPEED / "accelerator.py"), *options]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (kept,), (table,) = tmp_path.glob("*.json"), tmp_path.glob("*.md")
    rows = json.loads(kept.read_text())["rows"]
    assert [row for row in rows if row["error"]] == []
    for row in rows:
        assert f"### {row['group']}\n" in table.read_text()
        is_measured = bool(row["repeats"] or row["result"])
        assert is_measured != row["reason"].startswith("left out: "), row
        is_computed = row["name"] == "every product, at that rate"
        assert bool(row["repeats"]) == (row["first"] is not None or is_computed), row
    assert sum(bool(row["repeats"]) for row in rows) > len(rows) / 2
    assert sum(row["beside"] for row in rows) > 10
    compared = [row["result"] for row in rows if row["group"] == "This device against the CPU"]
    assert len(compared) == 8
    assert all(result.endswith(", agrees") for result in compared)


def in_process(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script beside the studies, in a process that it may end."""
    command = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SPEED), *sys.path])}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


LATE = """
import time
from pathlib import Path
import accelerator_run as run
from accelerator_table import Case, Group, Outcome, as_markdown
run.GRACE = 0.5

def fail():
    raise ValueError("singular\\nat length")

def sleep():
    time.sleep(60)

def one():
    return Outcome(result="1")

cases = [
    Case("a", "", fail, 0),
    Case("b", "", one, 100),
    Case("c", "", one, 0, ahead=sleep),
    Case("d", "", one, 0, ahead=fail),
    Case("e", "", sleep, 0),
    Case("f", "", fail, 0),
]
def keep(rows):
    Path("table").write_text(as_markdown(rows))
run.run_groups([Group("all", 0.5, lambda: cases)], 1.5, keep, workers=2)
"""


def test_the_accelerators_table_outlasts_errors_and_ends_with_its_budget(tmp_path: Path) -> None:
    begin = time.monotonic()
    in_process(LATE, tmp_path)
    assert time.monotonic() - begin < 50
    *_, first, second, third, fourth, fifth, sixth = (tmp_path / "table").read_text().splitlines()
    assert "ValueError: singular |" in first
    assert "skipped: 1 s left of 100 s planned" in second
    assert "still compiling" in third
    assert "| 1 | while others were compiled |" in fourth
    assert "given up" in fifth
    assert "not reached" in sixth


AHEAD = """
import time
from threading import Barrier
import accelerator_run as run
from accelerator_table import Case, Group, Outcome

together = Barrier(2)

def case(name, seconds=0.0):
    called = []
    def call():
        if not called:
            together.wait(20)  # the first call of both is under way
        called.append(name)
    return Case(
        name, "", lambda: run.timed(call, 2)[1], seconds, ahead=lambda: run.call_first(call)
    )

alone = Case("alone", "", lambda: Outcome(result="1"), 70.0)
late = Case("late", "", lambda: Outcome(result="1"), 10.0)
groups = [
    Group("first", 0.0, lambda: [case("a"), alone]),
    Group("second", 50.0, lambda: [case("b", 1000.0)]),
    Group("third", 20.0, lambda: [late]),
]
order = []
def keep(rows):
    order.append([bool(x["result"]) for x in rows])
rows = run.run_groups(groups, 100.0, keep, workers=2)
a, alone, b, late = rows
assert a["beside"] and b["beside"] and len(a["repeats"]) == len(b["repeats"]) == 2, rows
assert alone["result"] and late["result"], rows
assert order[1] == [False, False, False, False], order  # 70 s are not left before 50 s and 20 s
"""


def test_first_calls_are_made_at_once_and_later_groups_keep_their_seconds(tmp_path: Path) -> None:
    done = in_process(AHEAD, tmp_path)
    assert "first: alone : skipped: 30 s left of 70 s planned" in done.stdout


EVENLY = """
from accelerator_torch import evenly
for length in range(1, 300):
    times = evenly(length)
    assert times == sorted(set(times)) and 1 <= times[0] and times[-1] <= length
    assert len(times) == min(8, length)
    assert 2 * sum(times) == len(times) * (length + 1)  # a backward pass from t takes t steps
"""


def test_gradients_that_are_scaled_up_take_as_many_steps_as_all_on_average(tmp_path: Path) -> None:
    in_process(EVENLY, tmp_path)
