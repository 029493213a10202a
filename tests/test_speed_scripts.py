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
    script = [sys.executable, str(SPEED / "accelerator.py"), "--smoke", "--results", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (kept,), (table,) = tmp_path.glob("*.json"), tmp_path.glob("*.md")
    rows = json.loads(kept.read_text())["rows"]
    assert [row for row in rows if row["error"]] == []
    for row in rows:
        assert f"### {row['group']}\n" in table.read_text()
        is_measured = bool(row["repeats"] or row["result"])
        assert is_measured != row["reason"].startswith("left out: "), row
        assert bool(row["repeats"]) == (row["first"] is not None), row
    assert sum(bool(row["repeats"]) for row in rows) > len(rows) / 2
    wrong = [row for row in rows if "DISAGREES" in row["result"]]
    assert wrong == []


LATE = """
import time
from pathlib import Path
import accelerator_table as table
table.GRACE = 0.5

def fail():
    raise ValueError("singular\\nat length")

cases = [
    table.Case("a", "", fail, 0),
    table.Case("b", "", lambda: table.Outcome(result="1"), 100),
    table.Case("c", "", lambda: time.sleep(60), 0),
    table.Case("d", "", fail, 0),
]
def keep(rows):
    Path("table").write_text(table.as_markdown(rows))
table.run_groups([table.Group("all", 1.0, lambda: cases)], 1.0, keep)
"""


def test_the_accelerators_table_outlasts_errors_and_ends_with_its_budget(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LATE]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SPEED), *sys.path])}
    begin = time.monotonic()
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < 50
    *_, first, second, third = (tmp_path / "table").read_text().splitlines()
    assert "ValueError: singular |" in first
    assert "skipped: 1 s left of 100 s planned" in second
    assert "given up" in third
