"""The speed studies run from end to end at tiny sizes."""

import subprocess
import sys
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
